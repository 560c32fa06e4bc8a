package signer

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/jwksd/jwksd/internal/jwa"
)

// The instant has a fraction, so that a test sees which way it is rounded.
var testNow = time.Unix(1_800_000_000, 900_000_000)

const nowSec = 1_800_000_000

func testRules() Rules {
	return Rules{Issuer: "https://auth.example.com", MaxTTL: time.Hour, ClockSkew: 5 * time.Second, Types: []string{"secevent+jwt"}}
}

var testRSA = sync.OnceValues(func() (crypto.Signer, error) { return Generate("RS256", 2048) })

// testKey makes a key for alg; all RSA algorithms share one, for speed.
func testKey(tb testing.TB, alg string) (*Key, crypto.PublicKey) {
	tb.Helper()
	generate := testRSA
	if a, _ := jwa.Lookup(alg); a.KTY != "RSA" {
		generate = func() (crypto.Signer, error) { return Generate(alg, 0) }
	}
	k, err := generate()
	if err != nil {
		tb.Fatal(err)
	}
	key, err := NewKey(alg, "kid-of-"+alg, k, k.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return key, k.Public()
}

func issue(body string) (Claims, error) {
	r, err := ParseRequest([]byte(body))
	if err != nil {
		return Claims{}, err
	}
	return r.Issue(testRules(), testNow)
}

// wantCode checks that err is an *InputError of that code.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var in *InputError
	switch {
	case !errors.As(err, &in):
		t.Fatalf("got %v, want an input error %s", err, code)
	case in.Code != code:
		t.Fatalf("got %v, want %s", err, code)
	case in.Forbidden != (code == CodeForeignIssuer || code == CodeTypNotGranted):
		t.Fatalf("%v: Forbidden is %v", err, in.Forbidden)
	case len(in.Detail) > 300 || len(in.Field) > maxExcerpt:
		t.Fatalf("too much in the error: %v", in)
	}
}

// registeredClaims are the claims that the server checks or fills.
var registeredClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id"}

type member struct{ name, raw string }

// membersOf reads an object with an independent strict parser.
func membersOf(text []byte) ([]member, error) {
	d := jsontext.NewDecoder(bytes.NewReader(text))
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != '{' {
		return nil, fmt.Errorf("no object: %v", err)
	}
	var list []member
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		n := name.String()
		v, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		list = append(list, member{n, string(v)})
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, fmt.Errorf("trailing data: %v", err)
	}
	return list, nil
}

func find(list []member, name string) (string, bool) {
	for _, m := range list {
		if m.name == name {
			return m.raw, true
		}
	}
	return "", false
}

// floorRat is the independent floor of a JSON number.
func floorRat(lit string) (*big.Int, bool) {
	r, ok := new(big.Rat).SetString(lit)
	if !ok {
		return nil, false
	}
	q := new(big.Int)
	q.Div(r.Num(), r.Denom()) // Euclidean; the denominator is positive
	return q, true
}

// checkIssued checks what every accepted request promises.
func checkIssued(claims []byte, out Claims, rules Rules, now time.Time) error {
	before, err := membersOf(claims)
	if err != nil {
		return fmt.Errorf("accepted claims: %w", err)
	}
	after, err := membersOf(out.Payload)
	if err != nil {
		return fmt.Errorf("payload %q: %w", out.Payload, err)
	}
	for i, m := range before {
		if i >= len(after) || after[i].name != m.name {
			return fmt.Errorf("member %d moved: %q", i, out.Payload)
		}
		want := m.raw
		switch m.name {
		case "iat":
			want = fmt.Sprint(now.Unix())
		case "exp", "nbf":
			if f, ok := floorRat(m.raw); ok && strings.ContainsAny(m.raw, ".eE") || m.raw == "-0" {
				want = f.String()
			}
		}
		if after[i].raw != want {
			return fmt.Errorf("%s is %q, want %q", m.name, after[i].raw, want)
		}
	}
	for _, m := range after[len(before):] {
		if !strings.Contains(" iss iat exp jti ", " "+m.name+" ") {
			return fmt.Errorf("inserted %q", m.name)
		}
	}
	if err := checkBounds(after, out, rules, now); err != nil {
		return fmt.Errorf("%w: %q", err, out.Payload)
	}
	for _, name := range []string{"iss", "iat", "exp", "jti"} {
		if _, ok := find(after, name); !ok {
			return fmt.Errorf("no %s: %q", name, out.Payload)
		}
	}
	return nil
}

// checkFolds looks for members that a verifier without regard to letter case
// could take for one another, or for a registered claim.
func checkFolds(list []member) error {
	for i, m := range list {
		for _, name := range registeredClaims {
			if m.name != name && strings.EqualFold(m.name, name) {
				return fmt.Errorf("%q can be read as %s", m.name, name)
			}
		}
		for _, other := range list[:i] {
			if len(list) <= 1000 && strings.EqualFold(m.name, other.name) {
				return fmt.Errorf("%q can be read as %q", m.name, other.name)
			}
		}
	}
	return nil
}

// checkBounds checks the registered members of an accepted payload.
func checkBounds(list []member, out Claims, rules Rules, now time.Time) error {
	if err := checkFolds(list); err != nil {
		return err
	}
	text := func(name string) string {
		raw, _ := find(list, name)
		b, _ := jsontext.AppendUnquote(nil, raw)
		return string(b)
	}
	exp := out.ExpiresAt
	raw, _ := find(list, "exp")
	aud, _ := find(list, "aud")
	switch {
	case raw != fmt.Sprint(exp.Unix()):
		return errors.New("exp and ExpiresAt differ")
	case !exp.After(now) || exp.After(now.Add(rules.MaxTTL)):
		return errors.New("exp out of bounds")
	case out.TTL != exp.Sub(time.Unix(now.Unix(), 0)):
		return errors.New("TTL does not lead to exp")
	case text("iss") != rules.Issuer:
		return errors.New("iss differs")
	case text("jti") != out.JTI || text("sub") != out.Subject || aud != string(out.Audience):
		return fmt.Errorf("jti, sub or aud differ: %+v", out)
	}
	if nbf, ok := find(list, "nbf"); ok {
		if f, ok := floorRat(nbf); !ok || f.Cmp(big.NewInt(exp.Unix())) >= 0 {
			return errors.New("nbf not before exp")
		}
	}
	return nil
}

// remote is a key in another custody: it shares headers, not memory.
type remote struct {
	Headers
	sign func(ctx context.Context, input []byte) ([]byte, error)
}

func (r remote) Sign(ctx context.Context, input []byte) ([]byte, error) { return r.sign(ctx, input) }
