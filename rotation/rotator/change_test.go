package rotator_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

func TestC68SameKeySameAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		other := config{store: store.Share()}.run(t)
		settle()
		first, _, err := r.Change(t.Context(), name, operation("rotate", "k"), rotate(false))
		if err != nil {
			t.Fatal(err)
		}
		for _, again := range []*replica{r, other, r} {
			op, replayed, err := again.Change(t.Context(), name, operation("rotate", "k"), rotate(false))
			if err != nil || !replayed || op.ID != first.ID || op.Generation != first.Generation || string(op.Result) != string(first.Result) {
				t.Fatalf("again: %+v, %v, %v", op, replayed, err)
			}
			settle()
		}
		foreign := operation("rotate", "k")
		foreign.Request = "another"
		kind := operation("revoke", "k")
		kind.Request = "rotate"
		for _, op := range []rotation.Operation{foreign, kind} {
			if _, _, err := other.Change(t.Context(), name, op, rotate(true)); !errors.Is(err, rotator.ErrKeyReused) {
				t.Fatalf("another request under the same key: %v", err)
			}
		}
		if n := count(r.state(t), "rotate"); n != 1 {
			t.Fatalf("%d rotations", n)
		}
		stranger := operation("rotate", "k") // the same key of another caller is another key
		stranger.By = "somebody else"
		if _, replayed, err := r.Change(t.Context(), name, stranger, rotate(true)); replayed || err != nil {
			t.Fatal(replayed, err)
		}
	})
}

func TestChangeRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := config{store: keystoretest.NewMemory()}.founded(t, shortPolicy())
		if _, _, err := r.Change(t.Context(), "other", operation("rotate", ""), rotate(false)); !errors.Is(err, rotator.ErrNoKeyset) {
			t.Fatal(err)
		}
		generation := r.state(t).Generation
		if _, _, err := r.Change(t.Context(), name, operation("revoke", ""), revoke("nobody")); !errors.Is(err, rotation.ErrUnknownKey) {
			t.Fatal(err)
		}
		change(t, r, "rotate", rotate(false))
		settle()
		var early *rotation.NotReadyError
		if _, _, err := r.Change(t.Context(), name, operation("rotate", ""), rotate(false)); !errors.As(err, &early) {
			t.Fatal(err)
		}
		if count(r.state(t), "rotate") != 1 || r.state(t).Generation == generation {
			t.Fatal("a refused change left a trace")
		}
	})
}

// TestCallerHangsUp: whoever asked for an emergency gets it.
func TestCallerHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		handle := store.Share()
		handle.Fault = func(op keystoretest.Op) keystoretest.Fault { return keystoretest.Fault{Delay: 500 * time.Millisecond} }
		r := config{store: handle}.founded(t, shortPolicy())
		settle()
		kid := r.signs(t)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(700*time.Millisecond, cancel)
		_, _, err := r.Change(ctx, name, operation("revoke", ""), revoke(kid))
		if ctx.Err() == nil || err != nil {
			t.Fatal(ctx.Err(), err)
		}
		settle()
		if !r.state(t).Revoked(kid) || slices.Contains(private(t, store), kid) {
			t.Fatal("not revoked")
		}
	})
}

// TestChangeIsComputedAnew: somebody else writes between reading and writing.
func TestChangeIsComputedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		other := config{store: store.Share()}.run(t)
		settle()
		p, calls := shortPolicy(), 0
		p.TokenTTLMax *= 2
		_, _, err := r.Change(t.Context(), name, operation("rotate", ""), func(s rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
			if calls++; calls == 1 {
				change(t, other, "policy", setPolicy(p))
			}
			return rotate(true)(s, now, fresh, op)
		})
		if err != nil || calls != 2 {
			t.Fatal(calls, err)
		}
		settle()
		s := r.state(t)
		if count(s, "policy") != 1 || count(s, "rotate") != 1 || s.Policy.TokenTTLMax != p.TokenTTLMax {
			t.Fatalf("%+v", s.Operations)
		}
	})
}

func TestChangeGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		other := config{store: store.Share()}.run(t)
		settle()
		ttl, calls := rotation.Duration(3*time.Minute), 0
		_, _, err := r.Change(t.Context(), name, operation("rotate", ""), func(s rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
			p := shortPolicy()
			calls++
			p.TokenTTLMax = ttl + rotation.Duration(calls)
			change(t, other, "policy", setPolicy(p))
			return rotate(true)(s, now, fresh, op)
		})
		if !errors.Is(err, keystore.ErrConflict) || calls != 10 {
			t.Fatal(calls, err)
		}
	})
}

// slowCustody takes its time to make keys once it is told to, and can be told
// to fail.
type slowCustody struct {
	rotator.Custody
	delay   atomic.Int64
	making  atomic.Int64
	destroy atomic.Pointer[error]
	create  atomic.Pointer[error]
}

func (c *slowCustody) Create(ctx context.Context, keyset, alg string, p rotation.Policy) (rotation.NewKey, error) {
	c.making.Add(1)
	defer c.making.Add(-1)
	time.Sleep(time.Duration(c.delay.Load()))
	if err := c.create.Load(); err != nil {
		return rotation.NewKey{}, *err
	}
	return c.Custody.Create(ctx, keyset, alg, p)
}

func (c *slowCustody) Destroy(ctx context.Context, keyset, kid, handle string) error {
	if err := c.destroy.Load(); err != nil {
		return *err
	}
	return c.Custody.Destroy(ctx, keyset, kid, handle)
}

func slow(t *testing.T) (*replica, *slowCustody, *keystoretest.Memory) {
	store := keystoretest.NewMemory()
	c := &slowCustody{Custody: custody.Local{Keys: store}}
	return config{store: store, custody: c, workers: 4}.founded(t, shortPolicy()), c, store
}

