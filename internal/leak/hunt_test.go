// Package leak holds the test that plants secrets in a real daemon on a real
// Vault and looks for them in everything that comes out of it. It has no code of
// its own.
package leak

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
)

// canaries are secrets by what they are, in every form that one might be
// written in.
type canaries struct {
	mu    sync.Mutex
	forms map[string]string // form to what it is
}

func (c *canaries) add(what string, secret []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forms == nil {
		c.forms = map[string]string{}
	}
	for _, form := range forms(secret) {
		c.forms[form] = what
	}
}

// addKey adds the secret numbers of a private key in PKCS#8.
func (c *canaries) addKey(t testing.TB, der []byte) {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		d, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		c.add("private key", d)
		c.number("private key", new(big.Int).SetBytes(d))
	case ed25519.PrivateKey:
		c.add("private key", key.Seed())
	case *rsa.PrivateKey:
		for _, n := range []*big.Int{key.D, key.Primes[0], key.Primes[1]} {
			c.add("private key", n.Bytes())
			c.number("private key", n)
		}
	default:
		t.Fatalf("a private key of type %T", key)
	}
	c.add("private key", der)
}

func (c *canaries) number(what string, n *big.Int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forms[n.String()] = what
	c.forms[fmt.Sprintf("%X", n)] = what
}

// forms are the ways to write bytes: raw, reversed as in a number's memory, in
// hexadecimal, as Go prints a slice, and in base64 wherever they begin.
func forms(b []byte) []string {
	reversed := make([]byte, len(b))
	for i, c := range b {
		reversed[len(b)-1-i] = c
	}
	list := []string{
		string(b), string(reversed), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)),
		strings.Trim(fmt.Sprint(b), "[]"), strings.Trim(fmt.Sprintf("%#v", b), "[]byte{}"), fmt.Sprintf("%q", b)[1 : len(fmt.Sprintf("%q", b))-1],
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for offset := range 3 {
			text := enc.EncodeToString(append(make([]byte, offset), b...))
			// The first characters hold bits of what stands before, the last
			// of what stands behind.
			list = append(list, text[[]int{0, 2, 3}[offset]:len(text)-2])
		}
	}
	return list
}

// hunt reports every canary that is in a text, without repeating the text.
func (c *canaries) hunt(t testing.TB, where, text string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	whole := strings.NewReplacer("\n", "", "\r", "", `\n`, "").Replace(text) // PEM breaks its lines
	for form, what := range c.forms {
		if i := strings.Index(text, form); i >= 0 {
			t.Errorf("a %s is in %s, behind %q", what, where, text[max(0, i-40):i])
		} else if strings.Contains(whole, form) {
			t.Errorf("a %s is in %s", what, where)
		}
	}
}

// The hunt finds what it is for.
func TestHuntFindsCanaries(t *testing.T) {
	secret := []byte("canary-0123456789-\x00\xff-canary-0123456789")
	var c canaries
	c.add("secret", secret)
	for _, text := range []string{
		string(secret), fmt.Sprint("x", secret), fmt.Sprintf("%#v", secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("%q", secret),
		base64.StdEncoding.EncodeToString(secret), base64.URLEncoding.EncodeToString(append([]byte("ab"), append(secret, "more"...)...)),
		base64.StdEncoding.EncodeToString(append([]byte("a"), secret...)),
		base64.StdEncoding.EncodeToString(secret)[:20] + "\n" + base64.StdEncoding.EncodeToString(secret)[20:],
	} {
		caught := &recorder{TB: t}
		c.hunt(caught, "a test", "before "+text+" after")
		if caught.errors == 0 {
			t.Errorf("not found in %q", text)
		}
	}
	c.hunt(t, "an innocent text", "canary-0123456789, and nothing else")
}

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	errors int
}

func (r *recorder) Errorf(string, ...any) { r.errors++ }
