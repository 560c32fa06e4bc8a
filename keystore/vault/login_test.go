package vault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

// whoami asks Vault which policies the client's token has.
func whoami(t *testing.T, c *Client) (string, error) {
	t.Helper()
	var self struct {
		Policies []string `json:"policies"`
	}
	err := c.Read(within(t, 20*time.Second), "auth/token/lookup-self", nil, &self)
	return strings.Join(self.Policies, " "), err
}

func wantLogin(t *testing.T, c *Client, policy string) {
	t.Helper()
	if got, err := whoami(t, c); err != nil || !strings.Contains(got, policy) {
		t.Errorf("logged in with the policies %q (%v), want %s", got, err, policy)
	}
}

// approle makes a role and returns the login's mount and the role-id.
func approle(t *testing.T, v *vaulttest.Vault, settings map[string]any) (mount, roleID string) {
	t.Helper()
	mount = v.EnableAuth(t, "approle")
	v.Do(t, "POST", "auth/"+mount+"/role/r", settings)
	out := v.Do(t, "GET", "auth/"+mount+"/role/r/role-id", nil)
	return mount, out["data"].(map[string]any)["role_id"].(string)
}

func secretID(t *testing.T, v *vaulttest.Vault, mount string) string {
	t.Helper()
	out := v.Do(t, "POST", "auth/"+mount+"/role/r/secret-id", nil)
	return out["data"].(map[string]any)["secret_id"].(string)
}

func TestAppRole(t *testing.T) {
	v := vaulttest.Start(t)
	policy := v.Policy(t, `path "x" { capabilities = ["read"] }`)
	mount, roleID := approle(t, v, map[string]any{"token_policies": policy})
	file := vaulttest.File(t, secretID(t, v, mount))
	cfg := Config{Addresses: v.Addresses(), Auth: Auth{AppRole: &AppRole{Mount: mount, RoleIDFile: vaulttest.File(t, roleID), SecretIDFile: file}}}
	wantLogin(t, mustClient(t, cfg), policy)

	os.WriteFile(file, []byte("canary-wrong"), 0o600)
	_, err := whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrLogin, "AppRole", "invalid role or secret ID")
	if strings.Contains(err.Error(), "canary") {
		t.Error("the error quotes the secret-id")
	}
	os.WriteFile(file, []byte("two words"), 0o600)
	_, err = whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrLogin, "malformed", file)
	os.WriteFile(file, nil, 0o600)
	_, err = whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrLogin, "empty", file)
	os.Remove(file)
	_, err = whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrLogin, "no such file", file)

	cfg.Auth.AppRole.Mount = "nowhere"
	cfg.Auth.AppRole.SecretIDFile = vaulttest.File(t, "x")
	_, err = whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrLogin, "auth/nowhere")
}

// A client whose first login was refused takes up the credential when it is
// corrected.
func TestLoginHeals(t *testing.T) {
	v := vaulttest.Start(t)
	policy := v.Policy(t, `path "x" { capabilities = ["read"] }`)
	mount, roleID := approle(t, v, map[string]any{"token_policies": policy})
	file := vaulttest.File(t, "wrong")
	c := mustClient(t, Config{Addresses: v.Addresses(), Auth: Auth{AppRole: &AppRole{Mount: mount, RoleIDFile: vaulttest.File(t, roleID), SecretIDFile: file}}})
	for range 3 {
		if _, err := whoami(t, c); err == nil {
			t.Fatal("a wrong secret-id works")
		}
	}
	if c.session.failed != 1 {
		t.Errorf("Vault was asked %d times, and locks out who asks often", c.session.failed)
	}
	os.WriteFile(file, []byte(secretID(t, v, mount)), 0o600)
	wantLogin(t, c, policy)
}

func soon(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to pass")
		}
	}
}

func TestAppRoleWrapped(t *testing.T) {
	v := vaulttest.Start(t)
	policy := v.Policy(t, `path "x" { capabilities = ["read"] }`)
	mount, roleID := approle(t, v, map[string]any{"token_policies": policy})
	path := "auth/" + mount + "/role/r/secret-id"
	file := vaulttest.File(t, v.Wrap(t, path, nil))
	cfg := Config{Addresses: v.Addresses(), Auth: Auth{AppRole: &AppRole{Mount: mount, RoleIDFile: vaulttest.File(t, roleID), SecretIDFile: file, Wrapped: true}}}
	c := mustClient(t, cfg)
	wantLogin(t, c, policy)

	// The next login takes the secret-id from memory, even without the file.
	os.Remove(file)
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": c.session.now()})
	wantLogin(t, c, policy)

	// A second process finds that it was unwrapped.
	token := v.Wrap(t, path, nil)
	v.Unwrap(t, token)
	os.WriteFile(file, []byte(token), 0o600)
	_, err := whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrLogin, "unwrapped before", "issue a new one")
	if strings.Contains(err.Error(), token) {
		t.Error("the error quotes the wrapping token")
	}
	// So does one whose token was exchanged for another.
	os.WriteFile(file, []byte(v.Wrap(t, "sys/wrapping/wrap", map[string]any{"secret_id": "evil"})), 0o600)
	_, err = whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrLogin, "tampered")

	// The first client takes up a new token when it needs one.
	os.WriteFile(file, []byte(v.Wrap(t, path, nil)), 0o600)
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": c.session.now()})
	wantLogin(t, c, policy)
}

