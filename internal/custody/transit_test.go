package custody

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/vault"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// keyset is the keyset of most tests. Its name could be two words of another.
const keyset = "shop-eu"

// rig is a transit engine of a real Vault.
type rig struct {
	*Transit
	server *vaulttest.Vault
	mount  string
}

// client logs in with a token.
func client(t *testing.T, address, token string) *vault.Client {
	t.Helper()
	c, err := vault.NewClient(vault.Config{
		Addresses: []string{address},
		Auth:      vault.Auth{TokenFile: vaulttest.File(t, token)},
		Timeout:   10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newRig(t *testing.T, server *vaulttest.Vault) *rig {
	t.Helper()
	r := &rig{server: server, mount: server.Transit(t)}
	r.Transit = r.another(t, "secret/jwksd")
	return r
}

// another returns a custody that has seen none of the keys yet. Its policy is
// the least that it needs: with it nobody can make a key that leaves Vault, nor
// let one leave.
func (r *rig) another(t *testing.T, store string) *Transit {
	t.Helper()
	policy := r.server.Policy(t, fmt.Sprintf(`
		path "%[1]s/keys"   { capabilities = ["list"] }
		path "%[1]s/keys/+" {
			capabilities       = ["read", "update", "delete"]
			allowed_parameters = {
				"type" = [], "derived" = [false], "auto_rotate_period" = []
				"exportable" = [false], "allow_plaintext_backup" = [false]
			}
		}
		path "%[1]s/keys/+/config" {
			capabilities       = ["update"]
			allowed_parameters = { "deletion_allowed" = [true] }
		}
		path "%[1]s/sign/+" { capabilities = ["update"] }`, r.mount))
	token := r.server.Token(t, map[string]any{"policies": []string{policy}})
	return NewTransit(vault.NewTransit(client(t, r.server.Address(), token), r.mount), store)
}

// make creates a key and returns it as it stands in a document.
func (r *rig) make(t *testing.T, keyset, alg string, bits int) rotation.Key {
	t.Helper()
	k, err := r.Create(t.Context(), keyset, alg, rotation.Policy{RSABits: bits})
	if err != nil {
		t.Fatal(err)
	}
	return rotation.Key{KID: k.KID, Algorithm: k.Algorithm, Public: k.Public, Handle: k.Handle}
}

// ask sends a request about a key in Vault past the custody.
func (r *rig) ask(t *testing.T, method, path string, body map[string]any) map[string]any {
	t.Helper()
	answer := r.server.Do(t, method, r.mount+"/"+path, body)
	data, _ := answer["data"].(map[string]any)
	return data
}

func (r *rig) kids(t *testing.T, keyset string) []string {
	t.Helper()
	list, err := r.List(t.Context(), keyset)
	if err != nil {
		t.Fatal(err)
	}
	var kids []string
	for _, info := range list {
		if d := time.Since(info.CreatedAt); d < -time.Minute || d > time.Hour {
			t.Errorf("key %s is from %s", info.KID, info.CreatedAt)
		}
		kids = append(kids, info.KID)
	}
	return kids
}

func sorted(keys ...rotation.Key) []string {
	var kids []string
	for _, k := range keys {
		kids = append(kids, k.KID)
	}
	slices.Sort(kids)
	return kids
}

// batcher is what a key that signs in batches can do.
type batcher interface {
	SignBatch(ctx context.Context, inputs [][]byte) (sigs [][]byte, errs []error)
}

func TestTransitEveryAlgorithm(t *testing.T) {
	r := newRig(t, vaulttest.Start(t))
	bits := map[string]int{"RS256": 0, "RS384": 3072, "PS512": 4096}
	types := map[string]string{
		"ES256": "ecdsa-p256", "ES384": "ecdsa-p384", "ES512": "ecdsa-p521", "EdDSA": "ed25519", "Ed25519": "ed25519",
		"RS256": "rsa-2048", "RS384": "rsa-3072", "RS512": "rsa-2048", "PS256": "rsa-2048", "PS384": "rsa-2048", "PS512": "rsa-4096",
	}
	for _, name := range jwa.Names() {
		t.Run(name, func(t *testing.T) {
			k := r.make(t, keyset, name, bits[name])
			if got := r.ask(t, "GET", "keys/"+k.Handle, nil)["type"]; got != types[name] {
				t.Errorf("Vault made a key of type %v", got)
			}
			jwk, err := jwks.Parse(k.Public)
			if err != nil {
				t.Fatal(err)
			}
			if thumb, _ := jwks.Thumbprint(jwk.Public()); k.KID != thumb || jwk.KID() != thumb || jwk.Algorithm() != name {
				t.Errorf("published as %s", k.Public)
			}
			key, err := r.another(t, "").Open(t.Context(), keyset, k)
			if err != nil {
				t.Fatal(err)
			}
			if key.KID() != k.KID || key.Algorithm() != name || key.Header("JWT") != signer.NewHeaders(name, k.KID).Header("JWT") {
				t.Errorf("opened %v", key)
			}
			useKey(t, key, jwk.Public())
		})
	}
}

// useKey signs one by one and in a batch, and verifies with two libraries.
func useKey(t *testing.T, key signer.Signing, pub crypto.PublicKey) {
	t.Helper()
	alg, err := jwa.Lookup(key.Algorithm())
	if err != nil {
		t.Fatal(err)
	}
	inputs := make([][]byte, 30)
	for i := range inputs {
		inputs[i] = fmt.Appendf(nil, "%s.payload%d", key.Header("JWT"), i)
	}
	sigs, errs := key.(batcher).SignBatch(t.Context(), inputs)
	single, err := key.Sign(t.Context(), inputs[0])
	if err != nil {
		t.Fatal(err)
	}
	for i, sig := range append(sigs, single) {
		input := inputs[i%len(inputs)]
		if i < len(errs) && errs[i] != nil {
			t.Fatal(errs[i])
		}
		if alg.Size > 0 && len(sig) != alg.Size {
			t.Errorf("a signature of %d bytes", len(sig))
		}
		// This wants a salt as long as the hash.
		if err := alg.Verify(pub, input, sig); err != nil {
			t.Errorf("signature %d: %v", i, err)
		}
	}
	if alg.Name == "Ed25519" {
		return // go-jose does not know the name of RFC 9864
	}
	payload := []byte("payload")
	input := key.Header("JWT") + "." + b64(payload)
	sig, err := key.Sign(t.Context(), []byte(input))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jose.ParseSignedCompact(input+"."+b64(sig), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg.Name)})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := token.Verify(pub); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("go-jose: %v", err)
	}
}

