package jwa

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"testing"
)

func TestC01AlgorithmsOutsideTheTable(t *testing.T) {
	for _, name := range []string{"none", "noNE", "NONE", "", "HS256", "HS384", "HS512", "es256", "ES256 ", "ES256K", "RS1", "RSA-OAEP", "A128KW", "Ed448", "EDDSA"} {
		if _, err := Lookup(name); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range Names() {
		if a, err := Lookup(name); err != nil || a.Name != name {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func ecKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestC01KeyMustFitTheAlgorithm(t *testing.T) {
	p256, p384 := ecKey(t, elliptic.P256()).Public(), ecKey(t, elliptic.P384()).Public()
	rsa2048 := rsaKey(t, 2048)
	edPub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	even := &rsa.PublicKey{N: rsa2048.N, E: 65536}
	huge := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), MaxRSABits), E: 65537}
	//lint:ignore SA1019 only the fields can make a key that is off its curve
	off := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}
	for _, c := range []struct {
		alg string
		pub crypto.PublicKey
		ok  bool
	}{
		{"ES256", p256, true}, {"ES384", p384, true}, {"RS256", rsa2048.Public(), true}, {"PS512", rsa2048.Public(), true},
		{"EdDSA", edPub, true}, {"Ed25519", edPub, true},
		{"ES256", p384, false}, {"ES384", p256, false}, {"ES512", p256, false},
		{"ES256", rsa2048.Public(), false}, {"RS256", p256, false}, {"EdDSA", p256, false}, {"ES256", edPub, false}, {"PS256", edPub, false},
		{"RS256", rsaKey(t, 1024).Public(), false}, {"PS256", rsaKey(t, 1024).Public(), false},
		{"RS256", even, false}, {"RS256", huge, false}, {"ES256", off, false},
		{"EdDSA", edPub[:31], false}, {"EdDSA", nil, false}, {"RS256", rsa2048, false}, {"ES256", []byte("secret"), false},
	} {
		a, err := Lookup(c.alg)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.CheckPublic(c.pub); (err == nil) != c.ok {
			t.Errorf("%s with %T: %v", c.alg, c.pub, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	priv := ecKey(t, elliptic.P256())
	a, _ := Lookup("ES256")
	input := []byte("input")
	r, s, err := ecdsa.Sign(rand.Reader, priv, a.Digest(input))
	if err != nil {
		t.Fatal(err)
	}
	sig := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	if err := a.Verify(priv.Public(), input, sig); err != nil {
		t.Fatal(err)
	}
	der, err := ecdsa.SignASN1(rand.Reader, priv, a.Digest(input))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"DER": der, "short": sig[:63], "long": append(sig[:64:64], 0), "zero": make([]byte, 64), "empty": nil} {
		if err := a.Verify(priv.Public(), input, bad); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.Verify(priv.Public(), []byte("other"), sig); !errors.Is(err, ErrSignature) {
		t.Errorf("other input: %v", err)
	}
	if err := a.Verify(ecKey(t, elliptic.P384()).Public(), input, sig); err == nil {
		t.Error("verified with a key on another curve")
	}
}

func TestC30VerifyWantsTheSaltOfThePSSHash(t *testing.T) {
	priv := rsaKey(t, 2048)
	a, _ := Lookup("PS256")
	input := []byte("input")
	for salt, ok := range map[int]bool{32: true, 0: true, 20: false, 64: false} {
		opts := &rsa.PSSOptions{SaltLength: salt}
		if salt == 0 {
			opts.SaltLength = rsa.PSSSaltLengthEqualsHash
		}
		sig, err := rsa.SignPSS(rand.Reader, priv, a.Hash, a.Digest(input), opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Verify(priv.Public(), input, sig); (err == nil) != ok {
			t.Errorf("salt of %d: %v", salt, err)
		}
	}
}
