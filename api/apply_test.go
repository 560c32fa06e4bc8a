package api_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api"
	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
)

// block is the smallest body of a PUT with more members behind.
func block(more ...string) string {
	return `{"issuer":"` + testIssuer + `"` + strings.Join(append([]string{""}, more...), ",") + `}`
}

func (r *rig) put(keyset, body string) wire.Applied {
	r.t.Helper()
	a := r.want(r.do("PUT", "/v1/keysets/"+keyset, operator, body), 200, "")
	if a.status != 200 {
		r.t.FailNow()
	}
	var out wire.Applied
	a.decode(r.t, &out)
	return out
}

func (r *rig) del(keyset, query string) wire.Deleted {
	r.t.Helper()
	a := r.want(r.do("DELETE", "/v1/keysets/"+keyset+query, operator, ""), 200, "")
	if a.status != 200 {
		r.t.FailNow()
	}
	var out wire.Deleted
	a.decode(r.t, &out)
	return out
}

// nameless leaves out what nobody can foretell.
func nameless(events []rotation.Event) []rotation.Event {
	events = slices.Clone(events)
	for i := range events {
		events[i].KID = ""
	}
	return events
}

func fields(diff []rotation.FieldChange) string {
	var list []string
	for _, f := range diff {
		list = append(list, fmt.Sprintf("%s: %s -> %s", f.Field, f.From, f.To))
	}
	return strings.Join(list, "\n")
}

// The members of a policy are those of the wire type and the daemon's own.
func TestApplyRequestHasEveryFieldOfAPolicy(t *testing.T) {
	names := func(v reflect.Type) (list []string) {
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Field(i).Tag.Get("json"), ",")
			list = append(list, name)
		}
		slices.Sort(list)
		return list
	}
	want := append(names(reflect.TypeFor[wire.ApplyRequest]()), "clock_skew", "max_staleness")
	want = slices.DeleteFunc(want, func(name string) bool { return name == "dry_run" })
	slices.Sort(want)
	if got := names(reflect.TypeFor[rotation.Policy]()); !slices.Equal(got, want) {
		t.Errorf("a policy has %v, a request %v", got, want)
	}
}

func TestApplyFoundsAKeyset(t *testing.T) {
	r := newRig(t)
	r.run()
	body := block(`"algorithms":["EdDSA","ES256"]`, `"token_ttl_max":"2h"`)
	dry := r.put("shop", strings.Replace(body, "{", `{"dry_run":true,`, 1))
	r.want(r.do("GET", "/v1/keysets/shop", operator, ""), 404, "unknown_keyset")
	got := r.put("shop", body)
	if !dry.DryRun || got.DryRun || !got.Created || got.Generation != 1 || !got.At.Equal(r.clock.Now()) {
		t.Errorf("founded: %+v", got)
	}
	dry.DryRun, dry.Events, got.Events = false, nameless(dry.Events), nameless(got.Events)
	if !reflect.DeepEqual(dry, got) {
		t.Errorf("the dry run says\n%+v\nand then happens\n%+v", dry, got)
	}
	st := r.state("shop")
	want := testPolicy("EdDSA", "ES256")
	want.TokenTTLMax = rotation.Duration(2 * time.Hour)
	if !reflect.DeepEqual(st.Policy, want) || got.Timing != st.Timing() || !strings.Contains(fields(got.Diff), "issuer: - -> "+testIssuer) {
		t.Errorf("in force is %+v\ndiff\n%s", st.Policy, fields(got.Diff))
	}
	r.want(r.do("POST", "/v1/keysets/shop/sign", operator, `{"claims":{}}`), 200, "")

	again := r.put("shop", body)
	if again.Created || len(again.Diff) != 0 || !again.At.IsZero() || again.Timing != got.Timing {
		t.Errorf("repeated: %+v", again)
	}
	if raw := r.do("PUT", "/v1/keysets/shop", operator, body); !strings.Contains(string(raw.body), `"diff":[]`) {
		t.Errorf("an empty diff is no list: %s", raw)
	}
}

