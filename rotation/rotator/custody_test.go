package rotator_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
	"github.com/jwksd/jwksd/signer"
)

// swapPrivate puts another private half in the place of a key's.
func swapPrivate(t *testing.T, store *keystoretest.Memory, kid string, secret []byte) {
	t.Helper()
	ctx, handle := context.Background(), store.Share()
	if err := handle.DestroyKey(ctx, name, kid); err != nil {
		t.Fatal(err)
	}
	if secret == nil {
		return
	}
	if err := handle.CreateKey(ctx, name, kid, secret); err != nil {
		t.Fatal(err)
	}
}

// broken are the ways in which a private half can be lost.
func broken(t *testing.T) map[string][]byte {
	other, err := signer.Generate("EdDSA", 0)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := signer.MarshalPrivate(other)
	if err != nil {
		t.Fatal(err)
	}
	wrongKind, _ := signer.Generate("ES256", 0)
	foreign, _ := signer.MarshalPrivate(wrongKind)
	return map[string][]byte{"another key": secret, "no key": []byte("garbage"), "gone": nil, "another algorithm": foreign}
}

// opens returns a replica that meets the keys in the store for the first time,
// before it has done anything about them.
func opens(t *testing.T, store *keystoretest.Memory) *replica {
	r := config{store: store.Share()}.idle()
	if err := r.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestC33BrokenStandbyIsReplaced(t *testing.T) {
	for what, secret := range broken(t) {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := keystoretest.NewMemory()
				r := config{store: store}.founded(t, shortPolicy())
				r.stop()
				bad := standby(t, r.state(t), r.clock.Now()).KID
				swapPrivate(t, store, bad, secret)
				idle := opens(t, store)
				wantAlarm(t, idle, "key:"+bad)
				if idle.view(t).Unusable[bad] == nil || idle.signs(t) == bad {
					t.Fatal("the broken key is taken for usable")
				}
				if key, err := idle.view(t).Signer("", r.clock.Now().Add(11*time.Minute)); !errors.Is(err, rotator.ErrUnusable) {
					t.Fatalf("the broken key in its turn: %v, %v", key, err)
				}
				r = config{store: store.Share()}.run(t)
				settle()
				s := r.state(t)
				if count(s, "discard") != 1 || standby(t, s, r.clock.Now()).KID == bad {
					t.Fatalf("not replaced: %+v", s.Operations)
				}
				time.Sleep(30 * time.Minute)
				settle()
				if kid := r.signs(t); kid == bad || count(r.state(t), "discard") != 1 {
					t.Fatal("the broken key had its turn")
				}
				wantAlarm(t, r, "")
				wantPrivate(t, store, r.state(t), r.clock.Now())
			})
		})
	}
}

func TestC33BrokenActiveKeyMustBeRevoked(t *testing.T) {
	for what, secret := range broken(t) {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := keystoretest.NewMemory()
				r := config{store: store}.founded(t, shortPolicy())
				r.stop()
				bad := r.signs(t)
				swapPrivate(t, store, bad, secret)
				r = config{store: store.Share()}.run(t)
				time.Sleep(time.Minute)
				wantAlarm(t, r, "key:"+bad)
				if _, err := r.view(t).Signer("", r.clock.Now()); !errors.Is(err, rotator.ErrUnusable) {
					t.Fatalf("Signer: %v", err)
				}
				if _, ok := r.view(t).SignerOf(bad, r.clock.Now()); ok {
					t.Fatal("SignerOf gives the broken key")
				}
				change(t, r, "revoke", revoke(bad))
				r.signs(t)
				settle()
				wantAlarm(t, r, "")
			})
		})
	}
}

// TestC33Repaired: the right private half comes back.
func TestC33RepairedKeySignsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		r.stop()
		kid := r.signs(t)
		good, err := store.ReadKey(t.Context(), name, kid)
		if err != nil {
			t.Fatal(err)
		}
		swapPrivate(t, store, kid, broken(t)["another key"])
		r = config{store: store.Share()}.run(t)
		settle()
		wantAlarm(t, r, "key:"+kid)
		swapPrivate(t, store, kid, good)
		settle()
		wantAlarm(t, r, "")
		if r.signs(t) != kid {
			t.Fatal("it does not sign")
		}
	})
}