func b64(b []byte) string {
	text, _ := json.Marshal(b)
	return strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(string(text[1 : len(text)-1]))
}

func TestTransitRefusesWhatVaultHasNot(t *testing.T) {
	r := newRig(t, vaulttest.Start(t))
	if _, err := r.Create(t.Context(), keyset, "HS256", rotation.Policy{}); !errors.Is(err, jwa.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := r.Create(t.Context(), keyset, "RS256", rotation.Policy{RSABits: 2560}); err == nil || !strings.Contains(err.Error(), "2048, 3072 and 4096") {
		t.Error(err)
	}
	for _, name := range []string{"", "A", "a/b", "-a"} {
		if _, err := r.Create(t.Context(), name, "EdDSA", rotation.Policy{}); err == nil {
			t.Errorf("made a key for the keyset %q", name)
		}
	}
	if kids := r.kids(t, keyset); kids != nil {
		t.Errorf("left %v", kids)
	}
}

// The private half cannot be had, not even by who may do everything.
func TestTransitKeysStayInVault(t *testing.T) {
	r := newRig(t, vaulttest.Start(t))
	k := r.make(t, keyset, "ES256", 0)
	for _, path := range []string{"export/signing-key/" + k.Handle, "backup/" + k.Handle} {
		if out, err := r.server.Try(t, r.server.RootToken(), "GET", r.mount+"/"+path, nil); err == nil {
			t.Errorf("%s gives %v", path, out)
		}
	}
	data := r.ask(t, "GET", "keys/"+k.Handle, nil)
	for member, want := range map[string]any{
		"exportable": false, "allow_plaintext_backup": false, "derived": false, "imported_key": false,
		"deletion_allowed": false, "auto_rotate_period": 0.0, "latest_version": 1.0,
	} {
		if got := data[member]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v", member, got)
		}
	}
	if strings.Contains(string(k.Public), k.Handle) {
		t.Error("the name of the key is published")
	}
}

