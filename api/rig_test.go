package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/internal/verify"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

const testIssuer = "https://auth.example.com"

// Callers of the rig, by their tokens.
const (
	operator = "operator-token-0123456789abcdefghij" // everything
	issuer   = "issuer-token-0123456789abcdefghijkl" // signs in default
	typist   = "typist-token-0123456789abcdefghijkl" // signs in default, a special typ by a second grant
	reader   = "reader-token-0123456789abcdefghijkl" // reads default
	turner   = "turner-token-0123456789abcdefghijkl" // reads and rotates default
	revoker  = "revoker-token-0123456789abcdefghijk" // revokes one by one in default
	stranger = "stranger-token-0123456789abcdefghij" // known, without a grant
)

func rigCallers() map[[sha256.Size]byte]*api.Caller {
	one := []string{"default"}
	grants := map[string][]api.Grant{
		operator: {{Keysets: []string{"*"}, Actions: api.Actions()}},
		issuer:   {{Keysets: one, Actions: []api.Action{api.ActionSign}}},
		typist: {
			{Keysets: one, Actions: []api.Action{api.ActionSign}},
			{Keysets: one, Actions: []api.Action{api.ActionSign}, Types: []string{"secevent+jwt"}},
			{Keysets: []string{"tenant"}, Actions: []api.Action{api.ActionSign}, Types: []string{"logout+jwt"}},
			{Keysets: one, Actions: []api.Action{api.ActionRead}, Types: []string{"dpop+jwt"}},
			{Keysets: one, Actions: []api.Action{api.ActionSign}, Types: []string{"kb+jwt"}},
		},
		reader:   {{Keysets: one, Actions: []api.Action{api.ActionRead}}},
		turner:   {{Keysets: one, Actions: []api.Action{api.ActionRead, api.ActionRotate}}},
		revoker:  {{Keysets: one, Actions: []api.Action{api.ActionRevoke}}},
		stranger: nil,
	}
	callers := map[[sha256.Size]byte]*api.Caller{}
	for token, g := range grants {
		name, _, _ := strings.Cut(token, "-")
		callers[api.TokenHash(token)] = &api.Caller{Name: name, Grants: g}
	}
	return callers
}

// manualClock stands still until it is moved.
type manualClock struct {
	mu    sync.Mutex
	now   time.Time
	ahead time.Duration // of the wall clock
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) Check(limit time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ahead.Abs() > limit {
		return c.ahead
	}
	return 0
}

func (c *manualClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *manualClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = d
}

// rig is a whole daemon, listeners apart: a store in memory, a rotator, the API
// behind a real HTTP server.
type rig struct {
	t       testing.TB
	store   *keystoretest.Memory
	keys    *canary
	clock   *manualClock
	rotator *rotator.Rotator
	api     *api.Server
	http    *httptest.Server
	log     *transcript
	answers *transcript
	running bool
	fault   atomic.Pointer[func(keystoretest.Op) keystoretest.Fault]
}

func testPolicy(algs ...string) rotation.Policy {
	p := rotation.DefaultPolicy()
	p.Issuer, p.Algorithms = testIssuer, algs
	return p
}

// newRig founds the keysets default (ES256, EdDSA) and tenant (EdDSA). At the
// end of the test, everything that left the daemon is searched for secrets.
func newRig(t testing.TB) *rig {
	r := &rig{t: t, store: keystoretest.NewMemory(), log: &transcript{}, answers: &transcript{}}
	r.store.Fault = func(op keystoretest.Op) keystoretest.Fault {
		if f := r.fault.Load(); f != nil {
			return (*f)(op)
		}
		return keystoretest.Fault{}
	}
	r.keys = &canary{Memory: r.store}
	r.clock = &manualClock{now: time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)}
	r.rotator = r.replica(custody.Local{Keys: r.keys})
	r.sync()
	for name, p := range map[string]rotation.Policy{"default": testPolicy("ES256", "EdDSA"), "tenant": testPolicy("EdDSA")} {
		if _, err := r.rotator.Ensure(t.Context(), name, p, "test"); err != nil {
			t.Fatalf("founding %s: %v", name, err)
		}
	}
	r.sync()
	t.Cleanup(r.wantNoSecret)
	r.serve(rigOptions(r))
	return r
}

// replica is another rotator on the same store.
func (r *rig) replica(c rotator.Custody) *rotator.Rotator {
	return rotator.New(rotator.Options{
		Documents: r.store, Custody: c, Clock: r.clock, Log: slog.New(slog.NewJSONHandler(r.log, nil)),
		Sync: 2 * time.Millisecond, Workers: 2,
	})
}

// breaks makes operations of the store fail with an error that nobody outside
// may read.
func (r *rig) breaks(outcome keystoretest.Outcome, ops ...string) {
	f := func(op keystoretest.Op) keystoretest.Fault {
		if !slices.Contains(ops, op.Name) {
			return keystoretest.Fault{}
		}
		return keystoretest.Fault{Outcome: outcome, Err: errInternals}
	}
	r.fault.Store(&f)
}

var errInternals = errors.New("dial tcp 10.9.8.7:8200: connection refused")

func rigOptions(r *rig) api.Options {
	return api.Options{
		Keysets: r.rotator, Auth: api.NewTokens(rigCallers()), Now: r.clock.Now,
		Log: slog.New(slog.NewJSONHandler(r.log, nil)), Version: "test", Shared: true,
	}
}

