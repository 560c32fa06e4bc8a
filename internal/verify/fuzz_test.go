package verify

import (
	"bytes"
	"testing"

	"github.com/jwksd/jwksd/jwks"
)

// FuzzVerify looks for a second spelling of a valid token. Whatever verifies
// is one of the tokens that were signed, byte for byte; ECDSA's second
// signature is the only exception.
func FuzzVerify(f *testing.F) {
	valid := map[string]*party{}
	var keys []jwks.JWK
	for _, alg := range []string{"ES256", "ES512", "EdDSA", "RS256"} {
		p := newParty(f, alg)
		keys = append(keys, p.jwk)
		for _, token := range []string{
			p.good(f),
			p.token(f, p.header(`,"x":"ä"`), claims(`,"nbf":1,"iat":1e9,"n":{"a":[null]}`)),
		} {
			valid[token] = p
			f.Add(token)
			f.Add(token + "\n")
		}
		f.Add(p.token(f, p.header(`,"crit":[]`), claims("")))
		f.Add(p.token(f, p.header(""), `{}`))
		f.Add(p.token(f, p.header(""), claims(`,"Iss":"https://victim.example"`)))
		f.Add(p.token(f, p.header(`,"Crit":[]`), claims(`,"role":1,"Role":2`)))
	}
	set, err := NewSet(keys...)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		v, err := Verify(token, set, options())
		if err != nil {
			if v != nil || CodeOf(err) == "" {
				t.Fatalf("%v without a code, or with a result", err)
			}
			return
		}
		if valid[token] != nil || isTwin(valid, token) {
			return
		}
		t.Fatalf("verified, but never signed: %q", token)
	})
}

func isTwin(valid map[string]*party, token string) bool {
	h, c, s := split(token)
	sig, _ := decode(s)
	for other, p := range valid {
		oh, oc, os := split(other)
		if p.alg.Curve == nil || oh != h || oc != c {
			continue
		}
		signed, _ := decode(os)
		if bytes.Equal(twin(p, signed), sig) {
			return true
		}
	}
	return false
}
