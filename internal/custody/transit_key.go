package custody

import (
	"context"
	"crypto"
	"crypto/rsa"
	"fmt"

	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore/vault"
	"github.com/jwksd/jwksd/signer"
)

// transitKey is a key in Vault's transit engine, pinned to one algorithm and
// one kid. It is immutable and safe for concurrent use.
type transitKey struct {
	signer.Headers
	engine *vault.Transit
	name   string
	alg    jwa.Algorithm
	scheme vault.TransitScheme
}

var _ signer.Signing = (*transitKey)(nil)

func newTransitKey(engine *vault.Transit, name string, a jwa.Algorithm, jwk jwks.JWK) *transitKey {
	return &transitKey{
		Headers: signer.NewHeaders(a.Name, jwk.KID()),
		engine:  engine,
		name:    name,
		alg:     a,
		scheme:  transitScheme(a, jwk.Public()),
	}
}

// transitType is Vault's name for the type of key that an algorithm needs. Zero
// bits stand for the smallest RSA key.
//
// See https://developer.hashicorp.com/vault/docs/secrets/transit#key-types
func transitType(a jwa.Algorithm, rsaBits int) (string, error) {
	switch a.Family {
	case jwa.ECDSA:
		return fmt.Sprintf("ecdsa-p%d", a.Curve.Params().BitSize), nil
	case jwa.EdDSA:
		return "ed25519", nil
	}
	switch rsaBits {
	case 0:
		rsaBits = jwa.MinRSABits
	case 2048, 3072, 4096:
	default:
		return "", fmt.Errorf("the transit engine has RSA keys of 2048, 3072 and 4096 bits, not of %d", rsaBits)
	}
	return fmt.Sprintf("rsa-%d", rsaBits), nil
}

// bits is the length of an RSA modulus, and zero for other keys.
func bits(pub crypto.PublicKey) int {
	if k, ok := pub.(*rsa.PublicKey); ok {
		return k.N.BitLen()
	}
	return 0
}

// transitScheme says how Vault must sign so that the signature is one of JWS
// (RFC 7518 section 3, RFC 8037 section 3.1).
func transitScheme(a jwa.Algorithm, pub crypto.PublicKey) vault.TransitScheme {
	s := vault.TransitScheme{Hash: transitHash(a.Hash), Size: a.Size}
	switch a.Family {
	case jwa.ECDSA:
		s.JWS = true
	case jwa.RSAPKCS1:
		s.RSA, s.Size = "pkcs1v15", (bits(pub)+7)/8
	case jwa.RSAPSS:
		s.RSA, s.Size = "pss", (bits(pub)+7)/8
	}
	return s
}

// transitHash is Vault's name for a hash; empty for none.
func transitHash(h crypto.Hash) string {
	switch h {
	case crypto.SHA256:
		return "sha2-256"
	case crypto.SHA384:
		return "sha2-384"
	case crypto.SHA512:
		return "sha2-512"
	}
	return ""
}

// Sign gives the JWS signature over input. Only the digest of the input leaves
// the process, unless the key is Ed25519.
func (k *transitKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	return k.engine.Sign(ctx, k.name, k.scheme, k.alg.Digest(input))
}

// SignBatch gives the signatures over many inputs, in their order: one where
// the error at the same place is nil.
func (k *transitKey) SignBatch(ctx context.Context, inputs [][]byte) (sigs [][]byte, errs []error) {
	digests := make([][]byte, len(inputs))
	for i, input := range inputs {
		digests[i] = k.alg.Digest(input)
	}
	return k.engine.SignBatch(ctx, k.name, k.scheme, digests)
}

// String names the key.
func (k *transitKey) String() string {
	return "custody.Transit(" + k.Algorithm() + " " + k.KID() + ")"
}
