package signer

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

type claimCase struct {
	body string
	code string // empty: accepted
}

func runCases(t *testing.T, cases []claimCase) {
	t.Helper()
	for _, c := range cases {
		name := c.body
		if len(name) > 60 {
			name = name[:60]
		}
		t.Run(name, func(t *testing.T) {
			out, err := issue(c.body)
			if c.code != "" {
				wantCode(t, err, c.code)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			body, err := membersOf([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			claims, _ := find(body, "claims")
			if err := checkIssued([]byte(claims), out, testRules(), testNow); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestC10HeaderMembersAreRefused(t *testing.T) {
	for _, name := range []string{"kid", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64", "zip", "cty", "header", "headers", "protected", `k\u0069d`} {
		for _, body := range []string{`{"claims":{},"%s":"x"}`, `{"%s":{"alg":"none"},"claims":{}}`, `{"%s":false,"claims":{}}`} {
			_, err := issue(fmt.Sprintf(body, name))
			wantCode(t, err, CodeHeaderNotAllowed)
		}
	}
	runCases(t, []claimCase{
		{`{"claims":{},"other":1}`, CodeUnknownMember},
		{`{"claims":{},"Alg":"ES256"}`, CodeUnknownMember},
		{`{"claims":{},"alg":"none"}`, CodeInvalidAlg},
		{`{"claims":{},"alg":"HS256"}`, CodeInvalidAlg},
		{`{"claims":{},"alg":"es256"}`, CodeInvalidAlg},
		{`{"claims":{},"alg":["ES256"]}`, CodeInvalidAlg},
		{`{"claims":{},"alg":null}`, CodeInvalidAlg},
		{`{"claims":{},"alg":"ES256"}`, ""},
		{`{"claims":{"kid":"x","b64":false,"jwk":{}}}`, ""}, // as claims they mean nothing
		{`{}`, CodeClaimsMissing},
		{`{"ttl":"5m"}`, CodeClaimsMissing},
	})
	r, err := ParseRequest([]byte(`{"alg":"PS384","claims":{}}`))
	if err != nil || r.Alg != "PS384" {
		t.Fatalf("lane %q, %v", r.Alg, err)
	}
}

func TestC11Typ(t *testing.T) {
	at := `"aud":"api","sub":"s","client_id":"c"`
	for _, c := range []struct{ typ, want, code string }{
		{`"JWT"`, "JWT", ""},
		{`"jwt"`, "JWT", ""},
		{`"application/JWT"`, "JWT", ""},
		{`"at+jwt"`, "at+jwt", ""},
		{`"AT+JWT"`, "at+jwt", ""},
		{`"application/at+jwt"`, "at+jwt", ""},
		{`"Application/at+JWT"`, "at+jwt", ""},
		{`"at\u002bjwt"`, "at+jwt", ""},
		{`"secevent+jwt"`, "secevent+jwt", ""},
		{`"application/SecEvent+jwt"`, "secevent+jwt", ""},
		{`"dpop+jwt"`, "", CodeTypNotGranted},
		{`"application/"`, "", CodeTypNotGranted},
		{`"application/x/at+jwt"`, "", CodeTypNotGranted},
		{`"at+jwt "`, "", CodeTypNotGranted},
		{`"` + strings.Repeat("é", 1000) + `"`, "", CodeTypNotGranted},
		{`""`, "", CodeInvalidTyp},
		{`null`, "", CodeInvalidTyp},
		{`["JWT"]`, "", CodeInvalidTyp},
	} {
		out, err := issue(`{"claims":{` + at + `},"typ":` + c.typ + `}`)
		if c.code != "" {
			wantCode(t, err, c.code)
		} else if err != nil || out.Typ != c.want {
			t.Errorf("typ %s: got %q, %v", c.typ, out.Typ, err)
		}
	}
	if out, err := issue(`{"claims":{}}`); err != nil || out.Typ != "JWT" {
		t.Errorf("default: got %q, %v", out.Typ, err)
	}
	_, err := issue(`{"claims":{},"cty":"JWT"}`)
	wantCode(t, err, CodeHeaderNotAllowed)
	_, err = issue(`{"claims":"e30.e30.e30"}`)
	wantCode(t, err, CodeNotAnObject)
}

// nest gives a value of that depth, and the claims set around it has one more.
func nest(depth int) string {
	return strings.Repeat(`[`, depth) + strings.Repeat(`]`, depth)
}

func manyMembers(n int, last string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"m%d":0,`, i)
	}
	return b.String() + `"` + last + `":0`
}

func TestC12StrictJSON(t *testing.T) {
	wrap := func(claims string) string { return `{"claims":` + claims + `}` }
	runCases(t, []claimCase{
		{wrap(`{"a":1,"a":1}`), CodeDuplicateMember},
		{wrap(`{"a":1,"\u0061":1}`), CodeDuplicateMember},
		{wrap(`{"😀":1,"\ud83d\ude00":1}`), CodeDuplicateMember},
		{wrap(`{"x":[{"y":{"a":1,"b":2,"a":3}}]}`), CodeDuplicateMember},
		{wrap(`{"exp":1800000100,"e\u0078p":1900000000}`), CodeDuplicateMember},
		{wrap(`{` + manyMembers(15, "m3") + `}`), CodeDuplicateMember},
		{wrap(`{` + manyMembers(16, "m3") + `}`), CodeDuplicateMember},
		{wrap(`{` + manyMembers(17, "m16") + `}`), CodeDuplicateMember},
		{wrap(`{` + manyMembers(1000, "m0") + `}`), CodeDuplicateMember},
		{wrap(`{` + manyMembers(1000, "m999") + `}`), CodeDuplicateMember},
		{wrap(`{` + manyMembers(1000, "other") + `}`), ""},
		{wrap(`{"a":{"a":{"a":1}},"b":{"a":1}}`), ""},
		{wrap(`{"a":{"b":[{"c":1}]},"b":1,"c":1}`), ""},
		{wrap(`{"a":1,"x":{"b":1},"a":1}`), CodeDuplicateMember},
		{`{"claims":{},"claims":{}}`, CodeDuplicateMember},
		{`{"claims":{},"ttl":"5m","ttl":"5m"}`, CodeDuplicateMember},
		{wrap("{\"a\":\"\xff\"}"), CodeInvalidUTF8},
		{wrap("{\"\xc3\x28\":1}"), CodeInvalidUTF8},
		{wrap("{\"a\":\"\xed\xa0\x80\"}"), CodeInvalidUTF8}, // an encoded surrogate
		{wrap("{\"a\":\"\xc0\x80\"}"), CodeInvalidUTF8},     // overlong
		{wrap(`{"a":"\ud800"}`), CodeLoneSurrogate},
		{wrap(`{"a":"\udc00"}`), CodeLoneSurrogate},
		{wrap(`{"a":"\ud800\u0061"}`), CodeLoneSurrogate},
		{wrap(`{"a":"\ud800\ud800"}`), CodeLoneSurrogate},
		{wrap(`{"a":"\udc00\udc00"}`), CodeLoneSurrogate},
		{wrap(`{"a":"\ud800\ue000"}`), CodeLoneSurrogate},
		{wrap(`{"\udfff\ud800":1}`), CodeLoneSurrogate},
		{wrap(`{"a":"\ud83d\uDE00 \u0000 �"}`), ""},
		{wrap("{\"a\":\"\n\"}"), CodeControlCharacter},
		{wrap("{\"a\":\"\x00\"}"), CodeControlCharacter},
		{wrap("{\"a\":\"\x1f\"}"), CodeControlCharacter},
		{wrap("{\"a\":\"\x7f\"}"), ""},
		{wrap(`{"a":` + nest(31) + `}`), ""},
		{wrap(`{"a":` + nest(32) + `}`), CodeTooDeep},
		{wrap(`{"a":` + strings.Repeat(`{"a":`, 32) + `0` + strings.Repeat(`}`, 33)), CodeTooDeep},
		{wrap(`{"a":` + strings.Repeat(`[`, 60000)), CodeTooDeep},
		{wrap(`{"a":NaN}`), CodeInvalidJSON},
		{wrap(`{"a":Infinity}`), CodeInvalidJSON},
		{wrap(`{"a":-Infinity}`), CodeInvalidJSON},
		{wrap(`{"a":01}`), CodeInvalidJSON},
		{wrap(`{"a":-01}`), CodeInvalidJSON},
		{wrap(`{"a":+1}`), CodeInvalidJSON},
		{wrap(`{"a":.5}`), CodeInvalidJSON},
		{wrap(`{"a":1.}`), CodeInvalidJSON},
		{wrap(`{"a":1e}`), CodeInvalidJSON},
		{wrap(`{"a":1e+-1}`), CodeInvalidJSON},
		{wrap(`{"a":0x1}`), CodeInvalidJSON},
		{wrap(`{"a":"\x"}`), CodeInvalidJSON},
		{wrap(`{"a":"\u12g4"}`), CodeInvalidJSON},
		{wrap(`{"a":1,}`), CodeInvalidJSON},
		{wrap(`{,"a":1}`), CodeInvalidJSON},
		{wrap(`{"a" 1}`), CodeInvalidJSON},
		{wrap(`{"a":1 "b":2}`), CodeInvalidJSON},
		{wrap(`{"a":[1,]}`), CodeInvalidJSON},
		{wrap(`{"a":[1 2]}`), CodeInvalidJSON},
		{wrap(`{"a":[1}}`), CodeInvalidJSON},
		{wrap(`{'a':1}`), CodeInvalidJSON},
		{wrap(`{a:1}`), CodeInvalidJSON},
		{wrap(`{"a":truth}`), CodeInvalidJSON},
		{wrap(`{"a":tru}`), CodeInvalidJSON},
		{wrap(`{"a":nul`), CodeInvalidJSON},
		{wrap("{\"a\":\u00a01}"), CodeInvalidJSON},
		{wrap(`{/**/}`), CodeInvalidJSON},
		{"\xef\xbb\xbf" + `{"claims":{}}`, CodeByteOrderMark},
		{`{"claims":{}}{}`, CodeTrailingData},
		{`{"claims":{}}` + "\x00", CodeTrailingData},
		{"\r\n\t {\"claims\" : { } }\n", ""},
		{``, CodeInvalidJSON},
		{`{"claims":{`, CodeInvalidJSON},
		{`{"claims":{"a`, CodeInvalidJSON},
		{`{"claims":{"a\`, CodeInvalidJSON},
		{`[]`, CodeNotAnObject},
		{`null`, CodeNotAnObject},
		{`NaN`, CodeInvalidJSON},
		{wrap(`[]`), CodeNotAnObject},
		{wrap(`null`), CodeNotAnObject},
		{wrap(`"{}"`), CodeNotAnObject},
		{wrap(`0`), CodeNotAnObject},
	})
}

func TestC14NumbersPassExactly(t *testing.T) {
	const claims = `"a":9007199254740993,"b":-0,"c":1.0,"d":[1E5,1e-400,0.1000],"e":123456789012345678901234567890`
	out, err := issue(`{"claims":{` + claims + `}}`)
	if err != nil || !strings.HasPrefix(string(out.Payload), `{`+claims+`,`) {
		t.Fatalf("got %s, %v", out.Payload, err)
	}
	big := strings.Repeat("9", 309)
	runCases(t, []claimCase{
		{`{"claims":{"a":1e400}}`, CodeNumberRange},
		{`{"claims":{"a":[{"b":-1E+400}]}}`, CodeNumberRange},
		{`{"claims":{"a":` + big + `}}`, CodeNumberRange},
		{`{"claims":{"a":` + big[1:] + `}}`, ""},
		{`{"claims":{"a":` + big + `e-10}}`, ""},
		{`{"claims":{"a":1.7976931348623157e308,"b":0e999999999999}}`, ""},
	})
	for _, name := range []string{"exp", "nbf", "iat"} {
		for _, v := range []string{`"1800000100"`, `true`, `null`, `[]`, `{}`, `9007199254740992`, `-9007199254740992`, `1e300`, `9007199254740991e1`, `-9007199254740991.5`} {
			_, err := issue(`{"claims":{"` + name + `":` + v + `}}`)
			wantCode(t, err, CodeInvalidDate)
		}
	}
}

func TestC14FractionalDatesAreFloored(t *testing.T) {
	for _, c := range []struct {
		lit   string
		want  int64
		plain bool
		ok    bool
	}{
		{"0", 0, true, true}, {"-0", 0, false, true}, {"-1", -1, true, true},
		{"1800000100.999999999999999999999", 1800000100, false, true},
		{"1800000100.0", 1800000100, false, true},
		{"1.8000001009e9", 1800000100, false, true},
		{"18000001009e-1", 1800000100, false, true},
		{"1.8e9", 1800000000, false, true},
		{"0.00018E13", 1800000000, false, true},
		{"-0.5", -1, false, true}, {"-1.5", -2, false, true}, {"-2.0", -2, false, true},
		{"-1e-300", -1, false, true}, {"1e-300", 0, false, true},
		{"0." + strings.Repeat("0", 5000) + "12e5002", 12, false, true},
		{"0e999999999999999999999", 0, false, true},
		{"1e-999999999999999999999", 0, false, true},
		{"9007199254740991", 9007199254740991, true, true},
		{"9007199254740991.9", 9007199254740991, false, true},
		{"9007199254740992", 0, true, false},
		{"9.007199254740992e15", 0, false, false},
		{"-9007199254740991", -9007199254740991, true, true},
		{"1e16", 0, false, false}, {"99999999999999999999", 0, true, false},
		{"100000000000000000000000e-20", 1000, false, true},
	} {
		d, ok := parseDate([]byte(c.lit))
		if ok != c.ok || ok && (d.sec != c.want || d.plain != c.plain) {
			t.Errorf("%s: got %+v, %v", c.lit, d, ok)
		}
	}
	out, err := issue(`{"claims":{"nbf":1799999999.5, "x":1.5,"iat":1799999998.25,"aud": "a","exp" : 1800000100.9 }}`)
	want := `{"nbf":1799999999, "x":1.5,"iat":1800000000,"aud": "a","exp" : 1800000100 ,"iss":`
	if err != nil || !strings.HasPrefix(string(out.Payload), want) {
		t.Fatalf("got %s, %v", out.Payload, err)
	}
	if string(out.Audience) != `"a"` {
		t.Fatalf("audience %s", out.Audience)
	}
}

func TestC15Lifetime(t *testing.T) {
	at := func(format string, sec int64) string { return fmt.Sprintf(format, sec) }
	runCases(t, []claimCase{
		{at(`{"claims":{"exp":%d}}`, nowSec+3600), ""},
		{at(`{"claims":{"exp":%d.99}}`, nowSec+3600), ""},
		{at(`{"claims":{"exp":%d}}`, nowSec+3601), CodeExpTooFar},
		{at(`{"claims":{"exp":%d}}`, nowSec+1), ""},
		{at(`{"claims":{"exp":%d}}`, nowSec), CodeExpired},
		{at(`{"claims":{"exp":%d.95}}`, nowSec), CodeExpired},
		{`{"claims":{"exp":0}}`, CodeExpired},
		{`{"claims":{"exp":-5}}`, CodeExpired},
		// exp is measured from the server's now, whatever iat says.
		{fmt.Sprintf(`{"claims":{"iat":%d,"exp":%d}}`, nowSec+5, nowSec+3605), CodeExpTooFar},
		{at(`{"claims":{"nbf":%d}}`, nowSec+3599), ""},
		{at(`{"claims":{"nbf":%d}}`, nowSec+3600), CodeNotBefore},
		{at(`{"claims":{"nbf":%d.5}}`, nowSec+3599), ""},
		{`{"claims":{"nbf":0}}`, ""},
		{fmt.Sprintf(`{"claims":{"nbf":%d,"exp":%d}}`, nowSec+10, nowSec+10), CodeNotBefore},
		{at(`{"claims":{"iat":%d}}`, nowSec+5), ""},
		{at(`{"claims":{"iat":%d}}`, nowSec+6), CodeIssuedAt},
		{at(`{"claims":{"iat":%d}}`, nowSec-5), ""},
		{at(`{"claims":{"iat":%d}}`, nowSec-6), CodeIssuedAt},
		{`{"claims":{"iat":0}}`, CodeIssuedAt},
		{at(`{"claims":{"exp":%d},"ttl":"5m"}`, nowSec+300), CodeTTLAndExp},
		{`{"claims":{},"ttl":"1h"}`, ""},
		{`{"claims":{},"ttl":"1h0.1s"}`, CodeTTLTooLong},
		{`{"claims":{},"ttl":"1d"}`, CodeTTLTooLong},
		{`{"claims":{},"ttl":"999ms"}`, CodeInvalidTTL},
		{`{"claims":{},"ttl":"1s"}`, ""},
	})
	for body, want := range map[string]int64{
		`{"claims":{}}`:                 nowSec + 3600,
		`{"claims":{},"ttl":"5m"}`:      nowSec + 300,
		`{"claims":{},"ttl":"1.9s"}`:    nowSec + 1,
		`{"claims":{},"ttl":"0.02d"}`:   nowSec + 1728,
		`{"claims":{"exp":1800000007}}`: 1800000007,
	} {
		out, err := issue(body)
		if err != nil || out.ExpiresAt.Unix() != want || out.TTL != time.Duration(want-nowSec)*time.Second || out.IssuedAt.Unix() != nowSec {
			t.Errorf("%s: got %+v, %v", body, out, err)
		}
	}
}

func TestC15TTLSyntax(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5m": 5 * time.Minute, "1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "1.5d1s": 36*time.Hour + time.Second,
		"1h30m": 90 * time.Minute, "90s": 90 * time.Second, "0d5m": 5 * time.Minute,
	} {
		if got, err := parseTTL([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, v := range []string{`""`, `"0"`, `"0s"`, `"0d"`, `"-5m"`, `"+5m"`, `"d"`, `"5"`, `"5x"`, `"1d-5m"`, `"-1d"`, `"1d1d"`, `"12h1d"`,
		`"1e3d"`, `"0x1d"`, `"nand"`, `"infd"`, `"1_0d"`, `"1d "`, `" 5m"`, `"200000d"`, `"99999d2000000h"`, `300`, `null`, `true`, `{}`,
		`"` + strings.Repeat("1", 65) + `s"`} {
		_, err := issue(`{"claims":{},"ttl":` + v + `}`)
		wantCode(t, err, CodeInvalidTTL)
	}
}

func TestC16IssuerAudienceAndJTI(t *testing.T) {
	runCases(t, []claimCase{
		{`{"claims":{"iss":"https://auth.example.com"}}`, ""},
		{`{"claims":{"iss":"https:\/\/auth.example.com"}}`, ""},
		{`{"claims":{"iss":"https://auth.example.com/"}}`, CodeForeignIssuer},
		{`{"claims":{"iss":"HTTPS://auth.example.com"}}`, CodeForeignIssuer},
		{`{"claims":{"iss":""}}`, CodeForeignIssuer},
		{`{"claims":{"iss":null}}`, CodeInvalidClaim},
		{`{"claims":{"iss":["https://auth.example.com"]}}`, CodeInvalidClaim},
		{`{"claims":{"aud":"api"}}`, ""},
		{`{"claims":{"aud":["api"]}}`, ""},
		{`{"claims":{"aud":[ "api" , "b\"]" ]}}`, ""},
		{`{"claims":{"aud":""}}`, CodeInvalidClaim},
		{`{"claims":{"aud":[]}}`, CodeInvalidClaim},
		{`{"claims":{"aud":[ ]}}`, CodeInvalidClaim},
		{`{"claims":{"aud":[""]}}`, CodeInvalidClaim},
		{`{"claims":{"aud":["a",""]}}`, CodeInvalidClaim},
		{`{"claims":{"aud":["a",["b"]]}}`, CodeInvalidClaim},
		{`{"claims":{"aud":[["b"],"a"]}}`, CodeInvalidClaim},
		{`{"claims":{"aud":["a",1]}}`, CodeInvalidClaim},
		{`{"claims":{"aud":["a",null]}}`, CodeInvalidClaim},
		{`{"claims":{"aud":{"a":"b"}}}`, CodeInvalidClaim},
		{`{"claims":{"aud":null}}`, CodeInvalidClaim},
		{`{"claims":{"aud":5}}`, CodeInvalidClaim},
		{`{"claims":{"sub":5}}`, CodeInvalidClaim},
		{`{"claims":{"jti":5}}`, CodeInvalidClaim},
		{`{"claims":{"jti":null}}`, CodeInvalidClaim},
		{`{"claims":{"jti":""}}`, CodeInvalidClaim}, // identifies nothing
		{`{"claims":{"jti":" "}}`, ""},
		{`{"claims":{"client_id":{}}}`, CodeInvalidClaim},
		{`{"claims":{"jti":"mine","sub":"a\u00e9\n"}}`, ""},
		{`{"claims":{"x":{"iss":5,"aud":null,"exp":"no"}}}`, ""}, // rules are about the top level
	})
	for _, aud := range []string{`"api"`, `["api"]`, `[ "a", "b" ]`} {
		out, err := issue(`{"claims":{"exp":1800000001.5,"aud":` + aud + `,"iat":1800000001}}`)
		if err != nil || string(out.Audience) != aud || !strings.Contains(string(out.Payload), `"aud":`+aud) {
			t.Errorf("%s: got %s in %s, %v", aud, out.Audience, out.Payload, err)
		}
	}
	seen := map[string]bool{}
	for range 100 {
		out, err := issue(`{"claims":{}}`)
		raw, bad := base64.RawURLEncoding.DecodeString(out.JTI)
		if err != nil || bad != nil || len(raw) < 16 || seen[out.JTI] {
			t.Fatalf("jti %q, %v", out.JTI, err)
		}
		seen[out.JTI] = true
	}
}

func TestC16IssuerIsEscaped(t *testing.T) {
	r, err := ParseRequest([]byte(`{"claims":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	rules := testRules()
	rules.Issuer = "a\"b\\c\nü"
	out, err := r.Issue(rules, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkIssued([]byte(`{}`), out, rules, testNow); err != nil {
		t.Fatal(err)
	}
}

func TestC17AccessTokenProfile(t *testing.T) {
	full := map[string]string{"aud": `["api"]`, "sub": `"s"`, "client_id": `"c"`}
	body := func(without, extra string) string {
		var list []string
		for name, v := range full {
			if name != without {
				list = append(list, `"`+name+`":`+v)
			}
		}
		if extra != "" {
			list = append(list, extra)
		}
		return `{"typ":"application/at+jwt","claims":{` + strings.Join(list, ",") + `}}`
	}
	runCases(t, []claimCase{
		{body("", ""), ""},
		{body("aud", ""), CodeClaimMissing},
		{body("sub", ""), CodeClaimMissing},
		{body("client_id", ""), CodeClaimMissing},
		{body("sub", `"sub":""`), CodeClaimMissing},
		{body("client_id", `"client_id":""`), CodeClaimMissing},
		{body("", `"jti":""`), CodeInvalidClaim},
		{body("", `"jti":"x"`), ""},
	})
	_, err := issue(body("client_id", ""))
	if in, ok := err.(*InputError); !ok || in.Field != "client_id" || !strings.Contains(in.Detail, "client_id") {
		t.Errorf("the claim is not named: %v", err)
	}
	out, err := issue(body("", ""))
	if err != nil {
		t.Fatal(err)
	}
	list, err := membersOf(out.Payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} {
		if _, ok := find(list, name); !ok {
			t.Errorf("no %s in %s", name, out.Payload)
		}
	}
}

func TestIssueKeepsNothingOfTheBody(t *testing.T) {
	body := []byte(`{"claims":{"sub":"subject","jti":"id","aud":["api"]},"typ":"secevent+jwt"}`)
	r, err := ParseRequest(body)
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Issue(testRules(), testNow)
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = 'X'
	}
	if s := fmt.Sprintf("%s %s %s %s %s", out.Payload, out.Subject, out.JTI, out.Audience, out.Typ); strings.Contains(s, "X") {
		t.Fatal(s)
	}
}

func TestParseBatch(t *testing.T) {
	good, foreign := `{"claims":{"sub":"a"}}`, `{"claims":{},"kid":{"x":[1,2]},"ttl":"5m"}`
	items, err := ParseBatch([]byte(`{"requests":[`+good+`, `+foreign+`,7,`+good+`]}`), 4)
	if err != nil || len(items) != 4 {
		t.Fatalf("%d items, %v", len(items), err)
	}
	wantCode(t, items[1].Err, CodeHeaderNotAllowed)
	wantCode(t, items[2].Err, CodeNotAnObject)
	for _, i := range []int{0, 3} {
		out, err := items[i].Request.Issue(testRules(), testNow)
		if items[i].Err != nil || err != nil || out.Subject != "a" {
			t.Fatalf("item %d: %v, %v", i, items[i].Err, err)
		}
	}
	// Refused items leave no trace, however many there are.
	many := strings.Repeat(`{"claims":{"a":[{"b":0}]},"crit":[]},`, 50)
	if items, err := ParseBatch([]byte(`{"requests":[`+many+good+`]}`), 100); err != nil || len(items) != 51 || items[50].Err != nil {
		t.Fatalf("%d items, %v", len(items), err)
	}
	deep := func(n int) string { return `{"requests":[{"claims":{"a":` + nest(n) + `}}]}` }
	for body, code := range map[string]string{
		`{"requests":[` + good + `,` + good + `,` + good + `]}`: CodeTooManyRequests,
		`{"requests":[]}`:                   CodeInvalidBatch,
		`{"requests":{}}`:                   CodeInvalidBatch,
		`{}`:                                CodeInvalidBatch,
		`[]`:                                CodeNotAnObject,
		`{"requests":[{}],"x":1}`:           CodeUnknownMember,
		`{"requests":[{}],"requests":[{}]}`: CodeDuplicateMember,
		`{"requests":[{"claims":{"a":1,"a":2}}]}`: CodeDuplicateMember,
		`{"requests":[{"claims":{}}]} x`:          CodeTrailingData,
		`{"requests":[{"kid":1,]}`:                CodeInvalidJSON,
		`{"requests":[{"claims":{}} {}]}`:         CodeInvalidJSON,
		deep(32):                                  CodeTooDeep,
	} {
		_, err := ParseBatch([]byte(body), 2)
		wantCode(t, err, code)
	}
	if items, err := ParseBatch([]byte(deep(31)), 2); err != nil || items[0].Err != nil {
		t.Fatalf("depth 32: %v, %v", items, err)
	}
}
