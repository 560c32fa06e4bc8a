package custody

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore/vault"
	"github.com/jwksd/jwksd/rotation"
)

// An outage is not the loss of a key, and ends by itself.
func TestTransitOutages(t *testing.T) {
	r := newRig(t, vaulttest.New(t, vaulttest.Options{}))
	k := r.make(t, keyset, "ES256", 0)
	key, err := r.Open(t.Context(), keyset, k)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, c *Transit, want error) {
		t.Helper()
		_, openErr := c.Open(t.Context(), keyset, k)
		_, createErr := c.Create(t.Context(), keyset, "ES256", rotation.Policy{})
		_, listErr := c.List(t.Context(), keyset)
		destroyErr := c.Destroy(t.Context(), keyset, k.KID, k.Handle)
		for _, err := range []error{openErr, createErr, listErr, destroyErr} {
			if !errors.Is(err, want) || lost(err) {
				t.Errorf("%s: got %v, want %v", what, err, want)
			}
		}
	}
	r.server.Nodes[0].Seal(t)
	check("sealed", r.Transit, vault.ErrSealed)
	if _, err := key.Sign(t.Context(), []byte("x")); !errors.Is(err, vault.ErrSealed) || lost(err) {
		t.Errorf("signing: %v", err)
	}
	if _, errs := key.(batcher).SignBatch(t.Context(), [][]byte{{1}}); !errors.Is(errs[0], vault.ErrSealed) || lost(errs[0]) {
		t.Errorf("signing a batch: %v", errs)
	}
	r.server.Nodes[0].Unseal(t)
	if _, err := key.Sign(t.Context(), []byte("x")); err != nil {
		t.Errorf("unsealed: %v", err)
	}
	admin := client(t, r.server.Address(), r.server.RootToken())
	token := r.server.Token(t, map[string]any{"policies": []string{"default"}})
	nobody := client(t, r.server.Address(), token)
	nowhere := client(t, "http://127.0.0.1:1", token)
	check("forbidden", NewTransit(vault.NewTransit(nobody, r.mount), ""), vault.ErrForbidden)
	check("unreachable", NewTransit(vault.NewTransit(nowhere, r.mount), ""), vault.ErrUnreachable)
	check("no mount", NewTransit(vault.NewTransit(admin, "nothing"), ""), vault.ErrMount)
	check("KV version 1", NewTransit(vault.NewTransit(admin, r.server.Mount(t, "kv", map[string]any{"version": "1"})), ""), vault.ErrMount)
	check("KV version 2", NewTransit(vault.NewTransit(admin, r.server.KV(t)), ""), vault.ErrMount)
}

// A token, an input and a signature stand in no error.
func TestTransitErrorsKeepSecrets(t *testing.T) {
	const canary = "canary7f3a"
	var status int
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	defer server.Close()
	r := newRig(t, vaulttest.Start(t))
	k := r.make(t, keyset, "EdDSA", 0)
	jwk, err := jwks.Parse(k.Public)
	if err != nil {
		t.Fatal(err)
	}
	alg, _ := jwa.Lookup("EdDSA")
	engine := vault.NewTransit(client(t, server.URL, canary), r.mount)
	key := newTransitKey(engine, k.Handle, alg, jwk)
	input := []byte(canary + ".input")
	for _, answer := range []struct {
		status int
		body   string
	}{
		{200, `{"data":{"signature":"vault:v2:` + canary + `","batch_results":[{"signature":"vault:v2:` + canary + `"}]}}`},
		{200, `{"data":{"signature":"vault:v1:` + canary + `","batch_results":[{"signature":"vault:v1:` + canary + `"}]}}`},
		{200, canary},
		{400, `{"errors":[]}`},
		{403, `{"errors":["permission denied"]}`},
		{500, canary},
		{502, "<html>" + canary},
		{503, `{"errors":["Vault is sealed"]}`},
	} {
		status, body = answer.status, answer.body
		_, err := key.Sign(t.Context(), input)
		_, errs := key.SignBatch(t.Context(), [][]byte{input})
		_, openErr := NewTransit(engine, "").Open(t.Context(), keyset, k)
		for _, err := range []error{err, errs[0], openErr} {
			if err == nil || strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), b64(input)) {
				t.Errorf("%d %s: %v", answer.status, answer.body, err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%d %s: more than a line: %q", answer.status, answer.body, err)
			}
		}
	}
	for _, text := range []string{fmt.Sprintf("%v", key), fmt.Sprintf("%+v", key), fmt.Sprintf("%#v", key), fmt.Sprintf("%+v", engine)} {
		if strings.Contains(text, canary) {
			t.Error("printed: " + text)
		}
	}
}
