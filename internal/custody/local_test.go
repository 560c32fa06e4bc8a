package custody_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

const keyset = "default"

// create makes a key and returns it as a document would name it.
func create(t *testing.T, c custody.Local, alg string) rotation.Key {
	t.Helper()
	k, err := c.Create(t.Context(), keyset, alg, rotation.Policy{RSABits: 2048})
	if err != nil {
		t.Fatal(err)
	}
	return rotation.Key{KID: k.KID, Algorithm: k.Algorithm, Public: k.Public}
}

func TestCreateOpenDestroy(t *testing.T) {
	store := keystoretest.NewMemory()
	c := custody.Local{Keys: store}
	for _, alg := range []string{"ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256"} {
		k := create(t, c, alg)
		jwk, err := jwks.Parse(k.Public)
		if err != nil || jwk.KID() != k.KID || jwk.Algorithm() != alg {
			t.Fatalf("%s: %s, %v", alg, k.Public, err)
		}
		if want, _ := jwks.Thumbprint(jwk.Public()); k.KID != want {
			t.Fatalf("%s: kid %s is not the thumbprint", alg, k.KID)
		}
		key, err := c.Open(t.Context(), keyset, k)
		if err != nil || key.KID() != k.KID || key.Algorithm() != alg {
			t.Fatal(alg, err)
		}
		if err := signer.Prove(t.Context(), key, jwk.Public()); err != nil {
			t.Fatal(alg, err)
		}
		if list, err := c.List(t.Context(), keyset); err != nil || len(list) != 1 || list[0].KID != k.KID {
			t.Fatal(list, err)
		}
		for range 2 {
			if err := c.Destroy(t.Context(), keyset, k.KID, ""); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Open(t.Context(), keyset, k); !errors.Is(err, keystore.ErrNotFound) {
			t.Fatalf("%s: after destruction %v", alg, err)
		}
	}
}

func TestCreateFails(t *testing.T) {
	store := keystoretest.NewMemory()
	c := custody.Local{Keys: store}
	for _, alg := range []string{"", "none", "HS256", "noNE"} {
		if _, err := c.Create(t.Context(), keyset, alg, rotation.Policy{RSABits: 0}); !errors.Is(err, jwa.ErrUnsupported) {
			t.Errorf("Create(%q): %v", alg, err)
		}
	}
	if _, err := c.Create(t.Context(), keyset, "RS256", rotation.Policy{RSABits: 1024}); err == nil {
		t.Error("a short RSA key was made")
	}
	store.Fault = func(keystoretest.Op) keystoretest.Fault { return keystoretest.Fault{Outcome: keystoretest.Refused} }
	if k, err := c.Create(t.Context(), keyset, "EdDSA", rotation.Policy{RSABits: 0}); !errors.Is(err, keystoretest.ErrUnavailable) || k.KID != "" {
		t.Errorf("a key that is not stored: %+v, %v", k, err)
	}
	if list, _ := store.Share().ListKeys(t.Context(), keyset); len(list) > 0 {
		t.Errorf("left behind: %v", list)
	}
}

// kept is a store that keeps secrets as they were given to it, not copies.
type kept struct {
	*keystoretest.Memory
	given  []byte
	answer []byte
}

func (s *kept) CreateKey(_ context.Context, _, _ string, secret []byte) error {
	s.given = secret
	s.answer = bytes.Clone(secret)
	return nil
}

func (s *kept) ReadKey(context.Context, string, string) ([]byte, error) { return s.answer, nil }

// TestSecretsAreCleared from the memory that carried them.
func TestSecretsAreCleared(t *testing.T) {
	store := &kept{}
	c := custody.Local{Keys: store}
	k := create(t, c, "EdDSA")
	if strings.Trim(string(store.given), "\x00") != "" {
		t.Error("the secret is left in memory after storing")
	}
	if _, err := c.Open(t.Context(), keyset, k); err != nil {
		t.Fatal(err)
	}
	if strings.Trim(string(store.answer), "\x00") != "" {
		t.Error("the secret is left in memory after reading")
	}
}

func TestOpenRefuses(t *testing.T) {
	source := keystoretest.NewMemory()
	c := custody.Local{Keys: source}
	k, other, foreign := create(t, c, "EdDSA"), create(t, c, "EdDSA"), create(t, c, "ES256")
	secret := func(k rotation.Key) []byte {
		s, err := source.ReadKey(t.Context(), keyset, k.KID)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	renamed := k
	renamed.KID = other.KID
	tests := []struct {
		name   string
		key    rotation.Key
		secret []byte
		want   error
	}{
		{"another key", k, secret(other), signer.ErrMismatch},
		{"another algorithm", k, secret(foreign), keystore.ErrCorrupt},
		{"garbage", k, []byte("garbage"), keystore.ErrCorrupt},
		{"nothing", k, nil, keystore.ErrCorrupt},
		{"cut", k, secret(k)[:20], keystore.ErrCorrupt},
		{"trailing data", k, append(secret(k), 0), keystore.ErrCorrupt},
		{"published half of another kid", renamed, secret(k), keystore.ErrCorrupt},
		{"published half is no key", rotation.Key{KID: k.KID, Algorithm: "EdDSA", Public: json.RawMessage(`{}`)}, secret(k), keystore.ErrCorrupt},
		{"published half for another algorithm", rotation.Key{KID: k.KID, Algorithm: "ES256", Public: k.Public}, secret(k), keystore.ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := keystoretest.NewMemory()
			if err := store.CreateKey(t.Context(), keyset, tt.key.KID, tt.secret); err != nil {
				t.Fatal(err)
			}
			key, err := custody.Local{Keys: store}.Open(t.Context(), keyset, tt.key)
			if !errors.Is(err, tt.want) || key != nil {
				t.Fatalf("Open = %v, %v; want %v", key, err, tt.want)
			}
			if strings.Contains(err.Error(), "garbage") {
				t.Fatalf("the error repeats the secret: %v", err)
			}
		})
	}
}

// TestOpenNewerKey: a replica that is not upgraded yet must not take the keys
// of a new algorithm for damaged.
func TestOpenNewerKey(t *testing.T) {
	store := keystoretest.NewMemory()
	if err := store.CreateKey(t.Context(), keyset, "new", []byte("?")); err != nil {
		t.Fatal(err)
	}
	k := rotation.Key{KID: "new", Algorithm: "ML-DSA-44", Public: json.RawMessage(`{"kty":"AKP","alg":"ML-DSA-44","kid":"new"}`)}
	_, err := custody.Local{Keys: store}.Open(t.Context(), keyset, k)
	for _, lost := range []error{keystore.ErrCorrupt, keystore.ErrNotFound, signer.ErrMismatch} {
		if err == nil || errors.Is(err, lost) {
			t.Fatalf("Open = %v", err)
		}
	}
}
