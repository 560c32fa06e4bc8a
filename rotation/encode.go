package rotation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// formatVersion is the layout of the document that this code writes. A document
// of another one is refused, never rewritten with fields missing.
const formatVersion = 1

// Encode writes the document. Equal states give equal bytes.
func (s State) Encode() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("encoding state of %s: %w", s.Keyset, err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encoding state of %s: %w", s.Keyset, err)
	}
	return data, nil
}

// Decode reads a document that Encode wrote, strictly: an unknown field or an
// impossible state is an error.
func Decode(data []byte) (State, error) {
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &format); err != nil {
		return State{}, fmt.Errorf("decoding state: %w", err)
	}
	if format.Format != formatVersion {
		return State{}, fmt.Errorf("decoding state: format %d is not the format %d that this version knows: upgrade every replica", format.Format, formatVersion)
	}
	var s State
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return State{}, fmt.Errorf("decoding state: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return State{}, errors.New("decoding state: data after the document")
	}
	if err := s.Check(); err != nil {
		return State{}, fmt.Errorf("decoding state of %s: %w", s.Keyset, err)
	}
	return s, nil
}

// Check reports what cannot be in a document: repeated or revoked kids, keys in
// the wrong lane or order, instants that contradict each other.
func (s State) Check() error {
	if s.Format != formatVersion || s.Keyset == "" || s.Generation == 0 || s.Period <= 0 {
		return errors.New("format, keyset, generation or period is missing")
	}
	if _, err := ParseSchedule(s.Policy.Rotate, s.CreatedAt); err != nil {
		return err
	}
	seen, lanes := map[string]bool{}, map[string]bool{}
	for _, t := range s.Tombstones {
		seen[t.KID] = true
	}
	for _, l := range s.Lanes {
		if lanes[l.Algorithm] {
			return fmt.Errorf("lane %s stands twice", l.Algorithm)
		}
		lanes[l.Algorithm] = true
		if err := s.checkLane(l, seen); err != nil {
			return fmt.Errorf("lane %s: %w", l.Algorithm, err)
		}
	}
	for _, alg := range s.Policy.Algorithms {
		if !lanes[alg] {
			return fmt.Errorf("lane %s is missing", alg)
		}
	}
	return nil
}

func (s State) checkLane(l Lane, seen map[string]bool) error {
	var last uint64
	for _, k := range l.Keys {
		switch {
		case k.KID == "" || len(k.Public) == 0:
			return errors.New("a key without kid or public half")
		case seen[k.KID]:
			return fmt.Errorf("key %s stands twice or is revoked", k.KID)
		case k.Algorithm != l.Algorithm:
			return fmt.Errorf("key %s is for %s", k.KID, k.Algorithm)
		case k.Sequence <= last || k.Sequence > s.Sequence:
			return fmt.Errorf("key %s has sequence %d out of order", k.KID, k.Sequence)
		case k.PublishedAt.IsZero() != k.ReadyAt.IsZero():
			return fmt.Errorf("key %s has one of published_at and ready_at", k.KID)
		case k.SignsUntil.IsZero() != k.RemoveAt.IsZero() || k.RemoveAt.IsZero() != k.DestroyAt.IsZero():
			return fmt.Errorf("key %s has one of signs_until, destroy_at and remove_at", k.KID)
		case k.RemoveAt.Before(k.SignsUntil) || k.DestroyAt.Before(k.SignsUntil):
			return fmt.Errorf("key %s is removed or destroyed before it stops signing", k.KID)
		case k.TokenTTLMax <= 0 || k.Period <= 0:
			return fmt.Errorf("key %s has no token lifetime or period", k.KID)
		}
		seen[k.KID], last = true, k.Sequence
	}
	return nil
}