// Keys that other hands have made or changed never sign here.
func TestTransitOpenRefuses(t *testing.T) {
	r := newRig(t, vaulttest.Start(t))
	config := func(body map[string]any) func(*testing.T, *rotation.Key) {
		return func(t *testing.T, k *rotation.Key) { r.ask(t, "POST", "keys/"+k.Handle+"/config", body) }
	}
	replace := func(body map[string]any) func(*testing.T, *rotation.Key) {
		return func(t *testing.T, k *rotation.Key) {
			k.Handle += "a" // the name may be anything
			r.ask(t, "POST", "keys/"+k.Handle, body)
		}
	}
	for _, c := range []struct {
		what  string
		spoil func(*testing.T, *rotation.Key)
		want  error
		text  string
	}{
		{"exportable", config(map[string]any{"exportable": true}), keystore.ErrCorrupt, "exportable"},
		{"backup allowed", config(map[string]any{"allow_plaintext_backup": true}), keystore.ErrCorrupt, "plaintext backup"},
		{"deletion allowed", config(map[string]any{"deletion_allowed": true}), keystore.ErrCorrupt, "deletion"},
		{"rotating by itself", config(map[string]any{"auto_rotate_period": "24h"}), keystore.ErrCorrupt, "by itself"},
		{"rotated", func(t *testing.T, k *rotation.Key) {
			r.ask(t, "POST", "keys/"+k.Handle+"/rotate", nil)
		}, keystore.ErrCorrupt, "latest version is 2"},
		{"another type", replace(map[string]any{"type": "rsa-2048"}), keystore.ErrCorrupt, "of type rsa-2048, not ed25519"},
		{"symmetric", replace(map[string]any{"type": "aes256-gcm96"}), keystore.ErrCorrupt, "of type aes256-gcm96"},
		{"derived", replace(map[string]any{"type": "ed25519", "derived": true}), keystore.ErrCorrupt, "derives"},
		{"another key", replace(map[string]any{"type": "ed25519"}), signer.ErrMismatch, ""},
		{"gone", func(t *testing.T, k *rotation.Key) {
			r.ask(t, "POST", "keys/"+k.Handle+"/config", map[string]any{"deletion_allowed": true})
			r.ask(t, "DELETE", "keys/"+k.Handle, nil)
		}, keystore.ErrNotFound, ""},
		{"a name that is none", func(_ *testing.T, k *rotation.Key) { k.Handle = "../sys/seal" }, keystore.ErrCorrupt, ""},
		{"another kid", func(_ *testing.T, k *rotation.Key) { k.KID = "other" }, keystore.ErrCorrupt, ""},
		{"another algorithm", func(_ *testing.T, k *rotation.Key) { k.Algorithm = "ES256" }, keystore.ErrCorrupt, ""},
		{"no JWK", func(_ *testing.T, k *rotation.Key) { k.Public = json.RawMessage(`{}`) }, keystore.ErrCorrupt, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			k := r.make(t, keyset, "EdDSA", 0)
			if _, err := r.Open(t.Context(), keyset, k); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, &k)
			key, err := r.Open(t.Context(), keyset, k)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || key != nil {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
	newer := r.make(t, keyset, "EdDSA", 0)
	newer.Algorithm = "ML-DSA-65"
	if _, err := r.Open(t.Context(), keyset, newer); err == nil || lost(err) {
		t.Errorf("a key of a newer version: %v", err)
	}
	other := r.make(t, keyset, "EdDSA", 0)
	other.Handle = ""
	if _, err := r.Open(t.Context(), keyset, other); err == nil || lost(err) {
		t.Errorf("a key of another custody: %v", err)
	}
}

// lost is how the rotator tells that a private half will never be usable.
func lost(err error) bool {
	return errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrCorrupt) || errors.Is(err, signer.ErrMismatch)
}

func TestTransitDestroy(t *testing.T) {
	r := newRig(t, vaulttest.Start(t))
	gone := func(k rotation.Key) bool {
		_, err := r.server.Try(t, r.server.RootToken(), "GET", r.mount+"/keys/"+k.Handle, nil)
		return err != nil
	}
	keep := r.make(t, keyset, "EdDSA", 0)
	for _, c := range []struct {
		what  string
		spoil func(k rotation.Key)
		by    *Transit
	}{
		{"by its maker", func(rotation.Key) {}, r.Transit},
		{"by another, who must search", func(rotation.Key) {}, r.another(t, "secret/jwksd")},
		{"after the store was moved", func(rotation.Key) {}, r.another(t, "other/place")},
		{"begun before", func(k rotation.Key) {
			r.ask(t, "POST", "keys/"+k.Handle+"/config", map[string]any{"deletion_allowed": true})
		}, r.Transit},
		{"rotated by others", func(k rotation.Key) { r.ask(t, "POST", "keys/"+k.Handle+"/rotate", nil) }, r.another(t, "")},
		{"exportable", func(k rotation.Key) {
			r.ask(t, "POST", "keys/"+k.Handle+"/config", map[string]any{"exportable": true})
		}, r.Transit},
	} {
		k := r.make(t, keyset, "EdDSA", 0)
		key, err := r.Open(t.Context(), keyset, k)
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(k)
		for range 2 { // what is absent is no error
			if err := c.by.Destroy(t.Context(), keyset, k.KID, k.Handle); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
		}
		if !gone(k) {
			t.Errorf("%s: it is still there", c.what)
		}
		if _, err := key.Sign(t.Context(), []byte("x")); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("%s: signing with it: %v", c.what, err)
		}
		if _, errs := key.(batcher).SignBatch(t.Context(), [][]byte{{1}, {2}}); !errors.Is(errs[0], keystore.ErrNotFound) || !errors.Is(errs[1], keystore.ErrNotFound) {
			t.Errorf("%s: signing a batch with it: %v", c.what, errs)
		}
	}
	if err := r.Destroy(t.Context(), "other", keep.KID, keep.Handle); err != nil || gone(keep) {
		t.Errorf("destroyed by the name of another keyset: %v", err)
	}
	if err := r.Destroy(t.Context(), keyset, "nobody", ""); err != nil {
		t.Error(err)
	}
	// A document that names another key by its kid does not get it destroyed.
	wrong := r.make(t, keyset, "EdDSA", 0)
	wrong.Handle = keep.Handle
	fresh := r.another(t, "secret/jwksd")
	if _, err := fresh.Open(t.Context(), keyset, wrong); !errors.Is(err, signer.ErrMismatch) {
		t.Error(err)
	}
	if err := fresh.Destroy(t.Context(), keyset, wrong.KID, ""); err != nil || gone(keep) {
		t.Errorf("destroyed the wrong key: %v", err)
	}
	// Nor does it keep the right one alive.
	for _, handle := range []string{"../sys/seal", "jwksd-nothing", keep.Handle} {
		k := r.make(t, keyset, "EdDSA", 0)
		misled := k
		misled.Handle = handle
		if _, err := fresh.Open(t.Context(), keyset, misled); !lost(err) {
			t.Error(err)
		}
		if err := fresh.Destroy(t.Context(), keyset, k.KID, k.Handle); err != nil || !gone(k) || gone(keep) {
			t.Errorf("%s: %v", handle, err)
		}
	}
}

