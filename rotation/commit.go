package rotation

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Found returns the first generation of a keyset: for each algorithm of the
// policy an active and a standby key, in this order among the fresh ones. Its
// keys are ready at once, since no older set can be in use.
func Found(keyset string, p Policy, now time.Time, fresh []NewKey, op Operation) (State, error) {
	timing, err := p.Derive(now)
	if err != nil {
		return State{}, err
	}
	at := stamp(now)
	s := State{Format: formatVersion, Keyset: keyset, CreatedAt: at, Policy: p, Period: timing.Period}.clone()
	for _, alg := range p.Algorithms {
		s.Lanes = append(s.Lanes, Lane{Algorithm: alg})
	}
	for _, k := range fresh {
		if err := s.add(k, now); err != nil {
			return State{}, err
		}
	}
	schedule, err := ParseSchedule(p.Rotate, at)
	if err != nil {
		return State{}, err
	}
	for i := range s.Lanes {
		l := &s.Lanes[i]
		if len(l.Keys) != 2 {
			return State{}, fmt.Errorf("founding %s: lane %s needs two keys, got %d", keyset, l.Algorithm, len(l.Keys))
		}
		for j := range l.Keys {
			l.Keys[j].PublishedAt, l.Keys[j].ReadyAt = at, at
		}
		l.Keys[0].ActivateAt = s.everywhere(now)
		l.Keys[1].ActivateAt = schedule.Next(at)
	}
	return s.commit(op, now), nil
}

// add names a fresh key in its lane, unscheduled.
func (s *State) add(k NewKey, now time.Time) error {
	if _, taken := s.Key(k.KID); taken || s.Revoked(k.KID) {
		return fmt.Errorf("kid %s was used before", k.KID)
	}
	i := slices.IndexFunc(s.Lanes, func(l Lane) bool { return l.Algorithm == k.Algorithm })
	if i < 0 {
		return fmt.Errorf("there is no lane %s", k.Algorithm)
	}
	s.Sequence++
	s.Lanes[i].Keys = append(s.Lanes[i].Keys, Key{
		KID: k.KID, Algorithm: k.Algorithm, Public: k.Public, Handle: k.Handle,
		Sequence:    s.Sequence,
		CreatedAt:   stamp(now),
		TokenTTLMax: s.Policy.TokenTTLMax,
		Retain:      Duration(s.Policy.retain()),
		Grace:       s.Policy.HandoverGrace,
		Period:      s.Period,
		OffSchedule: s.Lanes[i].FlushAfter != 0,
	})
	return nil
}

// commit numbers the generation and remembers the operation that made it.
func (s State) commit(op Operation, now time.Time) State {
	s.Generation++
	s.UpdatedAt = stamp(now)
	op.At, op.Generation = s.UpdatedAt, s.Generation
	s.Operations = append(s.Operations, op)
	if len(s.Operations) > maxOperations {
		s.Operations = forget(s.Operations, s.UpdatedAt)
	}
	return s
}

// result writes what a change answered, for those who repeat their request.
func result(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic("rotation: a result that is no JSON: " + err.Error()) // our own types always are
	}
	return data
}

// keepAnswers is how long a request with an idempotency key is remembered in
// preference to others.
const keepAnswers = day

// forget drops one operation: the oldest that nobody will ask for again. Never
// the newest: its writer may have to recognise it.
func forget(ops []Operation, now time.Time) []Operation {
	i := slices.IndexFunc(ops[:len(ops)-1], func(op Operation) bool {
		return op.Key == "" || now.Sub(op.At) > keepAnswers
	})
	return slices.Delete(ops, max(i, 0), max(i, 0)+1)
}
