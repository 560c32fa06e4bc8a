package rotator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

const documentAlarm = "document:" + name

// wantFrozen expects that changes are refused and signing goes on.
func wantFrozen(t *testing.T, r *replica) {
	t.Helper()
	if _, _, err := r.Change(t.Context(), name, operation("rotate", ""), rotate(true)); err == nil {
		t.Fatal("a change was accepted")
	}
	r.signs(t)
}

func TestC62MissingDocument(t *testing.T) {
	for _, when := range []string{"asked", "switch"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := keystoretest.NewMemory()
				r := config{store: store}.founded(t, shortPolicy())
				s, _ := stored(t, store)
				data, _ := s.Encode()
				before := r.state(t)
				store.Drop(name)
				if when == "asked" {
					if written, err := r.Ensure(t.Context(), name, shortPolicy(), "test"); written || err == nil || !strings.Contains(err.Error(), "backup") {
						t.Fatalf("founding again: %v, %v", written, err)
					}
				} else {
					sleepUntil(standby(t, before, r.clock.Now()).ActivateAt.Add(4 * pause))
				}
				wantAlarm(t, r, documentAlarm)
				wantFrozen(t, r)
				if got := r.state(t); got.Generation != before.Generation {
					t.Fatal("it does not serve what it had")
				}
				time.Sleep(time.Hour)
				if _, err := store.Load(t.Context(), name); !errors.Is(err, keystore.ErrNotFound) {
					t.Fatalf("something was written: %v", err)
				}
				if err := r.Fresh(r.view(t), r.clock.Now()); !errors.Is(err, rotator.ErrStale) {
					t.Fatalf("Fresh without a document: %v", err)
				}
				for kid := range before.Keys {
					if !slices.Contains(private(t, store), kid.KID) {
						t.Fatal("private keys were destroyed")
					}
				}
				if _, err := store.Swap(t.Context(), name, "", data); err != nil { // from a backup
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				settle()
				wantAlarm(t, r, "")
				r.signs(t)
				change(t, r, "rotate", rotate(true))
			})
		})
	}
}

func TestC62UnusableDocument(t *testing.T) {
	otherName := func(s rotation.State) []byte { s.Keyset = "other"; data, _ := s.Encode(); return data }
	documents := map[string]func(rotation.State) []byte{
		"empty":       func(rotation.State) []byte { return nil },
		"no JSON":     func(rotation.State) []byte { return []byte("\x00\x01") },
		"newer":       func(rotation.State) []byte { return []byte(`{"format":2}`) },
		"impossible":  func(rotation.State) []byte { return []byte(`{"format":1,"keyset":"default"}`) },
		"of another":  otherName,
		"half of one": func(s rotation.State) []byte { data, _ := s.Encode(); return data[:len(data)/2] },
	}
	for what, make := range documents {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := keystoretest.NewMemory()
				r := config{store: store}.founded(t, shortPolicy())
				s, version := stored(t, store)
				good, _ := s.Encode()
				version, err := store.Swap(t.Context(), name, version, make(s))
				if err != nil {
					t.Fatal(err)
				}
				settle()
				wantAlarm(t, r, documentAlarm)
				wantFrozen(t, r)
				if _, err := r.Ensure(t.Context(), name, shortPolicy(), "test"); err == nil {
					t.Fatal("Ensure over a document that cannot be used")
				}
				if kid := r.signs(t); !slices.Contains(private(t, store), kid) {
					t.Fatal("it does not serve what it had")
				}
				fresh := config{store: store.Share()}.run(t)
				settle()
				if _, err := fresh.View(name); !errors.Is(err, rotator.ErrDocument) {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Minute)
				if err := r.Fresh(r.view(t), r.clock.Now()); !errors.Is(err, rotator.ErrStale) {
					t.Fatal(err)
				}
				if _, err := store.Swap(t.Context(), name, version, good); err != nil {
					t.Fatal(err)
				}
				settle()
				wantAlarm(t, r, "")
				if r.signs(t) != fresh.signs(t) {
					t.Fatal("the replicas disagree")
				}
			})
		})
	}
}

// TestC63PlainGenerationGoesBack: the same without a revocation.
func TestC63PlainGenerationGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		restore := store.Backup()
		change(t, r, "rotate", rotate(true))
		settle()
		before, kid := r.state(t), r.signs(t)
		restore()
		settle()
		wantAlarm(t, r, documentAlarm)
		wantFrozen(t, r)
		if r.state(t).Generation != before.Generation || r.signs(t) != kid {
			t.Fatal("it does not serve the newer state")
		}
	})
}

