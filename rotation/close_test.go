package rotation

import (
	"errors"
	"testing"
	"time"
)

func TestCloseKeepsEveryPromiseAndThenIsGone(t *testing.T) {
	p := DefaultPolicy()
	p.Algorithms = []string{"ES256", "RS256"}
	now := time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	var fresh []NewKey
	for _, kid := range []string{"e1", "e2", "r1", "r2"} {
		alg := map[byte]string{'e': "ES256", 'r': "RS256"}[kid[0]]
		fresh = append(fresh, NewKey{KID: kid, Algorithm: alg, Public: []byte(`{}`)})
	}
	s, err := Found("tenant", p, now, fresh, Operation{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	s, err = s.Close(now, Operation{ID: "2", Reason: "contract ended", By: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetPolicy(p, now, Operation{ID: "3"}); !errors.Is(err, ErrClosed) {
		t.Errorf("SetPolicy on a deleted keyset: %v", err)
	}
	if _, err := s.Close(now, Operation{ID: "3"}); !errors.Is(err, ErrClosed) {
		t.Errorf("Close twice: %v", err)
	}
	removed := map[string]time.Time{}
	for range 50 {
		plan := s.Plan(Instant{Observed: now, Now: now})
		if len(plan.Needs) > 0 {
			t.Fatalf("a deleted keyset needs %v", plan.Needs)
		}
		if plan.Due {
			if s, err = s.Advance(Instant{Observed: now, Now: now}, nil, Operation{ID: "a"}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Encode(); err != nil {
				t.Fatal(err)
			}
			for k := range s.Keys {
				removed[k.KID] = k.RemoveAt
			}
			continue
		}
		if plan.Wake.IsZero() {
			break
		}
		now = plan.Wake
	}
	if !s.Gone() {
		t.Fatalf("not gone: %+v", s.Lanes)
	}
	earliest := s.Closed.At.Add((p.HandoverGrace + p.TokenTTLMax).Std() + p.retain())
	for _, kid := range []string{"e1", "r1"} {
		if removed[kid].Before(earliest) {
			t.Errorf("key %s leaves at %s, but its tokens live until %s", kid, removed[kid], earliest)
		}
	}
	if _, ok := s.Default(now); ok {
		t.Error("a deleted keyset signs")
	}
}

func TestRevokeInADeletedKeysetAsksForNoKey(t *testing.T) {
	p := DefaultPolicy()
	now := time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	fresh := []NewKey{{KID: "a", Algorithm: "ES256", Public: []byte(`{}`)}, {KID: "b", Algorithm: "ES256", Public: []byte(`{}`)}}
	s, err := Found("tenant", p, now, fresh, Operation{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if s, err = s.Close(now, Operation{ID: "2"}); err != nil {
		t.Fatal(err)
	}
	for _, kid := range []string{"a", "b"} {
		if s, _, err = s.Revoke(kid, now, nil, Operation{ID: kid}); err != nil {
			t.Fatalf("revoking %s: %v", kid, err)
		}
	}
	if s, err = s.Advance(Instant{Observed: now, Now: now}, nil, Operation{ID: "3"}); err != nil || !s.Gone() {
		t.Errorf("not gone: %v", err)
	}
}

func TestOlderRevisionLoses(t *testing.T) {
	p := DefaultPolicy()
	p.Revision = 5
	now := time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	fresh := []NewKey{{KID: "a", Algorithm: "ES256", Public: []byte(`{}`)}, {KID: "b", Algorithm: "ES256", Public: []byte(`{}`)}}
	s, err := Found("default", p, now, fresh, Operation{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	change := func(revision int) Policy {
		q := p
		q.Revision, q.TokenTTLMax = revision, q.TokenTTLMax/2
		return q
	}
	if _, err := s.SetPolicy(change(4), now, Operation{ID: "2"}); !errors.Is(err, ErrOlderRevision) {
		t.Errorf("an older revision: %v", err)
	}
	for _, revision := range []int{0, 5, 6} {
		next, err := s.SetPolicy(change(revision), now, Operation{ID: "2"})
		if err != nil {
			t.Errorf("revision %d: %v", revision, err)
			continue
		}
		if want := max(5, revision); next.Policy.Revision != want {
			t.Errorf("revision %d: in force is %d, want %d", revision, next.Policy.Revision, want)
		}
	}
}

func TestDiffNamesFields(t *testing.T) {
	from, to := DefaultPolicy(), DefaultPolicy()
	if d := Diff(from, to); len(d) != 0 {
		t.Errorf("equal policies differ: %v", d)
	}
	to.TokenTTLMax, to.Algorithms = Duration(2*time.Hour), []string{"ES256", "RS256"}
	want := []FieldChange{{"algorithms", "[ES256]", "[ES256 RS256]"}, {"token_ttl_max", "1h", "2h"}}
	got := Diff(from, to)
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A key in its hand-over grace must not become active again because the keys
// after it end.
func TestCloseRightAfterARotationBringsNoKeyBack(t *testing.T) {
	p := DefaultPolicy()
	now := time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	fresh := []NewKey{{KID: "a", Algorithm: "ES256", Public: []byte(`{}`)}, {KID: "b", Algorithm: "ES256", Public: []byte(`{}`)}}
	s, err := Found("tenant", p, now, fresh, Operation{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	step := func(fresh ...NewKey) {
		t.Helper()
		now = now.Add(time.Second)
		if s, err = s.Advance(Instant{Observed: now, Now: now}, fresh, Operation{ID: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(time.Minute)
	if s, _, err = s.Promote(nil, false, now, Operation{ID: "2"}); err != nil {
		t.Fatal(err)
	}
	step(NewKey{KID: "c", Algorithm: "ES256", Public: []byte(`{}`)})
	if s, err = s.Close(now, Operation{ID: "3"}); err != nil {
		t.Fatal(err)
	}
	step()
	if k, ok := s.Default(now); ok {
		t.Errorf("%s signs in a deleted keyset", k.KID)
	}
	if _, _, err := s.Promote(nil, true, now, Operation{ID: "4"}); !errors.Is(err, ErrClosed) {
		t.Errorf("Promote on a deleted keyset: %v", err)
	}
	if _, err := s.Encode(); err != nil {
		t.Error(err)
	}
}
