package jwks

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/jwksd/jwksd/internal/jwa"
)

// The RSA key of RFC 7638 section 3.1.
const rfc7638N = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"

// The Ed25519 key of RFC 8037 appendix A.2.
const rfc8037X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"

func TestC41ThumbprintVectors(t *testing.T) {
	for _, v := range []struct{ name, jwk, want string }{
		{"RFC 7638 section 3.1", `{"kty":"RSA","n":"` + rfc7638N + `","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`,
			"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		{"RFC 8037 appendix A.3", `{"kty":"OKP","crv":"Ed25519","x":"` + rfc8037X + `","alg":"EdDSA","kid":"x"}`,
			"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
	} {
		t.Run(v.name, func(t *testing.T) {
			k, err := Parse([]byte(v.jwk))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Thumbprint(k.Public()); err != nil || got != v.want {
				t.Errorf("Thumbprint = %q, %v; want %q", got, err, v.want)
			}
			made, err := New(k.Algorithm(), k.Public())
			if err != nil || made.KID() != v.want {
				t.Errorf("New: kid %q, %v; want %q", made.KID(), err, v.want)
			}
		})
	}
}

// go-jose computes thumbprints by its own code.
func TestC41ThumbprintAgreesWithGoJose(t *testing.T) {
	for _, alg := range jwa.Names() {
		k := newJWK(t, alg)
		theirs := jose.JSONWebKey{Key: k.Public()}
		want, err := theirs.Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if k.KID() != base64.RawURLEncoding.EncodeToString(want) {
			t.Errorf("%s: kid %s, go-jose says %x", alg, k.KID(), want)
		}
	}
}

func TestC40EachKeyHasItsMembers(t *testing.T) {
	want := map[string][]string{
		"EC":  {"kty", "kid", "use", "alg", "crv", "x", "y"},
		"RSA": {"kty", "kid", "use", "alg", "n", "e"},
		"OKP": {"kty", "kid", "use", "alg", "crv", "x"},
	}
	for _, alg := range jwa.Names() {
		k := newJWK(t, alg)
		var m map[string]string
		if err := json.Unmarshal([]byte(mustJSON(t, k)), &m); err != nil {
			t.Fatal(err)
		}
		if m["use"] != "sig" || m["alg"] != alg || m["kid"] != k.KID() {
			t.Errorf("%s: %v", alg, m)
		}
		// In the promised order, and nothing else.
		pos := -1
		for _, name := range want[m["kty"]] {
			at := strings.Index(mustJSON(t, k), `"`+name+`":`)
			if at <= pos {
				t.Errorf("%s: member %s at %d, after %d", alg, name, at, pos)
			}
			pos = at
		}
		if len(m) != len(want[m["kty"]]) {
			t.Errorf("%s: %d members, want %d", alg, len(m), len(want[m["kty"]]))
		}
	}
}

func TestC40RoundTrip(t *testing.T) {
	for _, alg := range jwa.Names() {
		k := newJWK(t, alg)
		first := mustJSON(t, k)
		back, err := Parse([]byte(first))
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if !back.Equal(k) || mustJSON(t, back) != first {
			t.Errorf("%s: not the same after a round trip", alg)
		}
		var viaJSON JWK
		if err := json.Unmarshal([]byte(first), &viaJSON); err != nil || !viaJSON.Equal(k) {
			t.Errorf("%s: UnmarshalJSON: %v", alg, err)
		}
	}
}

// A coordinate that begins with zero bytes keeps them.
func TestC40LeadingZerosOfCoordinatesAreKept(t *testing.T) {
	for i := range 4000 {
		priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), big.NewInt(int64(i+1)).FillBytes(make([]byte, 32)))
		if err != nil {
			t.Fatal(err)
		}
		point, _ := priv.PublicKey.Bytes()
		if point[1] != 0 && point[33] != 0 {
			continue
		}
		k, err := New("ES256", priv.Public())
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Parse([]byte(mustJSON(t, k))); err != nil || !back.Equal(k) {
			t.Fatalf("scalar %d: %v", i+1, err)
		}
		return
	}
	t.Fatal("no such point among the first ones")
}

func TestC40NewRefuses(t *testing.T) {
	small := &rsa.PublicKey{N: new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 1024), big.NewInt(1)), E: 65537}
	even := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}
	p256 := newPrivate(t, "ES256")
	for name, c := range map[string]struct {
		alg string
		pub crypto.PublicKey
	}{
		"none":                  {"none", p256.Public()},
		"HS256":                 {"HS256", []byte("secret")},
		"lower case":            {"es256", p256.Public()},
		"private EC key":        {"ES256", p256},
		"private RSA key":       {"RS256", rsaKey()},
		"private Ed25519 key":   {"EdDSA", newPrivate(t, "EdDSA")},
		"wrong curve":           {"ES384", p256.Public()},
		"wrong type":            {"RS256", p256.Public()},
		"small RSA":             {"RS256", small},
		"even RSA":              {"RS256", even},
		"large exponent":        {"RS256", &rsa.PublicKey{N: rsaKey().N, E: 1<<31 + 1}},
		"nil":                   {"ES256", nil},
		"nil EC":                {"ES256", (*ecdsa.PublicKey)(nil)},
		"empty EC":              {"ES256", &ecdsa.PublicKey{}},
		"EC without a point":    {"ES256", &ecdsa.PublicKey{Curve: elliptic.P256()}},
		"nil RSA":               {"RS256", (*rsa.PublicKey)(nil)},
		"empty RSA":             {"RS256", &rsa.PublicKey{}},
		"short Ed25519":         {"EdDSA", ed25519.PublicKey(make([]byte, 31))},
		"Ed25519 of order 4":    {"EdDSA", ed25519.PublicKey(make([]byte, 32))},
		"Ed25519 as a bare key": {"EdDSA", make([]byte, 32)},
	} {
		if k, err := New(c.alg, c.pub); err == nil {
			t.Errorf("%s: accepted as %s", name, mustJSON(t, k))
		}
	}
	if _, err := Thumbprint((*rsa.PublicKey)(nil)); err == nil {
		t.Error("thumbprint of no key")
	}
}

