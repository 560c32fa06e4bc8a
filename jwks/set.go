package jwks

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// ErrEmptySet is returned by NewSet for no keys. A set without keys is never
// published: verifiers would cache it and refuse every token.
var ErrEmptySet = errors.New("a set needs at least one key")

// Set is a JWK set (RFC 7517 section 5) in its published bytes. It is
// immutable and safe for concurrent use.
type Set struct {
	keys []JWK
	body []byte
	etag string
}

// NewSet makes the set of these keys in this order. Equal keys in the same
// order give equal bytes and an equal ETag everywhere. The error wraps
// ErrEmptySet or ErrDuplicateKID; the latter also covers one key under two
// algorithms, since its thumbprint is the same.
func NewSet(keys []JWK) (*Set, error) {
	if len(keys) == 0 {
		return nil, ErrEmptySet
	}
	seen := make(map[string]bool, len(keys))
	body := []byte(`{"keys":[`)
	for i, k := range keys {
		if seen[k.kid] {
			return nil, fmt.Errorf("%w: %q", ErrDuplicateKID, clip(k.kid))
		}
		seen[k.kid] = true
		if i > 0 {
			body = append(body, ',')
		}
		var err error
		if body, err = k.append(body); err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
	}
	body = append(body, `]}`...)
	return &Set{
		keys: slices.Clone(keys),
		body: slices.Clip(body),
		etag: etag(body),
	}, nil
}

// etag derives a strong entity tag (RFC 9110 section 8.8.3), quotes included.
// 128 bits of SHA-256: the keys of a set come from its owner, so nobody looks
// for collisions, and accidental ones will not happen.
func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + encode(sum[:16]) + `"`
}

// Keys returns the keys in their published order. The slice is the caller's.
func (s *Set) Keys() []JWK { return slices.Clone(s.keys) }

// Bytes returns the JSON document. It is shared: do not modify it.
func (s *Set) Bytes() []byte { return s.body }

// ETag returns the strong entity tag of the bytes, quotes included.
func (s *Set) ETag() string { return s.etag }
