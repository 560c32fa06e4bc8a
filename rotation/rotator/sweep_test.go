package rotator_test

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// TestSweepReadsFirst: a replica that lags behind must not take a key that was
// named since for an orphan.
func TestSweepReadsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		p := shortPolicy()
		p.Rotate = "@every 720h"
		first := config{store: store}.founded(t, p)
		handle := store.Share()
		var blind outage
		handle.Fault = func(op keystoretest.Op) keystoretest.Fault {
			if op.Name == keystoretest.OpChanges || op.Name == keystoretest.OpLoad || op.Name == keystoretest.OpSwap {
				return blind.fault(op)
			}
			return keystoretest.Fault{}
		}
		second := config{store: handle}.run(t)
		settle()
		blind.set(true)
		change(t, first, "rotate", rotate(true))
		settle()
		first.stop() // what is left is what the blind one leaves
		wantPrivate(t, store, first.state(t), time.Now())
		time.Sleep(7 * time.Hour)
		synctest.Wait()
		wantPrivate(t, store, first.state(t), first.state(t).UpdatedAt)
		blind.set(false)
		time.Sleep(10 * time.Second)
		settle()
		wantPrivate(t, store, second.state(t), time.Now())
		second.signs(t)
	})
}

// TestRestoredKeysAreSwept: private halves that were destroyed return with a
// backup, one of a revoked key and one of a key that still is published.
func TestRestoredKeysAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		p := shortPolicy()
		p.Rotate = "@every 720h"
		p.TokenTTLMax = rotation.Duration(24 * time.Hour)
		r := config{store: store}.founded(t, p)
		kids := private(t, store)
		var secrets [][]byte
		for _, kid := range kids {
			secret, err := store.ReadKey(t.Context(), name, kid)
			if err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, secret)
		}
		retired := r.signs(t)
		change(t, r, "rotate", rotate(false))
		time.Sleep(4 * time.Minute)
		change(t, r, "revoke", revoke(r.signs(t)))
		settle()
		if containsAny(private(t, store), kids) {
			t.Fatal("the private halves are not destroyed")
		}
		for i, kid := range kids {
			if err := store.CreateKey(t.Context(), name, kid, secrets[i]); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(6*time.Hour + time.Minute)
		synctest.Wait()
		if containsAny(private(t, store), kids) {
			t.Fatal("private halves that came back are left")
		}
		if _, published := r.state(t).Key(retired); !published {
			t.Fatal("the retired key is not published any more")
		}
	})
}

// TestDestroyedOnce: what is gone is not destroyed again at each occasion.
func TestDestroyedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := keystoretest.NewMemory(), &counter{}
		handle := store.Share()
		handle.Fault = calls.fault
		p := shortPolicy()
		p.TokenTTLMax = rotation.Duration(time.Hour)
		r := config{store: handle}.founded(t, p)
		time.Sleep(100*time.Minute + 5*time.Second)
		synctest.Wait()
		gone := int(r.state(t).Sequence) - len(private(t, store))
		if n := calls.take()[keystoretest.OpDestroyKey]; n != gone || gone < 9 {
			t.Fatalf("%d calls to destroy %d keys", n, gone)
		}
	})
}

// TestStoppedRunBeginsNothing: what waits for a worker when Run is stopped makes
// no more keys.
func TestStoppedRunBeginsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		founder := config{store: store}.idle()
		for i := range 5 {
			if _, err := founder.Ensure(t.Context(), fmt.Sprint("tenant-", i), shortPolicy(), "test"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		c := &slowCustody{Custody: custody.Local{Keys: store}}
		c.delay.Store(int64(time.Second)) // whatever the context says
		r := config{store: store, custody: c, workers: 1}.run(t)
		time.Sleep(1500 * time.Millisecond)
		asked := time.Now()
		r.stop()
		if took := time.Since(asked); took > time.Second {
			t.Fatalf("Run took %s to stop", took)
		}
	})
}

// TestFailureAfterForeignWrite: a write that failed cannot land any more once
// somebody else has written, so the change is computed anew.
func TestFailureAfterForeignWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		other := config{store: store}.founded(t, shortPolicy())
		handle := store.Share()
		var once atomic.Bool
		handle.Fault = func(op keystoretest.Op) keystoretest.Fault {
			if op.Name == keystoretest.OpSwap && once.CompareAndSwap(false, true) {
				p := shortPolicy()
				p.TokenTTLMax++
				change(t, other, "policy", setPolicy(p))
				return keystoretest.Fault{Outcome: keystoretest.Refused}
			}
			return keystoretest.Fault{}
		}
		r := config{store: handle}.idle()
		if err := r.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		change(t, r, "rotate", rotate(true))
		settle()
		if s := other.state(t); count(s, "rotate") != 1 || count(s, "policy") != 1 {
			t.Fatalf("%+v", s.Operations)
		}
	})
}

// TestFailedDestructionIsNotReused: a spare key whose destruction failed may be
// destroyed all the same.
func TestFailedDestructionIsNotReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		fault := &nextSwap{}
		handle := store.Share()
		handle.Fault = func(op keystoretest.Op) keystoretest.Fault {
			if op.Name == keystoretest.OpDestroyKey {
				return keystoretest.Fault{Outcome: keystoretest.AppliedLate, Late: time.Minute}
			}
			return fault.hook(op)
		}
		r := config{store: handle, orphanAge: time.Hour}.founded(t, shortPolicy())
		fault.arm(keystoretest.Fault{Outcome: keystoretest.Refused})
		if _, _, err := r.Change(t.Context(), name, operation("revoke", ""), revokeAll); !errors.Is(err, rotator.ErrUnconfirmed) {
			t.Fatal(err)
		}
		other := config{store: store.Share()}.run(t)
		settle()
		p := shortPolicy()
		p.TokenTTLMax++
		change(t, other, "policy", setPolicy(p))
		settle() // the spare key is dropped
		change(t, r, "revoke", revokeAll)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		fresh := config{store: store.Share()}.run(t)
		settle()
		fresh.signs(t)
		wantAlarm(t, fresh, "")
	})
}

// TestOldSpareIsNotUsed: what other replicas take for an orphan is used no
// more.
func TestOldSpareIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, fault := keystoretest.NewMemory(), &nextSwap{}
		handle := store.Share()
		handle.Fault = fault.hook
		p := shortPolicy()
		p.Rotate = "@every 720h"
		r := config{store: handle, orphanAge: time.Hour}.founded(t, p)
		fault.arm(keystoretest.Fault{Outcome: keystoretest.Refused})
		if _, _, err := r.Change(t.Context(), name, operation("revoke", ""), revokeAll); !errors.Is(err, rotator.ErrUnconfirmed) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + time.Minute)
		config{store: store.Share(), orphanAge: time.Hour}.run(t) // sweeps
		settle()
		change(t, r, "revoke", revokeAll)
		settle()
		r.signs(t)
		wantPrivate(t, store, r.state(t), r.clock.Now())
		wantAlarm(t, r, "")
	})
}

func contains(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

func containsAny(all, some []string) bool {
	return slices.ContainsFunc(some, func(s string) bool { return slices.Contains(all, s) })
}
