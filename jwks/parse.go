package jwks

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/jwksd/jwksd/internal/strictjson"
)

// Bounds on what is parsed; larger input is refused before it is read.
const (
	MaxKeyBytes = 64 << 10 // one JWK, certificate chains included
	MaxSetBytes = 1 << 20  // a whole set
	MaxKIDBytes = 512      // a key id
)

// ErrPrivateMember is wrapped when a JWK has a member that belongs to a
// private or a symmetric key. Whoever published it has leaked that key.
var ErrPrivateMember = errors.New("private key material in a public key")

// ErrDuplicateKID is wrapped when two keys of a set share a kid.
var ErrDuplicateKID = errors.New("two keys with one kid")

// Parse reads one published JWK (RFC 7517 section 4). It is strict: kty, kid
// and alg must be there and agree, use if present must be "sig", key_ops if
// present must contain "verify", numbers are canonical base64url without
// padding and of their full length, the point is on its curve, and an RSA key
// is within jwa's bounds. Duplicate members and invalid UTF-8 are refused.
// Members that are not understood are ignored and not kept. The kid is kept as
// it is: compare it with Thumbprint where it has to be one.
//
// No error repeats the value of a member other than kty, crv, alg, use and kid.
func Parse(data []byte) (JWK, error) {
	if len(data) > MaxKeyBytes {
		return JWK{}, fmt.Errorf("parsing a JWK: larger than %d bytes", MaxKeyBytes)
	}
	m, err := object(data)
	if err != nil {
		return JWK{}, fmt.Errorf("parsing a JWK: %w", err)
	}
	k, err := m.jwk()
	if err != nil {
		return JWK{}, fmt.Errorf("parsing a JWK: %w", err)
	}
	return k, nil
}

// UnmarshalJSON is Parse.
func (k *JWK) UnmarshalJSON(data []byte) error {
	parsed, err := Parse(data)
	if err != nil {
		return err
	}
	*k = parsed
	return nil
}

// Skipped tells about a key of a set that is not used, and why.
type Skipped struct {
	Index int    // position in the set, from 0
	KID   string // empty if it has none
	Err   error
}

// ParseSet reads a published set (RFC 7517 section 5), ours or other people's.
// As that section asks, keys that are not understood are passed over, but they
// are reported, each with the reason that Parse gives. A set that no issuer
// should publish is refused whole: one with private key material (the error
// wraps ErrPrivateMember), with two keys of one kid (ErrDuplicateKID), with
// duplicate members, or of more than MaxSetBytes.
func ParseSet(data []byte) (keys []JWK, skipped []Skipped, err error) {
	entries, err := entries(data)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing a JWK set: %w", err)
	}
	seen := make(map[string]int, len(entries))
	for i, m := range entries {
		if err := m.checkPublic(); err != nil {
			return nil, nil, fmt.Errorf("parsing a JWK set: key %d: %w", i, err)
		}
		kid, _ := m.text("kid")
		if first, dup := seen[kid]; dup && kid != "" {
			return nil, nil, fmt.Errorf("parsing a JWK set: keys %d and %d: %w %q", first, i, ErrDuplicateKID, clip(kid))
		}
		seen[kid] = i
		k, err := m.jwk()
		if err != nil {
			skipped = append(skipped, Skipped{Index: i, KID: kid, Err: err})
			continue
		}
		keys = append(keys, k)
	}
	return keys, skipped, nil
}

// entries returns the keys of a set, unread.
func entries(data []byte) ([]members, error) {
	if len(data) > MaxSetBytes {
		return nil, fmt.Errorf("larger than %d bytes", MaxSetBytes)
	}
	top, err := object(data)
	if err != nil {
		return nil, err
	}
	list, ok := top["keys"]
	if !ok || list.Kind() != '[' {
		return nil, errors.New(`no array "keys"`)
	}
	dec := jsontext.NewDecoder(bytes.NewReader(list))
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	var all []members
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		m, err := object(v)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(all), err)
		}
		all = append(all, m)
	}
	return all, nil
}

// members is a JSON object, its values unread.
type members map[string]jsontext.Value

func object(data []byte) (members, error) { return strictjson.Object(data) }

// text returns a member that must be a string. Absent is not an error here.
func (m members) text(name string) (string, error) {
	v, ok := m[name]
	if !ok {
		return "", nil
	}
	if v.Kind() != '"' {
		return "", fmt.Errorf("%s is not a string", name)
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err
}

// clip shortens foreign text for an error message.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
