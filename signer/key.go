package signer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/jwksd/jwksd/internal/jwa"
)

// Signing is a pinned key wherever it acts: in memory (Key) or in a remote
// custody. Implementations are safe for concurrent use, and for one value
// KID, Algorithm and Header never change.
type Signing interface {
	// KID is the identifier of the key that Sign uses.
	KID() string
	// Algorithm is the JWS name of the one algorithm of the key.
	Algorithm() string
	// Header is the base64url-encoded protected header for typ.
	Header(typ string) string
	// Sign gives the JWS signature over input (RFC 7518 section 3), raw, not
	// base64url-encoded. It must neither keep nor change input.
	Sign(ctx context.Context, input []byte) ([]byte, error)
}

// ErrMismatch is wrapped by NewKey and Prove where the private key does not
// belong to the published public key. Such a key must never sign: nobody could
// verify its tokens.
var ErrMismatch = errors.New("private key does not match the published key")

// Key is a private key in memory, pinned to one algorithm and one kid. It is
// immutable and safe for concurrent use. Formatting it with any verb shows its
// kid and algorithm only.
type Key struct {
	Headers
	alg  jwa.Algorithm
	priv crypto.Signer
	opts crypto.SignerOpts
}

var _ Signing = (*Key)(nil)

// NewKey pins priv to alg and kid. It refuses a key that does not fit the
// algorithm (jwa.Algorithm.CheckPublic), and signs random data to prove that
// priv belongs to published; if it does not, the error wraps ErrMismatch. The
// caller must not change priv afterwards.
func NewKey(alg, kid string, priv crypto.Signer, published crypto.PublicKey) (*Key, error) {
	a, err := jwa.Lookup(alg)
	if err != nil {
		return nil, fmt.Errorf("pinning key %s: %w", kid, err)
	}
	if kid == "" {
		return nil, errors.New("pinning a key: it has no kid")
	}
	if absent(priv) {
		return nil, fmt.Errorf("pinning key %s: it has no private half", kid)
	}
	if err := a.CheckPublic(priv.Public()); err != nil {
		return nil, fmt.Errorf("pinning key %s: %w", kid, err)
	}
	k := &Key{Headers: NewHeaders(alg, kid), alg: a, priv: priv, opts: signerOpts(a)}
	if err := Prove(context.Background(), k, published); err != nil {
		return nil, fmt.Errorf("pinning key %s: %w", kid, err)
	}
	return k, nil
}

// Prove signs random data with key and verifies the signature with the
// published key, so that a store or a custody that answers with the wrong key
// is found before it signs a token. The error wraps ErrMismatch if the
// signature does not verify.
func Prove(ctx context.Context, key Signing, published crypto.PublicKey) error {
	a, err := jwa.Lookup(key.Algorithm())
	if err != nil {
		return err
	}
	if err := a.CheckPublic(published); err != nil {
		return fmt.Errorf("published key: %w", err)
	}
	var probe [32]byte
	rand.Read(probe[:]) // never fails
	sig, err := key.Sign(ctx, probe[:])
	if err != nil {
		return err
	}
	if a.Verify(published, probe[:], sig) != nil {
		return ErrMismatch
	}
	return nil
}

// absent reports whether there is no private key behind the interface.
func absent(priv crypto.Signer) bool {
	switch k := priv.(type) {
	case nil:
		return true
	case *rsa.PrivateKey:
		return k == nil
	case *ecdsa.PrivateKey:
		return k == nil
	case ed25519.PrivateKey:
		return len(k) != ed25519.PrivateKeySize
	}
	return false
}

// signerOpts is what crypto.Signer needs to know about the algorithm. The salt
// of PSS is as long as the hash (RFC 7518 section 3.5).
func signerOpts(a jwa.Algorithm) crypto.SignerOpts {
	if a.Family == jwa.RSAPSS {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.Hash}
	}
	return a.Hash // zero for Ed25519: the message itself is signed
}

// Sign gives the JWS signature over input: r||s of fixed length for ECDSA
// (RFC 7518 section 3.4), PKCS #1 v1.5 or PSS for RSA (sections 3.3 and 3.5),
// 64 bytes for Ed25519 (RFC 8037 section 3.1). A local key does not wait, so
// ctx is not looked at.
func (k *Key) Sign(_ context.Context, input []byte) ([]byte, error) {
	sig, err := k.priv.Sign(rand.Reader, k.digest(input), k.opts)
	if err != nil {
		return nil, fmt.Errorf("signing with key %s: %w", k.kid, err)
	}
	if k.alg.Family != jwa.ECDSA {
		return sig, nil
	}
	raw, err := joseECDSA(sig, k.alg.Size)
	if err != nil {
		return nil, fmt.Errorf("signing with key %s: %w", k.kid, err)
	}
	return raw, nil
}

// digest is jwa.Algorithm.Digest with one allocation instead of two.
func (k *Key) digest(input []byte) []byte {
	switch k.alg.Hash {
	case crypto.SHA256:
		d := sha256.Sum256(input)
		return d[:]
	case crypto.SHA384:
		d := sha512.Sum384(input)
		return d[:]
	case crypto.SHA512:
		d := sha512.Sum512(input)
		return d[:]
	}
	return k.alg.Digest(input)
}

// joseECDSA turns an ASN.1 signature into r||s, size bytes in all, each half
// with its leading zeros.
func joseECDSA(der []byte, size int) ([]byte, error) {
	var seq, r, s cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !in.Empty() ||
		!seq.ReadASN1(&r, asn1.INTEGER) || !seq.ReadASN1(&s, asn1.INTEGER) || !seq.Empty() {
		return nil, errors.New("malformed ECDSA signature")
	}
	raw := make([]byte, size)
	if !putInteger(raw[:size/2], r) || !putInteger(raw[size/2:], s) {
		return nil, errors.New("ECDSA signature out of range")
	}
	return raw, nil
}

// putInteger writes a positive DER integer right-aligned into dst.
func putInteger(dst, n []byte) bool {
	if len(n) == 0 || n[0]&0x80 != 0 {
		return false
	}
	for len(n) > 0 && n[0] == 0 {
		n = n[1:]
	}
	if len(n) == 0 || len(n) > len(dst) {
		return false
	}
	copy(dst[len(dst)-len(n):], n)
	return true
}

// String names the key without its private half.
func (k Key) String() string {
	return "signer.Key(" + k.Algorithm() + " " + k.kid + ")"
}

// Format makes every verb, %#v included, print what String gives.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }
