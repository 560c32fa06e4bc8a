package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Address is the URL of the first node.
func (v *Vault) Address() string { return v.Nodes[0].Address }

// Addresses are the URLs of all nodes.
func (v *Vault) Addresses() []string {
	var all []string
	for _, n := range v.Nodes {
		all = append(all, n.Address)
	}
	return all
}

// RootToken is the token that may do everything.
func (v *Vault) RootToken() string { return v.root }

// Leader waits until there is an active node, and returns it.
func (v *Vault) Leader(t testing.TB) *Node {
	t.Helper()
	ctx, cancel := startup()
	defer cancel()
	n, err := v.leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Try sends a request with the given token to the active node, and returns the
// answer's members.
func (v *Vault) Try(t testing.TB, token, method, path string, in any) (map[string]any, error) {
	t.Helper()
	var out map[string]any
	// Clean-ups need it too, when the test's context has ended.
	err := v.Leader(t).do(context.WithoutCancel(t.Context()), method, path, token, in, &out)
	return out, err
}

// Do sends a request with the root token to the active node, and returns the
// answer's members.
func (v *Vault) Do(t testing.TB, method, path string, in any) map[string]any {
	t.Helper()
	out, err := v.Try(t, v.root, method, path, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// KV mounts a fresh KV engine of version 2 and returns its path.
func (v *Vault) KV(t testing.TB) string {
	t.Helper()
	mount := v.Mount(t, "kv", map[string]any{"version": "2"})
	ctx, cancel := startup()
	defer cancel()
	// A new mount needs a moment before it knows versions.
	if err := poll(ctx, func() error {
		return v.Leader(t).do(ctx, "GET", mount+"/config", v.root, nil, nil)
	}); err != nil {
		t.Fatal(err)
	}
	return mount
}

// Transit mounts a fresh transit engine and returns its path.
func (v *Vault) Transit(t testing.TB) string {
	t.Helper()
	return v.Mount(t, "transit", nil)
}

// Mount mounts a secrets engine under a fresh path, until the test ends.
func (v *Vault) Mount(t testing.TB, kind string, options map[string]any) string {
	t.Helper()
	mount := kind + "-" + fresh()
	v.Do(t, "POST", "sys/mounts/"+mount, map[string]any{"type": kind, "options": options})
	v.later(t, "sys/mounts/"+mount)
	return mount
}

// EnableAuth enables a way to log in under a fresh path, until the test ends.
func (v *Vault) EnableAuth(t testing.TB, kind string) string {
	t.Helper()
	mount := kind + "-" + fresh()
	v.Do(t, "POST", "sys/auth/"+mount, map[string]any{"type": kind})
	v.later(t, "sys/auth/"+mount)
	return mount
}

// later deletes what a test made on the server that others use after it.
func (v *Vault) later(t testing.TB, path string) {
	if v.own {
		return
	}
	t.Cleanup(func() {
		_ = v.Nodes[0].do(context.Background(), "DELETE", path, v.root, nil, nil)
	})
}

// Policy writes a policy under a fresh name and returns it.
func (v *Vault) Policy(t testing.TB, hcl string) string {
	t.Helper()
	name := "policy-" + fresh()
	v.SetPolicy(t, name, hcl)
	v.later(t, "sys/policies/acl/"+name)
	return name
}

// SetPolicy replaces a policy.
func (v *Vault) SetPolicy(t testing.TB, name, hcl string) {
	t.Helper()
	v.Do(t, "PUT", "sys/policies/acl/"+name, map[string]any{"policy": hcl})
}

// Token makes a token. The request may set what the API knows: policies, ttl,
// renewable, num_uses.
//
// https://developer.hashicorp.com/vault/api-docs/auth/token#create-token
func (v *Vault) Token(t testing.TB, request map[string]any) string {
	t.Helper()
	out := v.Do(t, "POST", "auth/token/create-orphan", request)
	return out["auth"].(map[string]any)["client_token"].(string)
}

// File writes a credential into a file of the test and returns its path.
func File(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credential")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fresh is a name that nobody used before.
func fresh() string { return strings.ToLower(rand.Text()[:12]) }

// Kill ends the node as a crash would.
func (n *Node) Kill(t testing.TB) {
	t.Helper()
	n.kill()
}

// Restart starts the node again after Kill, or kills it first, and unseals it.
// What an in-memory server held is gone, so that it must be a cluster's.
func (n *Node) Restart(t testing.TB) {
	t.Helper()
	n.restart(t)
	n.Unseal(t)
}

// restart leaves the node sealed.
func (n *Node) restart(t testing.TB) {
	t.Helper()
	if n.vault.opt.Nodes < 2 {
		t.Fatal("a server in memory cannot be restarted")
	}
	n.kill()
	ctx, cancel := startup()
	defer cancel()
	if err := n.start(ctx); err != nil {
		t.Fatal(err)
	}
}

// Seal seals the node. A standby cannot be told to: it is restarted instead.
//
// https://developer.hashicorp.com/vault/api-docs/system/seal#seal
func (n *Node) Seal(t testing.TB) {
	t.Helper()
	h, err := n.health()
	if err != nil {
		t.Fatal(err)
	}
	if h.Standby {
		n.restart(t)
		return
	}
	if err := n.do(t.Context(), "PUT", "sys/seal", n.vault.root, nil, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := startup()
	defer cancel()
	if err := poll(ctx, func() error {
		h, err := n.health()
		if err == nil && !h.Sealed {
			err = errors.New("not sealed yet")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// Unseal unseals the node and waits until Vault serves.
func (n *Node) Unseal(t testing.TB) {
	t.Helper()
	ctx, cancel := startup()
	defer cancel()
	if err := n.open(ctx, ordered); err != nil {
		t.Fatal(err)
	}
}

// StepDown makes the active node a standby for a while.
//
// https://developer.hashicorp.com/vault/api-docs/system/step-down
func (n *Node) StepDown(t testing.TB) {
	t.Helper()
	if err := n.do(t.Context(), "PUT", "sys/step-down", n.vault.root, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// Running tells whether the process runs; whether it is sealed, nobody asks.
func (n *Node) Running() bool { return n.cmd != nil }

// Pid is the process id, for whoever must pause or trace the node.
func (n *Node) Pid(t testing.TB) int {
	t.Helper()
	if n.cmd == nil {
		t.Fatal("the node does not run")
	}
	return n.cmd.Process.Pid
}

// HTTP is a client that trusts the server.
func (v *Vault) HTTP() *http.Client { return v.http }

// Wrap posts to a path and returns a token that wraps the answer.
//
// https://developer.hashicorp.com/vault/docs/concepts/response-wrapping
func (v *Vault) Wrap(t testing.TB, path string, in any) string {
	t.Helper()
	var out struct {
		WrapInfo struct {
			Token string `json:"token"`
		} `json:"wrap_info"`
	}
	if err := v.Leader(t).do(t.Context(), "POST", path, v.root, in, &out, "X-Vault-Wrap-TTL", "5m"); err != nil {
		t.Fatal(err)
	}
	return out.WrapInfo.Token
}

// Unwrap uses a wrapping token up and returns the answer's members.
func (v *Vault) Unwrap(t testing.TB, token string) map[string]any {
	t.Helper()
	out, err := v.Try(t, token, "POST", "sys/wrapping/unwrap", nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Snapshot saves all that a cluster holds.
//
// https://developer.hashicorp.com/vault/api-docs/system/storage/raft#take-a-snapshot-of-the-raft-cluster
func (v *Vault) Snapshot(t testing.TB) []byte {
	t.Helper()
	return v.raw(t, "GET", "sys/storage/raft/snapshot", nil)
}

// Restore puts a cluster back to a snapshot of it.
func (v *Vault) Restore(t testing.TB, snapshot []byte) {
	t.Helper()
	v.raw(t, "POST", "sys/storage/raft/snapshot-force", snapshot)
	v.Leader(t)
}

func (v *Vault) raw(t testing.TB, method, path string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, v.Leader(t).Address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", v.root)
	resp, err := v.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %v", method, path, resp.Status, err)
	}
	return raw
}