// TestC63UnionIsPublished: a replica that started from the restored document may
// sign with keys that the others have long removed.
func TestC63UnionIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		first := r.signs(t)
		restore := store.Backup()
		change(t, r, "rotate", rotate(true))
		settle()
		revoked := r.signs(t) // in the backup, as standby
		change(t, r, "revoke", revoke(revoked))
		for r.holds(t, first) {
			time.Sleep(time.Second)
		}
		newest := store.Backup()
		restore()
		settle()
		wantAlarm(t, r, documentAlarm)
		var published []string
		for k := range r.view(t).Published {
			published = append(published, k.KID)
		}
		if !slices.Contains(published, first) || !slices.Contains(published, r.signs(t)) || slices.Contains(published, revoked) {
			t.Fatalf("published is %v; want %s of the store, %s of memory, and not the revoked %s", published, first, r.signs(t), revoked)
		}
		newest()
		settle()
		wantAlarm(t, r, "")
		if extra := r.view(t).Extra; len(extra) != 0 {
			t.Fatalf("still published: %v", extra)
		}
	})
}

// holds tells whether the document names the key.
func (r *replica) holds(t *testing.T, kid string) bool {
	t.Helper()
	_, ok := r.state(t).Key(kid)
	return ok
}

func TestC63GenerationGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		kid := r.signs(t)
		restore := store.Backup()
		change(t, r, "revoke", revoke(kid))
		settle()
		newest := store.Backup()
		before := r.state(t)
		restore()
		settle()
		wantAlarm(t, r, documentAlarm)
		wantFrozen(t, r)
		time.Sleep(time.Minute)
		if s := r.state(t); s.Generation != before.Generation || !s.Revoked(kid) || r.signs(t) == kid {
			t.Fatal("it does not serve the newer state")
		}
		s, _ := stored(t, store)
		if s.Generation != 1 {
			t.Fatal("something was written")
		}
		newest()
		settle()
		wantAlarm(t, r, "")
		change(t, r, "rotate", rotate(true))
	})
}

// TestC63Fork: after the restoration a replica without memory goes on writing,
// until its generation is no longer behind.
func TestC63Fork(t *testing.T) {
	for _, further := range []int{-1, 0, 1, 5} { // -1: at the same generation, no revocation
		synctest.Test(t, func(t *testing.T) {
			store, down := keystoretest.NewMemory(), &outage{}
			handle := store.Share()
			handle.Fault = down.fault
			r := config{store: handle}.founded(t, shortPolicy())
			kid := r.signs(t)
			restore := store.Backup()
			if further < 0 {
				change(t, r, "rotate", rotate(true))
				further = 0
			} else {
				change(t, r, "revoke", revoke(kid))
			}
			settle()
			before := r.state(t)
			down.set(true)
			restore()
			other := config{store: store.Share()}.idle()
			other.Sync(t.Context())
			p := shortPolicy()
			for other.state(t).Generation < before.Generation+uint64(further) {
				p.TokenTTLMax++
				change(t, other, "policy", setPolicy(p))
			}
			down.set(false)
			settle()
			wantAlarm(t, r, documentAlarm)
			if s := r.state(t); s.Generation != before.Generation || r.signs(t) == kid {
				t.Fatal("a key that was replaced is back")
			}
		})
	}
}

func TestClockJump(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			store, w := keystoretest.NewMemory(), newWall(0)
			r := config{store: store, clock: clock.New(w.read)}.founded(t, shortPolicy())
			kid, next := r.signs(t), standby(t, r.state(t), r.clock.Now())
			w.set(jump)
			settle()
			wantAlarm(t, r, "clock")
			if _, _, err := r.Change(t.Context(), name, operation("rotate", ""), rotate(true)); !errors.Is(err, rotator.ErrFrozen) {
				t.Fatalf("Change after a jump: %v", err)
			}
			if r.signs(t) != kid {
				t.Fatal("the jump moved the switch")
			}
			sleepUntil(next.ActivateAt.Add(3 * time.Minute))
			if r.signs(t) != next.KID || r.state(t).Generation != 1 || !slices.Contains(private(t, store), kid) {
				t.Fatal("frozen is: the written switch happens, nothing else does")
			}
			w.set(500 * time.Millisecond)
			settle()
			wantAlarm(t, r, "")
			standby(t, r.state(t), r.clock.Now())
			if drift := time.Until(r.clock.Now()); drift != 500*time.Millisecond {
				t.Fatalf("the clock does not follow a small correction: %s", drift)
			}
			change(t, r, "rotate", rotate(true))
		})
	}
}

