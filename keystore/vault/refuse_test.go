package vault

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/keystore"
)

// every is each operation of a store, on a keyset k that exists at version v
// with a key a.
func every(ctx context.Context, s *Store, v keystore.Version) map[string]func() error {
	return map[string]func() error{
		"load":    func() error { _, err := s.Load(ctx, "k"); return err },
		"swap":    func() error { _, err := s.Swap(ctx, "k", v, []byte("x")); return err },
		"changes": func() error { _, _, err := s.Changes(ctx, ""); return err },
		"create":  func() error { return s.CreateKey(ctx, "k", "b", []byte("x")) },
		"read":    func() error { _, err := s.ReadKey(ctx, "k", "a"); return err },
		"list":    func() error { _, err := s.ListKeys(ctx, "k"); return err },
		"check":   func() error { return s.Check(ctx) },
		"destroy": func() error { return s.DestroyKey(ctx, "k", "c") },
	}
}

// together runs them all at a time: each takes a while to give up.
func together(all map[string]func() error) map[string]error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	out := make(map[string]error)
	for what, do := range all {
		wg.Go(func() {
			err := do()
			mu.Lock()
			defer mu.Unlock()
			out[what] = err
		})
	}
	wg.Wait()
	return out
}

func wantEvery(t *testing.T, s *Store, v keystore.Version, kind error, parts ...string) {
	t.Helper()
	for what, err := range together(every(t.Context(), s, v)) {
		if !errors.Is(err, kind) {
			t.Errorf("%s: %v, want %v", what, err, kind)
			continue
		}
		wantLine(t, err, kind, parts...)
		for _, other := range []error{keystore.ErrConflict, keystore.ErrNotFound, keystore.ErrCorrupt, keystore.ErrExists} {
			if errors.Is(err, other) {
				t.Errorf("%s: the error claims %q: %v", what, other, err)
			}
		}
	}
}

