package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// block is a keyset of a configuration file, with the settings that the tests
// turn.
type block struct {
	name       string
	algorithms string // as in "ES256, EdDSA"
	rotate     string
	ttl        string
	maxAge     string
	cache      string
	grace      string
	custody    string // local if empty
}

// settings of a configuration file; calm() has the defaults.
type settings struct {
	dir       string
	vault     string // keystore.vault in place of a file store, in YAML
	role      string // signer if empty
	replica   string // the host's name if empty
	public    string
	api       string
	ops       string
	sync      string
	staleness string
	skew      string
	blocks    []block
}

// calm is a configuration under which nothing happens by itself.
func calm(dir string) settings {
	return settings{
		dir: dir, public: "127.0.0.1:0", api: "127.0.0.1:0", ops: "127.0.0.1:0",
		sync: "100ms", staleness: "1m", skew: "1s",
		blocks: []block{{name: "default", algorithms: "ES256", rotate: "@every 720h", ttl: "1h", maxAge: "5s", cache: "5s", grace: "30s"}},
	}
}

// issuer of every keyset in these tests.
const issuer = "https://issuer.test"

func (s settings) yaml() string {
	var b strings.Builder
	if s.vault == "" {
		fmt.Fprintf(&b, "keystore:\n  file: {dir: %q}\n", s.dir)
	} else {
		fmt.Fprintf(&b, "keystore:\n  vault: %s\ndata_dir: %q\n", s.vault, s.dir)
	}
	if s.role != "" {
		fmt.Fprintf(&b, "role: %s\n", s.role)
	}
	if s.replica != "" {
		fmt.Fprintf(&b, "replica: %s\n", s.replica)
	}
	fmt.Fprintf(&b, "sync_interval: %s\nmax_staleness: %s\nclock_skew: %s\n", s.sync, s.staleness, s.skew)
	b.WriteString("keysets:\n")
	for _, k := range s.blocks {
		fmt.Fprintf(&b, "  %s:\n    issuer: %s\n    algorithms: [%s]\n    rotate: %q\n", k.name, issuer, k.algorithms, k.rotate)
		fmt.Fprintf(&b, "    token_ttl_max: %s\n    jwks_max_age: %s\n    verifier_cache: %s\n", k.ttl, k.maxAge, k.cache)
		fmt.Fprintf(&b, "    verifier_leeway: 0s\n    handover_grace: %s\n", k.grace)
		if k.custody != "" {
			fmt.Fprintf(&b, "    custody: %s\n", k.custody)
		}
	}
	fmt.Fprintf(&b, "listeners:\n  public: {address: %q}\n  api: {address: %q}\n", s.public, s.api)
	if s.ops != "" {
		fmt.Fprintf(&b, "  ops: {address: %q}\n", s.ops)
	}
	return b.String()
}

// write puts the configuration into a file of its own.
func (s settings) write(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwksd.yaml")
	writeText(t, path, s.yaml())
	return path
}

func writeText(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
