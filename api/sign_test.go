package api_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/internal/verify"
)

const signPath = "/v1/keysets/default/sign"

// signed asks for a token that must come, and verifies it against the set.
func (r *rig) signed(token, body string) *verify.Verified {
	r.t.Helper()
	a := r.want(r.do(http.MethodPost, signPath, token, body), 200, "")
	var got wire.Token
	if a.status != 200 {
		r.t.FailNow()
	}
	a.decode(r.t, &got)
	v, err := verified(published(r.t, r.view("default")), got.Token, r.clock.Now())
	if err != nil {
		r.t.Fatalf("the token of %s: %v", body, err)
	}
	if v.KID != got.KID || v.Algorithm != got.Alg || !v.ExpiresAt.Equal(got.ExpiresAt) {
		r.t.Errorf("the answer %s is about another token than %s", a.body, v.Header)
	}
	return v
}

// signCase is a request to sign and what becomes of it.
type signCase struct {
	name, body string
	status     int
	code       string
}

// run sends the cases, each after a control that the daemon still signs.
func (r *rig) runSign(cases []signCase) {
	r.t.Helper()
	for _, c := range cases {
		r.signed(issuer, `{"claims":{"sub":"control"}}`)
		if a := r.do(http.MethodPost, signPath, issuer, c.body); a.status != c.status || a.code != c.code {
			r.t.Errorf("%s: answer %d %q, want %d %q: %.200s", c.name, a.status, a.code, c.status, c.code, a.body)
		}
	}
}

func TestC10CallerCannotSetTheHeader(t *testing.T) {
	r := newRig(t)
	var cases []signCase
	for _, m := range []string{
		`"kid":"x"`, `"jwk":{}`, `"jku":"https://evil.example"`, `"x5u":"https://evil.example"`, `"x5c":[]`, `"x5t":""`,
		`"crit":["b64"]`, `"b64":false`, `"b64":true`, `"zip":"DEF"`, `"enc":""`, `"cty":"JWT"`, `"header":{}`, `"protected":""`,
		`"k\u0069d":"x"`,
	} {
		cases = append(cases, signCase{m, `{"claims":{"sub":"a"},` + m + `}`, 400, "header_not_allowed"})
	}
	cases = append(cases,
		signCase{"unknown member", `{"claims":{},"nope":1}`, 400, "unknown_member"},
		signCase{"member in another case", `{"Claims":{}}`, 400, "unknown_member"},
		signCase{"no claims", `{}`, 400, "claims_missing"},
	)
	for _, alg := range []string{`"none"`, `"noNE"`, `"HS256"`, `"es256"`, `"ES257"`, `""`, `null`, `["ES256"]`} {
		cases = append(cases, signCase{"alg " + alg, `{"claims":{},"alg":` + alg + `}`, 400, "invalid_alg"})
	}
	cases = append(cases, signCase{"alg without a lane", `{"claims":{},"alg":"RS256"}`, 400, "no_active_key"})
	r.runSign(cases)
	for alg, body := range map[string]string{"ES256": `{"claims":{}}`, "EdDSA": `{"claims":{},"alg":"EdDSA"}`} {
		v := r.signed(issuer, body)
		want := fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, alg, r.active("default", alg))
		if string(v.Header) != want {
			t.Errorf("header %s, want %s", v.Header, want)
		}
	}
}

func TestC11TypIsExplicit(t *testing.T) {
	r := newRig(t)
	const full = `"claims":{"sub":"a","aud":"b","client_id":"c"}`
	for _, c := range []struct{ caller, typ, want string }{
		{issuer, `"JWT"`, "JWT"}, {issuer, `"jwt"`, "JWT"}, {issuer, `"at+jwt"`, "at+jwt"},
		{issuer, `"application/at+jwt"`, "at+jwt"}, {issuer, `"Application/AT+JWT"`, "at+jwt"},
		{typist, `"secevent+jwt"`, "secevent+jwt"}, {typist, `"kb+jwt"`, "kb+jwt"}, {typist, `"JWT"`, "JWT"},
	} {
		if v := r.signed(c.caller, `{`+full+`,"typ":`+c.typ+`}`); v.Type != c.want {
			t.Errorf("typ %s gives %q, want %q", c.typ, v.Type, c.want)
		}
	}
	for _, c := range []struct{ caller, typ string }{
		{issuer, "secevent+jwt"}, {issuer, "at+jwt2"}, {issuer, "jwk-set+jwt"},
		{typist, "logout+jwt"}, // granted for another keyset
		{typist, "dpop+jwt"},   // granted for another action
	} {
		r.want(r.do(http.MethodPost, signPath, c.caller, `{`+full+`,"typ":"`+c.typ+`"}`), 403, "typ_not_granted")
	}
	r.runSign([]signCase{
		{"empty typ", `{"claims":{},"typ":""}`, 400, "invalid_typ"},
		{"typ null", `{"claims":{},"typ":null}`, 400, "invalid_typ"},
		{"claims are a JWT", `{"claims":"eyJhbGciOiJub25lIn0.e30."}`, 400, "not_an_object"},
	})
}