// TestDocumentFromTheFuture: our clock is behind from the start, where nothing
// but the document can tell.
func TestDocumentFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		config{store: store}.founded(t, shortPolicy()).stop()
		late := config{store: store.Share(), clock: clock.New(newWall(-time.Hour).read)}.run(t)
		settle()
		for range 2 {
			if _, err := late.Ensure(t.Context(), name, shortPolicy(), "test"); !errors.Is(err, rotator.ErrFrozen) {
				t.Fatalf("Ensure: %v", err)
			}
		}
		if _, _, err := late.Change(t.Context(), name, operation("rotate", ""), rotate(true)); !errors.Is(err, rotator.ErrFrozen) {
			t.Fatalf("Change: %v", err)
		}
		if s, _ := stored(t, store); s.Generation != 1 {
			t.Fatal("something was written")
		}
		within := config{store: store.Share(), clock: clock.New(newWall(-2 * time.Second).read)}.run(t)
		settle()
		change(t, within, "rotate", rotate(true))
	})
}

func TestC64StoreUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, down := keystoretest.NewMemory(), &outage{}
		handle := store.Share()
		handle.Fault = down.fault
		r := config{store: handle}.founded(t, shortPolicy())
		other := config{store: store.Share()}.run(t)
		sleepUntil(standby(t, r.state(t), r.clock.Now()).ActivateAt.Add(-time.Minute))
		down.set(true)
		began := r.FreshAt(r.view(t))
		settle()
		wantAlarm(t, r, "store")
		generation := r.state(t).Generation
		if _, _, err := r.Change(t.Context(), name, operation("rotate", ""), rotate(true)); !errors.Is(err, keystoretest.ErrUnavailable) {
			t.Fatal(err)
		}
		sleepUntil(began.Add(2 * time.Minute)) // D
		if r.signs(t) != other.signs(t) {
			t.Fatal("the switch needs the store")
		}
		time.Sleep(time.Nanosecond)
		v := r.view(t)
		if err := r.Fresh(v, r.clock.Now()); !errors.Is(err, rotator.ErrStale) || !r.FreshAt(v).Equal(began) {
			t.Fatalf("after D: %v", err)
		}
		time.Sleep(20 * time.Minute)
		if r.state(t).Generation != generation {
			t.Fatal("a transition without a store")
		}
		down.set(false)
		settle()
		wantAlarm(t, r, "")
		if r.signs(t) != other.signs(t) {
			t.Fatal("the replicas disagree")
		}
	})
}

// TestOneKeysetFails: its staleness is its own.
func TestOneKeysetFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		handle := store.Share()
		var broken outage
		handle.Fault = func(op keystoretest.Op) keystoretest.Fault {
			if op.Keyset == name {
				return broken.fault(op)
			}
			return keystoretest.Fault{}
		}
		other := config{store: store}.founded(t, shortPolicy())
		r := config{store: handle}.run(t)
		if _, err := other.Ensure(t.Context(), "second", shortPolicy(), "test"); err != nil {
			t.Fatal(err)
		}
		settle()
		broken.set(true)
		change(t, other, "rotate", rotate(true))
		time.Sleep(2*time.Minute + 3*pause)
		synctest.Wait()
		second, err := r.View("second")
		if err != nil || r.Fresh(second, r.clock.Now()) != nil {
			t.Fatal("a keyset is stale for another's sake")
		}
		if err := r.Fresh(r.view(t), r.clock.Now()); !errors.Is(err, rotator.ErrStale) {
			t.Fatal(err)
		}
		broken.set(false)
		settle()
		if r.signs(t) != other.signs(t) {
			t.Fatal("the replicas disagree")
		}
	})
}

