package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/jwks"
)

// The tests are at this instant.
const now = 1_700_000_000

const (
	issuer   = "https://auth.example.com"
	audience = "api"
)

func options() Options {
	return Options{Now: time.Unix(now, 0), Issuer: issuer, Audience: audience}
}

// party is an issuer with one key.
type party struct {
	alg  jwa.Algorithm
	priv crypto.Signer
	jwk  jwks.JWK
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func newParty(t testing.TB, alg string) *party {
	t.Helper()
	a, err := jwa.Lookup(alg)
	if err != nil {
		t.Fatal(err)
	}
	p := &party{alg: a}
	switch a.KTY {
	case "EC":
		p.priv, err = ecdsa.GenerateKey(a.Curve, rand.Reader)
	case "OKP":
		_, p.priv, err = ed25519.GenerateKey(rand.Reader)
	default:
		p.priv = rsaKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	if p.jwk, err = jwks.New(alg, p.priv.Public()); err != nil {
		t.Fatal(err)
	}
	return p
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// rawSign signs a JWS input.
func (p *party) rawSign(t testing.TB, input string) []byte {
	t.Helper()
	var sig []byte
	var err error
	switch p.alg.Family {
	case jwa.ECDSA:
		r, s, e := ecdsa.Sign(rand.Reader, p.priv.(*ecdsa.PrivateKey), p.alg.Digest([]byte(input)))
		if e != nil {
			t.Fatal(e)
		}
		sig = make([]byte, p.alg.Size)
		r.FillBytes(sig[:p.alg.Size/2])
		s.FillBytes(sig[p.alg.Size/2:])
	case jwa.RSAPSS:
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: p.alg.Hash}
		sig, err = p.priv.Sign(rand.Reader, p.alg.Digest([]byte(input)), opts)
	default:
		sig, err = p.priv.Sign(rand.Reader, p.alg.Digest([]byte(input)), p.alg.Hash)
	}
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// token signs exactly this header and these claims, whatever they are.
func (p *party) token(t testing.TB, header, claims string) string {
	t.Helper()
	return p.finish(t, b64([]byte(header))+"."+b64([]byte(claims)))
}

func (p *party) finish(t testing.TB, input string) string {
	t.Helper()
	return input + "." + b64(p.rawSign(t, input))
}

// header is the header that an honest issuer writes, with more members.
func (p *party) header(more string) string {
	return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"%s}`, p.alg.Name, p.jwk.KID(), more)
}

// claims are what an honest issuer writes, with more members.
func claims(more string) string {
	return fmt.Sprintf(`{"iss":%q,"aud":[%q],"sub":"alice","exp":%d%s}`, issuer, audience, now+60, more)
}

func (p *party) good(t testing.TB) string { return p.token(t, p.header(""), claims("")) }

// setJSON is the published set of these parties.
func setJSON(t testing.TB, parties ...*party) string {
	t.Helper()
	keys := make([]jwks.JWK, len(parties))
	for i, p := range parties {
		keys[i] = p.jwk
	}
	s, err := jwks.NewSet(keys)
	if err != nil {
		t.Fatal(err)
	}
	return string(s.Bytes())
}

// ours verifies with this package.
func ours(t testing.TB, token, set string, opts Options) (*Verified, error) {
	t.Helper()
	s, _, err := ParseSet([]byte(set))
	if err != nil {
		return nil, err
	}
	return Verify(token, s, opts)
}

// goJose verifies with go-jose as its documentation shows it.
func goJose(token, set string, opts Options) error {
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(set), &keys); err != nil {
		return err
	}
	var algs []jose.SignatureAlgorithm
	for _, name := range jwa.Names() {
		algs = append(algs, jose.SignatureAlgorithm(name))
	}
	tok, err := jwt.ParseSigned(token, algs)
	if err != nil {
		return err
	}
	var c jwt.Claims
	if err := tok.Claims(&keys, &c); err != nil {
		return err
	}
	expected := jwt.Expected{Time: opts.Now, Issuer: opts.Issuer}
	if opts.Audience != "" {
		expected.AnyAudience = jwt.Audience{opts.Audience}
	}
	return c.ValidateWithLeeway(expected, opts.Leeway)
}
