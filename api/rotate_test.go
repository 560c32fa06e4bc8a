package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
)

const (
	rotatePath = "/v1/keysets/default/rotate"
	revokePath = "/v1/keysets/default/revoke"
)

func (r *rig) changed(path, token, body string, headers ...string) wire.Change {
	r.t.Helper()
	a := r.want(r.do("POST", path, token, body, headers...), 200, "")
	var c wire.Change
	if a.status != 200 {
		r.t.FailNow()
	}
	a.decode(r.t, &c)
	return c
}

// generation is the store's, not what is in view.
func (r *rig) generation(keyset string) uint64 {
	r.t.Helper()
	doc, err := r.store.Load(r.t.Context(), keyset)
	if err != nil {
		r.t.Fatal(err)
	}
	var s struct{ Generation uint64 }
	if err := json.Unmarshal(doc.Data, &s); err != nil {
		r.t.Fatal(err)
	}
	return s.Generation
}

func TestRotate(t *testing.T) {
	r := newRig(t)
	r.run()
	before := map[string]string{}
	for _, alg := range []string{"ES256", "EdDSA"} {
		before[alg] = r.active("default", alg)
	}
	c := r.changed(rotatePath, turner, `{"reason":"because"}`)
	if len(c.Promoted) != 2 || c.Keyset != "default" || !c.At.Equal(r.clock.Now()) || !c.EverywhereBy.Equal(c.At.Add(time.Hour)) || c.Replayed || len(c.Warnings) != 0 || c.Operation == "" {
		t.Errorf("the first rotation after the start: %+v", c)
	}
	for _, p := range c.Promoted {
		if p.From != before[p.Algorithm] || p.To != r.active("default", p.Algorithm) || !p.FullLead {
			t.Errorf("promotion %+v, before %v", p, before)
		}
	}
	if v := r.signed(issuer, `{"claims":{}}`); v.KID == before["ES256"] {
		t.Error("the old key still signs")
	}

	r.eventually("there is a standby again", r.standby("default", "ES256"))
	r.eventually("there is a standby again", r.standby("default", "EdDSA"))
	a := r.want(r.do("POST", rotatePath, turner, `{}`), 409, "lead_not_reached")
	var p wire.Problem
	a.decode(t, &p)
	lead := r.state("default").Timing().Lead.Std()
	if !p.Earliest.Equal(r.clock.Now().Add(lead)) {
		t.Errorf("earliest is %s, want %s", p.Earliest, r.clock.Now().Add(lead))
	}

	forced := r.changed(rotatePath, turner, `{"force":true,"alg":"EdDSA"}`)
	if len(forced.Promoted) != 1 || forced.Promoted[0].Algorithm != "EdDSA" || forced.Promoted[0].FullLead || len(forced.Warnings) != 1 {
		t.Errorf("a forced rotation of one lane: %+v", forced)
	}
	r.signed(issuer, `{"claims":{},"alg":"EdDSA"}`)

	r.clock.add(lead)
	r.sync()
	if c := r.changed(rotatePath, turner, `{"alg":"ES256"}`); len(c.Promoted) != 1 || !c.Promoted[0].FullLead {
		t.Errorf("a rotation after the lead: %+v", c)
	}
}

func TestRotateBodies(t *testing.T) {
	r := newRig(t)
	before := r.generation("default")
	for body, code := range map[string]string{
		`{"alg":"RS256"}`:              "unknown_lane",
		`{"alg":"none"}`:               "unknown_lane",
		`{"alg":"es256"}`:              "unknown_lane",
		`{"nope":1}`:                   "invalid_body",
		`{"Force":true}`:               "invalid_body",
		`{"force":true,"force":false}`: "invalid_body",
		`{"force":"yes"}`:              "invalid_body",
		`{"reason":1}`:                 "invalid_body",
		`{"reason":"` + "\xff" + `"}`:  "invalid_body",
		`{"reason":"\ud800"}`:          "invalid_body",
		`{"reason":"a"} x`:             "invalid_body",
		`{"reason":"a"}{}`:             "invalid_body",
		`{"reason":"a",}`:              "invalid_body",
		`{"reason":`:                   "invalid_body",
		`null`:                         "invalid_body",
		`[]`:                           "invalid_body",
		`"force"`:                      "invalid_body",
		` `:                            "invalid_body",
		`{"reason":"` + strings.Repeat("x", 501) + `"}`: "invalid_reason",
	} {
		a := r.want(r.do("POST", rotatePath, turner, body), 400, code)
		for _, inner := range []string{"wire.", "json:", "jsontext", "Go "} {
			if strings.Contains(string(a.body), inner) {
				t.Errorf("%s is answered with the words of a library: %s", body, a)
			}
		}
	}
	long := r.do("POST", rotatePath, turner, `{"`+strings.Repeat("x", 60000)+`":1}`)
	if r.want(long, 400, "invalid_body"); len(long.body) > 1000 {
		t.Errorf("%d bytes are sent back", len(long.body))
	}
	if long := r.do("POST", rotatePath, turner, `{"alg":"`+strings.Repeat("x", 60000)+`"}`); len(long.body) > 1000 {
		t.Errorf("%d bytes are sent back", len(long.body))
	}
	if r.generation("default") != before {
		t.Fatal("a refused request changed the keyset")
	}
	// An empty body stands for {}, and says nothing about its media type.
	if c := r.changed(rotatePath, turner, ""); len(c.Promoted) != 2 {
		t.Errorf("an empty body: %+v", c)
	}
}

