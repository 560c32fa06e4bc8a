package jwks

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jwksd/jwksd/internal/jwa"
)

// replace changes one part of a JWK and fails if there was nothing to change.
func replace(t *testing.T, s, old, new string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("no %q in %s", old, s)
	}
	return strings.Replace(s, old, new, 1)
}

// value returns the text of a member.
func value(t *testing.T, s, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(s, `"`+name+`":"`)
	if !ok {
		t.Fatalf("no %s in %s", name, s)
	}
	v, _, _ := strings.Cut(rest, `"`)
	return v
}

func TestC40ParseRefuses(t *testing.T) {
	p256 := newJWK(t, "ES256")
	ec, okp, rs := mustJSON(t, p256), mustJSON(t, newJWK(t, "EdDSA")), mustJSON(t, newJWK(t, "RS256"))
	for _, good := range []string{ec, okp, rs} {
		if _, err := Parse([]byte(good)); err != nil {
			t.Fatalf("control: %v", err)
		}
	}
	x, n := value(t, ec, "x"), value(t, rs, "n")
	add := func(s, members string) string { return replace(t, s, `{`, `{`+members+`,`) }
	cases := map[string]string{
		"empty":                   ``,
		"no object":               `[]`,
		"null":                    `null`,
		"trailing data":           ec + `{}`,
		"truncated":               ec[:len(ec)-1],
		"byte order mark":         "\ufeff" + ec,
		"duplicate member":        add(ec, `"kty":"EC"`),
		"duplicate, escaped":      add(ec, `"\u006bty":"EC"`),
		"duplicate, nested":       add(ec, `"ext":{"a":1,"a":2}`),
		"invalid UTF-8":           add(ec, "\"ext\":\"\xff\""),
		"lone surrogate":          add(ec, `"ext":"\ud800"`),
		"no kty":                  replace(t, ec, `"kty":"EC",`, ``),
		"kty oct":                 replace(t, ec, `"kty":"EC"`, `"kty":"oct"`),
		"kty AKP":                 replace(t, ec, `"kty":"EC"`, `"kty":"AKP"`),
		"kty of another key":      replace(t, ec, `"kty":"EC"`, `"kty":"RSA"`),
		"kty number":              replace(t, ec, `"kty":"EC"`, `"kty":1`),
		"no alg":                  replace(t, ec, `"alg":"ES256",`, ``),
		"alg none":                replace(t, ec, `"alg":"ES256"`, `"alg":"none"`),
		"alg HS256":               replace(t, ec, `"alg":"ES256"`, `"alg":"HS256"`),
		"alg ES384":               replace(t, ec, `"alg":"ES256"`, `"alg":"ES384"`),
		"alg RS256 on EC":         replace(t, ec, `"alg":"ES256"`, `"alg":"RS256"`),
		"alg null":                replace(t, ec, `"alg":"ES256"`, `"alg":null`),
		"crv of another alg":      replace(t, ec, `"crv":"P-256"`, `"crv":"P-384"`),
		"crv Ed448":               replace(t, okp, `"crv":"Ed25519"`, `"crv":"Ed448"`),
		"no crv":                  replace(t, ec, `"crv":"P-256",`, ``),
		"crv on RSA":              add(rs, `"crv":"P-256"`),
		"use enc":                 replace(t, ec, `"use":"sig"`, `"use":"enc"`),
		"use empty":               replace(t, ec, `"use":"sig"`, `"use":""`),
		"use null":                replace(t, ec, `"use":"sig"`, `"use":null`),
		"key_ops sign":            add(ec, `"key_ops":["sign"]`),
		"key_ops nested":          add(ec, `"key_ops":[["verify"]]`),
		"key_ops string":          add(ec, `"key_ops":"verify"`),
		"no kid":                  replace(t, ec, `"kid":"`+value(t, ec, "kid")+`",`, ``),
		"kid empty":               replace(t, ec, value(t, ec, "kid"), ``),
		"kid number":              replace(t, ec, `"`+value(t, ec, "kid")+`"`, `7`),
		"kid with a line break":   replace(t, ec, value(t, ec, "kid"), `a\nb`),
		"kid too long":            replace(t, ec, value(t, ec, "kid"), strings.Repeat("k", MaxKIDBytes+1)),
		"x padded":                replace(t, ec, x, x+"="),
		"x with a line break":     replace(t, ec, x, x[:20]+`\n`+x[20:]),
		"x in standard base64":    replace(t, ec, x, "+"+x[1:]),
		"x short":                 replace(t, ec, x, x[:40]),
		"x long":                  replace(t, ec, x, "AAAA"+x),
		"x trailing bits":         replace(t, ec, x, x[:42]+next(x[42])),
		"x not on the curve":      replace(t, ec, x, flip(x)),
		"x missing":               replace(t, ec, `"x":"`+x+`",`, ``),
		"x number":                replace(t, ec, `"`+x+`"`, `1`),
		"y missing":               replace(t, ec, `,"y":"`+value(t, ec, "y")+`"`, ``),
		"Ed25519 short":           replace(t, okp, value(t, okp, "x"), "AAAA"),
		"Ed25519 small order":     replace(t, okp, value(t, okp, "x"), strings.Repeat("A", 43)),
		"RSA leading zero":        replace(t, rs, `"e":"AQAB"`, `"e":"AAEAAQ"`),
		"RSA exponent 1":          replace(t, rs, `"e":"AQAB"`, `"e":"AQ"`),
		"RSA even exponent":       replace(t, rs, `"e":"AQAB"`, `"e":"Ag"`),
		"RSA exponent of 32 bits": replace(t, rs, `"e":"AQAB"`, `"e":"_____w"`),
		"RSA exponent of 9 bytes": replace(t, rs, `"e":"AQAB"`, `"e":"AQAAAAAAAAAB"`),
		"RSA 1024":                replace(t, rs, n, strings.Repeat("_", 170)+"w"),
		"RSA 16384":               replace(t, rs, n, strings.Repeat("_", 2730)+"8"),
		"RSA no e":                replace(t, rs, `,"e":"AQAB"`, ``),
		"too large":               add(ec, `"x5c":"`+strings.Repeat("A", MaxKeyBytes)+`"`),
	}
	// One byte moved from x to y: the same point in a second spelling.
	point, err := p256.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	shifted := replace(t, replace(t, ec, x, encode(point[1:32])), value(t, ec, "y"), encode(point[32:]))
	cases["x short and y long"] = shifted
	for _, name := range privateMembers() {
		for kind, v := range map[string]string{"string": `"AQAB"`, "null": `null`, "array": `[]`} {
			cases["private member "+name+" "+kind] = add(ec, `"`+name+`":`+v)
		}
	}
	for name, in := range cases {
		if k, err := Parse([]byte(in)); err == nil {
			t.Errorf("%s: accepted as %s", name, mustJSON(t, k))
		} else if strings.HasPrefix(name, "private") && !errors.Is(err, ErrPrivateMember) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// flip changes the first character of a base64url text.
func flip(s string) string {
	if s[0] == 'A' {
		return "B" + s[1:]
	}
	return "A" + s[1:]
}

// next returns the next character of the alphabet: after the last character of
// 32 bytes it sets bits that belong to no byte.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)+1:][:1]
}

func TestC40ParseIgnoresWhatItNeedNotKnow(t *testing.T) {
	k := newJWK(t, "ES256")
	in := replace(t, mustJSON(t, k), `{`, `{"key_ops":["verify"],"x5t":"AAAA","ext":true,`)
	in = replace(t, in, `"use":"sig",`, ``)
	got, err := Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Equal(k) || mustJSON(t, got) != mustJSON(t, k) {
		t.Errorf("got %s", mustJSON(t, got))
	}
	// A foreign kid is kept and escaped.
	in = replace(t, mustJSON(t, k), k.KID(), `prod \"1\" \u00e4`)
	if got, err = Parse([]byte(in)); err != nil || got.KID() != `prod "1" ä` {
		t.Fatalf("kid %q, %v", got.KID(), err)
	}
	if back, err := Parse([]byte(mustJSON(t, got))); err != nil || !back.Equal(got) {
		t.Errorf("round trip of %s: %v", mustJSON(t, got), err)
	}
}

func TestC45ParseSetSkipsAndReports(t *testing.T) {
	a, b := newJWK(t, "ES256"), newJWK(t, "RS256")
	in := fmt.Sprintf(`{"keys":[%s,{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AA"},%s,{"kty":"EC","use":"enc","kid":"e"},{}],"more":1}`,
		mustJSON(t, a), mustJSON(t, b))
	keys, skipped, err := ParseSet([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 2 || !keys[0].Equal(a) || !keys[1].Equal(b) {
		t.Errorf("keys: %v", keys)
	}
	var got []string
	for _, s := range skipped {
		got = append(got, fmt.Sprintf("%d %s: %v", s.Index, s.KID, s.Err))
	}
	want := []string{`1 pq: kty "AKP" is not supported`, `3 e: use is "enc", not "sig"`, `4 : kid is missing`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("skipped:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if keys, skipped, err := ParseSet([]byte(`{"keys":[]}`)); err != nil || len(keys)+len(skipped) != 0 {
		t.Errorf("empty set: %v %v %v", keys, skipped, err)
	}
}

func TestC45ParseSetRefuses(t *testing.T) {
	k := mustJSON(t, newJWK(t, "ES256"))
	other := mustJSON(t, newJWK(t, "ES384"))
	same := replace(t, other, value(t, other, "kid"), value(t, k, "kid"))
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"duplicate kid":            {`{"keys":[` + k + `,` + same + `]}`, ErrDuplicateKID},
		"duplicate of a skipped":   {`{"keys":[{"kty":"x","kid":"a"},{"kty":"y","kid":"a"}]}`, ErrDuplicateKID},
		"private in unknown kty":   {`{"keys":[` + k + `,{"kty":"oct","kid":"s","k":"AAAA"}]}`, ErrPrivateMember},
		"duplicate keys":           {`{"keys":[],"keys":[` + k + `]}`, nil},
		"duplicate member in one":  {`{"keys":[{"kty":"EC","kty":"EC"}]}`, nil},
		"no keys":                  {`{}`, nil},
		"keys is no array":         {`{"keys":{}}`, nil},
		"a key is no object":       {`{"keys":[1]}`, nil},
		"one key instead of a set": {k, nil},
		"HTML":                     {`<html>`, nil},
		"trailing data":            {`{"keys":[` + k + `]} x`, nil},
		"too large":                {`{"keys":[` + k + strings.Repeat(" ", MaxSetBytes) + `]}`, nil},
	} {
		keys, _, err := ParseSet([]byte(c.in))
		if err == nil || len(keys) != 0 {
			t.Errorf("%s: accepted", name)
		}
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzParseJWK(f *testing.F) {
	for _, alg := range jwa.Names() {
		k := mustJSON(f, newJWK(f, alg))
		f.Add([]byte(k))
		f.Add([]byte(`{"keys":[` + k + `,{"kty":"AKP","kid":"x"}]}`))
	}
	f.Add([]byte(`{"kty":"EC","kid":"\u0000","d":"AA"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		keys, _, _ := ParseSet(in)
		if k, err := Parse(in); err == nil {
			keys = append(keys, k)
		}
		for _, k := range keys {
			out, err := k.MarshalJSON()
			if err != nil {
				t.Fatalf("accepted, but has no JSON form: %v", err)
			}
			back, err := Parse(out)
			if err != nil {
				t.Fatalf("not accepted again: %v\n%s", err, out)
			}
			if !back.Equal(k) {
				t.Fatalf("changed: %s", out)
			}
			if a, err := jwa.Lookup(k.Algorithm()); err != nil || a.CheckPublic(k.Public()) != nil {
				t.Fatalf("accepted a key that does not fit: %s", out)
			}
		}
	})
}
