package rotation

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// Tests of what people ask for: revocations, policies, forecasts.

func revoked(t *testing.T, s State, kid string, at time.Time, fresh ...NewKey) (State, Revocation) {
	t.Helper()
	next, out, err := s.Revoke(kid, at, fresh, Operation{ID: "revoke", Reason: "leak", By: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	if _, still := next.Key(kid); still || !next.Revoked(kid) {
		t.Fatalf("%s is still in the document", kid)
	}
	return next, out
}

func TestRevokeTheActiveKey(t *testing.T) {
	at := epoch.Add(time.Hour)
	s, out := revoked(t, founded(t, DefaultPolicy()), "key-1", at)
	if len(out.Promoted) != 1 || out.Promoted[0] != (Promotion{Algorithm: "ES256", From: "key-1", To: "key-2", FullLead: true}) {
		t.Errorf("promoted: %+v", out.Promoted)
	}
	if want := at.Add(time.Hour + 20*time.Minute); !out.TrustedUntil.Equal(want) {
		t.Errorf("trusted until %v, want %v", out.TrustedUntil, want)
	}
	for _, clock := range []time.Time{at.Add(-10 * time.Second), at, at.Add(10 * time.Second)} {
		if a, ok := s.Lanes[0].Active(clock); !ok || a.KID != "key-2" {
			t.Errorf("a clock that shows %v finds %q active", clock, a.KID)
		}
	}
	if _, _, err := s.Revoke("key-1", at, nil, Operation{}); !errors.Is(err, ErrAlreadyRevoked) {
		t.Errorf("again: %v", err)
	}
	if _, _, err := s.Revoke("nobody", at, nil, Operation{}); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := s.Advance(Instant{at, at}, []NewKey{{KID: "key-1", Algorithm: "ES256", Public: publicStub}}, Operation{}); err == nil {
		t.Error("a revoked kid is named again")
	}
}

func TestRevokeIsFlushed(t *testing.T) {
	at := epoch.Add(time.Hour)
	for _, kid := range []string{"key-1", "key-2"} {
		s, out := revoked(t, founded(t, DefaultPolicy()), kid, at)
		if !out.FlushAt.Equal(at.Add(lead)) {
			t.Errorf("flush at %v, want %v", out.FlushAt, at.Add(lead))
		}
		s = settled(t, s, at.Add(time.Minute))
		k := s.Lanes[0].Keys[len(s.Lanes[0].Keys)-1]
		if !k.ActivateAt.Equal(k.ReadyAt) || !k.ReadyAt.Equal(at.Add(time.Minute+lead)) || s.Lanes[0].FlushAfter != 0 {
			t.Errorf("the key made after the revocation of %s turns at %v, ready at %v", kid, k.ActivateAt, k.ReadyAt)
		}
	}
}

func TestRevokeWithoutStandby(t *testing.T) {
	at := epoch.Add(time.Hour)
	s, _ := revoked(t, founded(t, DefaultPolicy()), "key-2", at)
	var need *NeedKeysError
	if _, _, err := s.Revoke("key-1", at, nil, Operation{}); !errors.As(err, &need) || !slices.Equal(need.Algorithms, []string{"ES256"}) {
		t.Fatalf("no standby: %v", err)
	}
	s, out := revoked(t, s, "key-1", at, newKeys(s, "ES256")...)
	if len(out.Promoted) != 1 || out.Promoted[0].FullLead || !out.FlushAt.IsZero() {
		t.Errorf("fresh key: %+v", out)
	}
	if a, ok := s.Lanes[0].Active(at.Add(-10 * time.Second)); !ok || a.KID != out.Promoted[0].To {
		t.Errorf("active on a slow clock: %v", a.KID)
	}
}

// A key that is revoked just after its turn ended leaves slow clocks, which
// still signed with it, with its successor.
func TestRevokeTheKeyOfSlowClocks(t *testing.T) {
	at := epoch.Add(time.Hour)
	s := settled(t, mustPromote(t, founded(t, DefaultPolicy()), false, at), at)
	s, _ = revoked(t, s, "key-1", at.Add(time.Second))
	if a, ok := s.Lanes[0].Active(at.Add(-9 * time.Second)); !ok || a.KID != "key-2" {
		t.Errorf("a slow clock finds %q active", a.KID)
	}
}

// A slow writer must not take the successor of an ended key for a standby.
func TestSlowWriterAfterTheSwitch(t *testing.T) {
	at := epoch.Add(time.Hour)
	s := settled(t, mustPromote(t, founded(t, DefaultPolicy()), false, at), at)
	slow := at.Add(-10 * time.Second)
	if next, out := revoked(t, s, "key-2", slow); len(out.Promoted) != 1 || !next.Lanes[0].started(at) {
		t.Errorf("revoked by a slow writer: %+v", out)
	}
	if _, err := s.Discard("key-2", slow, Operation{}); !errors.Is(err, ErrNotWaiting) {
		t.Errorf("discarded by a slow writer: %v", err)
	}
	p := DefaultPolicy()
	p.VerifierCache *= 2
	next, err := s.SetPolicy(p, slow, Operation{})
	if a, ok := next.Lanes[0].Active(at.Add(time.Hour)); err != nil || !ok || a.KID != "key-2" {
		t.Errorf("after a policy by a slow writer %q is active, %v", a.KID, err)
	}
}

func TestRevokeRetiringAndWinding(t *testing.T) {
	p := DefaultPolicy()
	p.Algorithms = []string{"ES256", "RS256"}
	at := epoch.Add(time.Hour)
	s := settled(t, mustPromote(t, founded(t, p), false, at), at)
	retiring := s.Lanes[0].Keys[0].KID
	next, out := revoked(t, s, retiring, at.Add(time.Minute))
	if len(out.Promoted) != 0 || next.Lanes[0].FlushAfter == 0 {
		t.Errorf("retiring: %+v", out)
	}
	p.Algorithms = []string{"RS256"}
	s, err := s.SetPolicy(p, at.Add(time.Minute), Operation{ID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	l, _ := s.Lane("ES256")
	active, _ := l.Active(at.Add(time.Minute))
	s, out = revoked(t, s, active.KID, at.Add(2*time.Minute))
	if len(out.Promoted) != 1 || !out.FlushAt.IsZero() {
		t.Errorf("winding lane: %+v", out)
	}
	if _, ok := s.Default(at.Add(2 * time.Minute)); !ok {
		t.Error("nothing signs")
	}
}

func TestRevokeAll(t *testing.T) {
	p := DefaultPolicy()
	p.Algorithms = []string{"ES256", "RS256"}
	s, at := founded(t, p), epoch.Add(time.Hour)
	var need *NeedKeysError
	if _, _, err := s.RevokeAll(at, newKeys(s, "ES256"), Operation{}); !errors.As(err, &need) || !slices.Equal(need.Algorithms, []string{"RS256"}) {
		t.Fatalf("one key is missing: %v", err)
	}
	next, out, err := s.RevokeAll(at, newKeys(s, p.Algorithms...), Operation{ID: "all"})
	if err != nil || len(out.Revoked) != 4 || len(out.Promoted) != 2 || len(next.Tombstones) != 4 {
		t.Fatalf("%v: %+v", err, out)
	}
	for _, pr := range out.Promoted {
		if pr.FullLead {
			t.Errorf("%s is said to have its lead", pr.To)
		}
	}
	if s = settled(t, next, at); s.Check() != nil || len(s.Lanes[0].Keys) != 2 {
		t.Errorf("after the emergency: %s", phases(s, at))
	}
}

func setPolicy(t *testing.T, s State, at time.Time, change func(*Policy)) State {
	t.Helper()
	p := s.Policy
	p.Algorithms = slices.Clone(p.Algorithms)
	change(&p)
	next, err := s.SetPolicy(p, at, Operation{ID: "policy"})
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestTokenLifetimeIsNeverShortened(t *testing.T) {
	at := epoch.Add(time.Hour)
	s := settled(t, mustPromote(t, founded(t, DefaultPolicy()), false, at), at)
	before := s.Lanes[0].Keys[0].RemoveAt
	long := setPolicy(t, s, at.Add(time.Minute), func(p *Policy) { p.TokenTTLMax *= 3 })
	if got := long.Lanes[0].Keys[0].RemoveAt; !got.Equal(before.Add(2 * time.Hour)) {
		t.Errorf("T raised: the retiring key leaves at %v, before %v", got, before)
	}
	for _, k := range long.Lanes[0].Keys {
		if k.TokenTTLMax != Duration(3*time.Hour) {
			t.Errorf("T raised: %s keeps %v", k.KID, k.TokenTTLMax)
		}
	}
	short := setPolicy(t, s, at.Add(time.Minute), func(p *Policy) { p.TokenTTLMax /= 2 })
	if got := short.Lanes[0].Keys[0]; !got.RemoveAt.Equal(before) || got.TokenTTLMax != Duration(time.Hour) {
		t.Errorf("T lowered: the retiring key leaves at %v, before %v", got.RemoveAt, before)
	}
	late := setPolicy(t, s, s.Lanes[0].Keys[0].DestroyAt, func(p *Policy) { p.TokenTTLMax *= 3 })
	if got := late.Lanes[0].Keys[0]; !got.RemoveAt.Equal(before) {
		t.Errorf("T raised after the last signature: leaves at %v, before %v", got.RemoveAt, before)
	}
	if _, err := s.SetPolicy(s.Policy, at, Operation{}); !errors.Is(err, ErrNothingDue) {
		t.Errorf("the same policy: %v", err)
	}
}

func TestFloorKeepsTheLead(t *testing.T) {
	at := epoch.Add(time.Hour)
	for name, lower := range map[string]func(*Policy){
		"H": func(p *Policy) { p.JWKSMaxAge = 0 },
		"C": func(p *Policy) { p.VerifierCache = 0 },
		"D": func(p *Policy) { p.MaxStaleness = Duration(time.Minute) },
	} {
		s := setPolicy(t, founded(t, DefaultPolicy()), at, lower)
		if s.Floor == nil || !s.Floor.Until.IsZero() {
			t.Fatalf("%s lowered: floor %+v", name, s.Floor)
		}
		s = settled(t, s, at.Add(time.Minute))
		if want := at.Add(time.Minute + lead); !s.Floor.Until.Equal(want) {
			t.Errorf("%s lowered: floor until %v, want %v", name, s.Floor.Until, want)
		}
		early := settled(t, mustPromote(t, s, false, at.Add(2*time.Minute)), at.Add(2*time.Minute))
		k, _ := early.Lanes[0].Standby(at.Add(2 * time.Minute))
		if !k.ReadyAt.Equal(k.PublishedAt.Add(lead)) {
			t.Errorf("%s lowered: a key published under the floor has lead %v", name, k.ReadyAt.Sub(k.PublishedAt))
		}
		after := s.Floor.Until
		free := settled(t, mustPromote(t, s, false, after), after)
		k, _ = free.Lanes[0].Standby(after)
		if want := free.Policy.lead(); want >= lead || !k.ReadyAt.Equal(k.PublishedAt.Add(want)) {
			t.Errorf("%s lowered: a key published after the floor has lead %v, want %v", name, k.ReadyAt.Sub(k.PublishedAt), want)
		}
	}
}

func TestRaisedLeadMovesTurns(t *testing.T) {
	p := DefaultPolicy()
	p.Rotate = "@every 3h"
	s := until(t, founded(t, p), epoch, epoch.Add(3*time.Hour))
	at := epoch.Add(3*time.Hour + time.Minute)
	s = setPolicy(t, s, at, func(p *Policy) { p.VerifierCache, p.Rotate = Duration(4*time.Hour), "@every 6h" })
	k, _ := s.Lanes[0].Standby(at)
	if want := epoch.Add(3*time.Hour + s.Policy.lead()); !k.ReadyAt.Equal(want) || !k.ActivateAt.Equal(epoch.Add(12*time.Hour)) {
		t.Errorf("ready at %v, turn at %v", k.ReadyAt, k.ActivateAt)
	}
	// A lane that winds down keeps the lead, too.
	p.Algorithms = []string{"ES256", "RS256"}
	s = until(t, founded(t, p), epoch, epoch.Add(3*time.Hour))
	s = setPolicy(t, s, at, func(p *Policy) {
		p.Algorithms, p.VerifierCache, p.Rotate = []string{"EdDSA", "RS256"}, Duration(4*time.Hour), "@every 6h"
	})
	l, _ := s.Lane("ES256")
	if k, _ := l.Standby(at); k.ActivateAt.Before(k.ReadyAt) {
		t.Errorf("winding lane: turn at %v, ready at %v", k.ActivateAt, k.ReadyAt)
	}
}

func TestAlgorithmsComeAndGo(t *testing.T) {
	at := epoch.Add(time.Hour)
	s := setPolicy(t, founded(t, DefaultPolicy()), at, func(p *Policy) { p.Algorithms = []string{"EdDSA"} })
	s = settled(t, s, at)
	old, _ := s.Lane("ES256")
	takeover := at.Add(lead)
	if !s.Winding(old) || !old.Keys[0].EndAt.Equal(takeover) {
		t.Fatalf("the old lane ends at %v, want %v", old.Keys[0].EndAt, takeover)
	}
	for _, clock := range []time.Duration{-1, 0} {
		k, ok := s.Default(takeover.Add(clock))
		if want := []string{"ES256", "EdDSA"}[1+clock]; !ok || k.Algorithm != want {
			t.Errorf("at the takeover%+v %s signs, want %s", clock, k.Algorithm, want)
		}
	}
	back := setPolicy(t, s, takeover.Add(-time.Minute), func(p *Policy) { p.Algorithms = []string{"EdDSA", "ES256"} })
	l, _ := back.Lane("ES256")
	if _, ok := l.Active(takeover.Add(time.Hour)); !ok || back.Winding(l) {
		t.Error("a lane that returns before its end does not go on")
	}
	s = until(t, s, at, takeover.Add(time.Hour))
	late := takeover.Add(time.Hour)
	s = settled(t, setPolicy(t, s, late, func(p *Policy) { p.Algorithms = []string{"EdDSA", "ES256"} }), late)
	l, _ = s.Lane("ES256")
	if _, ok := l.Active(late); ok {
		t.Error("a lane that returns after its end signs without a lead")
	}
	if k, ok := l.Standby(late); !ok || !k.ActivateAt.Equal(late.Add(lead)) {
		t.Errorf("its new key turns at %v, want %v", k.ActivateAt, late.Add(lead))
	}
	s = until(t, s, late, late.Add(10*time.Hour))
	if l, _ = s.Lane("ES256"); len(l.Keys) != 2 {
		t.Errorf("after the retention: %s", phases(s, late))
	}
}

// The lane that winds down signs on if the key that was to take over is gone.
func TestTakeoverIsPutOff(t *testing.T) {
	at := epoch.Add(time.Hour)
	s := setPolicy(t, founded(t, DefaultPolicy()), at, func(p *Policy) { p.Algorithms = []string{"EdDSA"} })
	s = settled(t, s, at)
	takeover := at.Add(lead)
	l, _ := s.Lane("EdDSA")
	gone, _ := revoked(t, s, l.Keys[0].KID, takeover.Add(-time.Minute))
	dropped, err := s.Discard(l.Keys[0].KID, takeover.Add(-time.Minute), Operation{})
	if err != nil {
		t.Fatal(err)
	}
	later := setPolicy(t, s, takeover.Add(-time.Minute), func(p *Policy) { p.VerifierCache = Duration(5 * time.Hour) })
	for name, s := range map[string]State{"revoked": gone, "discarded": dropped, "longer lead": later} {
		for at := takeover.Add(-time.Minute); at.Before(takeover.Add(9 * time.Hour)); at = at.Add(time.Minute) {
			s = settled(t, s, at)
			if _, ok := s.Default(at); !ok {
				t.Fatalf("%s: nothing signs at %v", name, at)
			}
		}
	}
}

func TestForecastComesTrue(t *testing.T) {
	p := DefaultPolicy()
	p.Algorithms, p.Rotate = []string{"ES256", "EdDSA"}, "@every 6h"
	s, horizon := founded(t, p), epoch.Add(5*day)
	told := map[uint64]Span{}
	for _, sp := range s.Forecast(epoch, horizon) {
		told[sp.Sequence] = sp
	}
	lived := map[uint64]Key{}
	observed := epoch
	for at := epoch; at.Before(horizon); at = at.Add(time.Minute) {
		for {
			i := Instant{observed, at}
			next, err := s.Advance(i, newKeys(s, s.Plan(i).Needs...), Operation{ID: "a"})
			if err != nil {
				break
			}
			s, observed = next, at
		}
		for k := range s.Keys {
			lived[k.Sequence] = k
		}
	}
	if len(lived) < 40 || len(told) < len(lived) {
		t.Fatalf("%d keys lived, %d were told", len(lived), len(told))
	}
	for seq, k := range lived {
		sp := told[seq]
		if !sp.ActivateAt.Equal(k.ActivateAt) || !sp.PublishedAt.Equal(k.PublishedAt) || sp.Algorithm != k.Algorithm || sp.Future != (seq > 4) {
			t.Errorf("key %d: told %+v, lived %+v", seq, sp, k)
		}
		if !k.RemoveAt.IsZero() && !sp.RemoveAt.Equal(k.RemoveAt) {
			t.Errorf("key %d: told to leave at %v, leaves at %v", seq, sp.RemoveAt, k.RemoveAt)
		}
	}
	events := Events(s.Forecast(horizon, horizon.Add(day)), horizon, horizon.Add(day))
	if !slices.IsSortedFunc(events, func(a, b Event) int { return a.At.Compare(b.At) }) || len(events) < 24 {
		t.Errorf("%d events", len(events))
	}
}

func TestWakeMissesNothing(t *testing.T) {
	p := DefaultPolicy()
	p.Algorithms, p.Rotate = []string{"ES256", "EdDSA"}, "@every 3h"
	s, at := founded(t, p), epoch
	for step := range 400 {
		s = settled(t, s, at)
		switch step {
		case 50:
			s = setPolicy(t, s, at, func(p *Policy) { p.Algorithms = []string{"RS256"} })
		case 150:
			s, _ = revoked(t, s, s.Lanes[0].Keys[0].KID, at)
		case 250:
			s = mustPromote(t, s, true, at)
		}
		s = settled(t, s, at)
		wake := s.Plan(Instant{at, at}).Wake
		if wake.IsZero() {
			t.Fatal("nothing will ever be due")
		}
		for _, early := range []time.Time{at.Add(wake.Sub(at) / 2), wake.Add(-1)} {
			if early.Before(at) {
				continue
			}
			if plan := s.Plan(Instant{at, early}); plan.Due || !plan.Wake.Equal(wake) {
				t.Fatalf("step %d: due at %v already, told to wake at %v", step, early, wake)
			}
			if x, y := phases(s, at), phases(s, early); x != y {
				t.Fatalf("step %d: %s changes to %s before %v", step, x, y, wake)
			}
		}
		at = wake
	}
}
