package custody

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// leap is a clock that can be put forward. Vault's clock stays behind then, as
// if all its keys were old.
type leap struct{ ahead atomic.Int64 }

func (c *leap) Now() time.Time {
	return time.Now().Add(time.Duration(c.ahead.Load())).UTC()
}
func (c *leap) Check(time.Duration) time.Duration { return 0 }
func (c *leap) to(at time.Time)                   { c.ahead.Add(int64(at.Sub(c.Now()))) }

// turning is a keyset that a rotator keeps turning, with its keys in Vault.
type turning struct {
	*rotator.Rotator
	*rig
	clock *leap
	stop  func()
}

// turn runs a replica on the documents.
func (r *rig) turn(t *testing.T, docs *keystoretest.Memory, clock *leap) *turning {
	t.Helper()
	rot := rotator.New(rotator.Options{
		Documents: docs.Share(), Custody: r.another(t, "memory"), Clock: clock,
		Sync: 20 * time.Millisecond, OrphanAge: time.Minute,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); rot.Run(ctx) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return &turning{Rotator: rot, rig: r, clock: clock, stop: stop}
}

// eventually waits for what the loop does in its own time.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for start := time.Now(); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatal("in vain: " + what)
		}
	}
}

func (u *turning) state() rotation.State {
	v, err := u.View(keyset)
	if err != nil {
		return rotation.State{}
	}
	return v.State
}

// signed is something signed by a key, for later.
type signed struct{ kid, alg, input, sig string }

