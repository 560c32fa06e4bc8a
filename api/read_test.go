package api_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/rotation"
)

// timestamp matches what could be one, in whatever form.
var timestamp = regexp.MustCompile(`^\d{4}-\d\d-\d\d`)

// private are the members of a JWK that no answer may have.
var private = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

// wantUTC walks over an answer: every timestamp is RFC 3339 in UTC, and no JWK
// has a private member.
func wantUTC(t *testing.T, what string, body []byte) {
	t.Helper()
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case string:
			if timestamp.MatchString(v) {
				if at, err := time.Parse(time.RFC3339Nano, v); err != nil || !strings.HasSuffix(v, "Z") || at.Year() < 2026 {
					t.Errorf("%s: %s is %q", what, path, v)
				}
			}
		case []any:
			for _, e := range v {
				walk(path+"[]", e)
			}
		case map[string]any:
			for name, e := range v {
				if _, key := v["kty"]; key && slices.Contains(private, name) {
					t.Errorf("%s: %s has the private member %s", what, path, name)
				}
				walk(path+"."+name, e)
			}
		}
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	walk("", v)
}

func TestReadAnswers(t *testing.T) {
	r := newRig(t)
	r.run()
	r.changed(rotatePath, operator, `{"reason":"a"}`)
	r.eventually("there is a standby", r.standby("default", "ES256"))
	r.changed(revokePath, operator, `{"kid":"`+r.active("default", "EdDSA")+`","reason":"leaked"}`)
	for path, into := range map[string]any{
		"/v1/keysets":                     &wire.Keysets{},
		"/v1/keysets/default":             &wire.Keyset{},
		"/v1/keysets/default/signing-key": &wire.SigningKey{},
		"/v1/keysets/default/plan":        &wire.Plan{},
	} {
		a := r.want(r.do("GET", path, operator, ""), 200, "")
		a.decode(t, into) // refuses members that package wire does not know
		wantUTC(t, path, a.body)
		for _, word := range []string{`"d":`, "PRIVATE", "secret"} {
			if strings.Contains(string(a.body), word) {
				t.Errorf("%s has %s: %s", path, word, a.body)
			}
		}
	}
	for _, body := range []string{`{"claims":{}}`, `{"claims":{},"alg":"EdDSA"}`} {
		wantUTC(t, "sign", r.want(r.do("POST", signPath, operator, body), 200, "").body)
	}
}

// TestLongAnswersSayTheirLength: those that net/http does not measure by itself.
func TestLongAnswersSayTheirLength(t *testing.T) {
	r := newRig(t)
	for path, long := range map[string]bool{"/v1/keysets": true, "/v1/keysets/default/plan?horizon=1h": false} {
		a := r.want(r.do("GET", path, operator, ""), 200, "")
		if got := a.header.Get("Content-Length"); got != strconv.Itoa(len(a.body)) || long != (len(a.body) > 2048) {
			t.Errorf("%s: Content-Length %q of %d bytes", path, got, len(a.body))
		}
	}
}

// TestAnswersAreInUTCWhateverTheClock: they are in UTC though the clock is not.
func TestAnswersAreInUTCWhateverTheClock(t *testing.T) {
	r := newRig(t)
	zone := time.FixedZone("far", 5*3600)
	opt := rigOptions(r)
	opt.Now = func() time.Time { return r.clock.Now().In(zone) }
	opt.Reload = func() *wire.Reload { return &wire.Reload{At: r.clock.Now().In(zone)} }
	r.serve(opt)
	kid := r.active("default", "ES256")
	for _, a := range []answer{
		r.do("GET", "/v1/keysets", operator, ""),
		r.do("GET", "/v1/keysets/default/plan", operator, ""),
		r.do("POST", signPath, operator, `{"claims":{}}`),
		r.do("POST", revokePath, operator, `{"kid":"`+kid+`","reason":"a","dry_run":true}`),
		r.do("POST", revokePath, operator, `{"kid":"`+kid+`","reason":"a"}`),
	} {
		wantUTC(t, "an answer", r.want(a, 200, "").body)
	}
}

func TestKeyset(t *testing.T) {
	r := newRig(t)
	var k wire.Keyset
	r.want(r.do("GET", "/v1/keysets/default", reader, ""), 200, "").decode(t, &k)
	if k.Keyset != "default" || k.Issuer != testIssuer || k.Generation != r.generation("default") || k.Stale || !k.FreshAt.Equal(r.clock.Now()) ||
		len(k.Lanes) != 2 || k.Timing != r.state("default").Timing() || len(k.Revoked) != 0 || k.Revoked == nil {
		t.Errorf("%+v", k)
	}
	for i, alg := range []string{"ES256", "EdDSA"} {
		l := k.Lanes[i]
		if l.Alg != alg || l.Default != (i == 0) || l.Winding || l.Overdue || len(l.Keys) != 2 || l.Keys[0].Phase != rotation.PhaseActive || l.Keys[1].Phase != rotation.PhaseStandby {
			t.Errorf("lane %+v", l)
			continue
		}
		if active, next := l.Keys[0], l.Keys[1]; active.KID != r.active("default", alg) || !active.SignsUntil.Equal(next.ActivateAt.Add(30*time.Second)) || active.Problem != "" {
			t.Errorf("active %+v\nnext %+v", active, next)
		}
		for _, key := range l.Keys {
			jwk, err := jwks.Parse(key.JWK)
			if err != nil || jwk.KID() != key.KID || jwk.Algorithm() != alg {
				t.Errorf("the JWK of %s: %v", key.KID, err)
			}
		}
	}
}

