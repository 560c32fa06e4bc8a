package rotation

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Revocation tells what a revocation did and what is still to come.
type Revocation struct {
	Revoked []Tombstone `json:"revoked"`
	// Promoted lists the keys that took over.
	Promoted []Promotion `json:"promoted,omitempty"`
	// TrustedUntil is how long caches may still hold a revoked key: D + H + C
	// from now.
	TrustedUntil time.Time `json:"trusted_until"`
	// FlushAt estimates when the key made after the revocation begins to sign,
	// so that verifiers which never expire a set lose the revoked key. Zero if
	// a key that no verifier knows signs at once.
	FlushAt time.Time `json:"flush_at,omitzero"`
}

// Errors of Revoke.
var (
	ErrUnknownKey     = errors.New("no such key in the keyset")
	ErrAlreadyRevoked = errors.New("the key is revoked already")
)

// NeedKeysError asks for fresh keys: without them nothing could sign.
type NeedKeysError struct {
	Algorithms []string
}

// Error names the algorithms.
func (e *NeedKeysError) Error() string {
	return fmt.Sprintf("no standby to take over: fresh keys are needed for %v", e.Algorithms)
}

// Revoke takes a key out of the document at once and leaves a tombstone. If the
// key was active, its standby is promoted in the same change, whatever its age.
// Where there is no standby, Revoke answers NeedKeysError and wants to be called
// again with a fresh key, which then signs without a lead.
func (s State) Revoke(kid string, now time.Time, fresh []NewKey, op Operation) (State, Revocation, error) {
	if s.Revoked(kid) {
		return State{}, Revocation{}, fmt.Errorf("%s: %w", kid, ErrAlreadyRevoked)
	}
	next := s.clone()
	now = next.clock(now)
	i := slices.IndexFunc(next.Lanes, func(l Lane) bool {
		return slices.ContainsFunc(l.Keys, func(k Key) bool { return k.KID == kid })
	})
	if i < 0 {
		return State{}, Revocation{}, fmt.Errorf("%s: %w", kid, ErrUnknownKey)
	}
	l := &next.Lanes[i]
	active, signing := l.Active(now)
	wasActive := signing && active.KID == kid
	out := Revocation{TrustedUntil: next.trustedUntil(now)}
	out.Revoked = next.bury(l, func(k Key) bool { return k.KID == kid }, now, op)
	if !next.Winding(*l) {
		l.FlushAfter = next.Sequence
	}
	if wasActive {
		if err := next.replace(l.Algorithm, kid, now, fresh, &out); err != nil {
			return State{}, Revocation{}, err
		}
	}
	l.catchUp(now, next.everywhere(now))
	next.holdOn(now)
	if l := next.Lanes[i]; l.FlushAfter != 0 {
		out.FlushAt = stamp(now).Add(next.leadAt(now))
	}
	op.Result = result(out)
	return next.commit(op, now), out, nil
}

// replace finds a key to sign in place of a revoked one: the lane's standby,
// else a key that is about to retire. For a lane that winds down it may be one
// of the policy's lanes: one that signs, else one that stands by. If there is
// none it is a fresh key, unless the keyset was deleted.
func (s *State) replace(alg, revoked string, now time.Time, fresh []NewKey, out *Revocation) error {
	if s.succeed(alg, revoked, now, out) {
		return nil
	}
	fallback := alg
	if s.Winding(*s.lane(alg)) {
		if s.Closed != nil {
			return nil
		}
		signs := func(alg string) bool { return s.lane(alg).started(now) }
		takesOver := func(alg string) bool { return s.succeed(alg, revoked, now, out) }
		if slices.ContainsFunc(s.Policy.Algorithms, signs) || slices.ContainsFunc(s.Policy.Algorithms, takesOver) {
			return nil
		}
		fallback = s.Policy.Algorithms[0]
	}
	return s.emergency([]string{fallback}, now, fresh, out)
}