// serve starts a server with these options instead of the one before, if there
// is one.
func (r *rig) serve(opt api.Options) {
	r.api = api.New(opt)
	r.http = httptest.NewServer(r.api)
	r.t.Cleanup(r.http.Close)
}

// sync makes the rotator catch up with store and clock.
func (r *rig) sync() {
	r.t.Helper()
	if r.running { // Sync belongs to Run then
		now := r.clock.Now()
		r.eventually("the rotator has synced", func() bool { return !r.rotator.FreshAt(r.view("default")).Before(now) })
		return
	}
	if err := r.rotator.Sync(r.t.Context()); err != nil {
		r.t.Fatalf("Sync: %v", err)
	}
}

// run lets the rotator work until the test ends.
func (r *rig) run() {
	r.running = true
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.rotator.Run(ctx) })
	r.t.Cleanup(func() { cancel(); wg.Wait() })
}

func (r *rig) view(keyset string) *rotator.View {
	r.t.Helper()
	v, err := r.rotator.View(keyset)
	if err != nil {
		r.t.Fatalf("View(%s): %v", keyset, err)
	}
	return v
}

func (r *rig) state(keyset string) rotation.State { return r.view(keyset).State }

// active is the kid that signs in a lane.
func (r *rig) active(keyset, alg string) string {
	r.t.Helper()
	l, _ := r.state(keyset).Lane(alg)
	k, ok := l.Active(r.clock.Now())
	if !ok {
		r.t.Fatalf("nothing signs in %s %s", keyset, alg)
	}
	return k.KID
}

// eventually waits for the rotator.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	r.t.Fatalf("it never came about that %s; log:\n%s", what, r.log)
}

// standby tells whether the lane has a standby whose lead has begun.
func (r *rig) standby(keyset, alg string) func() bool {
	return func() bool {
		l, _ := r.state(keyset).Lane(alg)
		k, ok := l.Standby(r.clock.Now())
		return ok && !k.PublishedAt.IsZero()
	}
}

// published renders the set of a view as the daemon does.
func published(t testing.TB, v *rotator.View) []byte {
	t.Helper()
	var keys []jwks.JWK
	for k := range v.State.Keys {
		jwk, err := jwks.Parse(k.Public)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, jwk)
	}
	set, err := jwks.NewSet(keys)
	if err != nil {
		t.Fatal(err)
	}
	return set.Bytes()
}

// verified checks a token strictly against a set.
func verified(set []byte, token string, now time.Time) (*verify.Verified, error) {
	keys, skipped, err := verify.ParseSet(set)
	if err != nil || len(skipped) != 0 {
		return nil, errors.Join(err, errors.New("keys of the set were skipped"))
	}
	return verify.Verify(token, keys, verify.Options{Now: now, Issuer: testIssuer})
}

// answer is what came back over HTTP.
type answer struct {
	status int
	header http.Header
	body   []byte
	code   string // of a problem
}

func (a answer) String() string { return http.StatusText(a.status) + ": " + string(a.body) }

func (a answer) decode(t testing.TB, out any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil {
		t.Fatalf("%v in %s", err, a)
	}
}

// do sends one request and holds the answer to what every answer promises.
// Headers are given as name, value, …; a body gets the media type JSON unless
// they name another.
func (r *rig) do(method, path, token, body string, headers ...string) answer {
	r.t.Helper()
	req, err := http.NewRequest(method, r.http.URL+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header[http.CanonicalHeaderKey(headers[i])] = []string{headers[i+1]}
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	return r.send(req)
}

func (r *rig) send(req *http.Request) answer {
	r.t.Helper()
	resp, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	resp.Header.Write(r.answers)
	r.answers.Write(a.body)
	r.wantPromises(req.Method+" "+req.URL.Path, req.Method == http.MethodHead, &a)
	return a
}

// wantPromises checks what holds for every answer.
func (r *rig) wantPromises(what string, head bool, a *answer) {
	r.t.Helper()
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := a.header.Values(name); len(got) != 1 || got[0] != want {
			r.t.Errorf("%.100s answers %d with %s %q", what, a.status, name, got)
		}
	}
	media := "application/json"
	if a.status >= 400 {
		media = "application/problem+json"
	}
	if got := a.header.Get("Content-Type"); got != media {
		r.t.Errorf("%.100s answers %d with Content-Type %q", what, a.status, got)
	}
	if head {
		if len(a.body) != 0 {
			r.t.Errorf("%.100s answers HEAD with a body", what)
		}
		return
	}
	if !json.Valid(a.body) {
		r.t.Errorf("%.100s answers with %q, which is no JSON", what, a.body)
	}
	if a.status < 400 {
		return
	}
	if strings.Contains(string(a.body), "10.9.8.7") {
		r.t.Errorf("%.100s answers with internals: %s", what, a.body)
	}
	var problem struct {
		Type, Title, Code, Detail string
		Status                    int
	}
	json.Unmarshal(a.body, &problem)
	if a.code = problem.Code; problem.Status != a.status || problem.Type != "about:blank" || problem.Title != http.StatusText(a.status) || a.code == "" || problem.Detail == "" {
		r.t.Errorf("%.100s answers %d with the problem %s", what, a.status, a.body)
	}
}

// want checks status and code.
func (r *rig) want(a answer, status int, code string) answer {
	r.t.Helper()
	if a.status != status || a.code != code {
		r.t.Errorf("answer %d %q, want %d %q: %.300s", a.status, a.code, status, code, a.body)
	}
	return a
}
