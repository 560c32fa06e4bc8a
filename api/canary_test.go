package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"sync"
	"testing"

	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/signer"
)

// canary is a store of private keys that remembers every secret it was given.
type canary struct {
	*keystoretest.Memory
	mu      sync.Mutex
	secrets [][]byte
}

func (c *canary) CreateKey(ctx context.Context, keyset, kid string, secret []byte) error {
	c.mu.Lock()
	c.secrets = append(c.secrets, bytes.Clone(secret))
	c.mu.Unlock()
	return c.Memory.CreateKey(ctx, keyset, kid, secret)
}

// transcript is everything that left the daemon. It is safe for concurrent use.
type transcript struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (tr *transcript) Write(p []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.all.Write(p)
}

func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.all.String()
}

// wantNoSecret searches everything that left the daemon for private keys and
// for the callers' tokens.
func (r *rig) wantNoSecret() {
	r.keys.mu.Lock()
	defer r.keys.mu.Unlock()
	if len(r.keys.secrets) < 6 {
		r.t.Errorf("only %d secrets were planted", len(r.keys.secrets))
	}
	places := map[string]string{"log": r.log.String(), "answers": r.answers.String()}
	for _, der := range r.keys.secrets {
		for place, text := range places {
			if leak := findSecret(r.t, text, der); leak != "" {
				r.t.Errorf("the %s hold a private key as %s", place, leak)
			}
		}
	}
	for _, token := range []string{operator, issuer, typist, reader, turner, revoker, stranger} {
		for place, text := range places {
			if strings.Contains(text, token) {
				r.t.Errorf("the %s hold a caller's token", place)
			}
		}
	}
}

// findSecret looks for the spellings of a private key.
func findSecret(t testing.TB, text string, der []byte) string {
	priv, err := signer.ParsePrivate(der)
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string][]byte{"PKCS#8": der}
	switch k := priv.(type) {
	case *ecdsa.PrivateKey:
		if forms["scalar"], err = k.Bytes(); err != nil {
			t.Fatal(err)
		}
	case ed25519.PrivateKey:
		forms["seed"], forms["key"] = k.Seed(), k
	}
	for name, secret := range forms {
		std := base64.RawStdEncoding.EncodeToString(secret)
		url := base64.RawURLEncoding.EncodeToString(secret)
		for form, spelt := range map[string]string{"bytes": string(secret), "base64": std, "base64url": url, "hex": hex.EncodeToString(secret)} {
			if strings.Contains(text, spelt) {
				return name + " in " + form
			}
		}
	}
	return ""
}
