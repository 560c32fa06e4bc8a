package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
)

// fake is a daemon that answers what it was told and remembers what it was
// asked.
type fake struct {
	t     *testing.T
	url   string
	token string
	asked []string
	// answers by method and path, or by "METHOD path dry" for a dry run.
	answers map[string]any
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, answers: map[string]any{}, token: filepath.Join(t.TempDir(), "token")}
	if err := os.WriteFile(f.token, []byte("operator-token-0123456789abcdefghij\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key := r.Method + " " + r.URL.Path
	if strings.Contains(string(body), `"dry_run":true`) || r.URL.Query().Get("dry_run") == "true" {
		key += " dry"
	}
	f.asked = append(f.asked, key)
	f.asked = append(f.asked, string(body))
	out, ok := f.answers[key]
	if p, bad := out.(wire.Problem); !ok || bad {
		w.WriteHeader(400)
		out = wire.Problem{Code: "no", Detail: firstUp(p.Detail, "nobody expected "+key)}
	}
	json.NewEncoder(w).Encode(out)
}

// requests are what was asked for, without the bodies.
func (f *fake) requests() []string {
	var list []string
	for i := 0; i < len(f.asked); i += 2 {
		list = append(list, f.asked[i])
	}
	return list
}

// run runs a command line about this daemon.
func (f *fake) run(args ...string) (status int, out, errs string) {
	f.t.Helper()
	f.asked = nil
	var stdout, stderr strings.Builder
	if len(args) > 0 {
		args = append(args, "--server", f.url, "--token-file", f.token)
	}
	status = execute(f.t.Context(), args, terminal{in: strings.NewReader(""), out: &stdout, err: &stderr})
	return status, stdout.String(), stderr.String()
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keysets.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const twoKeysets = `revision: 7
listeners:
  api: {address: "0.0.0.0:8081", tls: {cert: not-here.crt, key: not-here.key}}
keysets:
  default: {issuer: "https://auth.example.com", verifier_cache: 0s}
  shop: {issuer: "https://shop.example.com", algorithms: [ES384, ES256]}
`

var noon = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

func TestApply(t *testing.T) {
	f := newFake(t)
	path := writeFile(t, twoKeysets)
	for _, dry := range []bool{true, false} {
		suffix := map[bool]string{true: " dry"}[dry]
		f.answers["PUT /v1/keysets/default"+suffix] = wire.Applied{Keyset: "default", DryRun: dry}
		f.answers["PUT /v1/keysets/shop"+suffix] = wire.Applied{
			Keyset: "shop", DryRun: dry, Created: true, At: noon,
			Diff:     []rotation.FieldChange{{Field: "issuer", From: "-", To: "https://shop.example.com"}},
			Events:   []rotation.Event{{At: noon.Add(time.Hour), Kind: rotation.EventActivated, KID: "future-1", Algorithm: "ES384"}},
			Warnings: []string{"mind the step"},
		}
	}
	dry := []string{"PUT /v1/keysets/default dry", "PUT /v1/keysets/shop dry"}
	wet := []string{"PUT /v1/keysets/default", "PUT /v1/keysets/shop"}
	for _, c := range []struct {
		args     []string
		requests []string
		shows    []string
	}{
		{[]string{"--dry-run"}, dry, []string{"keyset default: nothing to change\n", "keyset shop: would be created\n", "issuer", "-> https://shop.example.com", "(in 1h)  ES384 future-1 activated", "note: mind the step"}},
		{nil, slices.Concat(dry, wet), []string{"keyset shop: created\n"}},
		{[]string{"--yes"}, slices.Concat(dry, wet), []string{"keyset shop: created\n"}},
		{[]string{"-o", "json"}, slices.Concat(dry, wet), []string{`"keyset": "shop"`, `"created": true`}},
		{[]string{"--keyset", "default"}, dry[:1], []string{"keyset default: nothing to change\n"}},
	} {
		status, out, errs := f.run(append([]string{"apply", "--file", path}, c.args...)...)
		if status != 0 || errs != "" || !slices.Equal(f.requests(), c.requests) {
			t.Errorf("%v: status %d, asks for %v, says %s", c.args, status, f.requests(), errs)
		}
		for _, want := range c.shows {
			if !strings.Contains(out, want) {
				t.Errorf("%v: no %q in\n%s", c.args, want, out)
			}
		}
	}
	f.run("apply", "--file", path, "--dry-run")
	var req wire.ApplyRequest
	if err := json.Unmarshal([]byte(f.asked[1]), &req); err != nil || req.Revision != 7 || req.VerifierCache == nil || *req.VerifierCache != 0 || *req.TokenTTLMax != rotation.Duration(time.Hour) {
		t.Errorf("the request is %s: %v", f.asked[1], err)
	}
}

// TestApplyChecksAllFirst: what one keyset is refused for keeps the others as
// they are.
func TestApplyChecksAllFirst(t *testing.T) {
	f := newFake(t)
	f.answers["PUT /v1/keysets/default dry"] = wire.Applied{Keyset: "default", Diff: []rotation.FieldChange{{Field: "rotate"}}}
	f.answers["PUT /v1/keysets/shop dry"] = wire.Problem{Detail: "the name is taken"}
	status, out, errs := f.run("apply", "--file", writeFile(t, twoKeysets))
	if status != 1 || out != "" || len(f.requests()) != 2 || !strings.Contains(errs, "keyset shop") || !strings.Contains(errs, "the name is taken") || !strings.Contains(errs, "nothing was changed") {
		t.Errorf("status %d after %v:\n%s%s", status, f.requests(), out, errs)
	}
}

func TestApplySaysHowFarItGot(t *testing.T) {
	f := newFake(t)
	changed := wire.Applied{Keyset: "default", Diff: []rotation.FieldChange{{Field: "rotate", From: "a", To: "b"}}}
	f.answers["PUT /v1/keysets/default dry"], f.answers["PUT /v1/keysets/shop dry"] = changed, changed
	f.answers["PUT /v1/keysets/default"], f.answers["PUT /v1/keysets/shop"] = changed, wire.Problem{Detail: "the store is away"}
	status, out, errs := f.run("apply", "--file", writeFile(t, twoKeysets))
	if status != 1 || !strings.Contains(out, "keyset default: changed") || !strings.Contains(errs, "1 of 2") || !strings.Contains(errs, "the store is away") {
		t.Errorf("status %d:\n%s%s", status, out, errs)
	}
}

func TestApplyAndDeleteCommandLines(t *testing.T) {
	f := newFake(t)
	path := writeFile(t, twoKeysets)
	broken := writeFile(t, "keysets:\n  default: {isuer: x}\n")
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"apply"}, 2, "--file"},
		{[]string{"apply", path}, 2, "unexpected argument"},
		{[]string{"apply", "--file", "/nowhere.yaml"}, 1, "no such file"},
		{[]string{"apply", "--file", broken}, 1, "did you mean issuer?"},
		{[]string{"apply", "--file", path, "-k", "nobody"}, 1, `no keyset "nobody"`},
		{[]string{"delete", "--reason", "a"}, 2, "name the keyset"},
		{[]string{"delete", "shop"}, 2, "--reason"},
		{[]string{"delete", "shop", "till", "--reason", "a"}, 2, "unexpected argument"},
		{[]string{"delete", "-k", "shop", "--reason", "a"}, 2, "unknown shorthand"},
	} {
		status, out, errs := f.run(c.args...)
		if status != c.status || out != "" || !strings.Contains(errs, c.says) || len(f.asked) > 0 {
			t.Errorf("%v: status %d, asks %v\n%s%s", c.args, status, f.asked, out, errs)
		}
	}
}

