package jwks

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/jwksd/jwksd/internal/jwa"
)

// privateMembers are the members of RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1,
// of RFC 8037 section 2 and of RFC 9964 section 3 that are secret.
func privateMembers() []string {
	return []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}
}

// checkPublic refuses every private member, whatever its value and whatever
// the key type.
func (m members) checkPublic() error {
	for _, name := range privateMembers() {
		if _, ok := m[name]; ok {
			return fmt.Errorf("%w: member %q", ErrPrivateMember, name)
		}
	}
	return nil
}

// jwk reads the members of one key.
func (m members) jwk() (JWK, error) {
	if err := m.checkPublic(); err != nil {
		return JWK{}, err
	}
	if err := m.checkUse(); err != nil {
		return JWK{}, err
	}
	kid, err := m.kid()
	if err != nil {
		return JWK{}, err
	}
	a, err := m.algorithm()
	if err != nil {
		return JWK{}, err
	}
	pub, err := m.public(a)
	if err != nil {
		return JWK{}, err
	}
	if pub, err = checked(a, pub); err != nil {
		return JWK{}, err
	}
	return JWK{alg: a.Name, kid: kid, pub: pub}, nil
}

// checkUse refuses a key that is not meant to verify signatures (RFC 7517
// sections 4.2 and 4.3).
func (m members) checkUse() error {
	if _, ok := m["use"]; ok {
		use, err := m.text("use")
		if err != nil {
			return err
		}
		if use != "sig" {
			return fmt.Errorf(`use is %q, not "sig"`, clip(use))
		}
	}
	ops, ok := m["key_ops"]
	if !ok {
		return nil
	}
	if ops.Kind() != '[' {
		return errors.New("key_ops is not an array")
	}
	dec := jsontext.NewDecoder(bytes.NewReader(ops))
	found := false
	for {
		tok, err := dec.ReadToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		found = found || dec.StackDepth() == 1 && tok.Kind() == '"' && tok.String() == "verify"
	}
	if !found {
		return errors.New(`key_ops does not contain "verify"`)
	}
	return nil
}

// kid reads the key id. Control characters are refused because a kid goes into
// logs and terminals.
func (m members) kid() (string, error) {
	kid, err := m.text("kid")
	switch {
	case err != nil:
		return "", err
	case kid == "":
		return "", errors.New("kid is missing")
	case len(kid) > MaxKIDBytes:
		return "", fmt.Errorf("kid is longer than %d bytes", MaxKIDBytes)
	case strings.ContainsFunc(kid, unicode.IsControl):
		return "", errors.New("kid contains a control character")
	}
	return kid, nil
}

// algorithm reads alg and checks kty and crv against it.
func (m members) algorithm() (jwa.Algorithm, error) {
	var kty, crv, alg string
	for name, into := range map[string]*string{"kty": &kty, "crv": &crv, "alg": &alg} {
		s, err := m.text(name)
		if err != nil {
			return jwa.Algorithm{}, err
		}
		*into = s
	}
	if kty == "" {
		return jwa.Algorithm{}, errors.New("kty is missing")
	}
	if !slices.Contains([]string{"EC", "RSA", "OKP"}, kty) {
		return jwa.Algorithm{}, fmt.Errorf("kty %q is not supported", clip(kty))
	}
	if alg == "" {
		return jwa.Algorithm{}, errors.New("alg is missing")
	}
	a, err := jwa.Lookup(clip(alg))
	if err != nil {
		return jwa.Algorithm{}, err
	}
	if kty != a.KTY {
		return jwa.Algorithm{}, fmt.Errorf("alg %s needs kty %s, this is %s", a.Name, a.KTY, kty)
	}
	if crv != a.Crv {
		return jwa.Algorithm{}, fmt.Errorf("alg %s needs crv %q, this is %q", a.Name, a.Crv, clip(crv))
	}
	return a, nil
}

// public reads the key itself. What it returns is not checked yet.
func (m members) public(a jwa.Algorithm) (crypto.PublicKey, error) {
	switch a.KTY {
	case "EC":
		size := (a.Curve.Params().BitSize + 7) / 8
		point := []byte{4} // uncompressed (SEC 1 section 2.3.3)
		for _, name := range []string{"x", "y"} {
			b, err := m.bytes(name)
			if err != nil {
				return nil, err
			}
			if len(b) != size { // RFC 7518 section 6.2.1.2
				return nil, fmt.Errorf("%s has %d bytes, %s needs %d", name, len(b), a.Crv, size)
			}
			point = append(point, b...)
		}
		return ecdsa.ParseUncompressedPublicKey(a.Curve, point)
	case "OKP":
		b, err := m.bytes("x")
		return ed25519.PublicKey(b), err
	}
	n, err := m.uint("n", jwa.MaxRSABits/8)
	if err != nil {
		return nil, err
	}
	e, err := m.uint("e", 4)
	if err != nil {
		return nil, err
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// bytes reads a member in base64url.
func (m members) bytes(name string) ([]byte, error) {
	s, err := m.text(name)
	if err != nil {
		return nil, err
	}
	if s == "" {
		return nil, fmt.Errorf("%s is missing", name)
	}
	b, err := decode(s)
	if err != nil {
		return nil, fmt.Errorf("%s is %w", name, err)
	}
	return b, nil
}

// uint reads a Base64urlUInt of at most limit bytes (RFC 7518 section 2), which
// has no leading zero bytes.
func (m members) uint(name string, limit int) (*big.Int, error) {
	b, err := m.bytes(name)
	if err != nil {
		return nil, err
	}
	if b[0] == 0 || len(b) > limit {
		return nil, fmt.Errorf("%s has leading zero bytes or more than %d bytes", name, limit)
	}
	return new(big.Int).SetBytes(b), nil
}
