package rotation

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Instant is what a planner knows about time when it holds a State that it
// read from the store.
type Instant struct {
	// Observed is an instant at which this very generation was certainly in
	// the store: when its reading returned, or when its writing was confirmed.
	// The earliest one known is the best.
	Observed time.Time
	// Now is the planner's clock. It is not before Observed.
	Now time.Time
}

// Plan is what a State needs at an instant.
type Plan struct {
	// Needs lists the algorithms of the keys that must be made, and their
	// private halves stored, before Advance is called.
	Needs []string
	// Due tells whether Advance would change the document.
	Due bool
	// Wake is the next instant at which something is due if nobody changes the
	// document; zero if there is none.
	Wake time.Time
}

// ErrNothingDue is returned by Advance when the document needs no change.
var ErrNothingDue = errors.New("nothing is due")

// Plan returns what Advance would do at that instant.
func (s State) Plan(t Instant) Plan {
	next := s.clone()
	t.Now = next.clock(t.Now)
	changed := next.settle(t)
	needs := next.needs(t.Now)
	return Plan{Needs: needs, Due: changed || len(needs) > 0, Wake: next.wake(t.Now)}
}

// Advance brings the document up to the instant: it stamps what was observed,
// schedules standby keys, ends superseded ones, drops those whose time is over,
// and names the fresh keys. It takes what Plan said it needs; fresh keys of
// other algorithms are refused, missing ones are left for the next time.
func (s State) Advance(t Instant, fresh []NewKey, op Operation) (State, error) {
	next := s.clone()
	t.Now = next.clock(t.Now)
	changed := next.settle(t)
	needs := next.needs(t.Now)
	for _, k := range fresh {
		i := slices.Index(needs, k.Algorithm)
		if i < 0 {
			return State{}, fmt.Errorf("a key for %s is not needed", k.Algorithm)
		}
		needs = slices.Delete(needs, i, i+1)
		if err := next.add(k, t.Now); err != nil {
			return State{}, err
		}
		changed = true
	}
	if !changed {
		return State{}, ErrNothingDue
	}
	return next.commit(op, t.Now), nil
}

// clock is now, or the instant at which the document was written if that is
// later: a slow clock must not take back what a fast one has recorded, such as
// the turn of a key whose predecessor has ended. The writer's clock was within
// the skew of true time, and so is its reading still. One that is further ahead
// broke the promise and is not followed.
func (s *State) clock(now time.Time) time.Time {
	if ahead := s.UpdatedAt.Sub(now); ahead > 0 && ahead <= 2*s.floor().ClockSkew.Std() {
		return s.UpdatedAt
	}
	return now
}

// everywhere is an instant that is past on every clock if now is the reading of
// one of them.
func (s *State) everywhere(now time.Time) time.Time {
	return stamp(now).Add(-2 * s.floor().ClockSkew.Std())
}

// settle does all of Advance that needs no new key. The order matters: an end
// is stamped only if it stood in the document that was observed, so stamping
// comes before anything here writes a new end or a new turn.
func (s *State) settle(t Instant) (changed bool) {
	changed = s.prune(t.Now)
	for i := range s.Lanes {
		l := &s.Lanes[i]
		changed = s.stampEnds(l, t) || changed
		changed = s.stampPublished(l, t) || changed
	}
	changed = s.stampFloor(t) || changed
	changed = s.schedule(t) || changed
	return s.windDown(t) || changed
}

// prune drops the keys whose last token has expired, and lanes that are over.
func (s *State) prune(now time.Time) bool {
	changed := false
	over := func(k Key) bool { return !k.RemoveAt.IsZero() && !k.RemoveAt.After(now) }
	for i := range s.Lanes {
		l := &s.Lanes[i]
		before := len(l.Keys)
		l.Keys = slices.DeleteFunc(l.Keys, over)
		changed = changed || len(l.Keys) != before
	}
	before := len(s.Lanes)
	s.Lanes = slices.DeleteFunc(s.Lanes, func(l Lane) bool { return len(l.Keys) == 0 && s.Winding(l) })
	return changed || len(s.Lanes) != before
}

