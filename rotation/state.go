package rotation

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// State is the state document of a keyset: public data only. Treat it as
// immutable.
type State struct {
	Format     int       `json:"format"` // formatVersion
	Keyset     string    `json:"keyset"`
	Generation uint64    `json:"generation"` // grows by one with each change
	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
	// Sequence is the number of the youngest key ever named.
	Sequence uint64 `json:"sequence"`
	Policy   Policy `json:"policy"`
	// Period is the policy's shortest pause between scheduled rotations (R).
	Period Duration `json:"period"`
	// Floor keeps an earlier, larger lead in force until no cache can hold a
	// set that was served under it.
	Floor *Floor `json:"floor,omitempty"`
	// Closed is set when the keyset was deleted: no lane is in the policy any
	// more, and when the last one is gone, so is the keyset.
	Closed *Closing `json:"closed,omitempty"`
	// Lanes stand in the policy's order, those winding down behind.
	Lanes []Lane `json:"lanes"`
	// Tombstones name the revoked keys, for ever.
	Tombstones []Tombstone `json:"tombstones,omitempty"`
	// Operations are the latest changes, newest last. A writer whose reply was
	// lost finds itself here.
	Operations []Operation `json:"operations"`
}

// Lane is one algorithm of a keyset, its keys in the order of their sequence.
type Lane struct {
	Algorithm string `json:"algorithm"`
	// FlushAfter, if not zero, is the youngest sequence at the time of a
	// revocation: the first key made after it is promoted as soon as it has
	// its lead, so that verifiers which never expire a set meet an unknown kid,
	// fetch again, and lose the revoked key.
	FlushAfter uint64 `json:"flush_after,omitempty"`
	Keys       []Key  `json:"keys"`
}

// Key is a published key with its instants. A zero instant is not known yet.
type Key struct {
	KID       string          `json:"kid"`
	Algorithm string          `json:"algorithm"`
	Public    json.RawMessage `json:"public"` // the JWK, opaque here
	// Handle is what the custody calls the private half, opaque here and no
	// secret. Empty where the kid says it all. It is never published.
	Handle    string    `json:"handle,omitempty"`
	Sequence  uint64    `json:"sequence"`
	CreatedAt time.Time `json:"created_at"`
	// PublishedAt is an instant at which a document naming the key was
	// certainly in the store. The lead counts from here.
	PublishedAt time.Time `json:"published_at,omitzero"`
	// ReadyAt is when the key has its lead.
	ReadyAt time.Time `json:"ready_at,omitzero"`
	// ActivateAt is when the key becomes its lane's active key.
	ActivateAt time.Time `json:"activate_at,omitzero"`
	// EndAt is when the key stops being eligible though nothing succeeds it:
	// its lane winds down, or its private half is unusable.
	EndAt time.Time `json:"end_at,omitzero"`
	// SignsUntil is the last instant at which the document lets the key sign,
	// hand-over grace included. Set once the key's end was seen in the store.
	SignsUntil time.Time `json:"signs_until,omitzero"`
	// DestroyAt is when the private half is destroyed.
	DestroyAt time.Time `json:"destroy_at,omitzero"`
	// RemoveAt is when the key leaves the document and so the set.
	RemoveAt time.Time `json:"remove_at,omitzero"`
	// TokenTTLMax is the largest T in force while the key could sign.
	TokenTTLMax Duration `json:"token_ttl_max"`
	// Retain is the largest L + D + 4S in force while the key was published.
	Retain Duration `json:"retain"`
	// Grace is the largest hand-over grace in force until the key's end.
	Grace Duration `json:"grace"`
	// Period is the shortest pause between scheduled rotations (R) that was in
	// force when the key was made. The bound on the set counts with it.
	Period Duration `json:"period"`
	// OffSchedule marks a key that became active by another way than a tick,
	// or whose turn never came. The bound on the set leaves room for it.
	OffSchedule bool `json:"off_schedule,omitempty"`
}

// Floor is a lead that was promised before the policy lowered it.
type Floor struct {
	MaxStaleness  Duration `json:"max_staleness"`
	JWKSMaxAge    Duration `json:"jwks_max_age"`
	VerifierCache Duration `json:"verifier_cache"`
	ClockSkew     Duration `json:"clock_skew"`
	// Until is when the last set served under the earlier policy is out of use.
	// Zero until the new policy was seen in the store.
	Until time.Time `json:"until,omitzero"`
}