// New keeps its own copy, so that a set cannot change under its readers.
func TestC40NewCopiesTheKey(t *testing.T) {
	pub := slices.Clone(newPrivate(t, "EdDSA").Public().(ed25519.PublicKey))
	k, err := New("EdDSA", pub)
	if err != nil {
		t.Fatal(err)
	}
	before := mustJSON(t, k)
	clear(pub)
	mod := &rsa.PublicKey{N: new(big.Int).Set(rsaKey().N), E: 65537}
	r, err := New("RS256", mod)
	if err != nil {
		t.Fatal(err)
	}
	beforeRSA := mustJSON(t, r)
	mod.N.SetInt64(1)
	if mustJSON(t, k) != before || mustJSON(t, r) != beforeRSA {
		t.Error("the JWK changed with the caller's key")
	}
}

// Every y of a point of small order (the one of order 8 as a literal, so that
// the equation in the code is checked by something else), and encodings that
// RFC 8032 has no point for.
func TestC45Ed25519PointsThatVerifyAnything(t *testing.T) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	y8 := "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
	raw, _ := hex.DecodeString(y8)
	slices.Reverse(raw)
	y := new(big.Int).SetBytes(raw)
	small := []*big.Int{
		big.NewInt(0), big.NewInt(1), new(big.Int).Sub(p, big.NewInt(1)), y, new(big.Int).Sub(p, y),
		p, new(big.Int).Add(p, big.NewInt(1)), // not canonical
		big.NewInt(2), // no point
	}
	for _, v := range small {
		for _, sign := range []byte{0, 0x80} {
			enc := v.FillBytes(make([]byte, 32))
			slices.Reverse(enc)
			enc[31] |= sign
			if _, err := New("EdDSA", ed25519.PublicKey(enc)); err == nil {
				t.Errorf("accepted %x", enc)
			}
		}
	}
	for range 50 { // and no honest key is refused
		newJWK(t, "EdDSA")
	}
}

// forms lists the ways in which a secret could be spelt in an answer.
func forms(secret []byte) []string {
	n := new(big.Int).SetBytes(secret)
	return []string{
		string(secret), n.String(), n.Text(16), strings.ToUpper(n.Text(16)),
		hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		base64.RawURLEncoding.EncodeToString(secret), base64.RawStdEncoding.EncodeToString(secret),
		base64.RawURLEncoding.EncodeToString(n.Bytes()), base64.RawStdEncoding.EncodeToString(n.Bytes()),
	}
}

// secrets lists the private numbers of a key and the strings of its private
// JWK.
func secrets(t *testing.T, k crypto.Signer) [][]byte {
	t.Helper()
	switch k := k.(type) {
	case *ecdsa.PrivateKey:
		d, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return [][]byte{d}
	case ed25519.PrivateKey:
		return [][]byte{k.Seed()}
	case *rsa.PrivateKey:
		out := [][]byte{k.D.Bytes(), k.Precomputed.Dp.Bytes(), k.Precomputed.Dq.Bytes(), k.Precomputed.Qinv.Bytes()}
		for _, p := range k.Primes {
			out = append(out, p.Bytes())
		}
		return out
	}
	t.Fatalf("%T", k)
	return nil
}

func TestC40NoPrivateMemberInAnyPublicByte(t *testing.T) {
	for _, alg := range jwa.Names() {
		priv := newPrivate(t, alg)
		k, err := New(alg, priv.Public())
		if err != nil {
			t.Fatal(err)
		}
		set := newSet(t, k)
		var public bytes.Buffer
		public.WriteString(mustJSON(t, k))
		fmt.Fprintf(&public, "%v %+v %#v", k, k, k)
		public.Write(set.Bytes())
		public.WriteString(set.ETag())
		h := Handler(fixed{"default": NewPublished(set, time.Minute)}, Options{})
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
			for _, path := range []string{"/.well-known/jwks.json", "/other/.well-known/jwks.json", "/"} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
				w.Result().Write(&public)
			}
		}
		// What is said about a private key handed in by mistake.
		_, err = New(alg, priv)
		fmt.Fprint(&public, err)
		private, err := jose.JSONWebKey{Key: priv, KeyID: "a", Algorithm: alg, Use: "sig"}.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(private)
		if !errors.Is(err, ErrPrivateMember) {
			t.Errorf("%s: private JWK: %v", alg, err)
		}
		fmt.Fprint(&public, err)
		_, _, err = ParseSet([]byte(`{"keys":[` + string(private) + `]}`))
		if !errors.Is(err, ErrPrivateMember) {
			t.Errorf("%s: set with a private JWK: %v", alg, err)
		}
		fmt.Fprint(&public, err)
		for i, s := range secrets(t, priv) {
			for j, form := range forms(s) {
				if strings.Contains(public.String(), form) {
					t.Errorf("%s: secret %d is public in form %d", alg, i, j)
				}
			}
			// The search finds what is there.
			if !strings.Contains(string(private), forms(s)[6]) {
				t.Errorf("%s: secret %d is not even in the private JWK", alg, i)
			}
		}
	}
}

var _ http.Handler = (*handler)(nil)
