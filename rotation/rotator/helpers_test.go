package rotator_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
	"github.com/jwksd/jwksd/signer"
)

// name is the keyset of most tests.
const name = "default"

// pause is the Options.Sync of most tests.
const pause = time.Second

// shortPolicy makes a life of minutes: P = 3m2s, V = 4m14s, and a private half
// is destroyed 2m7s after its successor took over.
func shortPolicy() rotation.Policy {
	p := rotation.DefaultPolicy()
	p.Algorithms = []string{"EdDSA"}
	p.Rotate = "@every 10m"
	p.TokenTTLMax = rotation.Duration(2 * time.Minute)
	p.JWKSMaxAge = rotation.Duration(30 * time.Second)
	p.VerifierCache = rotation.Duration(30 * time.Second)
	p.VerifierLeeway = rotation.Duration(10 * time.Second)
	p.HandoverGrace = rotation.Duration(5 * time.Second)
	p.MaxStaleness = rotation.Duration(2 * time.Minute)
	p.ClockSkew = rotation.Duration(time.Second)
	return p
}

// wall is a machine's wall clock that can be set wrong.
type wall struct {
	mu      sync.Mutex
	started time.Time
	offset  time.Duration
}

func newWall(offset time.Duration) *wall { return &wall{started: time.Now(), offset: offset} }

func (w *wall) read() (time.Time, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	return now.Add(w.offset), now.Sub(w.started)
}

func (w *wall) set(offset time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset = offset
}

// replica is a daemon on a store.
type replica struct {
	*rotator.Rotator
	clock rotator.Clock
	stop  func() // returns when Run has
}

// config makes a replica; only the store is required.
type config struct {
	store     *keystoretest.Memory
	custody   rotator.Custody
	clock     rotator.Clock
	orphanAge time.Duration
	sync      time.Duration
	workers   int
	log       *slog.Logger
}

// idle returns a replica that does nothing by itself.
func (c config) idle() *replica {
	if c.custody == nil {
		c.custody = custody.Local{Keys: c.store}
	}
	if c.clock == nil {
		c.clock = clock.New(clock.Portable())
	}
	if c.orphanAge == 0 {
		c.orphanAge = time.Minute
	}
	if c.sync == 0 {
		c.sync = pause
	}
	return &replica{
		Rotator: rotator.New(rotator.Options{
			Documents: c.store, Custody: c.custody, Clock: c.clock, Sync: c.sync, OrphanAge: c.orphanAge, Workers: c.workers, Log: c.log,
		}),
		clock: c.clock,
		stop:  func() {},
	}
}

