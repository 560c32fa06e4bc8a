package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"sync"
	"testing"

	"github.com/jwksd/jwksd/internal/jwa"
)

// rsaKey is made once: it is the slow one.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// newPrivate makes a key for an algorithm of the table. RSA keys are all the
// same one.
func newPrivate(t testing.TB, alg string) crypto.Signer {
	t.Helper()
	a, err := jwa.Lookup(alg)
	if err != nil {
		t.Fatal(err)
	}
	switch a.KTY {
	case "EC":
		k, err := ecdsa.GenerateKey(a.Curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	case "OKP":
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	return rsaKey()
}

func newJWK(t testing.TB, alg string) JWK {
	t.Helper()
	k, err := New(alg, newPrivate(t, alg).Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newSet(t testing.TB, keys ...JWK) *Set {
	t.Helper()
	s, err := NewSet(keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustJSON(t testing.TB, k JWK) string {
	t.Helper()
	b, err := k.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
