package api_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// reports are kept in memory.
type reports struct {
	mu   sync.Mutex
	kept map[string][]byte
	err  error
}

func (p *reports) PutReport(_ context.Context, replica string, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept[replica] = data
	return nil
}

func (p *reports) Reports(context.Context) (map[string][]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.kept), p.err
}

func (p *reports) DropReport(_ context.Context, replica string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.kept, replica)
	return nil
}

// says puts down a report of a replica that is not there.
func (p *reports) says(t *testing.T, rep rotator.Report) {
	t.Helper()
	data, err := json.Marshal(rep)
	if err != nil {
		t.Fatal(err)
	}
	p.PutReport(t.Context(), rep.Replica, data)
}

// shared makes the rig replica "a" of several.
func (r *rig) shared() *reports {
	kept := &reports{kept: map[string][]byte{}}
	r.rotator = r.member("a", kept)
	r.sync()
	r.serve(rigOptions(r))
	return kept
}

func (r *rig) member(name string, kept *reports) *rotator.Rotator {
	return rotator.New(rotator.Options{
		Documents: r.store, Custody: custody.Local{Keys: r.keys}, Clock: r.clock, Sync: 2 * time.Millisecond,
		Reports: kept, Replica: name, Role: "signer", Version: "1",
	})
}

func TestWait(t *testing.T) {
	r := newRig(t)
	kept := r.shared()
	b := r.member("b", kept)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.Run(ctx) })
	defer wg.Wait()
	defer stop()
	r.eventually("b has reported", func() bool { all, _ := kept.Reports(ctx); return all["b"] != nil })
	now := r.clock.Now()
	kept.says(t, rotator.Report{Replica: "dead", At: now.Add(-3 * time.Hour)})
	kept.says(t, rotator.Report{Replica: "lost", At: now.Add(-10 * time.Minute)})

	c := r.changed(rotatePath, operator, `{"wait":"10s"}`)
	if !c.Everywhere || c.Replicas == nil || !slices.Equal(c.Replicas.Confirmed, []string{"a", "b"}) || len(c.Replicas.Missing) != 0 {
		t.Fatalf("%+v", c)
	}
	if !slices.Equal(c.Replicas.Silent, []string{"lost"}) || !slices.ContainsFunc(c.Warnings, func(w string) bool { return strings.Contains(w, "lost") }) {
		t.Errorf("silent are %v, warnings %q", c.Replicas.Silent, c.Warnings)
	}
	kid := r.active("default", "ES256")
	kept.says(t, rotator.Report{Replica: "slow", At: now, Generations: map[string]uint64{"default": c.Generation}})
	late := r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"leaked","wait":"1s"}`)
	if late.Everywhere || !slices.Equal(late.Replicas.Missing, []string{"slow"}) || len(late.Revoked) != 1 {
		t.Errorf("%+v", late)
	}
	if raw := r.changed(rotatePath, operator, `{"force":true,"alg":"EdDSA"}`); raw.Replicas != nil || raw.Everywhere {
		t.Errorf("nobody asked for it: %+v", raw.Replicas)
	}
}

func TestWaitAloneReturnsAtOnce(t *testing.T) {
	r := newRig(t)
	start := time.Now()
	c := r.changed(rotatePath, operator, `{"wait":"1m"}`)
	if !c.Everywhere || len(c.Replicas.Confirmed) != 1 || time.Since(start) > 20*time.Second {
		t.Errorf("after %s: %+v", time.Since(start), c.Replicas)
	}
}

// TestWaitOutlivesTheServersTimeout: the answer comes, however long the waiting.
func TestWaitOutlivesTheServersTimeout(t *testing.T) {
	r := newRig(t)
	r.shared().says(t, rotator.Report{Replica: "slow", At: r.clock.Now()})
	r.http.Close()
	r.http = httptest.NewUnstartedServer(r.api)
	r.http.Config.WriteTimeout = 100 * time.Millisecond
	r.http.Start()
	t.Cleanup(r.http.Close)
	for range 2 { // the second on the same connection
		if c := r.changed(rotatePath, operator, `{"force":true,"wait":"400ms"}`, "Idempotency-Key", "once"); !slices.Equal(c.Replicas.Missing, []string{"slow"}) {
			t.Errorf("%+v", c.Replicas)
		}
	}
}

// A repeated request is the same request however long it waits.
func TestWaitIsNoPartOfTheRequest(t *testing.T) {
	r := newRig(t)
	first := r.changed(rotatePath, operator, `{"reason":"a"}`, "Idempotency-Key", "once")
	again := r.changed(rotatePath, operator, `{"reason":"a","wait":"1s"}`, "Idempotency-Key", "once")
	if !again.Replayed || again.Operation != first.Operation || !again.Everywhere {
		t.Errorf("%+v", again)
	}
	r.want(r.do("POST", rotatePath, operator, `{"reason":"b","wait":"1s"}`, "Idempotency-Key", "once"), 422, "idempotency_key_reused")
}

func TestWaitBounds(t *testing.T) {
	r := newRig(t)
	before := r.generation("default")
	kid := r.active("default", "ES256")
	for wait, code := range map[string]string{`"61s"`: "invalid_wait", `"-1s"`: "invalid_wait", `10`: "invalid_body", `"soon"`: "invalid_body"} {
		var p wire.Problem
		r.want(r.do("POST", rotatePath, operator, `{"wait":`+wait+`}`), 400, code).decode(t, &p)
		r.want(r.do("POST", revokePath, operator, `{"kid":"`+kid+`","reason":"a","wait":`+wait+`}`), 400, code)
		if p.Field != "wait" {
			t.Errorf("wait %s: field %q", wait, p.Field)
		}
	}
	if r.generation("default") != before {
		t.Error("something was changed")
	}
}

// TestWaitWithoutReports: the change stands, and nobody knows how far it got.
func TestWaitWithoutReports(t *testing.T) {
	r := newRig(t)
	r.shared().err = errInternals
	c := r.changed(rotatePath, operator, `{"wait":"20ms"}`)
	if c.Everywhere || len(c.Promoted) == 0 || len(c.Warnings) == 0 {
		t.Errorf("%+v", c)
	}
	var list wire.Keysets
	a := r.want(r.do("GET", "/v1/keysets", operator, ""), 200, "")
	if a.decode(t, &list); list.Daemon.ReplicasProblem == "" || len(list.Daemon.Replicas) != 1 || len(list.Keysets) != 2 {
		t.Errorf("%+v", list.Daemon)
	}
	if strings.Contains(string(a.body), "10.9.8.7") {
		t.Errorf("internals are told: %s", a)
	}
}

func TestStatusShowsReplicas(t *testing.T) {
	r := newRig(t)
	kept := r.shared()
	now := r.clock.Now()
	kept.says(t, rotator.Report{Replica: "b", Role: "publisher", Version: "2", At: now.Add(-time.Hour), SyncedAt: now.Add(-2 * time.Hour), Generations: map[string]uint64{"default": 1, "tenant": 1, "other": 5}})
	for caller, keysets := range map[string][]string{operator: {"default", "other", "tenant"}, reader: {"default"}} {
		var list wire.Keysets
		r.want(r.do("GET", "/v1/keysets", caller, ""), 200, "").decode(t, &list)
		if len(list.Daemon.Replicas) != 2 {
			t.Fatalf("%+v", list.Daemon)
		}
		a, b := list.Daemon.Replicas[0], list.Daemon.Replicas[1]
		if a.Replica != "a" || !a.Live || a.Role != "signer" || a.Generations["default"] != r.generation("default") {
			t.Errorf("%.8s sees of itself %+v", caller, a)
		}
		if b.Replica != "b" || b.Live || b.Version != "2" || !b.SeenAt.Equal(now.Add(-time.Hour)) || !slices.Equal(slices.Sorted(maps.Keys(b.Generations)), keysets) {
			t.Errorf("%.8s sees %+v", caller, b)
		}
	}
}

func TestStatusShowsDrift(t *testing.T) {
	r := newRig(t)
	opt := rigOptions(r)
	configured := testPolicy("ES256", "EdDSA")
	opt.Configured = func() map[string]rotation.Policy {
		return map[string]rotation.Policy{"default": configured, "elsewhere": configured}
	}
	r.serve(opt)
	drift := func() string {
		t.Helper()
		var k wire.Keyset
		var list wire.Keysets
		r.want(r.do("GET", "/v1/keysets/default", reader, ""), 200, "").decode(t, &k)
		r.want(r.do("GET", "/v1/keysets", operator, ""), 200, "").decode(t, &list)
		if fields(k.Drift) != fields(list.Keysets[0].Drift) || len(list.Keysets[1].Drift) != 0 {
			t.Errorf("the list says otherwise: %v", list.Keysets)
		}
		return fields(k.Drift)
	}
	if got := drift(); got != "" {
		t.Errorf("without a difference: %s", got)
	}
	r.put("default", block(`"algorithms":["ES256","EdDSA"]`, `"token_ttl_max":"2h"`, `"revision":3`))
	if got := drift(); got != "token_ttl_max: 2h -> 1h" {
		t.Errorf("drift %q", got)
	}
	configured.Revision = 2
	if got := drift(); got != "revision: 3 -> 2\ntoken_ttl_max: 2h -> 1h" {
		t.Errorf("drift %q", got)
	}
}
