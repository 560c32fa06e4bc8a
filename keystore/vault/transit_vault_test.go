package vault

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/keystore"
)

// realTransit is a fresh transit engine of a real Vault.
func realTransit(t *testing.T) (*Transit, *vaulttest.Vault) {
	t.Helper()
	server := vaulttest.Start(t)
	c, err := NewClient(Config{
		Addresses: []string{server.Address()},
		Auth:      Auth{TokenFile: vaulttest.File(t, server.RootToken())},
		Timeout:   10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return NewTransit(c, server.Transit(t)), server
}

// What Vault refuses to sign takes nothing else of the batch along.
func TestTransitBatchWithOneBadItem(t *testing.T) {
	engine, _ := realTransit(t)
	key, err := engine.Create(t.Context(), "k", "rsa-2048")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := key.Check("rsa-2048")
	if err != nil {
		t.Fatal(err)
	}
	how := TransitScheme{Hash: "sha2-256", RSA: "pss", Size: 256}
	digests := make([][]byte, 5)
	for i := range digests {
		d := sha256.Sum256([]byte{byte(i)})
		digests[i] = d[:]
	}
	digests[3] = []byte("no digest")
	sigs, errs := engine.SignBatch(t.Context(), "k", how, digests)
	for i, sig := range sigs {
		if i == 3 {
			if errs[i] == nil || sig != nil || !strings.Contains(errs[i].Error(), "refused") {
				t.Errorf("the bad item: %x, %v", sig, errs[i])
			}
			continue
		}
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		if errs[i] != nil || rsa.VerifyPSS(pub.(*rsa.PublicKey), crypto.SHA256, digests[i], sig, opts) != nil {
			t.Errorf("item %d: %v", i, errs[i])
		}
	}
	if sigs, errs := engine.SignBatch(t.Context(), "k", how, nil); len(sigs) != 0 || len(errs) != 0 {
		t.Errorf("an empty batch: %v, %v", sigs, errs)
	}
}

// A batch that fails as a whole fails for every item.
func TestTransitBatchOfAKeyThatIsGone(t *testing.T) {
	engine, _ := realTransit(t)
	_, errs := engine.SignBatch(t.Context(), "k", edScheme, [][]byte{{1}, {2}})
	if len(errs) != 2 || !errors.Is(errs[0], keystore.ErrNotFound) || !errors.Is(errs[1], keystore.ErrNotFound) {
		t.Errorf("got %v", errs)
	}
}

// The version is pinned: a key that was rotated in Vault goes on signing with
// the version whose public half is published, and says so if it cannot.
func TestTransitVersionIsPinned(t *testing.T) {
	engine, server := realTransit(t)
	key, err := engine.Create(t.Context(), "k", "ed25519")
	if err != nil {
		t.Fatal(err)
	}
	want, err := key.Check("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	server.Do(t, "POST", engine.mount+"/keys/k/rotate", nil)
	input := make([]byte, 32)
	rand.Read(input)
	sig, err := engine.Sign(t.Context(), "k", edScheme, input)
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(want.(ed25519.PublicKey), input, sig) {
		t.Error("signed with another version")
	}
	server.Do(t, "POST", engine.mount+"/keys/k/config", map[string]any{"min_encryption_version": 2})
	if sig, err := engine.Sign(t.Context(), "k", edScheme, input); err == nil {
		t.Errorf("signed %x though version 1 is locked", sig)
	}
}

func TestTransitNames(t *testing.T) {
	engine, _ := realTransit(t)
	if names, err := engine.Names(t.Context()); err != nil || len(names) != 0 {
		t.Fatal(names, err)
	}
	want := []string{"a", "b-1", "c.2_x"}
	for _, name := range want {
		if _, err := engine.Create(t.Context(), name, "ed25519"); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := engine.Names(t.Context()); err != nil || !slices.Equal(names, want) {
		t.Errorf("got %v, %v", names, err)
	}
	for range 2 {
		if err := engine.Destroy(t.Context(), "b-1"); err != nil {
			t.Error(err)
		}
	}
	if _, err := engine.Read(t.Context(), "b-1"); !errors.Is(err, keystore.ErrNotFound) {
		t.Error(err)
	}
	if names, err := engine.Names(t.Context()); err != nil || len(names) != 2 {
		t.Errorf("got %v, %v", names, err)
	}
}
