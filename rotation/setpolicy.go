package rotation

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// SetPolicy puts a policy in force. No promise made before is shortened: keys
// keep the largest token lifetime and retention they ever had, and the earlier,
// larger lead stays in force until the sets served under it are out of use.
// Lanes that are new earn their lead; lanes that are gone wind down. It returns
// ErrNothingDue if the policy is in force already.
func (s State) SetPolicy(p Policy, now time.Time, op Operation) (State, error) {
	switch {
	case s.Closed != nil:
		return State{}, ErrClosed
	case p.Revision == 0:
		p.Revision = s.Policy.Revision
	case p.Revision < s.Policy.Revision:
		return State{}, fmt.Errorf("revision %d is older than revision %d: %w", p.Revision, s.Policy.Revision, ErrOlderRevision)
	}
	if reflect.DeepEqual(s.Policy, p) {
		return State{}, ErrNothingDue
	}
	timing, err := p.Derive(now)
	if err != nil {
		return State{}, err
	}
	next := s.clone()
	now = next.clock(now)
	rescheduled := p.Rotate != s.Policy.Rotate
	next.raiseFloor(p, now)
	next.Policy, next.Period = p, timing.Period
	next.Policy.Algorithms = slices.Clone(p.Algorithms)
	next.arrangeLanes(now)
	for i := range next.Lanes {
		for j := range next.Lanes[i].Keys {
			next.extend(&next.Lanes[i].Keys[j], now)
		}
		next.reschedule(&next.Lanes[i], rescheduled, now)
	}
	next.holdOn(now)
	return next.commit(op, now), nil
}

// Errors of SetPolicy.
var (
	// ErrOlderRevision: the policy in force came from a newer file.
	ErrOlderRevision = errors.New("a newer policy is in force")
	// ErrClosed: the keyset was deleted. Its name is never used again, since
	// verifiers may still hold its keys for it.
	ErrClosed = errors.New("the keyset was deleted, and its name is not used again")
)

// raiseFloor remembers the parts of the lead that the policy p lowers. The
// floor's end is stamped when p was seen in the store.
func (s *State) raiseFloor(p Policy, now time.Time) {
	if f := s.Floor; f != nil && !f.Until.IsZero() && !now.Before(f.Until) {
		s.Floor = nil
	}
	old := s.floor()
	lowered := p.MaxStaleness < old.MaxStaleness || p.JWKSMaxAge < old.JWKSMaxAge ||
		p.VerifierCache < old.VerifierCache || p.ClockSkew < old.ClockSkew
	if !lowered {
		return
	}
	s.Floor = &Floor{
		MaxStaleness: old.MaxStaleness, JWKSMaxAge: old.JWKSMaxAge,
		VerifierCache: old.VerifierCache, ClockSkew: old.ClockSkew,
	}
}

// arrangeLanes puts the lanes in the policy's order, those winding down behind,
// and adds the new ones. A lane that returns before its end goes on.
func (s *State) arrangeLanes(now time.Time) {
	var lanes []Lane
	for _, alg := range s.Policy.Algorithms {
		l, ok := s.Lane(alg)
		if !ok {
			l = Lane{Algorithm: alg}
		}
		for j := range l.Keys {
			if k := &l.Keys[j]; k.EndAt.After(now) {
				k.EndAt = time.Time{}
			}
		}
		lanes = append(lanes, l)
	}
	for _, l := range s.Lanes {
		if s.Winding(l) {
			lanes = append(lanes, l)
		}
	}
	s.Lanes = lanes
}

// extend makes the key's own instants at least what the policy asks for.
func (s *State) extend(k *Key, now time.Time) {
	k.Retain = max(k.Retain, Duration(s.Policy.retain()))
	if k.SignsUntil.IsZero() {
		k.Grace = max(k.Grace, s.Policy.HandoverGrace)
	}
	if k.SignsUntil.IsZero() || k.DestroyAt.After(now) {
		k.TokenTTLMax = max(k.TokenTTLMax, s.Policy.TokenTTLMax)
	}
	if !k.SignsUntil.IsZero() {
		k.DestroyAt = later(k.DestroyAt, k.SignsUntil.Add(s.stopAfter()))
		k.RemoveAt = later(k.RemoveAt, k.SignsUntil.Add((k.TokenTTLMax + k.Retain).Std()))
	}
	founding := k.ReadyAt.Equal(k.PublishedAt) // in every set there ever was
	if waiting := k.ActivateAt.IsZero() || k.ActivateAt.After(now); waiting && !k.PublishedAt.IsZero() && !founding {
		k.ReadyAt = later(k.ReadyAt, k.PublishedAt.Add(s.leadAt(k.PublishedAt)))
	}
}

// reschedule gives waiting keys a new turn where the old one came too early for
// their lead, or belongs to another schedule. In a lane that winds down there
// are no ticks, but the lead counts.
func (s *State) reschedule(l *Lane, rescheduled bool, now time.Time) {
	for j := range l.Keys {
		k := &l.Keys[j]
		if !k.eligible(now) || !k.ActivateAt.After(now) {
			continue
		}
		switch {
		case k.OffSchedule || s.Winding(*l):
			k.ActivateAt = later(k.ActivateAt, k.ReadyAt)
		case rescheduled || k.ActivateAt.Before(k.ReadyAt):
			k.ActivateAt = s.tick(*l, later(k.ReadyAt, stamp(now)), now)
		}
	}
}

// ErrNotWaiting: the key is no standby.
var ErrNotWaiting = errors.New("the key does not wait for its turn")

// Discard ends a standby key whose private half is unusable. It stays published
// for its retention, in case another replica could sign with it.
func (s State) Discard(kid string, now time.Time, op Operation) (State, error) {
	next := s.clone()
	now = next.clock(now)
	for i := range next.Lanes {
		for j := range next.Lanes[i].Keys {
			k := &next.Lanes[i].Keys[j]
			if k.KID != kid {
				continue
			}
			if !k.eligible(now) || (!k.ActivateAt.IsZero() && !k.ActivateAt.After(now)) {
				return State{}, ErrNotWaiting
			}
			k.EndAt = stamp(now)
			next.holdOn(now)
			return next.commit(op, now), nil
		}
	}
	return State{}, ErrUnknownKey
}
