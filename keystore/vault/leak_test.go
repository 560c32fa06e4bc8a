package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

// canaries are secrets that must stay where they are.
type canaries map[string]string

func (c canaries) hunt(t *testing.T, where, text string) {
	t.Helper()
	for name, secret := range c {
		for _, form := range []string{
			secret, base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)),
			hex.EncodeToString([]byte(secret)), fmt.Sprint([]byte(secret)),
		} {
			if strings.Contains(text, form) {
				t.Errorf("the %s is in %s: %s", name, where, text)
			}
		}
	}
}

func TestC69NoSecretLeaks(t *testing.T) {
	t.Parallel()
	v := vaulttest.New(t, vaulttest.Options{})
	mount := v.KV(t)
	policy := v.Policy(t, `path "`+mount+`/*" { capabilities = ["create", "read", "update", "delete", "list"] }`)
	auth, roleID := approle(t, v, map[string]any{"token_policies": policy, "token_ttl": "3s"})
	secret := secretID(t, v, auth)
	file := vaulttest.File(t, secret)
	p := newProxy(t, v)
	var caught logs
	cfg := Config{
		Addresses: []string{p.URL}, Timeout: time.Second, Log: caught.logger(),
		Auth: Auth{AppRole: &AppRole{Mount: auth, RoleIDFile: vaulttest.File(t, roleID), SecretIDFile: file}},
	}
	c := mustClient(t, cfg)
	s := mustStore(t, c, Options{Mount: mount, Log: caught.logger()})
	key := "canary-private-key-0123456789-canary"
	version := mustSwap(t, s, "k", "", "1")
	if err := s.CreateKey(t.Context(), "k", "a", []byte(key)); err != nil {
		t.Fatal(err)
	}
	hunt := canaries{"token": c.session.now(), "secret-id": secret, "private key": key}

	var said bytes.Buffer
	all := func() {
		for _, err := range together(every(t.Context(), s, version)) {
			if err != nil {
				fmt.Fprintf(&said, "%v\n%+v\n%#v\n", err, err, err)
			}
		}
		for _, err := range []error{
			s.CreateKey(t.Context(), "k", "a", []byte(key+"2")),
			s.CreateKey(t.Context(), "k", "new", []byte(key)),
			s.CreateKey(t.Context(), "", key, []byte(key)),
		} {
			if err != nil && !strings.Contains(err.Error(), key) { // as a kid it is none
				fmt.Fprintf(&said, "%v\n%+v\n", err, err)
			}
		}
	}
	all()
	for _, f := range []fault{drop, loseReply} {
		p.breaking(f, 1000, "PUT", "/")
		all()
		p.breaking(f, 1000, "GET", "/")
		all()
	}
	p.reset()
	v.SetPolicy(t, policy, `path "nothing" { capabilities = ["read"] }`)
	all()
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": hunt["token"]})
	all()
	os.WriteFile(file, []byte("canary-wrong-secret-id"), 0o600)
	hunt["wrong secret-id"] = "canary-wrong-secret-id"
	hunt["second token"] = c.session.now()
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": c.session.now()})
	all()
	time.Sleep(4 * time.Second) // a renewal that fails in the background
	v.Nodes[0].Seal(t)
	all()

	hunt.hunt(t, "an error", said.String())
	if n := strings.Count(said.String(), "\n"); n < 50 {
		t.Errorf("only %d lines of errors: this tested nothing", n)
	}
	printed(t, hunt, &caught, c, s, cfg)
	for _, r := range p.requests() {
		hunt.hunt(t, "a URL", r)
	}
	hunt.hunt(t, "the log", caught.String())
	if !strings.Contains(caught.String(), "logged in") {
		t.Errorf("the log was not caught: %s", caught.String())
	}
}

// printed prints what a careless caller might print.
func printed(t *testing.T, hunt canaries, caught *logs, c *Client, s *Store, cfg Config) {
	t.Helper()
	for _, value := range []any{c, s, cfg, &cfg, cfg.Auth, c.session.how} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			hunt.hunt(t, fmt.Sprintf("%s of %T", verb, value), fmt.Sprintf(verb, value))
		}
		raw, _ := json.Marshal(value)
		hunt.hunt(t, fmt.Sprintf("JSON of %T", value), string(raw))
		caught.logger().Debug("value", "value", value)
		slog.New(slog.NewJSONHandler(caught, nil)).Log(context.Background(), slog.LevelInfo, "value", "value", value)
	}
}

// The unwrapped secret-id is in memory only, and not in what prints.
func TestC69UnwrappedSecretID(t *testing.T) {
	v := vaulttest.Start(t)
	mount, roleID := approle(t, v, map[string]any{"token_ttl": "1h"})
	token := v.Wrap(t, "auth/"+mount+"/role/r/secret-id", nil)
	var caught logs
	cfg := Config{
		Addresses: v.Addresses(), Log: caught.logger(),
		Auth: Auth{AppRole: &AppRole{Mount: mount, RoleIDFile: vaulttest.File(t, roleID), SecretIDFile: vaulttest.File(t, token), Wrapped: true}},
	}
	c := mustClient(t, cfg)
	if _, err := whoami(t, c); err != nil {
		t.Fatal(err)
	}
	role := c.session.how.(*appRole)
	hunt := canaries{"secret-id": role.unwrapped(), "wrapping token": token, "token": c.session.now()}
	printed(t, hunt, &caught, c, mustStore(t, c, Options{}), cfg)
	hunt.hunt(t, "the log", caught.String())
}