func TestApplyChangesAPolicy(t *testing.T) {
	r := newRig(t)
	before := r.generation("default")
	body := block(`"algorithms":["ES384","ES256"]`, `"token_ttl_max":"30m"`)
	dry := r.put("default", strings.Replace(body, "{", `{"dry_run":true,`, 1))
	if r.generation("default") != before {
		t.Fatal("a dry run changed something")
	}
	got := r.put("default", body)
	dry.DryRun = false
	if !reflect.DeepEqual(dry, got) {
		t.Errorf("the dry run says\n%+v\nand then happens\n%+v", dry, got)
	}
	if want := "algorithms: [ES256 EdDSA] -> [ES384 ES256]\ntoken_ttl_max: 1h -> 30m"; fields(got.Diff) != want {
		t.Errorf("diff\n%s\nwant\n%s", fields(got.Diff), want)
	}
	if got.Generation != before+1 || r.generation("default") != before+1 || got.Created || len(got.Warnings) != 3 {
		t.Errorf("%+v", got)
	}
	happens := map[string]bool{}
	for _, e := range got.Events {
		happens[e.Algorithm+" "+string(e.Kind)] = true
	}
	for _, want := range []string{"ES384 activated", "EdDSA retired", "EdDSA removed"} {
		if !happens[want] {
			t.Errorf("it is not said when %s: %v", want, got.Events)
		}
	}
	for _, op := range r.state("default").Operations {
		if op.Kind == "policy" && op.By != "operator" {
			t.Errorf("the record says %+v", op)
		}
	}
	if again := r.put("default", body); len(again.Diff) != 0 || r.generation("default") != before+1 {
		t.Errorf("repeated: %+v", again)
	}
}

// A field that is missing takes the default of a block, whatever is in force;
// max_staleness and clock_skew are the daemon's.
func TestApplyDefaults(t *testing.T) {
	r := newRig(t)
	opt := rigOptions(r)
	opt.Defaults = func() rotation.Policy {
		p := rotation.DefaultPolicy()
		p.Issuer, p.MaxStaleness, p.ClockSkew, p.Revision = "https://default.invalid", rotation.Duration(2*time.Hour), rotation.Duration(time.Second), 7
		return p
	}
	r.serve(opt)
	r.put("shop", block(`"verifier_cache":"0s"`, `"handover_grace":"1m"`, `"rsa_bits":3072`, `"rotate":"@every 240h"`, `"discovery":true`, `"revision":3`))
	want := opt.Defaults()
	want.Issuer, want.VerifierCache, want.HandoverGrace = testIssuer, 0, rotation.Duration(time.Minute)
	want.RSABits, want.Rotate, want.Discovery, want.Revision = 3072, "@every 240h", true, 3
	if got := r.state("shop").Policy; !reflect.DeepEqual(got, want) {
		t.Errorf("in force is\n%+v\nwant\n%+v", got, want)
	}
	if out := r.put("shop", block()); out.Generation != 2 {
		t.Errorf("%+v", out)
	}
	want = opt.Defaults()
	want.Issuer, want.Revision = testIssuer, 3
	if got := r.state("shop").Policy; !reflect.DeepEqual(got, want) {
		t.Errorf("in force is\n%+v\nwant\n%+v", got, want)
	}
}