// Tombstone records a revoked key.
type Tombstone struct {
	KID       string          `json:"kid"`
	Algorithm string          `json:"algorithm"`
	Public    json.RawMessage `json:"public,omitempty"`
	CreatedAt time.Time       `json:"created_at"`
	RevokedAt time.Time       `json:"revoked_at"`
	Reason    string          `json:"reason,omitempty"`
	By        string          `json:"by,omitempty"`
}

// Operation names a change, so that its writer recognises it on re-read and a
// repeated request gets the same answer. The caller fills ID, Kind, By, Reason
// and Key; the rest is written with the change.
type Operation struct {
	ID     string `json:"id"`   // random, unique to one attempt of one writer
	Kind   string `json:"kind"` // found, advance, rotate, revoke, policy
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Key is the caller's idempotency key, hashed; Request a hash of what the
	// caller asked for.
	Key        string          `json:"key,omitempty"`
	Request    string          `json:"request,omitempty"`
	At         time.Time       `json:"at"`
	Generation uint64          `json:"generation"` // that the change made
	Result     json.RawMessage `json:"result,omitempty"`
}

// KindRevoke is the Kind of revocations, which wait for nothing that can be
// helped.
const KindRevoke = "revoke"

// maxOperations bounds how many changes a document remembers. A reply is lost
// for good if this many changes follow before its writer reads again.
const maxOperations = 64

// NewKey is a freshly made key pair's public side, for Advance and its kin.
type NewKey struct {
	KID       string
	Algorithm string
	Public    json.RawMessage
	Handle    string // as in Key
}

// Lane returns the lane of an algorithm.
func (s State) Lane(alg string) (Lane, bool) {
	for _, l := range s.Lanes {
		if l.Algorithm == alg {
			return l, true
		}
	}
	return Lane{}, false
}

// Key returns the published key of that kid.
func (s State) Key(kid string) (Key, bool) {
	for k := range s.Keys {
		if k.KID == kid {
			return k, true
		}
	}
	return Key{}, false
}

// Keys yields every published key in the order of the set: lane by lane, the
// oldest first.
func (s State) Keys(yield func(Key) bool) {
	for _, l := range s.Lanes {
		for _, k := range l.Keys {
			if !yield(k) {
				return
			}
		}
	}
}

// Operation returns the remembered operation of that id.
func (s State) Operation(id string) (Operation, bool) {
	for _, op := range s.Operations {
		if op.ID == id {
			return op, true
		}
	}
	return Operation{}, false
}

// Revoked tells whether the kid has a tombstone.
func (s State) Revoked(kid string) bool {
	return slices.ContainsFunc(s.Tombstones, func(t Tombstone) bool { return t.KID == kid })
}

// Default returns the active key of the first lane that has one: the policy's
// first algorithm, or while that still earns its lead, the next or one that
// winds down.
func (s State) Default(now time.Time) (Key, bool) {
	for _, l := range s.Lanes {
		if k, ok := l.Active(now); ok {
			return k, true
		}
	}
	return Key{}, false
}

// Winding tells whether the lane's algorithm is no longer in the policy.
func (s State) Winding(l Lane) bool { return !slices.Contains(s.Policy.Algorithms, l.Algorithm) }

// Active returns the key that signs: of the keys whose end has not come, the
// one with the greatest (ActivateAt, Sequence) not after now. Where a fast clock
// has recorded the end of a key already, a slow one still finds that key until
// its successor's turn has come there too.
func (l Lane) Active(now time.Time) (Key, bool) {
	best := -1
	for i, k := range l.Keys {
		if k.signs(now) && !k.ActivateAt.IsZero() && !k.ActivateAt.After(now) &&
			(best < 0 || k.after(l.Keys[best])) {
			best = i
		}
	}
	if best < 0 {
		return Key{}, false
	}
	return l.Keys[best], true
}