func TestC12StrictJSON(t *testing.T) {
	r := newRig(t)
	nested := func(n int) string { return strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1) }
	r.runSign([]signCase{
		{"member twice", `{"claims":{"sub":"a","sub":"b"}}`, 400, "duplicate_member"},
		{"member twice, escaped", `{"claims":{"sub":"a","s\u0075b":"b"}}`, 400, "duplicate_member"},
		{"member twice, deep", `{"claims":{"a":[{"b":{"c":1,"c":1}}]}}`, 400, "duplicate_member"},
		{"claims twice", `{"claims":{"sub":"a"},"claims":{"sub":"b"}}`, 400, "duplicate_member"},
		{"invalid UTF-8", "{\"claims\":{\"sub\":\"\xff\"}}", 400, "invalid_utf8"},
		{"lone surrogate", `{"claims":{"sub":"\ud800"}}`, 400, "lone_surrogate"},
		{"lone surrogate in a name", `{"claims":{"\udc00":1}}`, 400, "lone_surrogate"},
		{"depth 32", `{"claims":` + nested(32) + `}`, 200, ""},
		{"depth 33", `{"claims":` + nested(33) + `}`, 400, "too_deep"},
		{"depth 20000", `{"claims":` + strings.Repeat("[", 20000), 400, "too_deep"},
		{"depth 20000 inside", `{"claims":{"a":` + strings.Repeat("[", 20000), 400, "too_deep"},
		{"NaN", `{"claims":{"a":NaN}}`, 400, "invalid_json"},
		{"Infinity", `{"claims":{"a":-Infinity}}`, 400, "invalid_json"},
		{"leading zero", `{"claims":{"a":01}}`, 400, "invalid_json"},
		{"byte order mark", "\ufeff" + `{"claims":{}}`, 400, "byte_order_mark"},
		{"trailing data", `{"claims":{}}{}`, 400, "trailing_data"},
		{"trailing zero byte", "{\"claims\":{}}\x00", 400, "trailing_data"},
		{"trailing space", "{\"claims\":{}} \r\n", 200, ""},
		{"claims null", `{"claims":null}`, 400, "not_an_object"},
		{"claims array", `{"claims":[]}`, 400, "not_an_object"},
		{"claims number", `{"claims":1}`, 400, "not_an_object"},
		{"array", `[]`, 400, "not_an_object"},
		{"cut off", `{"claims":{"a":`, 400, "invalid_json"},
		{"control character", "{\"claims\":{\"a\":\"\x01\"}}", 400, "control_character"},
	})
	// An empty body has a media type too.
	r.want(r.do(http.MethodPost, signPath, issuer, "", "Content-Type", "application/json"), 400, "invalid_json")
}

func TestC14Numbers(t *testing.T) {
	r := newRig(t)
	now := r.clock.Now().Unix()
	r.runSign([]signCase{
		{"1e400", `{"claims":{"a":1e400}}`, 400, "number_out_of_range"},
		{"1e400 deep", `{"claims":{"a":[{"b":-1e400}]}}`, 400, "number_out_of_range"},
		{"exp string", `{"claims":{"exp":"1"}}`, 400, "invalid_date"},
		{"exp null", `{"claims":{"exp":null}}`, 400, "invalid_date"},
		{"nbf true", `{"claims":{"nbf":true}}`, 400, "invalid_date"},
		{"iat string", `{"claims":{"iat":"now"}}`, 400, "invalid_date"},
		{"exp 2^53", `{"claims":{"exp":9007199254740992}}`, 400, "invalid_date"},
		{"nbf -2^53", `{"claims":{"nbf":-9007199254740992}}`, 400, "invalid_date"},
	})
	v := r.signed(issuer, fmt.Sprintf(`{"claims":{"n":9007199254740993,"m":1.10,"e":1E2,"exp":%d.9,"nbf":%d.5}}`, now+60, now-7))
	for _, part := range []string{`"n":9007199254740993`, `"m":1.10`, `"e":1E2`, fmt.Sprintf(`"exp":%d,`, now+60), fmt.Sprintf(`"nbf":%d,`, now-7)} {
		if !strings.Contains(string(v.Claims), part) {
			t.Errorf("no %s in %s", part, v.Claims)
		}
	}
}

