package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/vault"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

const name = "default"

// policy makes a life of minutes: P = 3m2s, V = 4m14s, and a private half is
// destroyed 2m7s after its successor took over.
func policy(kind rotation.Custody) rotation.Policy {
	minutes := func(n time.Duration) rotation.Duration { return rotation.Duration(n * time.Minute) }
	p := rotation.DefaultPolicy()
	p.Algorithms, p.Rotate, p.Custody = []string{"EdDSA"}, "@every 10m", kind
	p.TokenTTLMax, p.MaxStaleness = minutes(2), minutes(2)
	p.JWKSMaxAge, p.VerifierCache = minutes(1)/2, minutes(1)/2
	p.VerifierLeeway, p.HandoverGrace, p.ClockSkew = minutes(1)/6, minutes(1)/12, minutes(1)/60
	return p
}

// orphanAge is how old an unnamed private key must be. Its age is counted from
// Vault's clock, which stays behind when ours is put forward, so that each key
// soon looks old enough.
const orphanAge = time.Minute

// place is where in Vault one life takes place.
type place struct {
	vault          *vaulttest.Vault
	token          string // file
	mount, transit string
	path           string
}

// forward is a clock that is put forward.
type forward struct {
	ahead   atomic.Int64
	started time.Time
}

func (f *forward) read() (time.Time, time.Duration) {
	d := time.Duration(f.ahead.Load())
	return time.Now().Add(d), time.Since(f.started) + d
}

// replica is a rotator with its own connection to Vault.
type replica struct {
	*rotator.Rotator
	store   *vault.Store
	custody custody.Places
	clock   *clock.Clock
	stop    func()
}