func TestDelete(t *testing.T) {
	f := newFake(t)
	answer := wire.Deleted{Keyset: "shop", At: noon, PublishedUntil: noon.Add(2 * time.Hour), Warnings: []string{"it is the end"}}
	f.answers["DELETE /v1/keysets/shop"] = answer
	answer.DryRun = true
	f.answers["DELETE /v1/keysets/shop dry"] = answer
	for _, c := range []struct {
		args    []string
		request string
		shows   string
	}{
		{nil, "DELETE /v1/keysets/shop", "keyset shop is deleted since 2026-01-15 12:00:00Z\nits set stays published until 2026-01-15 14:00:00Z (in 2h)\nnote: it is the end\n"},
		{[]string{"--dry-run"}, "DELETE /v1/keysets/shop dry", "dry run: keyset shop would be deleted\n"},
		{[]string{"-o", "json"}, "DELETE /v1/keysets/shop", `"published_until": "2026-01-15T14:00:00Z"`},
	} {
		status, out, errs := f.run(append([]string{"delete", "shop", "--reason", "over"}, c.args...)...)
		if status != 0 || errs != "" || !slices.Equal(f.requests(), []string{c.request}) || !strings.Contains(out, c.shows) {
			t.Errorf("%v: status %d after %v:\n%s%s", c.args, status, f.requests(), out, errs)
		}
	}
}

