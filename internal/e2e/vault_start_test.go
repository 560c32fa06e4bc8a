package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

// TestVaultAtStart starts daemons that cannot work with Vault. Each ends with
// status 1 and one line that says what to fix, and names no secret: a daemon
// that has served nobody yet has nothing to keep up, and whoever starts it
// should learn at once. What restarts it later is the init system's.
func TestVaultAtStart(t *testing.T) {
	t.Parallel()
	s := newVaultStart(t)
	for name, c := range s.cases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.refuses(t, c)
		})
	}
}

// vaultStart is a Vault with everything that may be wrong.
type vaultStart struct {
	v       *vaulttest.Vault
	kv      string
	role    *appRole
	secrets []string // that must not be printed
}

// refusal is a setting of keystore.vault and the one line that it leads to.
type refusal struct {
	vault   string
	custody string // local if empty
	line    string // a pattern
}

func newVaultStart(t *testing.T) *vaultStart {
	v := vaulttest.New(t, vaulttest.Options{TLS: true})
	s := &vaultStart{v: v, kv: v.KV(t)}
	s.role = newAppRole(t, v, signerPolicy(t, s.kv, "transit"))
	s.secrets = []string{v.RootToken(), s.role.secretID, s.role.roleID, "canary"}
	return s
}

func (s *vaultStart) cases(t *testing.T) map[string]refusal {
	sealed := vaulttest.New(t, vaulttest.Options{TLS: true})
	sealed.Nodes[0].Seal(t)
	here := fmt.Sprintf("address: %q, ca_cert: %q", s.v.Address(), s.v.CAFile())
	with := func(mount, auth string) string { return fmt.Sprintf("{%s, mount: %s, auth: {%s}}", here, mount, auth) }
	token := func(token string) string {
		s.secrets = append(s.secrets, token)
		return fmt.Sprintf("token_file: %q", vaulttest.File(t, token))
	}
	approle := func(roleID, secretID string) string {
		return fmt.Sprintf("approle: {role_id_file: %q, secret_id_file: %q, mount: %s}", roleID, secretID, s.role.mount)
	}
	good := approle(s.role.roleIDFile, s.role.secretIDFile)
	nowhere := filepath.Join(t.TempDir(), "nothing")
	v1 := s.v.Mount(t, "kv", map[string]any{"version": "1"})
	publisher := s.v.Token(t, map[string]any{"policies": []string{s.v.Policy(t, vaultPolicy(t, "publisher.hcl", s.kv, "transit"))}})
	both := s.v.Token(t, map[string]any{"policies": []string{s.v.Policy(t, signerPolicy(t, v1, "transit"))}})
	noLogin := `checking the store in Vault: Vault refuses the AppRole login at auth/` + s.role.mount + `/login: invalid role or secret ID: check mount, role and credential$`
	noMount := `: there is no such mount, or no policy of our login says anything about it: correct the mount, or attach the policy of this role in deploy/vault$`
	noFile := regexp.QuoteMeta(nowhere) + `: there is no such file: put it there, or correct the path$`
	return map[string]refusal{
		"bad token": {vault: with(s.kv, token("hvs.CAESIJ-canary-of-a-bad-token")),
			line: `checking the store in Vault: Vault refuses the token in \S+: it is not valid .*: put a good one there$`},
		"token without the policy": {vault: with(s.kv, token(s.v.Token(t, map[string]any{"policies": []string{"default"}}))),
			line: `checking the store in Vault: ` + s.kv + noMount},
		"token of a publisher": {vault: with(s.kv, token(publisher)),
			line: `\S.*: ` + s.kv + `/\S+: permission denied: attach the policy of this role in deploy/vault to the login, and check mount and path$`},
		"wrong mount":           {vault: with("kv-elsewhere", good), line: `checking the store in Vault: kv-elsewhere` + noMount},
		"wrong mount, any path": {vault: with("kv-elsewhere", token(s.v.RootToken())), line: `checking the store in Vault: kv-elsewhere` + noMount},
		"mount of another engine": {vault: with("cubbyhole", good),
			line: `checking the store in Vault: cubbyhole: the secrets engine mounted there is cubbyhole, not kv: correct the mount$`},
		"KV version 1": {vault: with(v1, token(both)),
			line: `checking the store in Vault: ` + v1 + `: the KV engine mounted there is of version 1, .*: use one of version 2 \(vault kv enable-versioning ` + v1 + `\)$`},
		"no transit engine": {vault: with(s.kv, good), custody: "transit",
			line: `keyset default: .*transit.*: no secrets engine is mounted there: correct the mount, or enable one \(vault secrets enable\)$`},
		"sealed": {vault: fmt.Sprintf("{address: %q, ca_cert: %q, auth: {%s}}", sealed.Address(), sealed.CAFile(), token(sealed.RootToken())),
			line: `checking the store in Vault: \S+: Vault is sealed: unseal it \(vault operator unseal\)$`},
		"unreachable": {vault: fmt.Sprintf("{address: %q, auth: {%s}}", "https://"+freeAddress(t), good),
			line: `checking the store in Vault: https://\S+: Vault does not answer: .*connection refused: check the address, and that Vault runs$`},
		"wrong certificate authority": {vault: fmt.Sprintf("{address: %q, ca_cert: %q, auth: {%s}}", s.v.Address(), sealed.CAFile(), good),
			line: `checking the store in Vault: .*x509: .*: give the certificate authority that signed Vault's certificate, .*$`},
		"no certificate authority": {vault: fmt.Sprintf("{address: %q, auth: {%s}}", s.v.Address(), good),
			line: `checking the store in Vault: .*x509: .*: give the certificate authority that signed Vault's certificate, .*$`},
		"role-id missing": {vault: with(s.kv, approle(nowhere, s.role.secretIDFile)), line: `\S+/jwksd.yaml:2:\d+: keystore.vault.auth.approle.role_id_file: ` + noFile},
		"secret-id missing": {vault: with(s.kv, approle(s.role.roleIDFile, nowhere)),
			line: `checking the store in Vault: the secret-id for Vault cannot be read: open ` + regexp.QuoteMeta(nowhere) + `: no such file or directory$`},
		"secret-id empty": {vault: with(s.kv, approle(s.role.roleIDFile, vaulttest.File(t, ""))),
			line: `checking the store in Vault: the secret-id for Vault is missing: the file \S+ is empty$`},
		"wrong secret-id": {vault: with(s.kv, approle(s.role.roleIDFile, vaulttest.File(t, "canary-of-a-wrong-secret-id"))), line: noLogin},
		"wrong role-id":   {vault: with(s.kv, approle(vaulttest.File(t, "canary-of-a-wrong-role-id"), s.role.secretIDFile)), line: noLogin},
		"token missing":   {vault: with(s.kv, fmt.Sprintf("token_file: %q", nowhere)), line: `\S+/jwksd.yaml:2:\d+: keystore.vault.auth.token_file: ` + noFile},
	}
}

// refuses starts a daemon and holds what it prints to the one line.
func (s *vaultStart) refuses(t *testing.T, c refusal) {
	dir := t.TempDir()
	set := calm(dir)
	set.vault, set.blocks[0].custody = c.vault, c.custody
	d := newDaemon(t, set)
	d.refuses()
	said := d.log.fresh()
	for _, secret := range s.secrets {
		if strings.Contains(said, secret) {
			t.Errorf("a secret is printed:\n%s", said)
		}
	}
	var lines []string // beside the log
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "time=") {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	if len(lines) != 1 || !regexp.MustCompile("^jwksd: "+c.line).MatchString(lines[0]) {
		t.Errorf("the daemon says, besides its log:\n%s\nbut should say\njwksd: %s", strings.Join(lines, "\n"), c.line)
	}
}
