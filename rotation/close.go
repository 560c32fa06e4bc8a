package rotation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Closing records that a keyset was deleted.
type Closing struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
}

// Close deletes the keyset: nothing signs any more, and its lanes wind down, so
// that every promise is kept. The document stays as the tombstone of the name.
func (s State) Close(now time.Time, op Operation) (State, error) {
	if s.Closed != nil {
		return State{}, ErrClosed
	}
	next := s.clone()
	now = next.clock(now)
	next.Closed = &Closing{At: stamp(now), Reason: op.Reason, By: op.By}
	next.Policy.Algorithms = []string{}
	next.windDown(Instant{Observed: now, Now: now})
	return next.commit(op, now), nil
}

// Gone tells whether the keyset was deleted and its last key has left.
func (s State) Gone() bool { return s.Closed != nil && len(s.Lanes) == 0 }

// FieldChange is a difference between two policies.
type FieldChange struct {
	Field string `json:"field"` // as in the configuration
	From  string `json:"from"`
	To    string `json:"to"`
}

// Diff lists the fields in which two policies differ, by name.
func Diff(from, to Policy) []FieldChange {
	a, b := from.fields(), to.fields()
	var list []FieldChange
	for _, field := range slices.Sorted(maps.Keys(merged(a, b))) {
		if a[field] != b[field] {
			list = append(list, FieldChange{Field: field, From: cmp.Or(a[field], "-"), To: cmp.Or(b[field], "-")})
		}
	}
	return list
}

func merged(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// fields writes each field as text.
func (p Policy) fields() map[string]string {
	var raw map[string]any
	if err := json.Unmarshal(result(p), &raw); err != nil {
		panic("rotation: a policy that is no JSON: " + err.Error()) // our own type always is
	}
	texts := map[string]string{}
	for field, value := range raw {
		texts[field] = fmt.Sprint(value)
	}
	return texts
}