func (u *turning) sign(t *testing.T, alg string) signed {
	t.Helper()
	v, err := u.View(keyset)
	if err != nil {
		t.Fatal(err)
	}
	key, err := v.Signer(alg, u.clock.Now())
	if err != nil {
		t.Fatal(err, v.Unusable)
	}
	input := fmt.Sprintf("%s.%s", key.Header("JWT"), rotation.Duration(time.Now().UnixNano()))
	sig, err := key.Sign(t.Context(), []byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return signed{key.KID(), key.Algorithm(), input, string(sig)}
}

// verify checks it with what is published now.
func (u *turning) verify(t *testing.T, s signed) {
	t.Helper()
	k, ok := u.state().Key(s.kid)
	if !ok {
		t.Fatalf("key %s is not published", s.kid)
	}
	jwk, err := jwks.Parse(k.Public)
	if err != nil {
		t.Fatal(err)
	}
	alg, err := jwa.Lookup(s.alg)
	if err != nil {
		t.Fatal(err)
	}
	if err := alg.Verify(jwk.Public(), []byte(s.input), []byte(s.sig)); err != nil {
		t.Errorf("key %s: %v", s.kid, err)
	}
}

// inVault lists the kids of the private keys that exist, by a custody that has
// seen none of them.
func (u *turning) inVault(t *testing.T) []string {
	t.Helper()
	list, err := u.another(t, "memory").List(t.Context(), keyset)
	if err != nil {
		t.Fatal(err)
	}
	var kids []string
	for _, info := range list {
		kids = append(kids, info.KID)
	}
	return kids
}

// needed lists the kids whose private keys the document still needs.
func (u *turning) needed() []string {
	var kids []string
	for k := range u.state().Keys {
		if k.DestroyAt.IsZero() || k.DestroyAt.After(u.clock.Now()) {
			kids = append(kids, k.KID)
		}
	}
	slices.Sort(kids)
	return kids
}

// settled waits until Vault holds just the private keys that are needed.
func (u *turning) settled(t *testing.T) {
	t.Helper()
	eventually(t, "just the keys in Vault that are needed", func() bool { return slices.Equal(u.inVault(t), u.needed()) })
}

func transitPolicy() rotation.Policy {
	p := rotation.DefaultPolicy()
	p.Algorithms = []string{"ES256", "PS256"}
	p.Custody = rotation.CustodyTransit
	p.Rotate = "@every 2h"
	p.TokenTTLMax = rotation.Duration(3 * time.Hour)
	p.MaxStaleness = rotation.Duration(30 * time.Minute)
	return p
}

func TestTransitTurns(t *testing.T) {
	r, docs, clock := newRig(t, vaulttest.Start(t)), keystoretest.NewMemory(), &leap{}
	u := r.turn(t, docs, clock)
	if _, err := u.Ensure(t.Context(), keyset, transitPolicy(), "test"); err != nil {
		t.Fatal(err)
	}
	for k := range u.state().Keys {
		if _, ours := tagOf(keyset, k.Handle); !ours {
			t.Errorf("key %s is called %q in Vault", k.KID, k.Handle)
		}
	}
	u.settled(t)
	old := []signed{u.sign(t, "ES256"), u.sign(t, "PS256")}
	for range 2 { // the switch, the end of the grace, the day of destruction
		lane, _ := u.state().Lane("ES256")
		standby, ok := lane.Standby(clock.Now())
		if !ok {
			t.Fatal("there is no standby")
		}
		clock.to(standby.ActivateAt.Add(time.Second))
		eventually(t, "a new standby", func() bool {
			lane, _ := u.state().Lane("ES256")
			next, ok := lane.Standby(clock.Now())
			return ok && next.KID != standby.KID
		})
		if s := u.sign(t, "ES256"); s.kid != standby.KID {
			t.Errorf("key %s signs, not %s", s.kid, standby.KID)
		}
		clock.to(clock.Now().Add(time.Hour))
		eventually(t, "the destruction of the key before", func() bool { return !slices.Contains(u.inVault(t), old[0].kid) })
		u.settled(t)
	}
	for _, s := range old {
		u.verify(t, s) // published long after its private half is gone
	}
	if alarms := u.Alarms(); len(alarms) > 0 {
		t.Errorf("alarms %+v", alarms)
	}
}

// A replica that starts again finds its keys by the document alone, and what
// another left behind by the names alone.
func TestTransitStartsAgain(t *testing.T) {
	r, docs, clock := newRig(t, vaulttest.Start(t)), keystoretest.NewMemory(), &leap{}
	p := transitPolicy()
	p.Algorithms = []string{"EdDSA"}
	first := r.turn(t, docs, clock)
	if _, err := first.Ensure(t.Context(), keyset, p, "test"); err != nil {
		t.Fatal(err)
	}
	token := first.sign(t, "")
	first.stop()
	orphan, err := r.another(t, "memory").Create(t.Context(), keyset, "EdDSA", rotation.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	clock.to(clock.Now().Add(2 * time.Minute)) // it is old enough now

	second := r.turn(t, docs, clock)
	eventually(t, "the keyset", func() bool { return second.state().Generation > 0 })
	second.verify(t, token)
	if s := second.sign(t, ""); s.kid != token.kid {
		t.Errorf("another key signs after the restart: %s", s.kid)
	}
	eventually(t, "the end of the orphan", func() bool { return !slices.Contains(second.inVault(t), orphan.KID) })
	second.settled(t)

	// What is revoked by one replica is destroyed at once.
	op := rotation.Operation{Kind: "revoke", By: "test", Reason: "leaked"}
	_, _, err = second.Change(t.Context(), keyset, op, func(s rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		next, _, err := s.Revoke(token.kid, now, fresh, op)
		return next, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(second.inVault(t), token.kid) {
		t.Error("a revoked key is still in Vault")
	}
	second.settled(t)
	if s := second.sign(t, ""); s.kid == token.kid {
		t.Error("the revoked key signs")
	}
}

// A standby that other hands have made exportable is replaced before its turn.
func TestTransitReplacesARefusedStandby(t *testing.T) {
	r, docs, clock := newRig(t, vaulttest.Start(t)), keystoretest.NewMemory(), &leap{}
	p := transitPolicy()
	p.Algorithms = []string{"EdDSA"}
	first := r.turn(t, docs, clock)
	if _, err := first.Ensure(t.Context(), keyset, p, "test"); err != nil {
		t.Fatal(err)
	}
	first.stop()
	lane, _ := first.state().Lane("EdDSA")
	spoilt, ok := lane.Standby(clock.Now())
	if !ok {
		t.Fatal("there is no standby")
	}
	r.ask(t, "POST", "keys/"+spoilt.Handle+"/config", map[string]any{"exportable": true})
	second := r.turn(t, docs, clock)
	eventually(t, "another standby", func() bool {
		lane, _ := second.state().Lane("EdDSA")
		next, ok := lane.Standby(clock.Now())
		return ok && next.KID != spoilt.KID
	})
	clock.to(clock.Now().Add(time.Hour)) // when no replica can believe in it any more
	second.settled(t)
	eventually(t, "no alarm", func() bool { return len(second.Alarms()) == 0 })
}

var _ rotator.Custody = (*Transit)(nil)