// stampEnds records the end of every key that the observed document had
// superseded. A replica that had not read that document can sign with the key
// until Observed + D at the latest; D is part of the retention.
func (s *State) stampEnds(l *Lane, t Instant) bool {
	changed := false
	ends := make([]time.Time, len(l.Keys))
	for i, k := range l.Keys {
		if end, ok := l.superseded(k); ok && k.SignsUntil.IsZero() && !end.After(t.Now) {
			ends[i] = end
		}
	}
	for i, end := range ends {
		if end.IsZero() {
			continue
		}
		k := &l.Keys[i]
		if k.ActivateAt.IsZero() || !end.After(k.ActivateAt) {
			k.OffSchedule = true // it never had its turn, so no tick made room for it
		}
		k.SignsUntil = later(end, stamp(t.Observed)).Add(k.Grace.Std())
		k.DestroyAt = k.SignsUntil.Add(s.stopAfter())
		k.RemoveAt = k.SignsUntil.Add((k.TokenTTLMax + k.Retain).Std())
		changed = true
	}
	return changed
}

// stopAfter is how long after a key's end the last replica may still sign with
// it by its own, slow clock and an unrefreshed state: D + 2S.
func (s *State) stopAfter() time.Duration {
	f := s.floor()
	return (f.MaxStaleness + 2*f.ClockSkew).Std()
}

// stampPublished starts the lead of keys that were seen in the store.
func (s *State) stampPublished(l *Lane, t Instant) bool {
	changed := false
	for i := range l.Keys {
		if k := &l.Keys[i]; k.PublishedAt.IsZero() {
			k.PublishedAt = stamp(t.Observed)
			k.ReadyAt = k.PublishedAt.Add(s.leadAt(k.PublishedAt))
			changed = true
		}
	}
	return changed
}

func (s *State) stampFloor(t Instant) bool {
	switch {
	case s.Floor == nil:
		return false
	case s.Floor.Until.IsZero():
		s.Floor.Until = stamp(t.Observed).Add(s.floor().lead())
		return true
	case !t.Observed.Before(s.Floor.Until):
		s.Floor = nil // no reason for a change by itself
	}
	return false
}

// floor merges the policy with what an earlier one promised.
func (s *State) floor() Policy {
	p := s.Policy
	if f := s.Floor; f != nil {
		p.MaxStaleness = max(p.MaxStaleness, f.MaxStaleness)
		p.JWKSMaxAge = max(p.JWKSMaxAge, f.JWKSMaxAge)
		p.VerifierCache = max(p.VerifierCache, f.VerifierCache)
		p.ClockSkew = max(p.ClockSkew, f.ClockSkew)
	}
	return p
}

// leadAt is the lead of a key that is published at that instant.
func (s *State) leadAt(at time.Time) time.Duration {
	if s.Floor != nil && !s.Floor.Until.IsZero() && !at.Before(s.Floor.Until) {
		return s.Policy.lead()
	}
	return s.floor().lead()
}

// schedule gives every standby that was seen in the store its turn.
func (s *State) schedule(t Instant) bool {
	changed := false
	for i := range s.Lanes {
		l := &s.Lanes[i]
		if s.Winding(*l) {
			continue
		}
		for j := range l.Keys {
			k := &l.Keys[j]
			if k.PublishedAt.IsZero() || !k.ActivateAt.IsZero() || !k.eligible(t.Now) {
				continue
			}
			turn := s.turn(l, *k, t.Now)
			if turn.IsZero() {
				continue
			}
			k.OffSchedule = k.OffSchedule || flushes(l, *k) || !l.started(t.Now)
			if flushes(l, *k) {
				l.FlushAfter = 0
			}
			k.ActivateAt = turn
			changed = true
		}
	}
	return changed
}

// flushes tells whether the key is the one that a revocation waits for.
func flushes(l *Lane, k Key) bool { return l.FlushAfter != 0 && k.Sequence > l.FlushAfter }

// started tells whether a key of the lane is active, and will be until another
// takes over.
func (l Lane) started(now time.Time) bool {
	return slices.ContainsFunc(l.Keys, func(k Key) bool {
		return k.eligible(now) && !k.ActivateAt.IsZero() && !k.ActivateAt.After(now)
	})
}

// turn is when a standby becomes active: as soon as it has its lead if it
// flushes a revoked key or begins a lane, else at a tick.
func (s *State) turn(l *Lane, k Key, now time.Time) time.Time {
	if flushes(l, k) || !l.started(now) {
		return later(k.ReadyAt, stamp(now))
	}
	return s.tick(*l, k.ReadyAt, now)
}

// tick returns the first scheduled instant not before ready at which one more
// retiring key keeps the lane within its bound. A tick that was missed while
// nothing could be written is made up for at once.
func (s *State) tick(l Lane, ready, now time.Time) time.Time {
	schedule, err := ParseSchedule(s.Policy.Rotate, s.CreatedAt)
	if err != nil {
		return time.Time{} // Check refuses such a document; the lane is overdue
	}
	for at := schedule.atOrAfter(ready); !at.IsZero(); at = schedule.Next(at) {
		if turn := later(at, stamp(now)); s.roomFrom(l, turn) {
			return turn
		}
	}
	return time.Time{}
}