func TestC68ReplayedRotation(t *testing.T) {
	r := newRig(t)
	const key = "Idempotency-Key"
	first := r.changed(rotatePath, turner, `{"reason":"a"}`, key, "one")
	generation := r.generation("default")
	again := r.changed(rotatePath, turner, `{ "reason" : "a" }`, key, "one")
	if !again.Replayed || first.Replayed {
		t.Errorf("replayed is %t at first and %t then", first.Replayed, again.Replayed)
	}
	again.Replayed = false
	if a, b := toJSON(t, first), toJSON(t, again); a != b {
		t.Errorf("another answer:\n%s\n%s", a, b)
	}
	r.want(r.do("POST", rotatePath, turner, `{"reason":"b"}`, key, "one"), 422, "idempotency_key_reused")
	r.want(r.do("POST", rotatePath, turner, `{"reason":"a","force":true}`, key, "one"), 422, "idempotency_key_reused")
	r.want(r.do("POST", rotatePath, turner, `{"reason":"a"}`, key, strings.Repeat("x", 256)), 400, "invalid_idempotency_key")
	if r.generation("default") != generation {
		t.Fatal("a replay changed the keyset")
	}
	// Another caller's key of the same name, and a key of another name, are
	// other requests: there is no standby for a second rotation yet.
	r.want(r.do("POST", rotatePath, operator, `{"reason":"a"}`, key, "one"), 409, "lead_not_reached")
	r.want(r.do("POST", rotatePath, turner, `{"reason":"a"}`, key, "two"), 409, "lead_not_reached")
	r.want(r.do("POST", rotatePath, turner, `{"reason":"a"}`), 409, "lead_not_reached")
	// The same key for another keyset is another request too.
	if c := r.changed("/v1/keysets/tenant/rotate", operator, `{}`, key, "one"); c.Replayed {
		t.Error("a key of another keyset was taken for a replay")
	}
	// The key itself is not kept.
	doc, _ := r.store.Load(t.Context(), "default")
	if r.changed(rotatePath, turner, `{"reason":"a"}`, key, "one"); strings.Contains(string(doc.Data), `"one"`) {
		t.Error("the idempotency key stands in the document")
	}
}

func TestC68ReplayedRevocation(t *testing.T) {
	r := newRig(t)
	r.run()
	kid := r.active("default", "ES256")
	body := `{"kid":"` + kid + `","reason":"leaked"}`
	first := r.changed(revokePath, revoker, body, "Idempotency-Key", "k")
	r.clock.add(time.Minute)
	r.sync()
	again := r.changed(revokePath, revoker, body, "Idempotency-Key", "k")
	if !again.Replayed || again.Generation != first.Generation || !again.At.Equal(first.At) || !again.TrustedUntil.Equal(first.TrustedUntil) ||
		toJSON(t, again.Promoted) != toJSON(t, first.Promoted) || toJSON(t, again.Revoked) != toJSON(t, first.Revoked) || toJSON(t, again.Warnings) != toJSON(t, first.Warnings) {
		t.Errorf("another answer:\n%s\n%s", toJSON(t, first), toJSON(t, again))
	}
	r.want(r.do("POST", revokePath, revoker, body), 409, "already_revoked")
	r.want(r.do("POST", rotatePath, operator, `{}`, "Idempotency-Key", "k"), 409, "lead_not_reached") // another caller
	r.want(r.do("POST", revokePath, revoker, `{"kid":"other","reason":"leaked"}`, "Idempotency-Key", "k"), 422, "idempotency_key_reused")
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestC68LostReply: the change was written but the client never heard of it.
func TestC68LostReply(t *testing.T) {
	r := newRig(t)
	inner := r.api
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		inner.ServeHTTP(deaf{http.Header{}}, req)
		panic(http.ErrAbortHandler)
	}))
	defer srv.Close()
	req, _ := http.NewRequest("POST", srv.URL+rotatePath, strings.NewReader(`{}`))
	req.Header = http.Header{"Authorization": {"Bearer " + turner}, "Content-Type": {"application/json"}, "Idempotency-Key": {"k"}}
	if resp, err := srv.Client().Do(req); err == nil {
		resp.Body.Close()
		t.Fatal("there was an answer")
	}
	generation := r.generation("default")
	if c := r.changed(rotatePath, turner, `{}`, "Idempotency-Key", "k"); !c.Replayed || c.Generation != generation {
		t.Errorf("repeating after a lost reply: %+v at generation %d", c, generation)
	}
}

// deaf is an answer that nobody hears.
type deaf struct{ h http.Header }

func (d deaf) Header() http.Header         { return d.h }
func (d deaf) Write(p []byte) (int, error) { return 0, io.ErrClosedPipe }
func (d deaf) WriteHeader(int)             {}
