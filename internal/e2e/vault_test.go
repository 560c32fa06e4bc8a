package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

// vaultPolicy is one of the policies in deploy/vault, for other mounts.
func vaultPolicy(t testing.TB, name, kv, transit string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "vault", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(`"secret/`, `"`+kv+`/`, `"transit/`, `"`+transit+`/`).Replace(string(text))
}

func signerPolicy(t testing.TB, kv, transit string) string {
	return vaultPolicy(t, "signer.hcl", kv, transit)
}

// appRole is a login with its credentials, and the files that they are in.
type appRole struct {
	mount                    string
	roleID, secretID         string
	roleIDFile, secretIDFile string
}

// newAppRole makes a login that gives tokens of a policy.
func newAppRole(t testing.TB, v *vaulttest.Vault, policy string) *appRole {
	t.Helper()
	r := &appRole{mount: v.EnableAuth(t, "approle")}
	role := "auth/" + r.mount + "/role/jwksd"
	v.Do(t, "POST", role, map[string]any{"token_policies": v.Policy(t, policy), "token_ttl": "1h"})
	r.roleID = v.Do(t, "GET", role+"/role-id", nil)["data"].(map[string]any)["role_id"].(string)
	r.secretID = v.Do(t, "POST", role+"/secret-id", nil)["data"].(map[string]any)["secret_id"].(string)
	r.roleIDFile, r.secretIDFile = vaulttest.File(t, r.roleID), vaulttest.File(t, r.secretID)
	return r
}

// freeAddress is one that nobody listens on now.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