// roomFrom tells whether one more key can begin to retire at that instant. The
// bound is not the same for ever: it shrinks when a key that stays for longer
// than others leaves.
func (s State) roomFrom(l Lane, turn time.Time) bool {
	room := func(at time.Time) bool { return l.retiringAt(at) < s.retiringBound(l, at) }
	for _, k := range l.Keys {
		if k.RemoveAt.After(turn) && !room(k.RemoveAt) {
			return false
		}
	}
	return room(turn)
}

// retiringBound is how many keys of the lane may be retiring at that instant:
// what the largest retention and the shortest period in force allow, and the
// forced rotations. Keys that will have left by then leave no room behind.
func (s State) retiringBound(l Lane, at time.Time) int {
	hold := (s.Policy.TokenTTLMax + s.Policy.HandoverGrace).Std() + s.Policy.retain()
	period, forced := s.Period, 0
	for _, k := range l.Keys {
		if !k.RemoveAt.IsZero() && !k.RemoveAt.After(at) {
			continue
		}
		hold = max(hold, (k.TokenTTLMax + k.Retain + k.Grace).Std())
		period = min(period, k.Period)
		if k.OffSchedule {
			forced++
		}
	}
	return ceilDiv(hold, period.Std()) + forced
}

// Bound is the largest number of keys that the lane may publish now.
func (s State) Bound(l Lane) int { return 2 + s.retiringBound(l, time.Time{}) }

// retiringAt counts the retired keys that are still published at that instant.
func (l Lane) retiringAt(at time.Time) int {
	n := 0
	for _, k := range l.Keys {
		if !k.SignsUntil.IsZero() && k.RemoveAt.After(at) {
			n++
		}
	}
	return n
}

// windDown ends the lanes that left the policy, at the instant from which every
// lane of the policy has an active key.
func (s *State) windDown(t Instant) bool {
	takeover, ok := s.takeover(t)
	if !ok {
		return false
	}
	changed := false
	for i := range s.Lanes {
		if !s.Winding(s.Lanes[i]) {
			continue
		}
		for j := range s.Lanes[i].Keys {
			// Also of a key whose grace still runs: it would be active again.
			if k := &s.Lanes[i].Keys[j]; k.EndAt.IsZero() && (k.SignsUntil.IsZero() || k.SignsUntil.After(takeover)) {
				k.EndAt = takeover
				changed = true
			}
		}
	}
	return changed
}

// holdOn takes back the planned end of lanes that wind down if the lanes that
// were to take over no longer do so by then: their first key was revoked, or
// waits for a longer lead. Advance plans the end anew.
func (s *State) holdOn(now time.Time) {
	takeover, ok := s.takeover(Instant{Now: now})
	for i := range s.Lanes {
		if !s.Winding(s.Lanes[i]) {
			continue
		}
		for j := range s.Lanes[i].Keys {
			k := &s.Lanes[i].Keys[j]
			if k.EndAt.After(now) && (!ok || takeover.After(k.EndAt)) {
				k.EndAt = time.Time{}
			}
		}
	}
}

// takeover returns when the last lane of the policy begins to sign, not before
// now, and whether that is known.
func (s *State) takeover(t Instant) (time.Time, bool) {
	at := stamp(t.Now)
	for _, alg := range s.Policy.Algorithms {
		l, ok := s.Lane(alg)
		if !ok {
			return time.Time{}, false
		}
		if l.started(t.Now) {
			continue
		}
		next, ok := l.Standby(t.Now)
		if !ok || next.ActivateAt.IsZero() {
			return time.Time{}, false
		}
		at = later(at, next.ActivateAt)
	}
	return at, true
}

// needs lists the algorithms of lanes without a standby, or without the one
// that a revocation waits for.
func (s *State) needs(now time.Time) []string {
	var algs []string
	for _, alg := range s.Policy.Algorithms {
		l, _ := s.Lane(alg)
		waiting := slices.ContainsFunc(l.standbys(now), func(k Key) bool { return k.Sequence > l.FlushAfter })
		if !waiting {
			algs = append(algs, alg)
		}
	}
	return algs
}

// wake is the earliest instant after now that stands on a key.
func (s *State) wake(now time.Time) time.Time {
	var next time.Time
	for k := range s.Keys {
		for _, at := range []time.Time{k.ActivateAt, k.EndAt, k.DestroyAt, k.RemoveAt} {
			if at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// stamp makes an instant fit for a document: UTC, without a monotonic reading.
func stamp(t time.Time) time.Time { return t.Round(0).UTC() }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