// succeed has the lane's standby sign in place of a revoked key, or the key that
// was about to retire, and reports whether there was one.
func (s *State) succeed(alg, revoked string, now time.Time, out *Revocation) bool {
	l := s.lane(alg)
	if i := l.successor(now); i >= 0 {
		done := l.promote(i, now, s.everywhere(now))
		done.From = revoked
		out.Promoted = append(out.Promoted, done)
		return true
	}
	if !l.started(now) {
		return false
	}
	active, _ := l.Active(now)
	out.Promoted = append(out.Promoted, Promotion{Algorithm: alg, From: revoked, To: active.KID, FullLead: true})
	return true
}

// emergency makes fresh keys sign at once, without a lead.
func (s *State) emergency(algs []string, now time.Time, fresh []NewKey, out *Revocation) error {
	var missing []string
	for _, alg := range algs {
		i := slices.IndexFunc(fresh, func(k NewKey) bool { return k.Algorithm == alg })
		if i < 0 {
			missing = append(missing, alg)
			continue
		}
		if err := s.add(fresh[i], now); err != nil {
			return err
		}
		l := s.lane(alg)
		l.FlushAfter = 0 // every verifier meets an unknown kid now
		out.Promoted = append(out.Promoted, l.promote(len(l.Keys)-1, now, s.everywhere(now)))
	}
	if missing != nil {
		return &NeedKeysError{Algorithms: missing}
	}
	return nil
}

// RevokeAll takes every key out of the document and begins anew with the fresh
// ones, one for each algorithm of the policy; the next standby keys follow by
// Advance. Verifiers fail until their caches turn over.
func (s State) RevokeAll(now time.Time, fresh []NewKey, op Operation) (State, Revocation, error) {
	next := s.clone()
	now = next.clock(now)
	out := Revocation{TrustedUntil: next.trustedUntil(now)}
	for i := range next.Lanes {
		next.Lanes[i].FlushAfter = 0
		out.Revoked = append(out.Revoked, next.bury(&next.Lanes[i], func(Key) bool { return true }, now, op)...)
	}
	next.Lanes = slices.DeleteFunc(next.Lanes, next.Winding)
	if err := next.emergency(next.Policy.Algorithms, now, fresh, &out); err != nil {
		return State{}, Revocation{}, err
	}
	op.Result = result(out)
	return next.commit(op, now), out, nil
}

// catchUp begins the first turn of the lane at past if the clocks that lag that
// far behind now have no key to sign with: the one they still used is gone, and
// the turn of its successor has come on the writer's clock.
func (l *Lane) catchUp(now, past time.Time) {
	if _, ok := l.Active(past); ok {
		return
	}
	first := -1
	for i, k := range l.Keys {
		if k.signs(past) && k.ActivateAt.After(past) && !k.ActivateAt.After(now) &&
			(first < 0 || l.Keys[first].after(k)) {
			first = i
		}
	}
	if first >= 0 {
		l.Keys[first].ActivateAt = past
	}
}

// bury moves keys from the lane to the tombstones.
func (s *State) bury(l *Lane, which func(Key) bool, now time.Time, op Operation) []Tombstone {
	var buried []Tombstone
	for _, k := range l.Keys {
		if which(k) {
			buried = append(buried, Tombstone{
				KID: k.KID, Algorithm: k.Algorithm, Public: k.Public, CreatedAt: k.CreatedAt,
				RevokedAt: stamp(now), Reason: op.Reason, By: op.By,
			})
		}
	}
	l.Keys = slices.DeleteFunc(l.Keys, which)
	s.Tombstones = append(s.Tombstones, buried...)
	return buried
}

// trustedUntil is when the last cache loses a key that is revoked now.
func (s *State) trustedUntil(now time.Time) time.Time {
	f := s.floor()
	return stamp(now).Add((f.MaxStaleness + f.JWKSMaxAge + f.VerifierCache).Std())
}

// lane returns the lane of an algorithm for changing, creating none.
func (s *State) lane(alg string) *Lane {
	for i := range s.Lanes {
		if s.Lanes[i].Algorithm == alg {
			return &s.Lanes[i]
		}
	}
	return &Lane{Algorithm: alg}
}
