package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/keystore"
)

// role is a policy file on a real Vault, and what its holder must be able to
// do.
type role struct {
	vault   *vaulttest.Vault
	mount   string
	transit string
	policy  string // name
	hcl     string
	client  *Client // of the role
	store   *Store  // of the role
	root    *Client
	rootIs  *Store
}

func newRole(t *testing.T, file string, readOnly bool) *role {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "deploy", "vault", file))
	if err != nil {
		t.Fatal(err)
	}
	v := vaulttest.Start(t)
	r := &role{vault: v, mount: v.KV(t), transit: v.Transit(t), root: connect(t, v)}
	r.hcl = strings.ReplaceAll(strings.ReplaceAll(string(raw), `"secret/`, `"`+r.mount+`/`), `"transit/`, `"`+r.transit+`/`)
	r.policy = v.Policy(t, r.hcl)
	token := v.Token(t, map[string]any{"policies": []string{r.policy}})
	r.client = mustClient(t, Config{Addresses: v.Addresses(), Auth: Auth{TokenFile: vaulttest.File(t, token)}})
	r.store = mustStore(t, r.client, Options{Mount: r.mount, ReadOnly: readOnly})
	r.rootIs = mustStore(t, r.root, Options{Mount: r.mount})
	return r
}

// without returns the policy once for each capability, without it.
func (r *role) without() map[string]string {
	block := regexp.MustCompile(`path "([^"]+)" \{\s*capabilities = \[([^\]]*)\]`)
	all := make(map[string]string)
	for _, m := range block.FindAllStringSubmatchIndex(r.hcl, -1) {
		path, list := r.hcl[m[2]:m[3]], r.hcl[m[4]:m[5]]
		capabilities := strings.Split(list, ", ")
		for i, c := range capabilities {
			rest := append(append([]string{}, capabilities[:i]...), capabilities[i+1:]...)
			if len(rest) == 0 {
				rest = []string{`"deny"`}
			}
			all[c+" on "+path] = r.hcl[:m[4]] + strings.Join(rest, ", ") + r.hcl[m[5]:]
		}
	}
	return all
}

// prove runs the role's work with its policy, and again without each
// capability, when it must fail.
func (r *role) prove(t *testing.T, work func(context.Context) error) {
	t.Helper()
	if err := work(t.Context()); err != nil {
		t.Fatalf("with the whole policy: %v", err)
	}
	for what, hcl := range r.without() {
		r.vault.SetPolicy(t, r.policy, hcl)
		if err := work(t.Context()); err == nil {
			t.Errorf("it works without %s, so that the policy grants too much", what)
		} else if !errors.Is(err, ErrForbidden) {
			t.Errorf("without %s: %v, want ErrForbidden", what, err)
		}
	}
	r.vault.SetPolicy(t, r.policy, r.hcl)
	if err := work(t.Context()); err != nil {
		t.Errorf("with the whole policy again: %v", err)
	}
}

// steps runs one after the other and stops at the first error.
func steps(todo ...func() error) error {
	for n, do := range todo {
		if err := do(); err != nil {
			return fmt.Errorf("step %d: %w", n, err)
		}
	}
	return nil
}

func (r *role) data(path string) string     { return r.mount + "/data/jwksd/" + path }
func (r *role) metadata(path string) string { return r.mount + "/metadata/jwksd/" + path }

func content(s string) map[string]any {
	return map[string]any{"data": map[string]any{"report": s}}
}

// list is Client.List that wants an answer: without one there is nothing.
func list(ctx context.Context, c *Client, path string) error {
	_, err := c.List(ctx, path)
	return err
}

func TestSignerPolicy(t *testing.T) {
	r := newRole(t, "signer.hcl", false)
	count := 0
	r.prove(t, func(ctx context.Context) error {
		count++
		s, c := r.store, r.client
		keyset, half := fmt.Sprint("k", count), fmt.Sprint("half", count)
		engine := NewTransit(c, r.transit)
		var v keystore.Version
		s.appender.known = nil // nothing is under way
		return steps(
			func() error { return r.root.Delete(ctx, r.metadata("head")) },
			func() error { _, _, err := s.Changes(ctx, ""); return err },
			func() (err error) { v, err = s.Swap(ctx, keyset, "", []byte("1")); return },
			func() (err error) { v, err = s.Swap(ctx, keyset, v, []byte("2")); return },
			func() error { _, err := s.Load(ctx, keyset); return err },

			// A crash between the settings and the first version.
			func() error { return r.rootIs.guard(ctx, s.statePath(half), stateVersions) },
			func() error { _, err := s.Swap(ctx, half, "", []byte("1")); return err },
			func() error { return r.root.Delete(ctx, r.metadata("head")) },
			func() error { return r.rootIs.guard(ctx, s.headPath(), headVersions) },
			func() error { _, _, err := s.Changes(ctx, ""); return err },

			func() error { return s.CreateKey(ctx, keyset, "a", []byte("secret")) },
			func() error { return s.CreateKey(ctx, keyset, "a", []byte("secret")) },
			func() error { _, err := s.ReadKey(ctx, keyset, "a"); return err },
			func() error { _, err := s.ListKeys(ctx, keyset); return err },
			func() error { return s.DestroyKey(ctx, keyset, "a") },

			func() error { return s.PutReport(ctx, keyset, []byte("1")) },
			func() error { return s.PutReport(ctx, keyset, []byte("2")) },
			func() error { _, err := s.Reports(ctx); return err },
			func() error { return s.DropReport(ctx, keyset) },

			func() error { _, err := engine.Create(ctx, keyset, "ed25519"); return err },
			func() error { _, err := engine.Read(ctx, keyset); return err },
			func() error { _, err := engine.Names(ctx); return err },
			func() error { _, err := engine.Sign(ctx, keyset, TransitScheme{Size: 64}, []byte("input")); return err },
			func() error { return engine.Destroy(ctx, keyset) },
		)
	})
}

