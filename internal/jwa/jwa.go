// Package jwa is the table of the JWS algorithms that jwksd knows, and the one
// place where a signature is checked against a public key.
//
// The list is closed on purpose: everything outside it ("none", symmetric
// algorithms, unknown names) is refused by Lookup, so no caller can forget to
// refuse it (RFC 8725 section 3.1). Names are compared exactly.
package jwa

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // makes crypto.SHA256 available
	_ "crypto/sha512" // makes crypto.SHA384 and crypto.SHA512 available
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// MinRSABits is the smallest RSA modulus that is accepted anywhere
// (RFC 7518 section 3.3).
const MinRSABits = 2048

// MaxRSABits bounds the work that one key can cause.
const MaxRSABits = 8192

// Family says how an algorithm turns a signing input into a signature.
type Family int

// The families, by their section in RFC 7518 and RFC 8037.
const (
	RSAPKCS1 Family = iota + 1 // RS256, RS384, RS512
	RSAPSS                     // PS256, PS384, PS512
	ECDSA                      // ES256, ES384, ES512
	EdDSA                      // EdDSA, Ed25519
)

// Algorithm describes one JWS algorithm. The values in the table are the only
// ones; compare by Name.
type Algorithm struct {
	Name   string
	Family Family
	Hash   crypto.Hash    // zero for EdDSA, which hashes by itself
	Curve  elliptic.Curve // nil unless ECDSA
	KTY    string         // the JWK member kty: RSA, EC or OKP
	Crv    string         // the JWK member crv, empty for RSA
	Size   int            // length of a signature in bytes, 0 where the key decides
}

// ErrUnsupported is wrapped by Lookup for every name outside the table.
var ErrUnsupported = errors.New("unsupported algorithm")

var table = []Algorithm{
	{Name: "ES256", Family: ECDSA, Hash: crypto.SHA256, Curve: elliptic.P256(), KTY: "EC", Crv: "P-256", Size: 64},
	{Name: "ES384", Family: ECDSA, Hash: crypto.SHA384, Curve: elliptic.P384(), KTY: "EC", Crv: "P-384", Size: 96},
	{Name: "ES512", Family: ECDSA, Hash: crypto.SHA512, Curve: elliptic.P521(), KTY: "EC", Crv: "P-521", Size: 132},
	{Name: "EdDSA", Family: EdDSA, KTY: "OKP", Crv: "Ed25519", Size: ed25519.SignatureSize},
	{Name: "Ed25519", Family: EdDSA, KTY: "OKP", Crv: "Ed25519", Size: ed25519.SignatureSize},
	{Name: "RS256", Family: RSAPKCS1, Hash: crypto.SHA256, KTY: "RSA"},
	{Name: "RS384", Family: RSAPKCS1, Hash: crypto.SHA384, KTY: "RSA"},
	{Name: "RS512", Family: RSAPKCS1, Hash: crypto.SHA512, KTY: "RSA"},
	{Name: "PS256", Family: RSAPSS, Hash: crypto.SHA256, KTY: "RSA"},
	{Name: "PS384", Family: RSAPSS, Hash: crypto.SHA384, KTY: "RSA"},
	{Name: "PS512", Family: RSAPSS, Hash: crypto.SHA512, KTY: "RSA"},
}

// Names lists the supported algorithms, the recommended ones first.
func Names() []string {
	names := make([]string, len(table))
	for i, a := range table {
		names[i] = a.Name
	}
	return names
}

// Lookup returns the algorithm of that exact name. The error wraps
// ErrUnsupported and says what to use instead.
func Lookup(name string) (Algorithm, error) {
	for _, a := range table {
		if a.Name == name {
			return a, nil
		}
	}
	return Algorithm{}, fmt.Errorf("%w %q: choose one of %s", ErrUnsupported, name, strings.Join(Names(), ", "))
}

// CheckPublic reports whether pub is a key of this algorithm: the right type,
// the right curve, an RSA modulus within MinRSABits and MaxRSABits.
func (a Algorithm) CheckPublic(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if a.KTY != "RSA" {
			break
		}
		if n := k.N.BitLen(); n < MinRSABits || n > MaxRSABits {
			return fmt.Errorf("%s needs an RSA key of %d to %d bits, this one has %d", a.Name, MinRSABits, MaxRSABits, n)
		}
		if k.E < 3 || k.E&1 == 0 {
			return fmt.Errorf("%s needs an odd RSA exponent of at least 3", a.Name)
		}
		return nil
	case *ecdsa.PublicKey:
		if a.Family != ECDSA {
			break
		}
		if k.Curve != a.Curve {
			return fmt.Errorf("%s needs a key on curve %s, this one is on %s", a.Name, a.Crv, k.Curve.Params().Name)
		}
		if _, err := k.Bytes(); err != nil {
			return fmt.Errorf("%s key: %w", a.Name, err)
		}
		return nil
	case ed25519.PublicKey:
		if a.Family != EdDSA {
			break
		}
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("%s needs a public key of %d bytes, this one has %d", a.Name, ed25519.PublicKeySize, len(k))
		}
		return nil
	}
	return fmt.Errorf("%s cannot use a key of type %T", a.Name, pub)
}

// ErrSignature is returned by Verify for a signature that does not match.
var ErrSignature = errors.New("signature does not match")

// Verify checks a JWS signature over input (RFC 7518 section 3, RFC 8037
// section 3.1). PSS signatures must have a salt as long as the hash.
func (a Algorithm) Verify(pub crypto.PublicKey, input, sig []byte) error {
	if err := a.CheckPublic(pub); err != nil {
		return err
	}
	if a.Size != 0 && len(sig) != a.Size {
		return ErrSignature
	}
	ok := false
	switch a.Family {
	case RSAPKCS1:
		ok = rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), a.Hash, a.Digest(input), sig) == nil
	case RSAPSS:
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.Hash}
		ok = rsa.VerifyPSS(pub.(*rsa.PublicKey), a.Hash, a.Digest(input), sig, opts) == nil
	case ECDSA:
		half := len(sig) / 2
		r, s := new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:])
		ok = ecdsa.Verify(pub.(*ecdsa.PublicKey), a.Digest(input), r, s)
	case EdDSA:
		ok = ed25519.Verify(pub.(ed25519.PublicKey), input, sig)
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

// Digest hashes input with the algorithm's hash; for EdDSA it returns input.
func (a Algorithm) Digest(input []byte) []byte {
	if a.Hash == 0 {
		return input
	}
	h := a.Hash.New()
	h.Write(input)
	return h.Sum(nil)
}