func TestC15Lifetimes(t *testing.T) {
	r := newRig(t)
	now := r.clock.Now().Unix()
	r.runSign([]signCase{
		{"exp at the limit", fmt.Sprintf(`{"claims":{"exp":%d}}`, now+3600), 200, ""},
		{"exp a second on", fmt.Sprintf(`{"claims":{"exp":%d}}`, now+3601), 400, "exp_too_far"},
		{"exp a second on, from a later iat", fmt.Sprintf(`{"claims":{"exp":%d,"iat":%d}}`, now+3601, now+4), 400, "exp_too_far"},
		{"exp now", fmt.Sprintf(`{"claims":{"exp":%d}}`, now), 400, "exp_in_past"},
		{"nbf at exp", fmt.Sprintf(`{"claims":{"exp":%d,"nbf":%d}}`, now+60, now+60), 400, "nbf_not_before_exp"},
		{"iat within skew", fmt.Sprintf(`{"claims":{"iat":%d}}`, now-5), 200, ""},
		{"iat before skew", fmt.Sprintf(`{"claims":{"iat":%d}}`, now-6), 400, "iat_out_of_bounds"},
		{"iat after skew", fmt.Sprintf(`{"claims":{"iat":%d}}`, now+6), 400, "iat_out_of_bounds"},
		{"ttl at the limit", `{"claims":{},"ttl":"1h"}`, 200, ""},
		{"ttl too long", `{"claims":{},"ttl":"1h1s"}`, 400, "ttl_too_long"},
		{"ttl in days", `{"claims":{},"ttl":"30d"}`, 400, "ttl_too_long"},
		{"ttl zero", `{"claims":{},"ttl":"0s"}`, 400, "invalid_ttl"},
		{"ttl negative", `{"claims":{},"ttl":"-5m"}`, 400, "invalid_ttl"},
		{"ttl number", `{"claims":{},"ttl":300}`, 400, "invalid_ttl"},
		{"ttl and exp", fmt.Sprintf(`{"claims":{"exp":%d},"ttl":"5m"}`, now+60), 400, "ttl_and_exp"},
	})
	for body, ttl := range map[string]time.Duration{`{"claims":{}}`: time.Hour, `{"claims":{},"ttl":"90s"}`: 90 * time.Second} {
		v := r.signed(issuer, body)
		if !v.ExpiresAt.Equal(r.clock.Now().Add(ttl)) || !v.IssuedAt.Equal(r.clock.Now()) {
			t.Errorf("%s is issued at %s until %s", body, v.IssuedAt, v.ExpiresAt)
		}
	}
	if v := r.signed(issuer, fmt.Sprintf(`{"claims":{"iat":%d}}`, now-3)); v.IssuedAt.Unix() != now {
		t.Errorf("iat is %d, want the server's %d", v.IssuedAt.Unix(), now)
	}
}

func TestC16IssuerAudienceID(t *testing.T) {
	r := newRig(t)
	r.runSign([]signCase{
		{"own iss", `{"claims":{"iss":"` + testIssuer + `"}}`, 200, ""},
		{"foreign iss", `{"claims":{"iss":"https://evil.example"}}`, 403, "foreign_issuer"},
		{"iss with a slash", `{"claims":{"iss":"` + testIssuer + `/"}}`, 403, "foreign_issuer"},
		{"iss array", `{"claims":{"iss":["` + testIssuer + `"]}}`, 400, "invalid_claim"},
		{"aud empty", `{"claims":{"aud":""}}`, 400, "invalid_claim"},
		{"aud empty array", `{"claims":{"aud":[]}}`, 400, "invalid_claim"},
		{"aud nested", `{"claims":{"aud":[["a"]]}}`, 400, "invalid_claim"},
		{"aud number", `{"claims":{"aud":1}}`, 400, "invalid_claim"},
		{"aud null in array", `{"claims":{"aud":["a",null]}}`, 400, "invalid_claim"},
	})
	for _, aud := range []string{`"a"`, `["a"]`, `["a","b"]`} {
		if v := r.signed(issuer, `{"claims":{"aud":`+aud+`}}`); !strings.Contains(string(v.Claims), `"aud":`+aud) {
			t.Errorf("aud %s became %s", aud, v.Claims)
		}
	}
	seen := map[string]bool{}
	for range 20 {
		var c struct{ JTI string }
		json.Unmarshal(r.signed(issuer, `{"claims":{}}`).Claims, &c)
		if raw, err := base64.RawURLEncoding.DecodeString(c.JTI); err != nil || len(raw) < 16 || seen[c.JTI] {
			t.Fatalf("jti %q is short or was there before", c.JTI)
		}
		seen[c.JTI] = true
	}
	if v := r.signed(issuer, `{"claims":{"jti":"mine"}}`); !strings.Contains(string(v.Claims), `"jti":"mine"`) {
		t.Errorf("jti was changed: %s", v.Claims)
	}
}

func TestC17AccessTokens(t *testing.T) {
	r := newRig(t)
	claims := map[string]string{"sub": `"a"`, "aud": `"b"`, "client_id": `"c"`}
	body := func(without string) string {
		var parts []string
		for name, value := range claims {
			if name != without {
				parts = append(parts, `"`+name+`":`+value)
			}
		}
		return `{"claims":{` + strings.Join(parts, ",") + `},"typ":"at+jwt"}`
	}
	for name := range claims {
		r.runSign([]signCase{{"without " + name, body(name), 400, "claim_missing"}})
	}
	var got map[string]any
	json.Unmarshal(r.signed(issuer, body("")).Claims, &got)
	for _, name := range []string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} {
		if got[name] == nil {
			t.Errorf("an access token without %s: %v", name, got)
		}
	}
}