func TestApplyRefuses(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ body, code, field, detail string }{
		{`{}`, "invalid_policy", "issuer", "missing"},
		{`{"issuer":"auth"}`, "invalid_policy", "issuer", "not a URL"},
		{block(`"algorithms":[]`), "invalid_policy", "algorithms", "empty"},
		{block(`"algorithms":["HS256"]`), "invalid_policy", "algorithms", "unsupported"},
		{block(`"algorithms":["none"]`), "invalid_policy", "algorithms", "unsupported"},
		{block(`"algorithms":["ES256","ES256"]`), "invalid_policy", "algorithms", "twice"},
		{block(`"algorithms":[` + strings.Repeat(`"a",`, 5000) + `"a"]`), "invalid_policy", "algorithms", "more than there are"},
		{block(`"rsa_bits":1024`), "invalid_policy", "rsa_bits", "2048"},
		{block(`"rsa_bits":2049`), "invalid_policy", "rsa_bits", "multiple"},
		{block(`"rsa_bits":0`), "invalid_policy", "rsa_bits", "2048"},
		{block(`"rotate":"TZ="`), "invalid_policy", "rotate", ""},
		{block(`"rotate":"@every 1m"`), "invalid_policy", "rotate", "lead"},
		{block(`"token_ttl_max":"-1h"`), "invalid_policy", "token_ttl_max", "negative"},
		{block(`"custody":"transit"`), "invalid_policy", "custody", "keystore.vault"},
		{block(`"custody":"paper"`), "invalid_policy", "custody", "choose local or transit"},
		{block(`"revision":-1`), "invalid_policy", "revision", "negative"},
		{`{"issuer":"x","algorithms":["HS256"],"rsa_bits":1,"jwks_max_age":"-1s"}`, "invalid_policy", "algorithms", "issuer"},
		{block(`"token_ttl_max":"1 hour"`), "invalid_body", "token_ttl_max", ""},
		{block(`"token_ttl_max":3600`), "invalid_body", "token_ttl_max", ""},
		{block(`"token_ttl_max":null`), "invalid_body", "token_ttl_max", "null"},
		{block(`"verifier_cache":null`), "invalid_body", "verifier_cache", "null"},
		{block(`"max_staleness":"1h"`), "invalid_body", "", "does not know"},
		{block(`"clock_skew":"1s"`), "invalid_body", "", "does not know"},
		{block(`"Rotate":"@monthly"`), "invalid_body", "", "does not know"},
		{block(`"dry_run":true`, `"dry_run":false`), "invalid_body", "", "twice"},
		{`[]`, "invalid_body", "", ""},
	} {
		for _, keyset := range []string{"default", "shop"} {
			var p wire.Problem
			r.want(r.do("PUT", "/v1/keysets/"+keyset, operator, c.body), 400, c.code).decode(t, &p)
			if p.Field != c.field || !strings.Contains(p.Detail, c.detail) || len(p.Detail) > 5000 {
				t.Errorf("%.80s: field %q, %.300s", c.body, p.Field, p.Detail)
			}
		}
	}
	for _, name := range []string{"Shop", "-shop", ".shop", strings.Repeat("a", 64)} {
		r.want(r.do("PUT", "/v1/keysets/"+name, operator, block()), 400, "invalid_keyset_name")
	}
	if got := r.rotator.Names(); len(got) != 2 {
		t.Errorf("there are the keysets %v", got)
	}
}

func TestApplyCustodies(t *testing.T) {
	r := newRig(t)
	opt := rigOptions(r)
	opt.Custodies = []rotation.Custody{rotation.CustodyLocal, rotation.CustodyTransit}
	r.serve(opt)
	out := r.put("default", block(`"algorithms":["ES256","EdDSA"]`, `"custody":"transit"`))
	if fields(out.Diff) != "custody: local -> transit" || len(out.Warnings) != 1 {
		t.Errorf("%+v", out)
	}
}

func TestApplyOlderRevision(t *testing.T) {
	r := newRig(t)
	r.put("default", block(`"revision":5`))
	for _, dry := range []string{"true", "false"} {
		var p wire.Problem
		r.want(r.do("PUT", "/v1/keysets/default", operator, block(`"revision":4`, `"dry_run":`+dry)), 409, "older_revision").decode(t, &p)
		if p.Field != "revision" || !strings.Contains(p.Detail, "revision 5") {
			t.Errorf("%+v", p)
		}
	}
	r.put("default", block(`"token_ttl_max":"2h"`))
	if got := r.state("default").Policy; got.Revision != 5 {
		t.Errorf("revision %d", got.Revision)
	}
}

// TestApplyGrants: founding a keyset needs the grant on its name.
func TestApplyGrants(t *testing.T) {
	r := newRig(t)
	const tenants = "tenants-token-0123456789abcdefghij"
	callers := rigCallers()
	callers[api.TokenHash(tenants)] = &api.Caller{Name: "tenants", Grants: []api.Grant{{Keysets: []string{"shop"}, Actions: []api.Action{api.ActionApply}}}}
	r.api.SetAuth(api.NewTokens(callers))
	r.want(r.do("PUT", "/v1/keysets/shop", tenants, block()), 200, "")
	for _, path := range []string{"default", "nobody"} {
		r.want(r.do("PUT", "/v1/keysets/"+path, tenants, block()), 403, "forbidden")
	}
	r.want(r.do("DELETE", "/v1/keysets/shop", tenants, ""), 403, "forbidden")
	r.want(r.do("GET", "/v1/keysets/shop", tenants, ""), 403, "forbidden")
	r.want(r.do("PUT", "/v1/keysets/shop", turner, "{"), 403, "forbidden")
}

