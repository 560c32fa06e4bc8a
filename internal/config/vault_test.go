package config

import (
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// vaultFile is a configuration with keystore.vault.
func vaultFile(vault string) string {
	return "keystore:\n  vault: " + vault + "\nkeysets: {default: {issuer: \"https://auth.example.com\"}}\n"
}

func TestVaultDefaultsAndPaths(t *testing.T) {
	c, err := Parse("/etc/jwksd/jwksd.yaml", []byte(vaultFile(`{address: "https://vault:8200", auth: {approle: {role_id_file: role-id, secret_id_file: /run/secret-id}}}`)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v := c.Keystore.Vault
	if v.Mount != "secret" || v.Path != "jwksd" || v.TransitMount != "" || v.Timeout != rotation.Duration(5*time.Second) {
		t.Errorf("defaults: %+v", v)
	}
	if a := v.Auth.AppRole; a.Mount != "approle" || a.RoleIDFile != "/etc/jwksd/role-id" || a.SecretIDFile != "/run/secret-id" {
		t.Errorf("approle: %+v", a)
	}
	c, err = Parse("f.yaml", []byte(vaultFile(`{address: "http://127.0.0.1:8200", auth: {kubernetes: {role: jwksd}}}`)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if k := c.Keystore.Vault.Auth.Kubernetes; k.TokenFile != serviceAccountToken || k.Mount != "kubernetes" {
		t.Errorf("kubernetes: %+v", k)
	}
}

func TestC03VaultFaultsAreNamed(t *testing.T) {
	ok := `auth: {token_file: /dev/null}`
	for _, c := range []struct{ vault, want string }{
		{`{` + ok + `}`, "keystore.vault.address: missing"},
		{`{address: vault, ` + ok + `}`, "keystore.vault.address: \"vault\" is no URL"},
		{`{address: "http://vault:8200", ` + ok + `}`, "keystore.vault.address: \"http://vault:8200\" sends private keys over the network in the clear"},
		{`{address: "https://vault:8200"}`, "keystore.vault.auth: give exactly one of"},
		{`{address: "https://vault:8200", auth: {token_file: t, cert: {cert: c, key: k}}}`, "keystore.vault.auth: give exactly one of"},
		{`{address: "https://vault:8200", auth: {approle: {role_id_file: r}}}`, "keystore.vault.auth.approle.secret_id_file: missing"},
		{`{address: "https://vault:8200", auth: {jwt: {role: r}}}`, "keystore.vault.auth.jwt.token_file: missing"},
		{`{address: "https://vault:8200", timeout: -1s, ` + ok + `}`, "keystore.vault.timeout: -1s: must be longer than zero"},
		{`{address: "https://vault:8200", adress: x, ` + ok + `}`, "keystore.vault.adress: unknown key: did you mean address?"},
	} {
		_, err := Parse("f.yaml", []byte(vaultFile(c.vault)), time.Now())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n got %v\nwant %s", c.vault, err, c.want)
		}
	}
}

func TestC03ReplicaFaultsAreNamed(t *testing.T) {
	keysets := "keysets: {default: {issuer: \"https://auth.example.com\"}}\n"
	for _, c := range []struct{ line, want string }{
		{"role: reader", `role: "reader": choose signer or publisher`},
		{"role: publisher", "role: publisher needs keystore.vault"},
		{"replica: a/b", `replica: "a/b": want up to 128 letters`},
		{"replica: .a", `replica: ".a": want up to 128 letters`},
		{"revision: -1", "revision: -1: must not be negative"},
	} {
		_, err := Parse("f.yaml", []byte(c.line+"\n"+keysets), time.Now())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n got %v\nwant %s", c.line, err, c.want)
		}
	}
}

func TestLastGood(t *testing.T) {
	vault := vaultFile(`{address: "https://vault:8200", auth: {token_file: t}}`)
	c, err := Parse("/etc/jwksd/jwksd.yaml", []byte("last_good: state/copy\n"+vault), time.Now())
	if err != nil || c.LastGood != "/etc/jwksd/state/copy" {
		t.Errorf("last_good %q, %v", c.LastGood, err)
	}
	for text, want := range map[string]string{
		"last_good: copy\nkeysets: {default: {issuer: \"https://auth.example.com\"}}\n": "last_good: needs keystore.vault",
		"last_good: ~/copy\n" + vault: "last_good: \"~/copy\": ~ is not expanded",
		"last_good: \"\"\n" + vault:   "last_good: empty: give a path",
	} {
		if _, err := Parse("f.yaml", []byte(text), time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
}
