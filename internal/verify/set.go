package verify

import (
	"errors"

	"github.com/jwksd/jwksd/jwks"
)

// Set holds the keys that tokens are checked against. The zero Set has none.
// A Set is immutable and safe for concurrent use.
type Set struct {
	keys    map[string]jwks.JWK
	skipped map[string]error // by kid, with the reason
}

// ParseSet reads a published JWK set. Keys that are not understood are left
// out and reported; a token that names one of them is refused with
// CodeKeyUnusable. The set is refused whole if it holds private key material
// (CodeSetPrivate), if two of its keys have one kid (CodeSetDuplicateKID), or
// if it is no set at all (CodeSetMalformed).
func ParseSet(data []byte) (Set, []jwks.Skipped, error) {
	keys, skipped, err := jwks.ParseSet(data)
	switch {
	case errors.Is(err, jwks.ErrPrivateMember):
		return Set{}, nil, refuse(CodeSetPrivate, err,
			"whoever serves this set is giving a private key away: tell them at once, and trust no token under it",
			"the set is refused")
	case errors.Is(err, jwks.ErrDuplicateKID):
		return Set{}, nil, refuse(CodeSetDuplicateKID, err,
			"which key a token means cannot be known; the issuer has to repair the set",
			"the set is refused")
	case err != nil:
		return Set{}, nil, refuse(CodeSetMalformed, err,
			"check that the address is that of a JWK set and that nothing on the way answered with a page of its own",
			"the set cannot be read")
	}
	s := Set{keys: make(map[string]jwks.JWK, len(keys)), skipped: make(map[string]error, len(skipped))}
	for _, k := range keys {
		s.keys[k.KID()] = k
	}
	for _, k := range skipped {
		if k.KID != "" {
			s.skipped[k.KID] = k.Err
		}
	}
	return s, skipped, nil
}

// NewSet makes a Set of keys that are at hand already, with the same rules as
// ParseSet.
func NewSet(keys ...jwks.JWK) (Set, error) {
	s := Set{keys: make(map[string]jwks.JWK, len(keys))}
	for _, k := range keys {
		if k.KID() == "" {
			return Set{}, refuse(CodeSetMalformed, nil, "every key needs a kid", "a key of the set has no kid")
		}
		if _, dup := s.keys[k.KID()]; dup {
			return Set{}, refuse(CodeSetDuplicateKID, jwks.ErrDuplicateKID, "give each key once", "the set is refused")
		}
		s.keys[k.KID()] = k
	}
	return s, nil
}

// Len returns the number of keys that can verify tokens.
func (s Set) Len() int { return len(s.keys) }

// find returns the key that a header names, if it may be used with the
// header's algorithm (RFC 8725 section 3.1).
func (s Set) find(kid, alg string) (jwks.JWK, error) {
	k, ok := s.keys[kid]
	if reason, skipped := s.skipped[kid]; !ok && skipped {
		return jwks.JWK{}, refuse(CodeKeyUnusable, reason,
			"the set has this key, but not in a form that may verify signatures; the issuer has to repair it",
			"the key %q cannot be used", clip(kid))
	}
	if !ok {
		return jwks.JWK{}, refuse(CodeUnknownKID, nil,
			"the token's kid is not in the set: the key may be revoked or long gone, the set may be stale (fetch it again), or token and set come from different issuers",
			"the set of %d keys has no key %q", len(s.keys), clip(kid))
	}
	if k.Algorithm() != alg {
		return jwks.JWK{}, refuse(CodeKeyMismatch, nil,
			"a key is used with one algorithm only; a token that claims another was not made by the issuer",
			"the token says %s, its key %q is for %s", alg, clip(kid), k.Algorithm())
	}
	return k, nil
}