// run returns a replica that runs until the test ends or it is stopped.
func (c config) run(t *testing.T) *replica {
	r := c.idle()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

// founded is a replica that runs with the keyset in existence.
func (c config) founded(t *testing.T, p rotation.Policy) *replica {
	t.Helper()
	r := c.run(t)
	ensure(t, r, p)
	settle()
	return r
}

func ensure(t *testing.T, r *replica, p rotation.Policy) {
	t.Helper()
	if _, err := r.Ensure(t.Context(), name, p, "test"); err != nil {
		t.Fatal(err)
	}
}

// settle gives every replica the time to see what is there and to do what is
// due, which takes a few rounds of writing and reading.
func settle() {
	time.Sleep(4 * pause)
	synctest.Wait()
}

// sleepUntil ends just after what happens at that instant.
func sleepUntil(at time.Time) {
	time.Sleep(time.Until(at))
	synctest.Wait()
}

func (r *replica) view(t *testing.T) *rotator.View {
	t.Helper()
	v, err := r.View(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *replica) state(t *testing.T) rotation.State {
	t.Helper()
	return r.view(t).State
}

// signs returns the kid of the key that signs now, after trying it.
func (r *replica) signs(t *testing.T) string {
	t.Helper()
	v, now := r.view(t), r.clock.Now()
	if err := r.Fresh(v, now); err != nil {
		t.Fatal(err)
	}
	key, err := v.Signer("", now)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, v.State, key)
	return key.KID()
}

// verify signs something and verifies it with the published key of that kid.
func verify(t *testing.T, s rotation.State, key signer.Signing) {
	t.Helper()
	var input [16]byte
	rand.Read(input[:])
	sig, err := key.Sign(t.Context(), input[:])
	if err != nil {
		t.Fatal(err)
	}
	published, ok := s.Key(key.KID())
	if !ok {
		t.Fatalf("key %s signs and is not published", key.KID())
	}
	jwk, err := jwks.Parse(published.Public)
	if err != nil {
		t.Fatal(err)
	}
	alg, err := jwa.Lookup(key.Algorithm())
	if err != nil {
		t.Fatal(err)
	}
	if err := alg.Verify(jwk.Public(), input[:], sig); err != nil {
		t.Fatalf("key %s: %v", key.KID(), err)
	}
}

func standby(t *testing.T, s rotation.State, now time.Time) rotation.Key {
	t.Helper()
	k, ok := s.Lanes[0].Standby(now)
	if !ok {
		t.Fatal("there is no standby")
	}
	return k
}

// private lists the private halves in the store.
func private(t *testing.T, store *keystoretest.Memory) []string {
	t.Helper()
	list, err := store.Share().ListKeys(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	var kids []string
	for _, info := range list {
		kids = append(kids, info.KID)
	}
	return kids
}

// wantPrivate holds the store to exactly the private halves that the document
// needs, each of them usable.
func wantPrivate(t *testing.T, store *keystoretest.Memory, s rotation.State, now time.Time) {
	t.Helper()
	var want []string
	for k := range s.Keys {
		if k.DestroyAt.IsZero() || k.DestroyAt.After(now) {
			want = append(want, k.KID)
			if _, err := (custody.Local{Keys: store.Share()}).Open(context.Background(), name, k); err != nil {
				t.Errorf("key %s: %v", k.KID, err)
			}
		}
	}
	slices.Sort(want)
	if got := private(t, store); !slices.Equal(got, want) {
		t.Errorf("private halves %v, want %v", got, want)
	}
}

// stored reads the document past every replica.
func stored(t *testing.T, store *keystoretest.Memory) (rotation.State, keystore.Version) {
	t.Helper()
	doc, err := store.Share().Load(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := rotation.Decode(doc.Data)
	if err != nil {
		t.Fatal(err)
	}
	return s, doc.Version
}

// count returns how many operations of the kind the document remembers.
func count(s rotation.State, kind string) int {
	n := 0
	for _, op := range s.Operations {
		if op.Kind == kind {
			n++
		}
	}
	return n
}

// wantAlarm expects an alarm with that prefix, or none if it is empty.
func wantAlarm(t *testing.T, r *replica, prefix string) {
	t.Helper()
	list := r.Alarms()
	on := slices.ContainsFunc(list, func(a rotator.Alarm) bool { return strings.HasPrefix(a.Name, prefix) })
	if prefix == "" && len(list) > 0 || prefix != "" && !on {
		t.Fatalf("alarms %+v, want %q", list, prefix)
	}
}

// The changes that operators ask for.

func rotate(force bool) rotator.ChangeFunc {
	return func(s rotation.State, now time.Time, _ []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		next, _, err := s.Promote(nil, force, now, op)
		return next, err
	}
}

func revoke(kid string) rotator.ChangeFunc {
	return func(s rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		next, _, err := s.Revoke(kid, now, fresh, op)
		return next, err
	}
}

func revokeAll(s rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
	next, _, err := s.RevokeAll(now, fresh, op)
	return next, err
}

func setPolicy(p rotation.Policy) rotator.ChangeFunc {
	return func(s rotation.State, now time.Time, _ []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		return s.SetPolicy(p, now, op)
	}
}

// operation is a request with an idempotency key.
func operation(kind, key string) rotation.Operation {
	return rotation.Operation{Kind: kind, By: "operator", Key: key, Request: kind}
}

func change(t *testing.T, r *replica, kind string, fn rotator.ChangeFunc) rotation.Operation {
	t.Helper()
	op, replayed, err := r.Change(t.Context(), name, operation(kind, ""), fn)
	if err != nil || replayed || op.Kind != kind {
		t.Fatalf("%s: %+v, %v, %v", kind, op, replayed, err)
	}
	return op
}
