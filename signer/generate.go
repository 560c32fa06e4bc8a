package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/jwksd/jwksd/internal/jwa"
)

// Generate makes a fresh private key for the algorithm (RFC 7518 section 3,
// RFC 8037 section 3.1). rsaBits is the length of an RSA modulus; 0 means
// jwa.MinRSABits, and it is ignored for every other kind of key. A large RSA
// key takes seconds to make. Generate is safe for concurrent use.
//
// The error wraps jwa.ErrUnsupported for an algorithm outside the table.
func Generate(alg string, rsaBits int) (crypto.Signer, error) {
	a, err := jwa.Lookup(alg)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	var priv crypto.Signer
	switch a.Family {
	case jwa.ECDSA:
		priv, err = ecdsa.GenerateKey(a.Curve, rand.Reader)
	case jwa.EdDSA:
		_, priv, err = ed25519.GenerateKey(rand.Reader)
	default:
		priv, err = generateRSA(rsaBits)
	}
	if err != nil {
		return nil, fmt.Errorf("generating a key for %s: %w", alg, err)
	}
	return priv, nil
}

func generateRSA(bits int) (crypto.Signer, error) {
	if bits == 0 {
		bits = jwa.MinRSABits
	}
	if bits < jwa.MinRSABits || bits > jwa.MaxRSABits {
		return nil, fmt.Errorf("an RSA key has %d to %d bits, not %d", jwa.MinRSABits, jwa.MaxRSABits, bits)
	}
	return rsa.GenerateKey(rand.Reader, bits)
}

// errKeyType is all that is said about a private key of the wrong kind.
var errKeyType = errors.New("not an RSA, ECDSA or Ed25519 private key")

// MarshalPrivate encodes a private key as PKCS#8 DER (RFC 5208, RFC 5958).
// The result is secret. Keys of other kinds, and keys whose private half is
// not in memory, are an error.
func MarshalPrivate(priv crypto.Signer) ([]byte, error) {
	if !knownPrivate(priv) {
		return nil, fmt.Errorf("encoding a private key: %w", errKeyType)
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return der, nil
}

// ParsePrivate decodes one PKCS#8 DER private key (RFC 5208, RFC 5958). Data
// after the key, and a key that is not RSA, ECDSA or Ed25519, are an error.
// Whether the key fits an algorithm is checked by NewKey.
//
// No error repeats any part of der.
func ParsePrivate(der []byte) (crypto.Signer, error) {
	// The standard parser ignores what follows the outer element.
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(der, &outer)
	if err != nil {
		return nil, errors.New("decoding a private key: not DER")
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("decoding a private key: %d bytes of trailing data", len(rest))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("decoding a private key: not PKCS#8")
	}
	priv, ok := parsed.(crypto.Signer)
	if !ok || !knownPrivate(priv) {
		return nil, fmt.Errorf("decoding a private key: %w", errKeyType)
	}
	return priv, nil
}

func knownPrivate(priv crypto.Signer) bool {
	switch priv.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		return true
	}
	return false
}
