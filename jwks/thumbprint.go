package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
)

// Thumbprint returns the SHA-256 thumbprint of a public key (RFC 7638
// section 3, RFC 8037 appendix A.3) in base64url without padding. It depends
// on the key alone, not on the algorithm: one key under two algorithms has one
// thumbprint. The error says that the key has no JWK form.
func Thumbprint(pub crypto.PublicKey) (string, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k == nil || k.N == nil {
			return "", errors.New("RSA key without a modulus")
		}
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil {
			return "", errors.New("EC key without a point")
		}
	}
	kty, members, err := publicMembers(pub)
	if err != nil {
		return "", err
	}
	// RFC 7638 section 3.2: the required members and nothing else, in
	// lexicographic order.
	members = append(members, member{"kty", kty})
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	h := sha256.New()
	for i, m := range members {
		lead := `,"`
		if i == 0 {
			lead = `{"`
		}
		h.Write([]byte(lead + m.name + `":"` + m.value + `"`))
	}
	h.Write([]byte{'}'})
	return encode(h.Sum(nil)), nil
}