func TestWaitFlag(t *testing.T) {
	f := newFake(t)
	confirmed := func(everywhere bool, c *wire.Confirmation) wire.Change {
		return wire.Change{Keyset: "default", At: noon, EverywhereBy: noon.Add(time.Hour), Everywhere: everywhere, Replicas: c}
	}
	for _, c := range []struct {
		flag   string
		answer wire.Change
		body   string
		status int
		says   string
	}{
		{"", confirmed(false, nil), `{}`, 0, "everywhere by"},
		{"--wait", confirmed(true, &wire.Confirmation{Confirmed: []string{"a", "b", "c"}}), `{"wait":"10s"}`, 0, "all 3 replicas confirm\n"},
		{"--wait=30s", confirmed(true, &wire.Confirmation{Confirmed: []string{"a"}}), `{"wait":"30s"}`, 0, "the only live replica confirms\n"},
		{"--wait=1s", confirmed(false, &wire.Confirmation{Confirmed: []string{"a"}, Missing: []string{"b", "c"}}), `{"wait":"1s"}`, 1, "not confirmed in time by: b, c\n"},
		{"--wait=2s", confirmed(false, &wire.Confirmation{Confirmed: []string{"a"}}), `{"wait":"2s"}`, 1, "everywhere by"},
	} {
		f.answers["POST /v1/keysets/default/rotate"] = c.answer
		args := []string{"rotate"}
		if c.flag != "" {
			args = append(args, c.flag)
		}
		status, out, errs := f.run(args...)
		if status != c.status || !strings.Contains(out+errs, c.says) || f.asked[1] != c.body {
			t.Errorf("%s: status %d after %v:\n%s%s", c.flag, status, f.asked, out, errs)
		}
		if status, out, _ := f.run(append(args, "-o", "json")...); status != c.status || !json.Valid([]byte(out)) {
			t.Errorf("%s in JSON: status %d:\n%s", c.flag, status, out)
		}
	}
}

func TestStatusShowsReplicasDriftAndEnds(t *testing.T) {
	f := newFake(t)
	list := wire.Keysets{
		Daemon: wire.Daemon{Now: noon, ReplicasProblem: "some are unknown", Replicas: []wire.Replica{
			{Replica: "node-a", Role: "signer", Version: "v1", Live: true, SeenAt: noon, SyncedAt: noon},
			{Replica: "node-b", Role: "publisher", Version: "v1", SeenAt: noon.Add(-time.Hour), SyncedAt: noon.Add(-time.Hour)},
		}},
		Keysets: []wire.Keyset{{
			Keyset: "shop", Deleted: &rotation.Closing{At: noon.Add(-time.Minute), By: "ops"},
			Drift: []rotation.FieldChange{{Field: "rotate", From: "@monthly", To: "@weekly"}},
		}},
	}
	f.answers["GET /v1/keysets"] = list
	status, out, errs := f.run("status")
	for _, want := range []string{
		"REPLICA", "node-a", "live", "node-b", "publisher", "SILENT, seen 1h ago",
		"DRIFT: rotate is @monthly, this replica's configuration says @weekly", "DELETED 2026-01-15 11:59:00Z (1m ago) by ops: no reason given",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if status != 0 || !strings.Contains(errs, "some are unknown") {
		t.Errorf("status %d, says %s", status, errs)
	}
	list.Daemon.Replicas, list.Daemon.ReplicasProblem = list.Daemon.Replicas[:1], ""
	f.answers["GET /v1/keysets"] = list
	if _, out, errs := f.run("status"); strings.Contains(out, "REPLICA") || errs != "" {
		t.Errorf("one replica makes a table:\n%s%s", out, errs)
	}
}

func TestFewEventsAreShown(t *testing.T) {
	var b strings.Builder
	events := make([]rotation.Event, 30)
	for i := range events {
		events[i] = rotation.Event{At: noon, KID: fmt.Sprint("key-", i)}
	}
	writeEvents(&b, events, noon)
	if !strings.Contains(b.String(), "and 18 more") || strings.Contains(b.String(), "key-12") {
		t.Errorf("%s", b.String())
	}
}