func TestC64Sealed(t *testing.T) {
	t.Parallel()
	v := vaulttest.New(t, vaulttest.Options{})
	mount := v.KV(t)
	s := mustStore(t, connect(t, v), Options{Mount: mount})
	version := mustSwap(t, s, "k", "", "1")
	_, cursor := mustChanges(t, s, "")
	if err := s.CreateKey(t.Context(), "k", "a", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	v.Nodes[0].Seal(t)
	wantEvery(t, s, version, ErrSealed, "unseal")

	// Sealed at the start: the same line, and it heals by itself.
	late := mustStore(t, connect(t, v), Options{Mount: mount})
	wantLine(t, late.Check(t.Context()), ErrSealed, "unseal")
	v.Nodes[0].Unseal(t)
	for _, s := range []*Store{s, late} {
		if err := s.Check(t.Context()); err != nil {
			t.Error(err)
		}
		if doc, err := s.Load(t.Context(), "k"); err != nil || doc.Version != version {
			t.Errorf("after the seal: %+v, %v", doc, err)
		}
		if changed, _ := mustChanges(t, s, cursor); len(changed) > 0 {
			t.Errorf("after the seal %q changed", changed)
		}
	}
	v.Nodes[0].Kill(t)
	wantEvery(t, s, version, ErrUnreachable, "check the address")
}

// restricted is a store whose login has a policy of its own.
func restricted(t *testing.T) (v *vaulttest.Vault, s *Store, policy, hcl, token string, version keystore.Version) {
	t.Helper()
	v = vaulttest.Start(t)
	mount := v.KV(t)
	hcl = `path "` + mount + `/*" { capabilities = ["create", "read", "update", "delete", "list"] }`
	policy = v.Policy(t, hcl)
	token = v.Token(t, map[string]any{"policies": []string{policy}})
	s = mustStore(t, mustClient(t, Config{Addresses: v.Addresses(), Auth: Auth{TokenFile: vaulttest.File(t, token)}}), Options{Mount: mount})
	version = mustSwap(t, s, "k", "", "1")
	if err := s.CreateKey(t.Context(), "k", "a", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	return v, s, policy, hcl, token, version
}

func TestC64Forbidden(t *testing.T) {
	v, s, policy, hcl, token, version := restricted(t)
	v.SetPolicy(t, policy, `path "nothing/*" { capabilities = ["read"] }`)
	wantEvery(t, s, version, ErrForbidden, "permission denied", "deploy/vault")

	fresh := mustStore(t, mustClient(t, Config{Addresses: v.Addresses(), Auth: Auth{TokenFile: vaulttest.File(t, token)}}), Options{Mount: s.mount})
	wantLine(t, fresh.Check(t.Context()), ErrForbidden, "no such mount", "deploy/vault")

	v.SetPolicy(t, policy, hcl)
	for what, do := range every(t.Context(), s, version) {
		if err := do(); err != nil {
			t.Errorf("%s, allowed again: %v", what, err)
		}
	}
}

func TestC64TokenRevoked(t *testing.T) {
	v, s, _, _, token, version := restricted(t)
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": token})
	wantEvery(t, s, version, ErrLogin, "not valid")
}

func TestC64Throttled(t *testing.T) {
	v, s, _, _, _, version := restricted(t)
	quota := "sys/quotas/rate-limit/" + s.mount
	v.Do(t, "POST", quota, map[string]any{"path": s.mount + "/", "rate": 0.01, "interval": "1h"})
	t.Cleanup(func() { v.Do(t, "DELETE", quota, nil) })
	if _, err := s.Load(t.Context(), "k"); err != nil && !errors.Is(err, ErrThrottled) {
		t.Fatal(err)
	}
	wantEvery(t, s, version, ErrThrottled, "rate limit")
}

func TestWrongMount(t *testing.T) {
	v := vaulttest.Start(t)
	client := connect(t, v)
	for mount, parts := range map[string][]string{
		"no-such-mount":       {"no-such-mount", "correct the mount"},
		"sys":                 {"sys", "system, not kv"},
		v.Transit(t):          {"transit, not kv", "correct the mount"},
		v.Mount(t, "kv", nil): {"version 1", "vault kv enable-versioning"},
		v.KV(t) + "/deeper":   {"/deeper", "correct the mount"},
		"identity":            {"identity", "correct the mount"},
	} {
		s := mustStore(t, client, Options{Mount: mount})
		wantEvery(t, s, "1-x", ErrMount, parts...)
	}
	for _, bad := range []string{"a b", "a//b", "../x", "sécret", "a?b"} {
		if _, err := NewStore(client, Options{Mount: bad}); err == nil {
			t.Errorf("the mount %q is accepted", bad)
		}
		if _, err := NewStore(client, Options{Path: bad}); err == nil {
			t.Errorf("the path %q is accepted", bad)
		}
	}
}

// A mount of version 1 must not be written to, not even when it takes the place
// of the one that was checked.
func TestKVv1TakesThePlace(t *testing.T) {
	v := vaulttest.Start(t)
	mount := v.KV(t)
	s := mustStore(t, connect(t, v), Options{Mount: mount})
	version := mustSwap(t, s, "k", "", "1")
	v.Do(t, "DELETE", "sys/mounts/"+mount, nil)
	v.Do(t, "POST", "sys/mounts/"+mount, map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	if _, err := s.Swap(t.Context(), "k", version, []byte("2")); err == nil {
		t.Error("a swap on KV version 1 succeeded")
	}
	wantLine(t, s.CreateKey(t.Context(), "k", "a", []byte("x")), ErrKVv1, "version 1")
}

// Only Vault's exact answer is a conflict.
func TestOnlyTheExactAnswerIsAConflict(t *testing.T) {
	_, s, _, _, _, _ := restricted(t)
	ctx := t.Context()
	_, err := s.put(ctx, s.statePath("k"), 7, newStored("k", nil))
	wantLine(t, err, keystore.ErrConflict)
	// cas_required, and no cas: also a 400, also about check-and-set.
	err = s.client.Write(ctx, s.mount+"/data/"+s.statePath("k"), map[string]any{"data": map[string]any{}}, nil)
	wantLine(t, err, ErrFailed, "check-and-set parameter required")
	if errors.Is(err, keystore.ErrConflict) {
		t.Error("a missing parameter counts as a conflict")
	}
	err = s.client.Write(ctx, s.mount+"/data/"+s.statePath("k"), map[string]any{"options": map[string]any{"cas": "x"}, "data": map[string]any{}}, nil)
	wantLine(t, err, ErrFailed)
	if errors.Is(err, keystore.ErrConflict) {
		t.Error("a malformed parameter counts as a conflict")
	}
}

// A document that was deleted by hand is missing, and nobody starts over it.
func TestC62DeletedByHand(t *testing.T) {
	v, s, _, _, _, version := restricted(t)
	v.Do(t, "DELETE", s.mount+"/data/"+s.statePath("k"), nil)
	_, err := s.Load(t.Context(), "k")
	wantLine(t, err, keystore.ErrNotFound, "vault kv undelete")
	_, err = s.Swap(t.Context(), "k", "", []byte("x"))
	wantLine(t, err, keystore.ErrConflict, "vault kv undelete")
	v.Do(t, "POST", s.mount+"/undelete/"+s.statePath("k"), map[string]any{"versions": []int{1}})
	if doc, err := s.Load(t.Context(), "k"); err != nil || doc.Version != version {
		t.Errorf("brought back: %+v, %v", doc, err)
	}

	v.Do(t, "DELETE", s.mount+"/data/"+s.keyPath("k", "a"), nil)
	if _, err := s.ReadKey(t.Context(), "k", "a"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a key that was deleted by hand: %v", err)
	}
	if list, err := s.ListKeys(t.Context(), "k"); err != nil || len(list) != 1 {
		t.Errorf("its bytes are still there, but the list is %v (%v)", list, err)
	}
	wantLine(t, s.CreateKey(t.Context(), "k", "a", []byte("secret")), keystore.ErrExists, "destroy it first")
	if err := s.DestroyKey(t.Context(), "k", "a"); err != nil {
		t.Error(err)
	}
	if err := s.CreateKey(t.Context(), "k", "a", []byte("secret")); err != nil {
		t.Error(err)
	}
}

func TestForeignContent(t *testing.T) {
	v, s, _, _, _, _ := restricted(t)
	foreign := map[string]any{"data": map[string]any{"password": "canary-foreign"}, "options": map[string]any{"cas": 0}}
	v.Do(t, "POST", s.mount+"/data/"+s.statePath("x"), foreign)
	_, err := s.Load(t.Context(), "x")
	wantLine(t, err, keystore.ErrCorrupt, "vault kv rollback")
	_, err = s.Swap(t.Context(), "x", "", []byte("y"))
	wantLine(t, err, keystore.ErrCorrupt)
	v.Do(t, "POST", s.mount+"/data/"+s.keyPath("x", "a"), foreign)
	_, err = s.ReadKey(t.Context(), "x", "a")
	wantLine(t, err, keystore.ErrCorrupt)
	out := v.Do(t, "GET", s.mount+"/data/"+s.statePath("k"), nil)
	copied := out["data"].(map[string]any)["data"]
	v.Do(t, "POST", s.mount+"/data/"+s.statePath("copy"), map[string]any{"data": copied})
	_, err = s.Load(t.Context(), "copy")
	wantLine(t, err, keystore.ErrCorrupt, `belongs to keyset "k"`)
	at, err := s.get(t.Context(), s.headPath(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	v.Do(t, "POST", s.mount+"/data/"+s.headPath(), map[string]any{"data": map[string]any{"a": 1}, "options": map[string]any{"cas": at.version}})
	_, _, err = s.Changes(t.Context(), "")
	wantLine(t, err, keystore.ErrCorrupt, "vault kv metadata delete")
	v.Do(t, "DELETE", s.mount+"/metadata/"+s.headPath(), nil)
	changed, _ := mustChanges(t, s, "")
	if len(changed) != 3 {
		t.Errorf("with a new head, changed is %q", changed)
	}
}

// What is not Vault, or not there.
func TestNotVault(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("<html>canary " + r.Header.Get("X-Vault-Token")))
	}))
	t.Cleanup(web.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(300 * time.Millisecond) }))
	t.Cleanup(slow.Close)
	for address, parts := range map[string][]string{
		web.URL:  {"address of a Vault"},
		gone.URL: {"connection refused", "check the address"},
		slow.URL: {"within 100ms"},
	} {
		c := mustClient(t, Config{Addresses: []string{address}, Timeout: 100 * time.Millisecond, Auth: Auth{TokenFile: vaulttest.File(t, "hvs.canary")}})
		err := mustStore(t, c, Options{}).Check(t.Context())
		wantLine(t, err, nil, parts...)
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("the error quotes the token or the answer: %v", err)
		}
	}
	for _, bad := range []string{"", "vault:8200", "ftp://x", "https://user:canary@vault", "https://"} {
		_, err := NewClient(Config{Addresses: []string{bad}, Auth: Auth{TokenFile: "x"}})
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("address %q: %v", bad, err)
		}
	}
}
