package signer

import (
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// scanAll runs the scanner over one value of any kind.
func scanAll(text []byte) (value, error) {
	var s scanner
	if err := s.begin(text, maxDepth); err != nil {
		return value{}, err
	}
	v, err := s.value()
	if err != nil {
		return v, err
	}
	return v, s.finish()
}

// strictJSON are texts for every rule C12 and C14, good and bad.
var strictJSON = []string{
	`{}`, `[]`, `null`, ` true `, `0`, `-0.0e-0`, `"a"`, ``, ` `, `{`, `[`, `"`, `-`, `1.`, `1e`, `01`, `-01`, `tru`, `nulll`,
	`{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `{"x":[{"y":{"a":1,"b":2,"a":3}}]}`, `{"😀":1,"\ud83d\ude00":1}`, `{"a":{"a":{"a":1}},"b":{"a":1}}`,
	`{"":1,"":2}`, `{"a":{"b":[{"c":1}]},"b":1,"c":1}`, `"\udc00\udc00"`, `"\ud800\ue000"`, "\"\x1f\"", "{\"a\":\"\xff\"}", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", "\"\xf4\x90\x80\x80\"", `"\ud800"`, `"\udc00\ud800"`, `"\ud83d\uDE00"`,
	"\"\n\"", "\"\x00\"", "\"\x7f\"", `"\b\f\n\r\t\/\\\"\u0000"`, `"\x"`, `"\u12g4"`, `"\u12`, `"\`,
	strings.Repeat("[", 32) + strings.Repeat("]", 32), strings.Repeat("[", 33) + strings.Repeat("]", 33), strings.Repeat(`{"a":`, 40),
	`NaN`, `Infinity`, `-Infinity`, `[NaN]`, "\xef\xbb\xbf{}", `{}{}`, `{} x`, `1e400`, `-1E+400`, `1e-400`, `0e99999999999`, `1.7976931348623157e308`,
	strings.Repeat("9", 309), `9007199254740993`, `{"a":1,}`, `[1,]`, `[1 2]`, `{"a" 1}`, `{a:1}`, `{'a':1}`, "{\"a\":\u00a01}", `{/**/}`,
	`{` + manyMembers(20, "m3") + `}`, `{` + manyMembers(20, "x") + `}`,
}

// FuzzScan compares the scanner with jsontext, which is strict by default
// about duplicates, UTF-8 and surrogates. They must agree, but for two
// intended differences: the scanner refuses depth over 32 (jsontext: 10000)
// and numbers that overflow a float64 (jsontext leaves that to the reader).
func FuzzScan(f *testing.F) {
	for _, s := range strictJSON {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := scanAll(text)
		theirs := jsontext.Value(text).IsValid()
		var in *InputError
		switch {
		case err == nil && !theirs:
			t.Fatal("accepted what jsontext refuses")
		case err != nil && !errors.As(err, &in):
			t.Fatalf("not an input error: %v", err)
		case err != nil && theirs && in.Code != CodeTooDeep && in.Code != CodeNumberRange:
			t.Fatalf("refused what jsontext accepts: %v", err)
		case err != nil && (len(in.Detail) > 300 || len(in.Field) > maxExcerpt):
			t.Fatalf("too much in the error: %v", err)
		}
		if err != nil {
			return
		}
		if string(text[v.start:v.end]) != strings.Trim(string(text), " \t\r\n") {
			t.Fatalf("the value is %q", text[v.start:v.end])
		}
		if v.kind == kindString {
			want, err := jsontext.AppendUnquote(nil, text[v.start:v.end])
			if err != nil || string(v.text(text)) != string(want) {
				t.Fatalf("unescaped to %q, want %q, %v", v.text(text), want, err)
			}
		}
	})
}

// FuzzDate compares the exact floor with rational arithmetic.
func FuzzDate(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.5", "-1.5", "1e3", "12e-1", "-1e-9", "9007199254740992", "9007199254740991.9", "0.001e16", "100e-2", "1800000000.999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, lit string) {
		v, err := scanAll([]byte(lit))
		if err != nil || v.kind != kindNumber {
			return
		}
		lit = strings.Trim(lit, " \t\r\n")
		got, ok := parseDate([]byte(lit))
		if i := strings.IndexAny(lit, "eE"); i >= 0 && (len(lit)-i > 5 || len(lit) > 5000) {
			return // too large to be worked out
		}
		want, fine := floorRat(lit)
		if !fine {
			t.Fatalf("%s is no number", lit)
		}
		inRange := new(big.Int).Abs(want).Cmp(big.NewInt(safeInteger)) < 0
		if ok != inRange || ok && got.sec != want.Int64() {
			t.Fatalf("%s: got %d, %v; want %v", lit, got.sec, ok, want)
		}
		if plain := !strings.ContainsAny(lit, ".eE") && lit != "-0"; got.plain != plain {
			t.Fatalf("%s: plain is %v", lit, got.plain)
		}
	})
}

var claimsSeeds = []string{
	`{}`, `{ }`, `{"sub":"s","aud":"api"}`, `{"aud":["a","b"],"exp":1800000100.5,"nbf":1,"iat":1800000000}`, `{"exp":1.8000001e9}`,
	`{"iat":1800000003.5,"nbf":-0.5,"aud":["x"],"exp":18000001005e-1}`, `{"exp":1800003600}`, `{"exp":1800003601}`, `{"exp":"1"}`, `{"nbf":null}`,
	`{"iss":"https:\/\/auth.example.com"}`, `{"iss":"x"}`, `{"jti":"a","sub":"\u00e9","client_id":"c","aud":"a"}`, `{"aud":[]}`, `{"aud":[["a"]]}`,
	`{"e\u0078p":1800000100}`, `{"n":9007199254740993,"m":1e400}`, `{"a":1,"a":2}`, "{\"a\":\"\xff\"}", `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
	`{"nbf":-0,"iat":1800000000.0}`,
	`{"Iss":"x"}`, `{"i\u017Fs":"x"}`, "{\"i\u017fs\":\"x\"}", `{"client_ID":"c","sub":"s"}`, `{"scope":"a","Scope":"b"}`, `{"K":1,"\u212a":2}`, `{"k":1,"x":{"K":1,"k":2,"Sub":3}}`,
	`{"ß":1,"ẞ":2}`, `{"σ":1,"ς":2}`, `{"` + strings.Repeat("é", 40) + `":1,"` + strings.Repeat("É", 40) + `":2}`, `{` + manyMembers(20, "M3") + `}`, `{` + manyMembers(20, "X") + `}`, `{"jti":""}`,
}

// FuzzIssue checks everything that an accepted request promises.
func FuzzIssue(f *testing.F) {
	for _, c := range claimsSeeds {
		f.Add([]byte(`{"claims":` + c + `}`))
		f.Add([]byte(`{"typ":"application/AT+jwt","claims":` + c + `}`))
		f.Add([]byte(` {"ttl" : "1d12h","alg":"PS256" , "claims":` + c + `,"typ":"secevent+jwt"}`))
	}
	for _, s := range []string{`{"claims":{},"kid":"x"}`, `{"claims":{},"ttl":"0.5s"}`, `{"claims":{},"ttl":"0.01d1m"}`, `[]`, "\xef\xbb\xbf{}", `{"claims":{}} {}`} {
		f.Add([]byte(s))
	}
	rules := testRules()
	f.Fuzz(func(t *testing.T, body []byte) {
		kept := string(body)
		r, err := ParseRequest(body)
		valid := jsontext.Value(body).IsValid()
		var in *InputError
		if err != nil {
			if !errors.As(err, &in) {
				t.Fatalf("not an input error: %v", err)
			}
			return
		}
		if !valid {
			t.Fatal("accepted invalid JSON")
		}
		out, err := r.Issue(rules, testNow)
		if string(body) != kept {
			t.Fatal("the body changed")
		}
		if err != nil {
			if !errors.As(err, &in) {
				t.Fatalf("not an input error: %v", err)
			}
			return
		}
		envelope, err := membersOf(body)
		if err != nil {
			t.Fatal(err)
		}
		claims, _ := find(envelope, "claims")
		if err := checkIssued([]byte(claims), out, rules, testNow); err != nil {
			t.Fatal(err)
		}
		if out.Typ != "JWT" && out.Typ != "at+jwt" && out.Typ != "secevent+jwt" {
			t.Fatalf("typ %q", out.Typ)
		}
		// What was issued would pass as a signing input, too.
		header, _ := base64.RawURLEncoding.DecodeString(NewHeaders("ES256", "kid").Header(out.Typ))
		if _, err := checkInput(signingInput(string(header), string(out.Payload))); err != nil {
			t.Fatalf("refused as a signing input: %v: %s", err, out.Payload)
		}
	})
}

// FuzzBatch checks that an item stands or falls as it would alone.
func FuzzBatch(f *testing.F) {
	for _, c := range claimsSeeds {
		f.Add([]byte(`{"requests":[{"claims":` + c + `},{"claims":{},"kid":[{}]},{"claims":{}}]}`))
	}
	f.Add([]byte(`{"requests":[1,"a",null,[[]],{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		items, err := ParseBatch(body, 8)
		if err != nil {
			return
		}
		var alone []jsontext.Value
		list, err := membersOf(body)
		if err != nil {
			t.Fatal(err)
		}
		requests, _ := find(list, "requests")
		d := jsontext.NewDecoder(strings.NewReader(requests))
		for d.ReadToken(); d.PeekKind() != ']'; {
			v, err := d.ReadValue()
			if err != nil {
				t.Fatal(err)
			}
			alone = append(alone, v.Clone())
		}
		if len(alone) != len(items) {
			t.Fatalf("%d items, want %d", len(items), len(alone))
		}
		for i, item := range items {
			r, err := ParseRequest(alone[i])
			if (err == nil) != (item.Err == nil) || err != nil && err.(*InputError).Code != item.Err.(*InputError).Code || r.Alg != item.Request.Alg || r.Typ != item.Request.Typ || r.TTL != item.Request.TTL {
				t.Fatalf("item %d: %v in the batch, %v alone", i, item.Err, err)
			}
		}
	})
}

// FuzzSigningInput checks what an accepted signing input promises.
func FuzzSigningInput(f *testing.F) {
	for _, c := range claimsSeeds {
		f.Add(goodHeader, c)
		f.Add(`{"typ":"at+jwt","kid":"k","alg":"ES256"}`, `{"iss":"https://auth.example.com","exp":1800000100,`+c[1:])
	}
	f.Add(goodHeader+" ", goodPayload)
	f.Add(`{"alg":"none","kid":"k","typ":"JWT"}`, goodPayload)
	f.Add(`{"alg":"ES256","kid":"k","typ":"JWT","crit":[]}`, goodPayload)
	rules := testRules()
	f.Fuzz(func(t *testing.T, header, payload string) {
		ParseSigningInput(header + "." + payload) // must not panic
		in, err := ParseSigningInput(signingInput(header, payload))
		if err != nil {
			return
		}
		out, err := in.Check(rules, testNow)
		if err != nil {
			return
		}
		head, err := membersOf([]byte(header))
		if err != nil || len(head) != 3 {
			t.Fatalf("header %q, %v", head, err)
		}
		list, err := membersOf([]byte(payload))
		if err != nil || string(out.Payload) != payload {
			t.Fatalf("payload %q, %v", out.Payload, err)
		}
		if err := checkBounds(list, out, rules, testNow); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzSegments checks the raw text: what is accepted is canonical.
func FuzzSegments(f *testing.F) {
	good := signingInput(goodHeader, goodPayload+" ")
	for _, s := range []string{good, good + "=", good + "\n", good[:len(good)-1] + "h", good + ".", "." + good, strings.Replace(good, ".", "\n.", 1), "..", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, input string) {
		in, err := ParseSigningInput(input)
		if err != nil {
			return
		}
		head, body, _ := strings.Cut(input, ".")
		h, err := base64.RawURLEncoding.DecodeString(head)
		if err != nil || base64.RawURLEncoding.EncodeToString(h) != head || b64(string(in.payload.doc)) != body {
			t.Fatalf("not canonical: %q", input)
		}
	})
}