// The policy alone keeps a private key from being replaced.
func TestSignerPolicyKeepsKeys(t *testing.T) {
	r := newRole(t, "signer.hcl", false)
	ctx := t.Context()
	if err := r.store.CreateKey(ctx, "k", "a", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	wantLine(t, r.client.Write(ctx, r.data("keys/k/a"), content("x"), nil), ErrForbidden)
	if err := r.store.CreateKey(ctx, "k", "a", []byte("other")); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("another secret under the same kid: %v", err)
	}
	wantLine(t, r.client.Delete(ctx, r.metadata("state/k")), ErrForbidden)
}

func TestPublisherPolicy(t *testing.T) {
	r := newRole(t, "publisher.hcl", true)
	if _, err := r.rootIs.Swap(t.Context(), "k", "", []byte("1")); err != nil {
		t.Fatal(err)
	}
	count := 0
	r.prove(t, func(ctx context.Context) error {
		count++
		id := fmt.Sprint("r", count)
		return steps(
			func() error { return r.store.Check(ctx) },
			func() error { _, _, err := r.store.Changes(ctx, ""); return err },
			func() error { _, err := r.store.Load(ctx, "k"); return err },
			func() error { return r.store.PutReport(ctx, id, []byte("1")) },
			func() error { return r.store.PutReport(ctx, id, []byte("2")) },
		)
	})
}

func TestPublisherCannotReachPrivateKeys(t *testing.T) {
	r := newRole(t, "publisher.hcl", true)
	ctx := t.Context()
	if err := r.rootIs.CreateKey(ctx, "k", "a", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	v := mustSwap(t, r.rootIs, "k", "", "1")
	engine := NewTransit(r.root, r.transit)
	if _, err := engine.Create(ctx, "k", "ed25519"); err != nil {
		t.Fatal(err)
	}
	secret, err := r.store.ReadKey(ctx, "k", "a")
	if secret != nil {
		t.Error("a publisher read a private key")
	}
	wantLine(t, err, ErrForbidden, "deploy/vault")
	for what, do := range map[string]func() error{
		"list keys": func() error { _, err := r.store.ListKeys(ctx, "k"); return err },
		"create":    func() error { return r.store.CreateKey(ctx, "k", "b", []byte("x")) },
		"destroy":   func() error { return r.store.DestroyKey(ctx, "k", "a") },
		"swap":      func() error { _, err := r.store.Swap(ctx, "k", v, []byte("2")); return err },
		"old version": func() error {
			return r.client.Read(ctx, r.data("keys/k/a"), map[string][]string{"version": {"1"}}, nil)
		},
		"subkeys":  func() error { return r.client.Read(ctx, r.mount+"/subkeys/jwksd/keys/k/a", nil, nil) },
		"metadata": func() error { return r.client.Read(ctx, r.metadata("keys/k/a"), nil, nil) },
		"sign": func() error {
			_, err := NewTransit(r.client, r.transit).Sign(ctx, "k", TransitScheme{Size: 64}, []byte("x"))
			return err
		},
		"export": func() error { return r.client.Read(ctx, r.transit+"/export/signing-key/k", nil, nil) },
	} {
		if err := do(); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v, want ErrForbidden", what, err)
		}
	}
	if doc, err := r.store.Load(ctx, "k"); err != nil || doc.Version != v {
		t.Errorf("a publisher reads the state: %v", err)
	}
}

func TestOperatorPolicy(t *testing.T) {
	r := newRole(t, "operator.hcl", false)
	count := 0
	r.prove(t, func(ctx context.Context) error {
		count++
		c := r.client
		name := fmt.Sprint("k", count)
		state := "state/" + name
		engine, mine := NewTransit(r.root, r.transit), NewTransit(c, r.transit)
		return steps(
			func() error { _, err := r.rootIs.Swap(ctx, name, "", []byte("1")); return err },
			func() error { return r.rootIs.CreateKey(ctx, name, "a", []byte("secret")) },
			func() error { return r.rootIs.PutReport(ctx, name, []byte("1")) },
			func() error { _, err := engine.Create(ctx, name, "ed25519"); return err },

			func() error { return c.Read(ctx, r.data(state), nil, nil) },
			func() error { return c.Read(ctx, r.metadata(state), nil, nil) },
			func() error { return list(ctx, c, r.metadata("state")) },
			func() error { // rollback
				return c.Write(ctx, r.data(state), map[string]any{"options": map[string]any{"cas": 1}, "data": map[string]any{}}, nil)
			},
			func() error {
				return c.Write(ctx, r.mount+"/undelete/jwksd/"+state, map[string]any{"versions": []int{1}}, nil)
			},
			func() error { return c.Read(ctx, r.data("head"), nil, nil) },
			func() error { return c.Delete(ctx, r.metadata("head")) },
			func() error { _, err := r.store.ListKeys(ctx, name); return err },
			func() error { return r.store.DestroyKey(ctx, name, "a") },
			func() error { _, err := r.store.Reports(ctx); return err },
			func() error { return r.store.DropReport(ctx, name) },
			func() error { _, err := mine.Names(ctx); return err },
			func() error { _, err := mine.Read(ctx, name); return err },
			func() error { return mine.Destroy(ctx, name) },
			func() error { r.rootIs.appender.known = nil; return nil },
		)
	})
	ctx := t.Context()
	if err := r.rootIs.CreateKey(ctx, "x", "a", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	_, err := r.store.ReadKey(ctx, "x", "a")
	wantLine(t, err, ErrForbidden)
}