func TestDelete(t *testing.T) {
	r := newRig(t)
	// A key within its hand-over grace does not sign either.
	r.changed("/v1/keysets/tenant/rotate", operator, `{}`)
	r.run()
	r.eventually("there is a standby again", r.standby("tenant", "EdDSA"))
	r.eventually("all is quiet", func() bool {
		before := r.generation("tenant")
		time.Sleep(20 * time.Millisecond)
		return r.generation("tenant") == before
	})
	before := r.generation("tenant")
	dry := r.del("tenant", "?dry_run=true&reason=contract+ended")
	if r.generation("tenant") != before {
		t.Fatal("a dry run deleted something")
	}
	got := r.del("tenant", "?reason=contract+ended")
	if !dry.DryRun {
		t.Error("the dry run does not say so")
	}
	if dry.DryRun = false; !reflect.DeepEqual(dry, got) {
		t.Errorf("the dry run says\n%+v\nand then happens\n%+v", dry, got)
	}
	p := r.state("tenant").Policy
	least := r.clock.Now().Add((p.TokenTTLMax + p.HandoverGrace).Std())
	if !got.At.Equal(r.clock.Now()) || got.PublishedUntil.Before(least) || len(got.Events) == 0 {
		t.Errorf("%+v", got)
	}
	for _, e := range got.Events {
		if e.Kind != rotation.EventRetired && e.Kind != rotation.EventRemoved {
			t.Errorf("after the end there is %+v", e)
		}
	}
	r.want(r.do("POST", "/v1/keysets/tenant/sign", operator, `{"claims":{}}`), 409, "keyset_deleted")
	r.want(r.do("GET", "/v1/keysets/tenant/signing-key", operator, ""), 409, "keyset_deleted")
	r.want(r.do("POST", "/v1/keysets/tenant/rotate", operator, `{}`), 409, "keyset_deleted")
	r.want(r.do("PUT", "/v1/keysets/tenant", operator, block()), 409, "keyset_deleted")
	r.want(r.do("PUT", "/v1/keysets/tenant", operator, block(`"dry_run":true`)), 409, "keyset_deleted")
	var k wire.Keyset
	r.want(r.do("GET", "/v1/keysets/tenant", operator, ""), 200, "").decode(t, &k)
	if k.Deleted == nil || k.Deleted.Reason != "contract ended" || k.Deleted.By != "operator" {
		t.Errorf("the status says %+v", k.Deleted)
	}
	if again := r.del("tenant", "?reason=other"); !again.At.Equal(got.At) || again.PublishedUntil.Before(least) {
		t.Errorf("repeated: %+v", again)
	}

	r.clock.add(got.PublishedUntil.Sub(r.clock.Now()) + time.Minute)
	r.eventually("it is gone", func() bool { return r.do("GET", "/v1/keysets/tenant", operator, "").status == 404 })
	r.want(r.do("PUT", "/v1/keysets/tenant", operator, block()), 409, "keyset_deleted")
	r.want(r.do("PUT", "/v1/keysets/tenant", operator, block(`"dry_run":true`)), 409, "keyset_deleted")
	if again := r.del("tenant", ""); !again.At.Equal(got.At) || !again.PublishedUntil.IsZero() {
		t.Errorf("deleted when it is gone: %+v", again)
	}
}

func TestDeleteRequests(t *testing.T) {
	r := newRig(t)
	const path = "/v1/keysets/tenant"
	for _, query := range []string{"?dry-run=true", "?dry_run=yes", "?dry_run=", "?dry_run", "?dry_run=true&dry_run=true", "?dry_run=true&x=1", "?reason=%ff", "?reason=%zz", "?Dry_run=true"} {
		r.want(r.do("DELETE", path+query, operator, ""), 400, "invalid_query")
	}
	for _, body := range []string{`{"dryrun":true}`, `{"dry_run":"yes"}`, `[]`, `{`} {
		r.want(r.do("DELETE", path, operator, body), 400, "invalid_body")
	}
	r.want(r.do("DELETE", path+"?dry_run=true", operator, `{"reason":"a"}`), 400, "invalid_body")
	r.want(r.do("DELETE", path+"?reason="+strings.Repeat("a", 501), operator, ""), 400, "invalid_reason")
	r.want(r.do("DELETE", "/v1/keysets/nobody", operator, ""), 404, "unknown_keyset")
	r.want(r.do("DELETE", path, turner, ""), 403, "forbidden")
	if r.state("tenant").Closed != nil {
		t.Fatal("it was deleted")
	}
	r.want(r.do("DELETE", path, operator, `{"reason":"a","dry_run":true}`), 200, "")
	if r.state("tenant").Closed != nil {
		t.Fatal("a dry run deleted it")
	}
	r.want(r.do("DELETE", path, operator, `{"reason":"a"}`), 200, "")
	if c := r.state("tenant").Closed; c == nil || c.Reason != "a" {
		t.Errorf("%+v", c)
	}
}

