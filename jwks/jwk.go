package jwks

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/jwksd/jwksd/internal/jwa"
)

// JWK is one public signature key as it is published (RFC 7517 section 4): a
// key, its kid and the one algorithm it is used with. Its use is always "sig".
// The zero JWK holds no key; it has no JSON form. A JWK is immutable and safe
// for concurrent use. Compare with Equal.
type JWK struct {
	alg string
	kid string
	pub crypto.PublicKey
}

// New describes pub as a key of the algorithm of that exact name, with its
// RFC 7638 thumbprint as kid. pub is copied. The error says why the key does
// not fit the algorithm; it wraps jwa.ErrUnsupported for an unknown name.
func New(alg string, pub crypto.PublicKey) (JWK, error) {
	a, err := jwa.Lookup(alg)
	if err != nil {
		return JWK{}, err
	}
	own, err := checked(a, pub)
	if err != nil {
		return JWK{}, err
	}
	kid, err := Thumbprint(own)
	if err != nil {
		return JWK{}, err
	}
	return JWK{alg: a.Name, kid: kid, pub: own}, nil
}

// KID returns the key id. It is the thumbprint for a key made by New; a parsed
// key keeps the id that it came with.
func (k JWK) KID() string { return k.kid }

// Algorithm returns the name of the only algorithm that this key is used with.
func (k JWK) Algorithm() string { return k.alg }

// Public returns the key, one of *ecdsa.PublicKey, *rsa.PublicKey and
// ed25519.PublicKey, or nil for the zero JWK. It is shared: do not modify it.
func (k JWK) Public() crypto.PublicKey { return k.pub }

// Equal reports whether both describe the same key, under the same kid, for
// the same algorithm.
func (k JWK) Equal(other JWK) bool {
	if k.alg != other.alg || k.kid != other.kid {
		return false
	}
	if k.pub == nil || other.pub == nil {
		return k.pub == nil && other.pub == nil
	}
	return k.pub.(interface{ Equal(crypto.PublicKey) bool }).Equal(other.pub)
}

// MarshalJSON returns the published form, always the same bytes for the same
// key: kty, kid, use, alg and then the members of the key type, in that order
// and without white space.
func (k JWK) MarshalJSON() ([]byte, error) { return k.append(nil) }

// append appends the published form to b.
func (k JWK) append(b []byte) ([]byte, error) {
	if k.pub == nil {
		return nil, errors.New("this JWK holds no key")
	}
	kty, members, err := publicMembers(k.pub)
	if err != nil {
		return nil, err
	}
	b = append(b, `{"kty":"`...)
	b = append(b, kty...)
	b = append(b, `","kid":`...)
	if b, err = jsontext.AppendQuote(b, k.kid); err != nil {
		return nil, fmt.Errorf("kid: %w", err)
	}
	b = append(b, `,"use":"sig","alg":"`...)
	b = append(b, k.alg...) // a name from the table: needs no escape
	b = append(b, '"')
	for _, m := range members {
		b = append(b, `,"`...)
		b = append(b, m.name...)
		b = append(b, `":"`...)
		b = append(b, m.value...)
		b = append(b, '"')
	}
	return append(b, '}'), nil
}

// member is one member of a JWK that depends on the key type. Neither name nor
// value needs an escape in JSON.
type member struct{ name, value string }

// publicMembers returns kty and the members that carry the key (RFC 7518
// sections 6.2.1 and 6.3.1, RFC 8037 section 2). Nothing else in this package
// writes key material.
func publicMembers(pub crypto.PublicKey) (kty string, members []member, err error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, X, Y; both padded to the size of the field
		if err != nil {
			return "", nil, err
		}
		half := len(point) / 2
		return "EC", []member{
			{"crv", k.Curve.Params().Name},
			{"x", encode(point[1 : 1+half])},
			{"y", encode(point[1+half:])},
		}, nil
	case *rsa.PublicKey:
		return "RSA", []member{
			{"n", encode(k.N.Bytes())},
			{"e", encode(big.NewInt(int64(k.E)).Bytes())},
		}, nil
	case ed25519.PublicKey:
		return "OKP", []member{{"crv", "Ed25519"}, {"x", encode(k)}}, nil
	}
	return "", nil, fmt.Errorf("no JWK form for a key of type %T", pub)
}

// checked returns a copy of pub after everything that can be said against the
// key has been checked. It must not panic on half-filled keys: they come from
// callers' hands as well as from our parser.
func checked(a jwa.Algorithm, pub crypto.PublicKey) (crypto.PublicKey, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k == nil || k.N == nil || k.N.Sign() <= 0 {
			return nil, errors.New("RSA key without a modulus")
		}
		if err := a.CheckPublic(k); err != nil {
			return nil, err
		}
		if k.N.Bit(0) == 0 {
			return nil, errors.New("RSA modulus is even")
		}
		if k.E > math.MaxInt32 { // crypto/rsa takes no larger one
			return nil, errors.New("RSA exponent exceeds 31 bits")
		}
		return &rsa.PublicKey{N: new(big.Int).Set(k.N), E: k.E}, nil
	case *ecdsa.PublicKey:
		//lint:ignore SA1019 there is no other way to see that a point is missing
		if k == nil || k.Curve == nil || k.X == nil || k.Y == nil {
			return nil, errors.New("EC key without a point")
		}
		if err := a.CheckPublic(k); err != nil {
			return nil, err
		}
		point, err := k.Bytes()
		if err != nil {
			return nil, err
		}
		return ecdsa.ParseUncompressedPublicKey(k.Curve, point)
	case ed25519.PublicKey:
		if err := a.CheckPublic(k); err != nil {
			return nil, err
		}
		if err := checkEd25519(k); err != nil {
			return nil, err
		}
		return ed25519.PublicKey(slices.Clone(k)), nil
	}
	if err := a.CheckPublic(pub); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("no JWK form for a key of type %T", pub)
}

// encode is base64url without padding (RFC 7515 section 2).
func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode is the inverse of encode and accepts nothing that encode does not
// write. The decoder of the standard library skips line breaks even when it is
// strict; comparing with the encoded form finds those, padding and stray
// trailing bits alike.
func decode(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || !bytes.Equal(base64.RawURLEncoding.AppendEncode(nil, b), []byte(s)) {
		return nil, errors.New("not canonical base64url without padding")
	}
	return b, nil
}
