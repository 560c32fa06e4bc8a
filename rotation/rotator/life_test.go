package rotator_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation/rotator"
)

func TestFounding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.run(t)
		if _, err := r.View(name); !errors.Is(err, rotator.ErrNoKeyset) {
			t.Fatalf("View of what is not there: %v", err)
		}
		bad := shortPolicy()
		bad.Rotate = "@every 1m"
		if written, err := r.Ensure(t.Context(), name, bad, "test"); written || err == nil {
			t.Fatal("a policy that does not fit was accepted")
		}
		if kids := private(t, store); len(kids) > 0 {
			t.Fatalf("a refused policy left private keys %v", kids)
		}
		p := shortPolicy()
		p.Algorithms = []string{"ES256", "EdDSA"}
		if written, err := r.Ensure(t.Context(), name, p, "test"); !written || err != nil {
			t.Fatal(written, err)
		}
		settle()
		s := r.state(t)
		if s.Generation != 1 || len(s.Lanes) != 2 || count(s, "found") != 1 || !slices.Equal(r.Names(), []string{name}) {
			t.Fatalf("founded %+v", s)
		}
		for _, alg := range p.Algorithms {
			key, err := r.view(t).Signer(alg, r.clock.Now())
			if err != nil || key.Algorithm() != alg {
				t.Fatal(alg, err)
			}
			verify(t, s, key)
		}
		if _, err := r.view(t).Signer("RS256", r.clock.Now()); !errors.Is(err, rotator.ErrNoLane) {
			t.Fatal(err)
		}
		wantPrivate(t, store, s, r.clock.Now())
		if written, err := r.Ensure(t.Context(), name, p, "test"); written || err != nil {
			t.Fatalf("the same policy again: %v, %v", written, err)
		}
		wantAlarm(t, r, "")
	})
}

func TestSwitchNeedsNoWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		down := &outage{}
		handle := store.Share()
		handle.Fault = down.fault
		r := config{store: handle}.founded(t, shortPolicy())
		before, next := r.signs(t), standby(t, r.state(t), r.clock.Now())
		if got := next.ActivateAt.Sub(r.state(t).CreatedAt); got != 10*time.Minute {
			t.Fatalf("the switch is after %s", got)
		}
		time.Sleep(time.Until(next.ActivateAt) - time.Minute)
		down.set(true)
		time.Sleep(time.Minute - 1)
		if kid := r.signs(t); kid != before {
			t.Fatal("the switch is early")
		}
		time.Sleep(time.Nanosecond)
		if kid := r.signs(t); kid != next.KID {
			t.Fatal("the switch did not happen at its instant")
		}
		if s, _ := stored(t, store); s.Generation != 1 {
			t.Fatalf("generation %d: the switch was written", s.Generation)
		}
		down.set(false)
		settle()
		s := r.state(t)
		if new := standby(t, s, r.clock.Now()); new.KID == next.KID || new.ActivateAt.Sub(next.ActivateAt) != 10*time.Minute {
			t.Fatalf("after the switch the standby is %+v", new)
		}
		wantPrivate(t, store, s, r.clock.Now())
		wantAlarm(t, r, "")
	})
}

func TestStandbyIsMadeRightAfterTheSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		for range 5 {
			next := standby(t, r.state(t), r.clock.Now())
			sleepUntil(next.ActivateAt.Add(2 * pause))
			if r.signs(t) != next.KID {
				t.Fatal("no switch")
			}
			k := standby(t, r.state(t), r.clock.Now())
			if k.PublishedAt.Sub(next.ActivateAt) > 2*pause {
				t.Fatalf("the next standby came %s after the switch", k.PublishedAt.Sub(next.ActivateAt))
			}
		}
	})
}

// TestDestroyedWhenDue follows one key from its end to its removal.
func TestDestroyedWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		kid, turn := r.signs(t), standby(t, r.state(t), r.clock.Now()).ActivateAt
		sleepUntil(turn.Add(2 * pause))
		k, ok := r.state(t).Key(kid)
		if want := turn.Add(5 * time.Second); !ok || !k.SignsUntil.Equal(want) {
			t.Fatalf("signs until %s, want %s", k.SignsUntil, want)
		}
		if want := k.SignsUntil.Add(2*time.Minute + 2*time.Second); !k.DestroyAt.Equal(want) {
			t.Fatalf("destroyed at %s, want %s", k.DestroyAt, want)
		}
		if _, ok := r.view(t).SignerOf(kid, k.SignsUntil.Add(-1)); !ok {
			t.Fatal("the hand-over grace is not kept")
		}
		if _, ok := r.view(t).SignerOf(kid, k.SignsUntil); ok {
			t.Fatal("it signs beyond its grace")
		}
		sleepUntil(k.DestroyAt.Add(-1))
		if !slices.Contains(private(t, store), kid) {
			t.Fatal("destroyed too early")
		}
		sleepUntil(k.DestroyAt.Add(pause))
		if slices.Contains(private(t, store), kid) {
			t.Fatal("not destroyed when due")
		}
		if _, ok := r.view(t).SignerOf(kid, turn.Add(1)); ok {
			t.Fatal("the destroyed private half is still in memory")
		}
		wantAlarm(t, opens(t, store), "") // who starts now does not miss it
		sleepUntil(k.RemoveAt.Add(-1))
		if _, ok := r.state(t).Key(kid); !ok {
			t.Fatal("removed too early")
		}
		sleepUntil(k.RemoveAt.Add(pause))
		if _, ok := r.state(t).Key(kid); ok {
			t.Fatal("not removed when due")
		}
	})
}

// TestOrphansAreSwept: a replica dies between storing a private half and naming
// it.
func TestOrphansAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		handle := store.Share()
		handle.Fault = func(op keystoretest.Op) keystoretest.Fault {
			if op.Name == keystoretest.OpSwap || op.Name == keystoretest.OpDestroyKey {
				return keystoretest.Fault{Outcome: keystoretest.Refused}
			}
			return keystoretest.Fault{}
		}
		dying := config{store: handle}.run(t)
		if _, err := dying.Ensure(t.Context(), name, shortPolicy(), "test"); !errors.Is(err, rotator.ErrUnconfirmed) {
			t.Fatal(err)
		}
		dying.stop()
		orphans := private(t, store)
		if len(orphans) != 2 {
			t.Fatalf("orphans %v", orphans)
		}
		const age = time.Hour
		r := config{store: store, orphanAge: age}.founded(t, shortPolicy())
		if kids := private(t, store); len(kids) != 4 {
			t.Fatalf("young orphans are gone: %v", kids)
		}
		r.stop()
		time.Sleep(age - time.Minute)
		r = config{store: store, orphanAge: age}.run(t)
		settle()
		if kids := private(t, store); !contains(kids, orphans) {
			t.Fatal("an orphan younger than OrphanAge was destroyed")
		}
		time.Sleep(6*time.Hour + time.Minute)
		synctest.Wait()
		if kids := private(t, store); containsAny(kids, orphans) {
			t.Fatal("orphans are left")
		}
		wantPrivate(t, store, r.state(t), r.clock.Now())
	})
}

// TestC67 misses ten ticks.
func TestC67MissedTicksGiveOneRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		next := standby(t, r.state(t), r.clock.Now())
		r.stop()
		time.Sleep(105 * time.Minute)
		r = config{store: store}.run(t)
		settle()
		if kid := r.signs(t); kid != next.KID {
			t.Fatalf("on return %s signs, want the standby from before", kid)
		}
		s := r.state(t)
		if got := s.Sequence; got != 3 {
			t.Fatalf("%d keys were made in all, want 3", got)
		}
		k := standby(t, s, r.clock.Now())
		if at := k.ActivateAt.Sub(s.CreatedAt); at != 110*time.Minute {
			t.Fatalf("the next switch is at %s, want the next tick at 1h50m", at)
		}
		sleepUntil(k.ActivateAt.Add(4 * pause))
		if r.signs(t) != k.KID || r.state(t).Sequence != 4 {
			t.Fatal("the schedule does not go on")
		}
	})
}

// outage makes a store unreachable for a while.
type outage struct{ down atomic.Bool }

func (o *outage) set(down bool) { o.down.Store(down) }

func (o *outage) fault(keystoretest.Op) keystoretest.Fault {
	if o.down.Load() {
		return keystoretest.Fault{Outcome: keystoretest.Refused}
	}
	return keystoretest.Fault{}
}
