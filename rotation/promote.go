package rotation

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Promotion tells what a rotation did in one lane.
type Promotion struct {
	Algorithm string `json:"algorithm"`
	From      string `json:"from,omitempty"` // kid of the key that stops signing
	To        string `json:"to"`             // kid of the key that signs now
	// FullLead is false if verifiers may still hold a set without the new key.
	FullLead bool `json:"full_lead"`
}

// NotReadyError refuses a rotation because a standby lacks its lead.
type NotReadyError struct {
	Algorithm string
	KID       string    // of the standby, empty if there is none yet
	Earliest  time.Time // when it will be ready; an estimate if KID is empty
}

// Error says what to do.
func (e *NotReadyError) Error() string {
	if e.KID == "" {
		return fmt.Sprintf("lane %s has no standby key yet: try again in a moment; its lead ends at about %s", e.Algorithm, e.Earliest.Format(time.RFC3339))
	}
	return fmt.Sprintf("the standby key %s of lane %s has not been published long enough for every verifier to know it: rotate at %s or later, or force it and let some verifiers fail until then", e.KID, e.Algorithm, e.Earliest.Format(time.RFC3339))
}

// ErrNoLane: the algorithm is not in the keyset's policy.
var ErrNoLane = errors.New("no such algorithm in the keyset's policy")

// maxForced is how many keys beyond its schedule's a lane may publish before a
// rotation without lead is refused: every one makes every answer longer, and
// verifiers bound what they read.
const maxForced = 32

// ErrSetFull: the lane publishes too many keys already for one more to be forced.
var ErrSetFull = errors.New("the set is full of keys of forced rotations")

// SetFullError is ErrSetFull with its particulars.
type SetFullError struct {
	Algorithm string
	Keys      int
	Earliest  time.Time // when enough keys will have left; zero if not known yet
}

// Error says what to do.
func (e *SetFullError) Error() string {
	when := "when enough of them have left"
	if !e.Earliest.IsZero() {
		when = "at " + e.Earliest.Format(time.RFC3339) + ", when enough of them have left"
	}
	return fmt.Sprintf("lane %s publishes %d keys already, each until its last token has expired: rotate without force once the standby has its lead, force it %s, or revoke the key if it is compromised", e.Algorithm, e.Keys, when)
}

// Unwrap returns ErrSetFull.
func (e *SetFullError) Unwrap() error { return ErrSetFull }

// full refuses one more rotation without lead if the lane publishes as many keys
// beyond its schedule's as it may.
func (s State) full(l Lane, now time.Time) error {
	scheduled, published := s.Bound(l), 0
	var leave []time.Time
	for _, k := range l.Keys {
		if k.OffSchedule {
			scheduled-- // the bound leaves room for it
		}
		if k.RemoveAt.IsZero() || k.RemoveAt.After(now) {
			published++
		}
		if k.RemoveAt.After(now) {
			leave = append(leave, k.RemoveAt)
		}
	}
	excess := published - scheduled - maxForced // how many must leave, less one
	if excess < 0 {
		return nil
	}
	e := &SetFullError{Algorithm: l.Algorithm, Keys: published}
	slices.SortFunc(leave, time.Time.Compare)
	if excess < len(leave) {
		e.Earliest = leave[excess]
	}
	return e
}

// Promote makes the standby key of each of the lanes (all of the policy's, if
// none is named) active now. Without force it refuses with a NotReadyError, and
// changes nothing, if one of them lacks its lead; with force, with a
// SetFullError if there are too many such keys already.
func (s State) Promote(algs []string, force bool, now time.Time, op Operation) (State, []Promotion, error) {
	if s.Closed != nil {
		return State{}, nil, ErrClosed
	}
	next := s.clone()
	now = next.clock(now)
	if len(algs) == 0 {
		algs = next.Policy.Algorithms
	}
	var done []Promotion
	for _, alg := range algs {
		i := slices.IndexFunc(next.Lanes, func(l Lane) bool { return l.Algorithm == alg && !next.Winding(l) })
		if i < 0 {
			return State{}, nil, fmt.Errorf("%s: %w", alg, ErrNoLane)
		}
		l := &next.Lanes[i]
		chosen := l.successor(now)
		switch {
		case chosen < 0:
			return State{}, nil, &NotReadyError{Algorithm: alg, Earliest: stamp(now).Add(next.leadAt(now))}
		case !l.Keys[chosen].ready(now) && !force:
			return State{}, nil, next.notReady(l.Keys[chosen], now)
		}
		if !l.Keys[chosen].ready(now) {
			if err := next.full(*l, now); err != nil {
				return State{}, nil, err
			}
		}
		done = append(done, l.promote(chosen, now, next.everywhere(now)))
	}
	op.Result = result(done)
	return next.commit(op, now), done, nil
}

func (s State) notReady(k Key, now time.Time) error {
	earliest := k.ReadyAt
	if earliest.IsZero() {
		earliest = stamp(now).Add(s.leadAt(now))
	}
	return &NotReadyError{Algorithm: k.Algorithm, KID: k.KID, Earliest: earliest}
}

// ready tells whether the key has its lead.
func (k Key) ready(now time.Time) bool { return !k.ReadyAt.IsZero() && !now.Before(k.ReadyAt) }

// successor returns the index of the standby to promote, or -1: the oldest one
// that has its lead, else the one that will have it first.
func (l Lane) successor(now time.Time) int {
	best := -1
	for i, k := range l.Keys {
		if !k.eligible(now) || (!k.ActivateAt.IsZero() && !k.ActivateAt.After(now)) {
			continue
		}
		if best < 0 || k.sooner(l.Keys[best]) {
			best = i
		}
	}
	return best
}

// sooner orders standby keys by the end of their lead, unpublished ones last.
func (k Key) sooner(other Key) bool {
	if k.ReadyAt.IsZero() != other.ReadyAt.IsZero() {
		return !k.ReadyAt.IsZero()
	}
	return k.ReadyAt.Before(other.ReadyAt)
}

// promote makes the key at index i active at once. If a slow clock has no other
// key of the lane to sign with until it has caught up, the turn is put at past,
// an instant that is over on every clock.
func (l *Lane) promote(i int, now, past time.Time) Promotion {
	done := Promotion{Algorithm: l.Algorithm, To: l.Keys[i].KID, FullLead: l.Keys[i].ready(now)}
	if from, ok := l.Active(now); ok {
		done.From = from.KID
	}
	at := past
	if l.started(now) {
		at = stamp(now)
	}
	for _, k := range l.Keys {
		if !k.ActivateAt.After(now) && !at.After(k.ActivateAt) {
			at = k.ActivateAt.Add(1) // the greatest ActivateAt is active, also on a tie
		}
	}
	l.Keys[i].ActivateAt = at
	l.Keys[i].OffSchedule = true
	return done
}