// issuer makes JWTs and tells Vault's jwt login to trust them.
func issuer(t *testing.T, v *vaulttest.Vault, mount, policy string) func(sub string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	v.Do(t, "POST", "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": []string{public}})
	v.Do(t, "POST", "auth/"+mount+"/role/r", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "bound_subject": "jwksd", "token_policies": policy,
	})
	return func(sub string) string {
		part := func(v any) string {
			raw, _ := json.Marshal(v)
			return base64.RawURLEncoding.EncodeToString(raw)
		}
		now := time.Now().Unix()
		input := part(map[string]any{"alg": "ES256", "typ": "JWT"}) + "." +
			part(map[string]any{"sub": sub, "aud": "vault", "iat": now, "nbf": now - 60, "exp": now + 600})
		sum := sha256.Sum256([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		return input + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
}

// The build of Vault for tests has no Kubernetes login. Its request is that of
// the JWT login, which stands in for it.
func TestJWTAndKubernetes(t *testing.T) {
	v := vaulttest.Start(t)
	policy := v.Policy(t, `path "x" { capabilities = ["read"] }`)
	mount := v.EnableAuth(t, "jwt")
	issue := issuer(t, v, mount, policy)
	for name, auth := range map[string]func(file string) Auth{
		"jwt":        func(file string) Auth { return Auth{JWT: &JWT{Mount: mount, Role: "r", TokenFile: file}} },
		"kubernetes": func(file string) Auth { return Auth{Kubernetes: &Kubernetes{Mount: mount, Role: "r", TokenFile: file}} },
	} {
		t.Run(name, func(t *testing.T) {
			file := vaulttest.File(t, issue("somebody"))
			c := mustClient(t, Config{Addresses: v.Addresses(), Auth: auth(file)})
			_, err := whoami(t, c)
			wantLine(t, err, ErrLogin)
			// The file is read again at each login.
			os.WriteFile(file, []byte(issue("jwksd")), 0o600)
			soon(t, func() bool { _, err := whoami(t, c); return err == nil })
			wantLogin(t, c, policy)
			v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": c.session.now()})
			wantLogin(t, c, policy)
		})
	}
}

func TestCertificateLogin(t *testing.T) {
	v := vaulttest.New(t, vaulttest.Options{TLS: true})
	policy := v.Policy(t, `path "x" { capabilities = ["read"] }`)
	mount := v.EnableAuth(t, "cert")
	ca, err := os.ReadFile(v.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	v.Do(t, "POST", "auth/"+mount+"/certs/r", map[string]any{"certificate": string(ca), "allowed_common_names": "jwksd", "token_policies": policy})
	cert, key := v.ClientCert(t, "jwksd")
	cfg := Config{Addresses: v.Addresses(), CACertFile: v.CAFile(), ClientCertFile: cert, ClientKeyFile: key, Auth: Auth{Cert: &Cert{Mount: mount, Role: "r"}}}
	wantLogin(t, mustClient(t, cfg), policy)

	cfg.ClientCertFile, cfg.ClientKeyFile = v.ClientCert(t, "somebody")
	_, err = whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrLogin, "certificate")

	// The private CA is needed, and the name is checked.
	cfg = Config{Addresses: v.Addresses(), Auth: Auth{TokenFile: vaulttest.File(t, v.RootToken())}}
	_, err = whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrUnreachable, "certificate authority")
	cfg.CACertFile, cfg.ServerName = v.CAFile(), "vault.test"
	wantLogin(t, mustClient(t, cfg), "root")
	cfg.ServerName = "other.test"
	_, err = whoami(t, mustClient(t, cfg))
	wantLine(t, err, ErrUnreachable, "other.test")
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	one, two := v.Policy(t, `path "x" { capabilities = ["read"] }`), v.Policy(t, `path "y" { capabilities = ["read"] }`)
	first := v.Token(t, map[string]any{"policies": []string{one}})
	file := vaulttest.File(t, first)
	c := mustClient(t, Config{Addresses: v.Addresses(), Auth: Auth{TokenFile: file}})
	wantLogin(t, c, one)
	// A new token is taken up by itself, a broken file is passed over.
	os.WriteFile(file, []byte("hvs.broken\n"), 0o600)
	time.Sleep(lookEvery + time.Second)
	wantLogin(t, c, one)
	os.WriteFile(file, []byte(v.Token(t, map[string]any{"policies": []string{two}})), 0o600)
	soon(t, func() bool { got, err := whoami(t, c); return err == nil && strings.Contains(got, two) })
	// And at once when the old one is refused.
	os.WriteFile(file, []byte(v.Token(t, map[string]any{"policies": []string{one}})), 0o600)
	v.Do(t, "POST", "auth/token/revoke", map[string]any{"token": c.session.now()})
	wantLogin(t, c, one)
}

// A token is renewed before it ends, and replaced when it cannot be.
func TestRenewal(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	policy := v.Policy(t, `path "x" { capabilities = ["read"] }`)
	var caught logs
	// Renewed until the longest life of 8 s is near, then a new login.
	mount, roleID := approle(t, v, map[string]any{"token_policies": policy, "token_ttl": "3s", "token_max_ttl": "8s"})
	cfg := Config{
		Addresses: v.Addresses(), Log: caught.logger(),
		Auth: Auth{AppRole: &AppRole{Mount: mount, RoleIDFile: vaulttest.File(t, roleID), SecretIDFile: vaulttest.File(t, secretID(t, v, mount))}},
	}
	c := mustClient(t, cfg)
	tokens := make(map[string]bool)
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		wantLogin(t, c, policy)
		tokens[c.session.now()] = true
	}
	renewed, logins := strings.Count(caught.String(), "renewed"), strings.Count(caught.String(), "logged in")
	t.Logf("%d tokens, %d renewals, %d logins in 12 s", len(tokens), renewed, logins)
	if renewed < 2 || logins < 2 || len(tokens) < 2 || logins > 6 {
		t.Errorf("%d tokens, %d renewals, %d logins in 12 s", len(tokens), renewed, logins)
	}
	before := strings.Count(caught.String(), "\n")
	c.Close()
	time.Sleep(3500 * time.Millisecond)
	if after := strings.Count(caught.String(), "\n"); after != before {
		t.Errorf("after Close it goes on: %s", caught.String())
	}
	for token := range tokens {
		if strings.Contains(caught.String(), token) {
			t.Error("a token is in the log")
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	ok := Auth{TokenFile: "t"}
	for name, cfg := range map[string]Config{
		"no address":        {Auth: ok},
		"no login":          {Addresses: []string{"http://v"}},
		"two logins":        {Addresses: []string{"http://v"}, Auth: Auth{TokenFile: "t", JWT: &JWT{TokenFile: "j"}}},
		"approle half":      {Addresses: []string{"http://v"}, Auth: Auth{AppRole: &AppRole{RoleIDFile: "r"}}},
		"jwt half":          {Addresses: []string{"http://v"}, Auth: Auth{JWT: &JWT{Role: "r"}}},
		"cert without one":  {Addresses: []string{"http://v"}, Auth: Auth{Cert: &Cert{}}},
		"cert without key":  {Addresses: []string{"http://v"}, ClientCertFile: "c", Auth: ok},
		"no such CA":        {Addresses: []string{"http://v"}, CACertFile: "nowhere.pem", Auth: ok},
		"CA that is none":   {Addresses: []string{"http://v"}, CACertFile: vaulttest.File(t, "x"), Auth: ok},
		"no such cert file": {Addresses: []string{"http://v"}, ClientCertFile: "nowhere", ClientKeyFile: "nowhere", Auth: ok},
	} {
		c, err := NewClient(cfg)
		if c != nil {
			t.Errorf("%s is accepted", name)
			continue
		}
		wantLine(t, err, nil)
	}
}

// The environment of Vault's own tools has no say.
func TestEnvironmentIsIgnored(t *testing.T) {
	v := vaulttest.Start(t)
	policy := v.Policy(t, `path "x" { capabilities = ["read"] }`)
	t.Setenv("VAULT_TOKEN", v.RootToken())
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	t.Setenv("VAULT_NAMESPACE", "elsewhere")
	t.Setenv("VAULT_HEADERS", `{"X-Extra":"1"}`)
	t.Setenv("VAULT_WRAP_TTL", "1m")
	token := v.Token(t, map[string]any{"policies": []string{policy}})
	c := mustClient(t, Config{Addresses: v.Addresses(), Auth: Auth{TokenFile: vaulttest.File(t, token)}})
	got, err := whoami(t, c)
	if err != nil || strings.Contains(got, "root") {
		t.Errorf("logged in as %q (%v)", got, err)
	}
	if s := fmt.Sprintf("%+v", c.nodes[0].Headers()); strings.Contains(s, "Extra") || strings.Contains(s, "elsewhere") {
		t.Errorf("headers from the environment: %s", s)
	}
}