// TestRevokeDoesNotWaitForKeys: the next standby takes 10 s to make.
func TestRevokeDoesNotWaitForKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c, store := slow(t)
		next := standby(t, r.state(t), r.clock.Now())
		old := r.signs(t)
		c.delay.Store(int64(10 * time.Second))
		sleepUntil(next.ActivateAt.Add(2 * pause))
		if c.making.Load() != 1 {
			t.Fatal("no key is being made")
		}
		asked := time.Now()
		change(t, r, "revoke", revoke(old)) // it is retiring: nothing takes over
		if took := time.Since(asked); took > 100*time.Millisecond || c.making.Load() != 1 {
			t.Fatalf("the revocation took %s", took)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		k := standby(t, r.state(t), r.clock.Now())
		change(t, r, "revoke", revoke(r.signs(t)))
		time.Sleep(2 * pause)
		asked = time.Now()
		other := config{store: store.Share()}.run(t)
		time.Sleep(time.Millisecond)
		change(t, r, "policy", func(s rotation.State, now time.Time, f []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
			p := s.Policy
			p.TokenTTLMax++
			return s.SetPolicy(p, now, op)
		})
		if took := time.Since(asked); took > 100*time.Millisecond || c.making.Load() != 1 || r.signs(t) != k.KID {
			t.Fatalf("the change took %s", took)
		}
		other.stop()
		time.Sleep(15 * time.Second)
		settle()
		wantPrivate(t, store, r.state(t), r.clock.Now())
		wantAlarm(t, r, "")
	})
}

// TestRevokeWithoutStandby makes a key that signs at once.
func TestRevokeWithoutStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c, store := slow(t)
		c.delay.Store(int64(time.Minute)) // of those in the background
		first, second := r.signs(t), standby(t, r.state(t), r.clock.Now()).KID
		change(t, r, "revoke", revoke(first))
		if r.signs(t) != second {
			t.Fatal("the standby did not take over")
		}
		synctest.Wait() // the next standby is in the making, slowly
		c.delay.Store(0)
		change(t, r, "revoke", revoke(second))
		third := r.signs(t)
		if third == first || third == second || r.state(t).Sequence != 3 {
			t.Fatalf("after two revocations %s signs", third)
		}
		if kids := private(t, store); slices.Contains(kids, first) || slices.Contains(kids, second) {
			t.Fatal("revoked private halves are left")
		}
		time.Sleep(2 * time.Minute)
		settle()
		wantPrivate(t, store, r.state(t), r.clock.Now())
		if k := standby(t, r.state(t), r.clock.Now()); k.Sequence < 4 {
			t.Fatalf("standby %+v", k)
		}
	})
}

// TestRevokedIsDestroyed at once, or as soon as that works.
func TestRevokedIsDestroyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c, store := slow(t)
		kid := r.signs(t)
		key, err := r.view(t).Signer("", r.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("cannot destroy")
		c.destroy.Store(&broken)
		change(t, r, "revoke", revoke(kid))
		if r.signs(t) == kid {
			t.Fatal("it still signs")
		}
		if _, ok := r.view(t).SignerOf(kid, r.clock.Now()); ok {
			t.Fatal("it signs for those who ask for it")
		}
		settle()
		if !slices.Contains(private(t, store), key.KID()) {
			t.Fatal("destroyed in spite of the fault")
		}
		wantAlarm(t, r, "work:")
		c.destroy.Store(nil)
		settle()
		if slices.Contains(private(t, store), kid) {
			t.Fatal("not destroyed when that works again")
		}
		wantAlarm(t, r, "")
	})
}

// TestRevokerDies between its write and the destruction: the others do it.
func TestRevokerDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c, store := slow(t)
		other := config{store: store.Share()}.run(t)
		settle()
		kid := r.signs(t)
		broken := errors.New("dead")
		c.destroy.Store(&broken)
		change(t, r, "revoke", revoke(kid))
		r.stop()
		settle()
		if !other.state(t).Revoked(kid) || slices.Contains(private(t, store), kid) {
			t.Fatal("the revoked private half is left")
		}
	})
}

// TestNoKeyCanBeMade: what needs no key goes on.
func TestNoKeyCanBeMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c, store := slow(t)
		kid, next := r.signs(t), standby(t, r.state(t), r.clock.Now())
		broken := errors.New("no entropy")
		c.create.Store(&broken)
		sleepUntil(next.ActivateAt.Add(9 * time.Minute))
		wantAlarm(t, r, "work:")
		if _, there := r.state(t).Key(kid); there || slices.Contains(private(t, store), kid) {
			t.Fatal("a key whose time is over is not removed")
		}
		sleepUntil(next.ActivateAt.Add(30 * time.Minute))
		if r.signs(t) != next.KID {
			t.Fatal("a key without successor must go on signing")
		}
		c.create.Store(nil)
		settle()
		wantAlarm(t, r, "")
		standby(t, r.state(t), r.clock.Now())
	})
}

// TestWorkFollowsAtOnce: the next standby does not wait for the next Sync.
func TestWorkFollowsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := config{store: keystoretest.NewMemory(), sync: time.Hour}.founded(t, shortPolicy())
		change(t, r, "rotate", rotate(true))
		synctest.Wait()
		standby(t, r.state(t), r.clock.Now())
	})
}

func TestConcurrentChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		a := config{store: store}.founded(t, shortPolicy())
		b := config{store: store.Share()}.run(t)
		settle()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				r := []*replica{a, b}[i%2]
				if _, _, err := r.Change(t.Context(), name, operation("rotate", "the same"), rotate(true)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		settle()
		if n := count(a.state(t), "rotate"); n != 1 || a.signs(t) != b.signs(t) {
			t.Fatalf("%d rotations", n)
		}
	})
}