func (p place) replica(t testing.TB, address string, f *forward) *replica {
	t.Helper()
	c, err := vault.NewClient(vault.Config{Addresses: []string{address}, Timeout: 20 * time.Second, Auth: vault.Auth{TokenFile: p.token}})
	if err != nil {
		t.Fatal(err)
	}
	store, err := vault.NewStore(c, vault.Options{Mount: p.mount, Path: p.path})
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{store: store, clock: clock.New(f.read), custody: custody.Places{
		rotation.CustodyLocal:   custody.Local{Keys: store},
		rotation.CustodyTransit: custody.NewTransit(vault.NewTransit(c, p.transit), p.mount+"/"+p.path),
	}}
	r.Rotator = rotator.New(rotator.Options{
		Documents: store, Custody: r.custody, Clock: r.clock, Sync: 50 * time.Millisecond, OrphanAge: orphanAge,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.stop = func() { cancel(); <-done; store.Close(); c.Close() }
	return r
}

// life drives one replica, and its successor after a crash, through a script.
type life struct {
	t     testing.TB
	place place
	kind  rotation.Custody
	gate  *gate
	time  *forward
	r     *replica
	again bool   // started again after the crash
	kid   string // that the operator revokes
}

func (l *life) start(address string) {
	l.r = l.place.replica(l.t, address, l.time)
}

// until repeats a step until it is done, whoever must be started for it. Time
// passes meanwhile.
func (l *life) until(what string, step time.Duration, done func() bool) {
	l.t.Helper()
	for range 2000 {
		if l.gate.died() && !l.again {
			l.again = true
			l.r.stop()
			l.start(l.place.vault.Address())
		}
		if done() {
			return
		}
		time.Sleep(15 * time.Millisecond)
		l.time.ahead.Add(int64(step))
	}
	at, n := l.gate.last()
	l.t.Fatalf("%s does not come to pass after a crash at write %d, %s; alarms %+v", what, n, at, l.r.Alarms())
}

func (l *life) change(kind string, fn rotator.ChangeFunc) {
	l.t.Helper()
	op := rotation.Operation{Kind: kind, By: "operator", Key: kind, Request: kind}
	l.until(kind, 0, func() bool {
		_, _, err := l.r.Change(context.Background(), name, op, fn)
		if err != nil && !l.gate.died() {
			l.t.Fatalf("%s: %v", kind, err)
		}
		return err == nil
	})
}

func (l *life) active() string {
	v, err := l.r.View(name)
	if err != nil {
		return ""
	}
	k, _ := v.State.Default(l.r.clock.Now())
	return k.KID
}

// turned waits until another key signs.
func (l *life) turned(what string) {
	l.t.Helper()
	before := l.active()
	l.until(what, 20*time.Second, func() bool { kid := l.active(); return kid != "" && kid != before })
}

// ready waits until the next key has its lead.
func (l *life) ready() {
	l.t.Helper()
	l.until("a standby with its lead", 20*time.Second, func() bool {
		v, err := l.r.View(name)
		if err != nil {
			return false
		}
		now := l.r.clock.Now()
		k, ok := v.State.Lanes[0].Standby(now)
		return ok && !k.ReadyAt.IsZero() && k.ReadyAt.Before(now)
	})
}

func (l *life) wait(d time.Duration) {
	l.t.Helper()
	end := l.r.clock.Now().Add(d)
	l.until("waiting", 40*time.Second, func() bool { return !l.r.clock.Now().Before(end) })
}

func (l *life) run() {
	l.start(l.gate.URL)
	l.until("founding", 0, func() bool {
		_, err := l.r.Ensure(context.Background(), name, policy(l.kind), "test")
		return err == nil
	})
	l.turned("the scheduled rotation")
	l.ready()
	l.change("rotate", rotate)
	l.ready()
	l.until("a key that signs", 0, func() bool { l.kid = l.active(); return l.kid != "" })
	l.change("revoke", revoke(l.kid))
	longer := policy(l.kind)
	longer.TokenTTLMax *= 2
	l.change("policy", setPolicy(longer))
	l.turned("the flush")
	l.wait(8 * time.Minute) // what was replaced is destroyed and removed
}

func rotate(s rotation.State, now time.Time, _ []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
	next, _, err := s.Promote(nil, false, now, op)
	return next, err
}

func revoke(kid string) rotator.ChangeFunc {
	return func(s rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		next, _, err := s.Revoke(kid, now, fresh, op)
		return next, err
	}
}

func setPolicy(p rotation.Policy) rotator.ChangeFunc {
	return func(s rotation.State, now time.Time, _ []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		return s.SetPolicy(p, now, op)
	}
}

// check holds the end of a life to what it was meant to be. Whoever starts looks
// for orphans, and is not told by memory what is gone.
func (l *life) check() {
	l.r.stop()
	l.time.ahead.Add(int64(2 * orphanAge))
	l.start(l.place.vault.Address())
	defer func() { l.r.stop() }()
	var wrong error
	for range 1500 {
		if wrong = errors.Join(l.document(), l.privateHalves(), l.signs()); wrong == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	l.t.Error(wrong)
}

func (l *life) stored() (rotation.State, error) {
	doc, err := l.r.store.Load(context.Background(), name)
	if err != nil {
		return rotation.State{}, err
	}
	return rotation.Decode(doc.Data)
}

// document: each change came about once, and nothing that must not be is there.
func (l *life) document() error {
	s, err := l.stored()
	if err != nil {
		return err
	}
	for _, kind := range []string{"found", "rotate", "revoke", "policy"} {
		n := 0
		for _, op := range s.Operations {
			if op.Kind == kind {
				n++
			}
		}
		if n != 1 {
			return fmt.Errorf("%d times %s, want once", n, kind)
		}
	}
	if _, there := s.Key(l.kid); there || !s.Revoked(l.kid) || s.Policy.TokenTTLMax != 2*policy(l.kind).TokenTTLMax {
		return errors.New("a change is lost")
	}
	if most := s.Bound(s.Lanes[0]); len(s.Lanes[0].Keys) > most {
		return fmt.Errorf("%d keys, at most %d wanted", len(s.Lanes[0].Keys), most)
	}
	return s.Check()
}

// privateHalves: Vault holds those that the document needs, each usable, and no
// others, not even as metadata.
func (l *life) privateHalves() error {
	s, err := l.stored()
	if err != nil {
		return err
	}
	var want, got []string
	now := l.r.clock.Now()
	for k := range s.Keys {
		if k.DestroyAt.IsZero() || k.DestroyAt.After(now) {
			want = append(want, k.KID)
			if _, err := l.r.custody.Open(context.Background(), name, k); err != nil {
				return fmt.Errorf("key %s: %w", k.KID, err)
			}
		}
	}
	kept, err := l.r.custody.List(context.Background(), name) // by Vault's metadata, and its names of transit keys
	if err != nil {
		return err
	}
	for _, info := range kept {
		got = append(got, info.KID)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("private halves %v, want %v", got, want)
	}
	if _, err := l.r.custody[rotation.CustodyLocal].(custody.Local).Keys.ReadKey(context.Background(), name, l.kid); !errors.Is(err, keystore.ErrNotFound) {
		return fmt.Errorf("the revoked key can be read: %v", err)
	}
	return nil
}

func (l *life) signs() error {
	v, err := l.r.View(name)
	if err != nil {
		return err
	}
	if list := l.r.Alarms(); len(list) > 0 {
		return fmt.Errorf("alarms %+v", list)
	}
	key, err := v.Signer("", l.r.clock.Now())
	if err != nil {
		return err
	}
	_, err = key.Sign(context.Background(), []byte("input"))
	return err
}
