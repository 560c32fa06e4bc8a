package migrate_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore/vault"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// forward is a source of time that can be put forward.
type forward struct {
	ahead   atomic.Int64
	started time.Time
}

func (f *forward) read() (time.Time, time.Duration) {
	d := time.Duration(f.ahead.Load())
	return time.Now().Add(d), time.Since(f.started) + d
}

// token is something signed that must verify until it expires.
type token struct {
	kid, alg string
	input    []byte
	sig      []byte
	expires  time.Time
}

// mover watches a keyset that changes its custody.
type mover struct {
	*rotator.Rotator
	t      *testing.T
	time   *forward
	clock  *clock.Clock
	store  *vault.Store
	policy rotation.Policy
	issued []token
	seen   map[string]rotation.Key // every key that was ever published
}

func newMover(t *testing.T) *mover {
	v := vaulttest.Start(t)
	mount := v.KV(t)
	store := space(t, v, mount, "jwksd")
	client := must(vault.NewClient(vault.Config{Addresses: v.Addresses(), Timeout: 20 * time.Second, Auth: vault.Auth{TokenFile: vaulttest.File(t, v.RootToken())}}))(t)
	t.Cleanup(func() { client.Close() })
	m := &mover{t: t, store: store, time: &forward{started: time.Now()}, seen: map[string]rotation.Key{}}
	m.clock = clock.New(m.time.read)
	m.Rotator = rotator.New(rotator.Options{
		Documents: store, Clock: m.clock, Sync: 10 * time.Millisecond, OrphanAge: time.Hour,
		Custody: custody.Places{
			rotation.CustodyLocal:   custody.Local{Keys: store},
			rotation.CustodyTransit: custody.NewTransit(vault.NewTransit(client, v.Transit(t)), mount+"/jwksd"),
		},
	})
	p := rotation.DefaultPolicy()
	p.Rotate, p.TokenTTLMax, p.MaxStaleness = "@every 10m", rotation.Duration(time.Minute), rotation.Duration(time.Minute)
	p.JWKSMaxAge, p.VerifierCache, p.VerifierLeeway, p.HandoverGrace = rotation.Duration(30*time.Second), rotation.Duration(30*time.Second), 0, 0
	m.policy = p
	must(m.Ensure(t.Context(), "default", p, "test"))(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

func (m *mover) state() rotation.State {
	m.t.Helper()
	return must(m.View("default"))(m.t).State
}

// pass lets time go by: it signs, and verifies everything that was signed and
// has not expired with the set of that moment.
func (m *mover) pass(d time.Duration) {
	m.t.Helper()
	const step = 20 * time.Second
	for ; d > 0; d -= step {
		m.time.ahead.Add(int64(step))
		for range 3 { // the loop looks at the time some more
			time.Sleep(10 * time.Millisecond)
			m.look()
		}
	}
}

func (m *mover) look() {
	m.t.Helper()
	v, now := must(m.View("default"))(m.t), m.clock.Now()
	for k := range v.State.Keys {
		m.seen[k.KID] = k
	}
	key := must(v.Signer("", now))(m.t)
	input := []byte(key.Header("JWT") + "." + now.Format(time.RFC3339Nano))
	sig := must(key.Sign(m.t.Context(), input))(m.t)
	k, _ := v.State.Key(key.KID())
	if now.Before(k.ReadyAt) {
		m.t.Errorf("key %s signs at %s, before its lead is over at %s", k.KID, now, k.ReadyAt)
	}
	m.issued = append(m.issued, token{key.KID(), key.Algorithm(), input, sig, now.Add(m.policy.TokenTTLMax.Std())})
	m.issued = slices.DeleteFunc(m.issued, func(one token) bool { return one.expires.Before(now) })
	for _, one := range m.issued {
		k, ok := v.State.Key(one.kid)
		if !ok {
			m.t.Fatalf("key %s left while its tokens live", one.kid)
		}
		jwk := must(jwks.Parse(k.Public))(m.t)
		alg := must(jwa.Lookup(one.alg))(m.t)
		if err := alg.Verify(jwk.Public(), one.input, one.sig); err != nil {
			m.t.Fatal(err)
		}
	}
}

// A change of custody is an ordinary rotation: the next new key is made in
// transit, earns its lead, and the local ones go when they are due.
func TestLocalToTransit(t *testing.T) {
	t.Parallel()
	m := newMover(t)
	m.pass(6 * time.Minute)
	before := m.state()
	m.policy.Custody = rotation.CustodyTransit
	must(m.Ensure(t.Context(), "default", m.policy, "test"))(t)
	for k := range before.Keys {
		if now, ok := m.state().Key(k.KID); !ok || string(now.Public) != string(k.Public) {
			t.Errorf("key %s left the set with the change of custody", k.KID)
		}
	}
	m.pass(24 * time.Minute) // two rotations
	now := m.clock.Now()
	s := m.state()
	active, _ := s.Default(now)
	if active.Handle == "" {
		t.Errorf("key %s signs after two rotations, and is local", active.KID)
	}
	waiting, _ := s.Lanes[0].Standby(now)
	if waiting.Handle == "" {
		t.Errorf("the standby %s is local", waiting.KID)
	}
	m.pass(6 * time.Minute)
	if left := kids(t, m.store, "default"); len(left) > 0 {
		t.Errorf("local private keys that nothing needs: %v", left)
	}
	local, transit := 0, 0
	for _, k := range m.seen {
		if k.Handle == "" {
			local++
		} else {
			transit++
		}
	}
	if local < 2 || transit < 2 {
		t.Errorf("%d local and %d transit keys: this tests nothing", local, transit)
	}
	if list := m.Alarms(); len(list) > 0 {
		t.Errorf("alarms %+v", list)
	}
}