// TestHangingKeyset: one whose store calls do not return must not make the
// others stale.
func TestHangingKeyset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		handle := store.Share()
		var broken outage
		handle.Fault = func(op keystoretest.Op) keystoretest.Fault {
			if op.Keyset == name && broken.down.Load() {
				return keystoretest.Fault{Delay: time.Hour}
			}
			return keystoretest.Fault{}
		}
		other := config{store: store}.founded(t, shortPolicy())
		r := config{store: handle, workers: 4}.run(t)
		if _, err := other.Ensure(t.Context(), "second", shortPolicy(), "test"); err != nil {
			t.Fatal(err)
		}
		settle()
		broken.set(true)
		for range 10 {
			change(t, other, "rotate", rotate(true))
			time.Sleep(time.Minute)
			second, err := r.View("second")
			if err != nil || r.Fresh(second, r.clock.Now()) != nil {
				t.Fatal("a keyset is stale for another's sake")
			}
		}
	})
}

// A missing document is not a new keyset, also to a replica that never saw it:
// the private keys tell.
func TestC62NothingIsFoundedOverOldPrivateKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		open := func() *rotator.Rotator {
			return rotator.New(rotator.Options{
				Documents: store, Custody: custody.Local{Keys: store},
				Clock: clock.New(clock.Portable()), OrphanAge: time.Hour,
			})
		}
		p := rotation.DefaultPolicy()
		if _, err := open().Ensure(t.Context(), "default", p, "test"); err != nil {
			t.Fatal(err)
		}
		store.Drop("default")
		time.Sleep(2 * time.Hour)
		if _, err := open().Ensure(t.Context(), "default", p, "test"); err == nil || !strings.Contains(err.Error(), "restore the document") {
			t.Fatalf("founded over old private keys: %v", err)
		}
		if _, err := open().Ensure(t.Context(), "another", p, "test"); err != nil {
			t.Fatalf("a keyset that never was: %v", err)
		}
	})
}

// A leak does not wait for the clock to be set: a revocation goes through while
// all other changes are frozen.
func TestRevokeThroughAClockThatJumped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := time.Duration(0)
		began := time.Now()
		c := clock.New(func() (time.Time, time.Duration) { return time.Now().Add(ahead), time.Since(began) })
		store := keystoretest.NewMemory()
		r := rotator.New(rotator.Options{Documents: store, Custody: custody.Local{Keys: store}, Clock: c, Sync: time.Second})
		if _, err := r.Ensure(t.Context(), name, shortPolicy(), "test"); err != nil {
			t.Fatal(err)
		}
		if err := r.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		ahead = time.Hour
		if err := r.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Change(t.Context(), name, operation("rotate", ""), rotate(true)); !errors.Is(err, rotator.ErrFrozen) {
			t.Fatalf("a rotation while the clock is wrong: %v", err)
		}
		v, err := r.View(name)
		if err != nil {
			t.Fatal(err)
		}
		active, _ := v.State.Default(c.Now())
		if _, _, err := r.Change(t.Context(), name, operation(rotation.KindRevoke, ""), revoke(active.KID)); err != nil {
			t.Fatalf("a revocation while the clock is wrong: %v", err)
		}
		if v, _ := r.View(name); !v.State.Revoked(active.KID) {
			t.Fatal("it is not revoked")
		}
	})
}

// TestC65StoreClockDisagrees freezes all changes but signing while the store's
// clock and ours are further apart than the skew allows.
func TestC65StoreClockDisagrees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead, known := time.Duration(0), false
		store := keystoretest.NewMemory()
		r := rotator.New(rotator.Options{
			Documents: store, Custody: custody.Local{Keys: store}, Clock: clock.New(clock.Portable()),
			StoreSkew: func() (time.Duration, bool) { return ahead, known },
		})
		if _, err := r.Ensure(t.Context(), name, shortPolicy(), "test"); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			ahead  time.Duration
			known  bool
			frozen bool
		}{
			{0, true, false}, {time.Hour, false, false}, {time.Hour, true, true}, {-time.Hour, true, true},
			{shortPolicy().ClockSkew.Std(), true, false},
		} {
			ahead, known = c.ahead, c.known
			if err := r.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			change := setPolicy(shortPolicy())
			_, _, err := r.Change(t.Context(), name, operation("policy", ""), change)
			if frozen := errors.Is(err, rotator.ErrFrozen); frozen != c.frozen {
				t.Errorf("the store's clock is %s ahead (known: %v): %v", c.ahead, c.known, err)
			}
			v, err := r.View(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Signer("", time.Now()); err != nil {
				t.Errorf("signing stopped: %v", err)
			}
		}
	})
}
