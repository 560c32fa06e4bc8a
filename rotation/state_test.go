package rotation

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// lead is P of the default policy.
const lead = time.Hour + 20*time.Minute + 10*time.Second

// newKeys makes fresh keys that are named after the document's sequence.
func newKeys(s State, algs ...string) []NewKey {
	var keys []NewKey
	for i, alg := range algs {
		keys = append(keys, NewKey{KID: fmt.Sprintf("key-%d", s.Sequence+uint64(i)+1), Algorithm: alg, Public: publicStub})
	}
	return keys
}

func founded(t *testing.T, p Policy) State {
	t.Helper()
	algs := append(append([]string{}, p.Algorithms...), p.Algorithms...)
	s, err := Found("default", p, epoch, newKeys(State{}, algs...), Operation{ID: "found"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// settled writes and reads back whatever is due at an instant.
func settled(t *testing.T, s State, at time.Time) State {
	t.Helper()
	for range 10 {
		i := Instant{Observed: at, Now: at}
		plan := s.Plan(i)
		if !plan.Due {
			return s
		}
		next, err := s.Advance(i, newKeys(s, plan.Needs...), Operation{ID: "advance"})
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	t.Fatal("the document never settles")
	return s
}

// until plays the core from wake to wake.
func until(t *testing.T, s State, from, to time.Time) State {
	t.Helper()
	for at := from; ; {
		s = settled(t, s, at)
		wake := s.Plan(Instant{Observed: at, Now: at}).Wake
		if wake.IsZero() || wake.After(to) {
			return settled(t, s, to)
		}
		at = wake
	}
}

func phases(s State, now time.Time) string {
	var words []string
	for _, l := range s.Lanes {
		for _, k := range l.Keys {
			words = append(words, k.KID+" "+string(l.Phase(k, now)))
		}
	}
	return strings.Join(words, ", ")
}

func mustPromote(t *testing.T, s State, force bool, at time.Time) State {
	t.Helper()
	next, _, err := s.Promote(nil, force, at, Operation{ID: "rotate"})
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestC44Phases(t *testing.T) {
	p := DefaultPolicy()
	p.Rotate = "@every 3h"
	s := founded(t, p)
	tick := epoch.Add(3 * time.Hour)
	if got, want := phases(s, epoch), "key-1 active, key-2 standby"; got != want {
		t.Errorf("founded: %s, want %s", got, want)
	}
	if got, want := phases(s, tick), "key-1 retiring, key-2 active"; got != want {
		t.Errorf("the switch needs no write: %s, want %s", got, want)
	}
	s = settled(t, s, tick)
	if got, want := phases(s, tick), "key-1 retiring, key-2 active, key-3 standby"; got != want {
		t.Errorf("after the tick: %s, want %s", got, want)
	}
	gone := tick.Add(2*time.Hour + time.Minute + 50*time.Second) // V and the grace
	if s := until(t, s, tick, gone.Add(-1)); len(s.Lanes[0].Keys) != 3 {
		t.Errorf("a key left before its last token: %s", phases(s, gone))
	}
	s = until(t, s, tick, gone)
	if got, want := phases(s, gone), "key-2 active, key-3 standby"; got != want {
		t.Errorf("after its last token: %s, want %s", got, want)
	}
	s, _, err := s.Revoke("key-3", gone, nil, Operation{ID: "revoke"})
	if err != nil || phases(s, gone) != "key-2 active" || !s.Revoked("key-3") {
		t.Errorf("revoked: %s, %v", phases(s, gone), err)
	}
}

func TestGraceAndDestruction(t *testing.T) {
	p := DefaultPolicy()
	p.Rotate = "@every 3h"
	s := until(t, founded(t, p), epoch, epoch.Add(3*time.Hour))
	tick := epoch.Add(3 * time.Hour)
	l := s.Lanes[0]
	k := l.Keys[0]
	if !k.SignsUntil.Equal(tick.Add(30*time.Second)) || !k.DestroyAt.Equal(tick.Add(time.Hour+40*time.Second)) ||
		!k.RemoveAt.Equal(tick.Add(2*time.Hour+time.Minute+50*time.Second)) {
		t.Errorf("signs until %v, destroyed at %v, removed at %v", k.SignsUntil, k.DestroyAt, k.RemoveAt)
	}
	if !l.MaySign(k, tick.Add(30*time.Second-1)) || l.MaySign(k, tick.Add(30*time.Second)) {
		t.Error("the grace does not end after 30s")
	}
	if a, ok := l.Active(tick.Add(-1)); !ok || a.KID != k.KID {
		t.Errorf("a clock that lags finds %v active, want the key whose end is recorded already", a.KID)
	}
}

func TestFirstRotationNeedsNoForce(t *testing.T) {
	at := epoch.Add(time.Minute)
	s := mustPromote(t, founded(t, DefaultPolicy()), false, at)
	if a, _ := s.Lanes[0].Active(at); a.KID != "key-2" {
		t.Fatalf("%s is active", a.KID)
	}
	var early *NotReadyError
	if _, _, err := s.Promote(nil, false, at, Operation{}); !errors.As(err, &early) || early.KID != "" {
		t.Fatalf("no standby yet: %v", err)
	}
	s = settled(t, s, at.Add(time.Second))
	k, _ := s.Lanes[0].Standby(at)
	_, _, err := s.Promote(nil, false, at.Add(time.Hour), Operation{})
	if !errors.As(err, &early) || early.KID != k.KID || !early.Earliest.Equal(k.PublishedAt.Add(lead)) {
		t.Fatalf("second rotation: %v, want exactly %v", err, k.PublishedAt.Add(lead))
	}
	if _, _, err := s.Promote(nil, false, early.Earliest.Add(-1), Operation{}); err == nil {
		t.Error("a rotation before the earliest instant is not refused")
	}
	if _, done, err := s.Promote(nil, false, early.Earliest, Operation{}); err != nil || !done[0].FullLead {
		t.Errorf("at the earliest instant: %v", err)
	}
	if _, done, err := s.Promote(nil, true, at.Add(time.Hour), Operation{}); err != nil || done[0].FullLead {
		t.Errorf("forced: %v, full lead %v", err, done)
	}
	if _, _, err := s.Promote([]string{"RS256"}, true, at, Operation{}); !errors.Is(err, ErrNoLane) {
		t.Errorf("a lane that is not there: %v", err)
	}
}

func TestLeadCountsFromTheReading(t *testing.T) {
	s := mustPromote(t, founded(t, DefaultPolicy()), false, epoch)
	s, err := s.Advance(Instant{epoch, epoch}, newKeys(s, "ES256"), Operation{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	k := s.Lanes[0].Keys[2]
	if !k.PublishedAt.IsZero() || !k.ActivateAt.IsZero() {
		t.Fatalf("a key that nobody read back has a turn: %+v", k)
	}
	seen := epoch.Add(9 * time.Hour) // the write was late
	s, err = s.Advance(Instant{seen, seen.Add(time.Minute)}, nil, Operation{ID: "b"})
	if k = s.Lanes[0].Keys[1]; err != nil || !k.PublishedAt.Equal(seen) || !k.ReadyAt.Equal(seen.Add(lead)) || k.ActivateAt.Before(k.ReadyAt) {
		t.Fatalf("%v: %+v", err, k)
	}
	if _, err := s.Advance(Instant{seen, seen}, newKeys(s, "ES256"), Operation{}); err == nil {
		t.Error("a key that is not needed is taken")
	}
	if _, err := s.Advance(Instant{seen, seen}, nil, Operation{}); !errors.Is(err, ErrNothingDue) {
		t.Errorf("nothing is due: %v", err)
	}
}

func TestC67TenMissedTicks(t *testing.T) {
	p := DefaultPolicy()
	p.Rotate = "@every 3h"
	s := until(t, founded(t, p), epoch, epoch.Add(10*time.Hour))
	active, _ := s.Lanes[0].Active(epoch.Add(10 * time.Hour))
	back := epoch.Add(40 * time.Hour)
	s = settled(t, s, back)
	now, _ := s.Lanes[0].Active(back)
	if now.Sequence != active.Sequence+1 {
		t.Errorf("%d rotations over ten missed ticks, want one", now.Sequence-active.Sequence)
	}
	standby, ok := s.Lanes[0].Standby(back)
	// At 42h the key that was superseded unseen is still published; one more
	// would break the bound.
	if !ok || standby.Sequence != now.Sequence+1 || !standby.ActivateAt.Equal(epoch.Add(45*time.Hour)) {
		t.Errorf("the next turn is %+v, want the first tick that has room", standby)
	}
	if !s.Overdue(s.Lanes[0], back) || s.Overdue(s.Lanes[0], epoch.Add(10*time.Hour)) {
		t.Error("overdue is not told right")
	}
}

func TestOperationsAreRemembered(t *testing.T) {
	s := founded(t, DefaultPolicy())
	for i := range 200 {
		op := Operation{ID: fmt.Sprint("op", i), Key: "idempotent"}
		s = s.clone().commit(op, epoch.Add(time.Duration(i)*time.Second))
		if got, ok := s.Operation(op.ID); !ok || got.Generation != s.Generation {
			t.Fatalf("operation %d does not recognise itself", i)
		}
		if len(s.Operations) > maxOperations {
			t.Fatalf("%d operations are remembered", len(s.Operations))
		}
	}
	full := s
	s = s.clone().commit(Operation{ID: "plain"}, epoch.Add(201*time.Second))
	if _, ok := s.Operation("plain"); !ok {
		t.Error("a change forgets itself when all others are to be kept")
	}
	s = s.clone().commit(Operation{ID: "next", Key: "k"}, epoch.Add(202*time.Second))
	if _, ok := s.Operation("plain"); ok {
		t.Error("an operation without a key is kept in preference to those with one")
	}
	s = full.clone().commit(Operation{ID: "old"}, epoch.Add(48*time.Hour))
	if _, ok := s.Operation(full.Operations[0].ID); ok {
		t.Error("answers are kept for longer than a day")
	}
}

func TestEncodeIsStrict(t *testing.T) {
	s := until(t, founded(t, DefaultPolicy()), epoch, epoch.Add(100*day))
	s, _, err := s.Revoke(s.Lanes[0].Keys[0].KID, epoch.Add(100*day), nil, Operation{ID: "r", Reason: "leak"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(data)
	if err != nil || !reflect.DeepEqual(back, s) {
		t.Fatalf("reads back as another: %v\n%+v\n%+v", err, s, back)
	}
	text := string(data)
	for name, bad := range map[string]string{
		"unknown field": strings.Replace(text, `{"format"`, `{"colour":1,"format"`, 1),
		"trailing data": text + "{}",
		"other format":  strings.Replace(text, `"format":1`, `"format":2`, 1),
		"no format":     strings.Replace(text, `"format":1,`, ``, 1),
		"cut short":     text[:len(text)-2],
		"not JSON":      "hello",
		"revoked kid":   strings.Replace(text, `"tombstones":[{"kid":"`+s.Tombstones[0].KID, `"tombstones":[{"kid":"`+s.Lanes[0].Keys[0].KID, 1),
		"no schedule":   strings.Replace(text, `0 3 1 * *`, `0 0 31 2 *`, 1),
	} {
		if bad == text {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCheckFindsContradictions(t *testing.T) {
	for name, spoil := range map[string]func(*State){
		"twice":        func(s *State) { s.Lanes[0].Keys[1].KID = s.Lanes[0].Keys[0].KID },
		"wrong lane":   func(s *State) { s.Lanes[0].Keys[0].Algorithm = "RS256" },
		"order":        func(s *State) { s.Lanes[0].Keys[0].Sequence = 99 },
		"half stamped": func(s *State) { s.Lanes[0].Keys[0].ReadyAt = time.Time{} },
		"half ended":   func(s *State) { s.Lanes[0].Keys[0].RemoveAt = epoch },
		"no lane":      func(s *State) { s.Lanes = nil },
		"two lanes":    func(s *State) { s.Lanes = append(s.Lanes, s.Lanes[0]) },
		"no period":    func(s *State) { s.Period = 0 },
		"no public":    func(s *State) { s.Lanes[0].Keys[0].Public = nil },
		"backwards": func(s *State) {
			k := &s.Lanes[0].Keys[0]
			k.SignsUntil, k.DestroyAt, k.RemoveAt = epoch.Add(time.Hour), epoch.Add(2*time.Hour), epoch
		},
	} {
		s := founded(t, DefaultPolicy()).clone()
		spoil(&s)
		if _, err := s.Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

// snapshot is all of a state as text.
func snapshot(t *testing.T, s State) string {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestNothingChangesItsReceiver(t *testing.T) {
	p := DefaultPolicy()
	p.Algorithms, p.Rotate = []string{"ES256", "EdDSA"}, "@every 3h"
	s := until(t, founded(t, p), epoch, epoch.Add(50*time.Hour))
	now := epoch.Add(50*time.Hour + time.Minute)
	s = mustPromote(t, s, true, now)
	s, _, err := s.Revoke(s.Lanes[0].Keys[0].KID, now, nil, Operation{ID: "r"})
	if err != nil {
		t.Fatal(err)
	}
	other := p
	other.Algorithms, other.VerifierCache, other.TokenTTLMax = []string{"EdDSA", "RS256"}, 0, Duration(2*time.Hour)
	at := Instant{now, now}
	for name, call := range map[string]func() (State, error){
		"Advance": func() (State, error) { return s.Advance(at, newKeys(s, s.Plan(at).Needs...), Operation{ID: "a"}) },
		"Promote": func() (State, error) {
			n, _, err := settled(t, s, now).Promote(nil, true, now, Operation{ID: "p"})
			return n, err
		},
		"Revoke": func() (State, error) {
			n, _, err := s.Revoke(s.Lanes[1].Keys[1].KID, now, newKeys(s, "EdDSA"), Operation{ID: "x"})
			return n, err
		},
		"RevokeAll": func() (State, error) {
			n, _, err := s.RevokeAll(now, newKeys(s, p.Algorithms...), Operation{ID: "y"})
			return n, err
		},
		"SetPolicy": func() (State, error) { return s.SetPolicy(other, now, Operation{ID: "z"}) },
		"Forecast":  func() (State, error) { s.Forecast(now, now.Add(30*day)); return State{}, nil },
	} {
		before := snapshot(t, s)
		next, err := call()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		first := snapshot(t, next)
		if _, err := call(); err != nil { // a second change of the same state must not write into the first
			t.Fatalf("%s: %v", name, err)
		}
		if snapshot(t, s) != before {
			t.Errorf("%s changed its receiver", name)
		}
		if snapshot(t, next) != first {
			t.Errorf("%s: two changes of one state share memory", name)
		}
	}
}