// TestStoreUnavailable: nothing changes and nothing is told of the store. A
// change that was begun may have been written.
func TestStoreUnavailable(t *testing.T) {
	requests := []struct{ method, path, body string }{
		{"PUT", "/v1/keysets/default", block()},
		{"PUT", "/v1/keysets/default", block(`"dry_run":true`)},
		{"DELETE", "/v1/keysets/default", ""},
		{"POST", rotatePath, `{}`},
		{"PUT", "/v1/keysets/shop", block()},
		{"PUT", "/v1/keysets/shop", block(`"dry_run":true`)},
	}
	r := newRig(t)
	before := r.generation("default")
	r.breaks(keystoretest.Refused, keystoretest.OpLoad)
	for _, req := range requests {
		a := r.want(r.do(req.method, req.path, operator, req.body), 503, "store_unavailable")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: no Retry-After", req.method, req.path)
		}
	}
	r.breaks(keystoretest.Refused, keystoretest.OpCreateKey)
	r.want(r.do("PUT", "/v1/keysets/shop", operator, block()), 503, "store_unavailable")
	r.breaks(keystoretest.Refused, keystoretest.OpSwap)
	r.want(r.do("PUT", "/v1/keysets/default", operator, block()), 503, "unconfirmed")
	if !strings.Contains(r.log.String(), "10.9.8.7") {
		t.Error("the log does not say why")
	}
	if r.fault.Store(nil); r.generation("default") != before {
		t.Error("something was changed")
	}
	r.signed(issuer, `{"claims":{}}`)
	r.put("default", block())
	if out := r.put("shop", block()); !out.Created {
		t.Errorf("%+v", out)
	}
}

func TestApplyFrozen(t *testing.T) {
	r := newRig(t)
	r.clock.jump(time.Hour)
	r.sync()
	for _, dry := range []string{"true", "false"} {
		r.want(r.do("PUT", "/v1/keysets/default", operator, block(`"dry_run":`+dry)), 503, "frozen")
	}
}

// TestApplyKnowsWhatAnotherReplicaFounded, also before the next look at the
// store.
func TestApplyKnowsWhatAnotherReplicaFounded(t *testing.T) {
	r := newRig(t)
	other := r.replica(custody.Local{Keys: r.keys})
	for _, name := range []string{"shop", "till", "gone"} {
		if _, err := other.Ensure(t.Context(), name, testPolicy("ES256"), "config"); err != nil {
			t.Fatal(err)
		}
	}
	r.want(r.do("GET", "/v1/keysets/shop", operator, ""), 404, "unknown_keyset")
	if out := r.put("shop", block(`"token_ttl_max":"2h"`, `"dry_run":true`)); out.Created || fields(out.Diff) != "token_ttl_max: 1h -> 2h" {
		t.Errorf("%+v", out)
	}
	if out := r.put("till", block(`"token_ttl_max":"2h"`)); out.Created || fields(out.Diff) != "token_ttl_max: 1h -> 2h" {
		t.Errorf("%+v", out)
	}
	r.del("gone", "")
}

func TestReadOnlyReplica(t *testing.T) {
	r := newRig(t)
	opt := rigOptions(r)
	opt.ReadOnly = true
	r.serve(opt)
	before := r.generation("default")
	for _, req := range requests("default") {
		a := r.do(req.method, req.path, operator, req.body)
		if req.method == "GET" {
			r.want(a, 200, "")
			continue
		}
		var p wire.Problem
		r.want(a, 409, "read_only_replica")
		if json.Unmarshal(a.body, &p); p.Hint == "" {
			t.Errorf("%s %s: no hint", req.method, req.path)
		}
		r.want(r.do(req.method, req.path, stranger, req.body), 403, "forbidden")
	}
	if r.generation("default") != before {
		t.Error("something was changed")
	}
}