func TestSigningKey(t *testing.T) {
	r := newRig(t)
	for query, alg := range map[string]string{"": "ES256", "?alg=ES256": "ES256", "?alg=EdDSA": "EdDSA", "?alg=": "ES256"} {
		var k wire.SigningKey
		r.want(r.do("GET", "/v1/keysets/default/signing-key"+query, reader, ""), 200, "").decode(t, &k)
		l, _ := r.state("default").Lane(alg)
		next, _ := l.Standby(r.clock.Now())
		if k.KID != r.active("default", alg) || k.Alg != alg || k.Next == nil || k.Next.KID != next.KID || !k.Next.ActivateAt.Equal(next.ActivateAt) || !k.SignsUntil.Equal(next.ActivateAt.Add(30*time.Second)) {
			t.Errorf("%q: %+v", query, k)
		}
		if jwk, err := jwks.Parse(k.JWK); err != nil || jwk.KID() != k.KID {
			t.Errorf("%q: the JWK: %v", query, err)
		}
	}
	for _, alg := range []string{"RS256", "none", "es256", strings.Repeat("x", 5000)} {
		if a := r.want(r.do("GET", "/v1/keysets/default/signing-key?alg="+alg, reader, ""), 400, "no_active_key"); len(a.body) > 1000 {
			t.Errorf("%d bytes are sent back", len(a.body))
		}
	}
}

func TestPlan(t *testing.T) {
	r := newRig(t)
	for query, length := range map[string]time.Duration{
		"": 90 * 24 * time.Hour, "?horizon=": 90 * 24 * time.Hour, "?horizon=1d": 24 * time.Hour, "?horizon=36h": 36 * time.Hour, "?horizon=1830d": 1830 * 24 * time.Hour, "?horizon=1ns": 1,
	} {
		var p wire.Plan
		r.want(r.do("GET", "/v1/keysets/default/plan"+query, reader, ""), 200, "").decode(t, &p)
		if p.Keyset != "default" || !p.Now.Equal(r.clock.Now()) || p.Horizon.Sub(p.Now) != length || len(p.Keys) < 4 {
			t.Errorf("%q: %s to %s with %d keys", query, p.Now, p.Horizon, len(p.Keys))
		}
		for i, e := range p.Events {
			if e.At.Before(p.Now) || e.At.After(p.Horizon) || i > 0 && e.At.Before(p.Events[i-1].At) {
				t.Errorf("%q: event %d is out of order or beyond the horizon: %+v", query, i, e)
			}
		}
		if length >= 90*24*time.Hour && len(p.Events) < 10 {
			t.Errorf("%q: %d events", query, len(p.Events))
		}
	}
	before := toJSON(t, r.state("default"))
	for _, text := range []string{"0", "0s", "-1d", "-5m", "1831d", "90", "d", "1y", "NaN", "1e9h", "99999999999999d", "1d-1s", strings.Repeat("9", 5000) + "d"} {
		if a := r.want(r.do("GET", "/v1/keysets/default/plan?horizon="+text, reader, ""), 400, "invalid_horizon"); len(a.body) > 1000 {
			t.Errorf("%d bytes are sent back", len(a.body))
		}
	}
	if toJSON(t, r.state("default")) != before {
		t.Error("a plan changed the state")
	}
}

// TestReloadIsReported: whoever reads everything sees the error, others that
// there is one.
func TestReloadIsReported(t *testing.T) {
	r := newRig(t)
	opt := rigOptions(r)
	var latest *wire.Reload
	opt.Reload = func() *wire.Reload { return latest }
	r.serve(opt)
	ask := func(caller string) *wire.Reload {
		var k wire.Keysets
		r.want(r.do("GET", "/v1/keysets", caller, ""), 200, "").decode(t, &k)
		return k.Daemon.Config
	}
	if ask(operator) != nil {
		t.Error("a reload that never was")
	}
	latest = &wire.Reload{At: r.clock.Now(), Error: "/etc/jwksd.yaml:3: tenant: nope"}
	if got := ask(operator); got == nil || *got != *latest {
		t.Errorf("the operator sees %+v", got)
	}
	if got := ask(reader); got == nil || got.OK || got.Error != "" {
		t.Errorf("the reader of one keyset sees %+v", got)
	}
	if latest.Error == "" {
		t.Error("the daemon's own record was changed")
	}
}