// TestUnreadableStandbyIsKept: a store that cannot be reached for a while is no
// reason to throw keys away.
func TestUnreadableStandbyIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		config{store: store}.founded(t, shortPolicy()).stop()
		var down outage
		handle := store.Share()
		handle.Fault = func(op keystoretest.Op) keystoretest.Fault {
			if op.Name == keystoretest.OpReadKey {
				return down.fault(op)
			}
			return keystoretest.Fault{}
		}
		down.set(true)
		r := config{store: handle}.run(t)
		time.Sleep(time.Minute)
		wantAlarm(t, r, "key:")
		if len(r.view(t).Unusable) != 2 {
			t.Fatal(r.view(t).Unusable)
		}
		down.set(false)
		settle()
		wantAlarm(t, r, "")
		r.signs(t)
		if s := r.state(t); s.Generation != 1 {
			t.Fatalf("generation %d: %+v", s.Generation, s.Operations)
		}
	})
}

// wrongCustody answers with other keys than it was asked for.
type wrongCustody struct {
	custody.Local
	wrong func(kid string) bool
}

func (c *wrongCustody) Open(ctx context.Context, keyset string, k rotation.Key) (signer.Signing, error) {
	key, err := c.Local.Open(ctx, keyset, k)
	if c.wrong(k.KID) {
		return nil, signer.ErrMismatch
	}
	return key, err
}

// TestRevocationIsHonouredBeforeKeysAreOpened: on the other replicas, too, and
// though the new key takes long to open.
func TestRevocationIsHonouredBeforeKeysAreOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		handle := store.Share()
		handle.Fault = func(op keystoretest.Op) keystoretest.Fault {
			if op.Name == keystoretest.OpReadKey {
				return keystoretest.Fault{Delay: 8 * time.Second}
			}
			return keystoretest.Fault{}
		}
		other := config{store: handle}.run(t)
		time.Sleep(30 * time.Second)
		kid := other.signs(t)
		change(t, r, "revoke", revokeAll)
		time.Sleep(2 * pause)
		if _, err := other.view(t).Signer("", other.clock.Now()); !errors.Is(err, rotator.ErrUnusable) {
			t.Fatalf("while the new key is opened: %v", err)
		}
		if _, ok := other.view(t).SignerOf(kid, other.clock.Now()); ok || !other.state(t).Revoked(kid) {
			t.Fatal("the revoked key signs")
		}
		time.Sleep(40 * time.Second)
		if other.signs(t) != r.signs(t) {
			t.Fatal("the replicas disagree")
		}
	})
}

func TestMismatchFromCustody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		bad := standby(t, r.state(t), r.clock.Now()).KID
		c := &wrongCustody{Local: custody.Local{Keys: store}, wrong: func(kid string) bool { return kid == bad }}
		config{store: store.Share(), custody: c}.run(t)
		settle()
		if s := r.state(t); count(s, "discard") != 1 || standby(t, s, r.clock.Now()).KID == bad {
			t.Fatal("a standby that one replica cannot use is not replaced")
		}
	})
}

// TestHopelessReplica: one that can use no key at all must not fill the set.
func TestHopelessReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		r := config{store: store}.founded(t, shortPolicy())
		c := &wrongCustody{Local: custody.Local{Keys: store}, wrong: func(string) bool { return true }}
		config{store: store.Share(), custody: c}.run(t)
		for range 50 {
			time.Sleep(30 * time.Second)
			synctest.Wait()
			r.signs(t)
			s := r.state(t)
			if n, bound := len(s.Lanes[0].Keys), s.Bound(s.Lanes[0]); n > bound+2 {
				t.Fatalf("%d keys, %d are the bound", n, bound)
			}
		}
	})
}