// Standby returns the next key to become active: the one with the earliest
// (ActivateAt, Sequence) after now, or failing that the oldest unscheduled one.
func (l Lane) Standby(now time.Time) (Key, bool) {
	waiting := l.standbys(now)
	if len(waiting) == 0 {
		return Key{}, false
	}
	return slices.MinFunc(waiting, func(a, b Key) int {
		switch az, bz := a.ActivateAt.IsZero(), b.ActivateAt.IsZero(); {
		case az && !bz:
			return 1
		case bz && !az:
			return -1
		}
		return cmp.Or(a.ActivateAt.Compare(b.ActivateAt), cmp.Compare(a.Sequence, b.Sequence))
	}), true
}

// standbys are the keys that wait for their turn.
func (l Lane) standbys(now time.Time) []Key {
	var waiting []Key
	for _, k := range l.Keys {
		if k.eligible(now) && (k.ActivateAt.IsZero() || k.ActivateAt.After(now)) {
			waiting = append(waiting, k)
		}
	}
	return waiting
}

// signs: the key's end is not reached.
func (k Key) signs(now time.Time) bool {
	return (k.SignsUntil.IsZero() || now.Before(k.SignsUntil)) && (k.EndAt.IsZero() || now.Before(k.EndAt))
}

// eligible: the key's end is neither reached nor recorded.
func (k Key) eligible(now time.Time) bool {
	return k.SignsUntil.IsZero() && (k.EndAt.IsZero() || now.Before(k.EndAt))
}

// after orders keys by (ActivateAt, Sequence).
func (k Key) after(other Key) bool {
	if c := k.ActivateAt.Compare(other.ActivateAt); c != 0 {
		return c > 0
	}
	return k.Sequence > other.Sequence
}

// superseded returns the instant from which the document has another key sign
// in k's place, or none, and whether there is such an instant.
func (l Lane) superseded(k Key) (time.Time, bool) {
	end := k.EndAt
	if k.ActivateAt.IsZero() {
		return end, !end.IsZero()
	}
	for i := range l.Keys {
		next := &l.Keys[i]
		takesTurn := !next.ActivateAt.IsZero() && (next.EndAt.IsZero() || next.ActivateAt.Before(next.EndAt))
		if takesTurn && next.after(k) && (end.IsZero() || next.ActivateAt.Before(end)) {
			end = next.ActivateAt
		}
	}
	return end, !end.IsZero()
}

// Until returns the last instant at which the document, as it stands, lets the
// key sign, and whether there is one.
func (l Lane) Until(k Key) (time.Time, bool) {
	if !k.SignsUntil.IsZero() {
		return k.SignsUntil, true
	}
	end, ok := l.superseded(k)
	if !ok {
		return time.Time{}, false
	}
	return end.Add(k.Grace.Std()), true
}

// MaySign tells whether the key may sign at that instant: it is active, or it
// was and its hand-over grace still runs.
func (l Lane) MaySign(k Key, now time.Time) bool {
	if k.ActivateAt.IsZero() || k.ActivateAt.After(now) || (!k.EndAt.IsZero() && !k.ActivateAt.Before(k.EndAt)) {
		return false
	}
	until, ended := l.Until(k)
	return !ended || now.Before(until)
}

// Phase is a key's place in its life, in the words of the design.
type Phase string

// Phases of a published key.
const (
	PhaseStandby  Phase = "standby"
	PhaseActive   Phase = "active"
	PhaseRetiring Phase = "retiring"
)

// Phase tells where the key stands at that instant.
func (l Lane) Phase(k Key, now time.Time) Phase {
	if a, ok := l.Active(now); ok && a.KID == k.KID {
		return PhaseActive
	}
	if k.eligible(now) && (k.ActivateAt.IsZero() || k.ActivateAt.After(now)) {
		return PhaseStandby
	}
	return PhaseRetiring
}

// clone copies everything that a change may touch. Raw JSON is never changed.
func (s State) clone() State {
	s.Lanes = slices.Clone(s.Lanes)
	for i := range s.Lanes {
		s.Lanes[i].Keys = slices.Clone(s.Lanes[i].Keys)
	}
	s.Tombstones = slices.Clip(s.Tombstones) // only appended to
	s.Operations = slices.Clip(s.Operations)
	s.Policy.Algorithms = slices.Clone(s.Policy.Algorithms)
	if s.Closed != nil {
		c := *s.Closed
		s.Closed = &c
	}
	if s.Floor != nil {
		f := *s.Floor
		s.Floor = &f
	}
	return s
}
