package chaos

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

// cluster is a Vault of three nodes, set up as deploy/vault says.
type cluster struct {
	*vaulttest.Vault
	roleID, secretID string // files
}

// The tokens end within the test, so that they are renewed, and replaced when
// they cannot be renewed any more, while everything else breaks.
const (
	tokenTTL    = "20s"
	tokenMaxTTL = "60s"
)

func startCluster(t *testing.T) *cluster {
	t.Helper()
	v := vaulttest.Cluster(t, 3)
	v.Do(t, "POST", "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	v.Do(t, "POST", "sys/mounts/transit", map[string]any{"type": "transit"})
	policy, err := os.ReadFile(filepath.Join("..", "..", "deploy", "vault", "signer.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	v.SetPolicy(t, "jwksd-signer", string(policy))
	v.Do(t, "POST", "sys/auth/approle", map[string]any{"type": "approle"})
	const role = "auth/approle/role/jwksd-signer"
	v.Do(t, "POST", role, map[string]any{"token_policies": "jwksd-signer", "token_ttl": tokenTTL, "token_max_ttl": tokenMaxTTL})
	field := func(answer map[string]any, name string) string {
		return vaulttest.File(t, answer["data"].(map[string]any)[name].(string))
	}
	return &cluster{
		Vault:    v,
		roleID:   field(v.Do(t, "GET", role+"/role-id", nil), "role_id"),
		secretID: field(v.Do(t, "POST", role+"/secret-id", nil), "secret_id"),
	}
}

// sealAll seals one active node after the other until the rest are too few to
// choose another. It returns the sealed ones.
func (c *cluster) sealAll(t *testing.T) []*vaulttest.Node {
	t.Helper()
	var sealed []*vaulttest.Node
	for range 2 {
		n := c.Leader(t)
		n.Seal(t)
		sealed = append(sealed, n)
	}
	return sealed
}

// list returns the names below a path, none if there is no such path.
func (c *cluster) list(t *testing.T, path string) []string {
	t.Helper()
	out, err := c.Try(t, c.RootToken(), "GET", path+"?list=true", nil)
	if err != nil {
		return nil
	}
	data, _ := out["data"].(map[string]any)
	keys, _ := data["keys"].([]any)
	var names []string
	for _, k := range keys {
		names = append(names, k.(string))
	}
	return names
}