// What a writer leaves behind that dies between making a key and naming it is
// found by its name, and nobody else's key is.
func TestTransitListsOrphans(t *testing.T) {
	r := newRig(t, vaulttest.Start(t))
	if kids := r.kids(t, keyset); kids != nil {
		t.Errorf("nothing is there, listed %v", kids)
	}
	a, b := r.make(t, keyset, "ES256", 0), r.make(t, keyset, "RS256", 2048)
	r.make(t, "shop", "EdDSA", 0)
	r.make(t, "shop-eu-2", "EdDSA", 0)
	if _, err := r.another(t, "another/store").Create(t.Context(), keyset, "EdDSA", rotation.Policy{}); err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]string{
		"jwksd-" + keyset:                                "ed25519",
		"jwksd-" + keyset + "-short":                     "ed25519",
		strings.Replace(a.Handle, "jwksd-", "JWKSD-", 1): "ed25519",
		a.Handle[:len(a.Handle)-4] + "aaaa":              "aes256-gcm96",
		strings.ToUpper(a.Handle[len(a.Handle)-34:]):     "ed25519",
	} {
		r.ask(t, "POST", "keys/"+name, map[string]any{"type": kind})
	}
	fresh := &rig{Transit: r.another(t, "secret/jwksd"), server: r.server, mount: r.mount}
	if got, want := fresh.kids(t, keyset), sorted(a, b); !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	if err := fresh.Destroy(t.Context(), keyset, a.KID, ""); err != nil {
		t.Error(err)
	}
	if got, want := r.kids(t, keyset), sorted(b); !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}
