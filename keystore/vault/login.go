package vault

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// Auth says how to log in. Exactly one of its fields is set. Each file is read
// again at each login, so that what is in it may be replaced at any time.
type Auth struct {
	AppRole    *AppRole
	Kubernetes *Kubernetes
	JWT        *JWT
	Cert       *Cert
	// TokenFile holds a token that someone else provides and replaces, such as
	// Vault Agent.
	TokenFile string
}

// AppRole logs in with a role-id and a secret-id.
//
// https://developer.hashicorp.com/vault/docs/auth/approle
type AppRole struct {
	Mount        string // "approle" by default
	RoleIDFile   string
	SecretIDFile string
	// Wrapped: the file holds a response-wrapping token for the secret-id. It
	// is unwrapped once, and the secret-id is kept in memory only; a new
	// token in the file is unwrapped when it is needed.
	Wrapped bool
}

// Kubernetes logs in with the token of the pod's service account.
//
// https://developer.hashicorp.com/vault/docs/auth/kubernetes
type Kubernetes struct {
	Mount     string // "kubernetes" by default
	Role      string
	TokenFile string // that of the pod by default
}

// JWT logs in with a token of another issuer.
//
// https://developer.hashicorp.com/vault/docs/auth/jwt
type JWT struct {
	Mount     string // "jwt" by default
	Role      string
	TokenFile string
}

// Cert logs in with the client certificate of Config.
//
// https://developer.hashicorp.com/vault/docs/auth/cert
type Cert struct {
	Mount string // "cert" by default
	Role  string // empty: whichever role the certificate fits
}

// login is one way to get a token. It is called by one goroutine at a time.
type login interface {
	name() string
	files() []string // that hold its credentials
	login(ctx context.Context, c *Client) (grant, error)
}

// grant is a token and how long it lives.
type grant struct {
	token     string
	lease     time.Duration // zero: it does not expire
	renewable bool
}

// reply is the whole of an answer, for those that hold more than data.
//
// https://developer.hashicorp.com/vault/api-docs/auth
type reply struct {
	Auth *struct {
		ClientToken   string `json:"client_token"`
		LeaseDuration int64  `json:"lease_duration"`
		Renewable     bool   `json:"renewable"`
	} `json:"auth"`
	Data map[string]any `json:"data"`
}

func (r *reply) grant() (grant, error) {
	if r.Auth == nil || r.Auth.ClientToken == "" {
		return grant{}, &Error{kinds: []error{ErrLogin}, text: "the login gave no token: is multi-factor login enforced for it?"}
	}
	return grant{r.Auth.ClientToken, time.Duration(r.Auth.LeaseDuration) * time.Second, r.Auth.Renewable}, nil
}

func newLogin(a Auth, cfg Config) (login, error) {
	var all []login
	if a.AppRole != nil {
		all = append(all, &appRole{AppRole: *a.AppRole})
		if a.AppRole.RoleIDFile == "" || a.AppRole.SecretIDFile == "" {
			return nil, errors.New("the AppRole login needs the files of a role-id and a secret-id")
		}
	}
	if k := a.Kubernetes; k != nil {
		file := cmp.Or(k.TokenFile, "/var/run/secrets/kubernetes.io/serviceaccount/token")
		all = append(all, bearer{"Kubernetes", cmp.Or(k.Mount, "kubernetes"), k.Role, file})
	}
	if j := a.JWT; j != nil {
		if j.TokenFile == "" {
			return nil, errors.New("the JWT login needs the file of a token")
		}
		all = append(all, bearer{"JWT", cmp.Or(j.Mount, "jwt"), j.Role, j.TokenFile})
	}
	if a.Cert != nil {
		if cfg.ClientCertFile == "" {
			return nil, errors.New("the certificate login needs a client certificate and its key")
		}
		all = append(all, certificate{cmp.Or(a.Cert.Mount, "cert"), a.Cert.Role, cfg.ClientCertFile, cfg.ClientKeyFile})
	}
	if a.TokenFile != "" {
		all = append(all, &tokenFile{path: a.TokenFile})
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("exactly one way to log in to Vault must be given, not %d: approle, kubernetes, jwt, cert or token_file", len(all))
	}
	return all[0], nil
}

// post sends a request of a login.
func post(ctx context.Context, c *Client, path, token, body string) (*reply, error) {
	var r reply
	err := c.send(ctx, path, token, &r, func(ctx context.Context, node *api.Client) (*api.Response, error) {
		return node.Logical().WriteRawWithContext(ctx, path, []byte(body))
	})
	return &r, err
}

// credential reads a file that holds nothing but a credential.
func credential(what, path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", &Error{kinds: []error{ErrLogin, err}, text: fmt.Sprintf("the %s for Vault cannot be read: %v", what, err)}
	}
	defer clear(raw)
	value := strings.TrimSpace(string(raw))
	if value == "" {
		return "", &Error{kinds: []error{ErrLogin}, text: fmt.Sprintf("the %s for Vault is missing: the file %s is empty", what, path)}
	}
	if len(value) > 32<<10 || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", &Error{kinds: []error{ErrLogin}, text: fmt.Sprintf("the %s for Vault in %s is malformed: the file must hold nothing else", what, path)}
	}
	return value, nil
}

// refused says why a login failed. Vault's words are kept unless they repeat a
// credential.
func refused(method, path string, err error, secrets ...string) error {
	var e *Error
	if !errors.As(err, &e) || errors.Is(err, ErrLogin) || e.Status < 400 || e.Status >= 500 || again(err) {
		return err
	}
	said := strings.Join(e.Reasons, "; ")
	for _, secret := range secrets {
		if secret != "" && strings.Contains(said, secret) {
			said = "(withheld, since it repeats a credential)"
		}
	}
	text := fmt.Sprintf("Vault refuses the %s login at %s: %s: check mount, role and credential", method, path, cmp.Or(said, "no reason given"))
	if errors.Is(err, ErrMount) {
		text = fmt.Sprintf("there is no %s login at %s: correct its mount, or enable it (vault auth enable)", method, path)
	}
	return &Error{Status: e.Status, kinds: []error{ErrLogin}, text: text}
}

// appRole keeps the unwrapped secret-id with the hash of the token that it came
// from.
type appRole struct {
	AppRole

	mu        sync.Mutex
	from      [sha256.Size]byte
	unwrapped func() string // nil at first; a function does not print
}

func (*appRole) name() string      { return "AppRole" }
func (a *appRole) files() []string { return []string{a.RoleIDFile, a.SecretIDFile} }

func (a *appRole) login(ctx context.Context, c *Client) (grant, error) {
	roleID, err := credential("role-id", a.RoleIDFile)
	if err != nil {
		return grant{}, err
	}
	secretID, err := a.secretID(ctx, c)
	if err != nil {
		return grant{}, err
	}
	path := "auth/" + cmp.Or(a.Mount, "approle") + "/login"
	r, err := post(ctx, c, path, "", object("role_id", roleID, "secret_id", secretID))
	if err != nil {
		return grant{}, refused(a.name(), path, err, secretID, roleID)
	}
	return r.grant()
}

func (a *appRole) secretID(ctx context.Context, c *Client) (string, error) {
	value, err := credential("secret-id", a.SecretIDFile)
	if !a.Wrapped {
		return value, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	from := sha256.Sum256([]byte(value))
	if a.unwrapped != nil && (err != nil || from == a.from) {
		return a.unwrapped(), nil
	}
	if err != nil {
		return "", err
	}
	secretID, err := a.unwrap(ctx, c, value)
	if err != nil {
		return "", err
	}
	a.from, a.unwrapped = from, func() string { return secretID }
	return secretID, nil
}

// unwrap looks first at what the token wraps: who steals the token can wrap
// something else in its place, but not under this path.
//
// https://developer.hashicorp.com/vault/docs/concepts/response-wrapping#response-wrapping-token-validation
func (a *appRole) unwrap(ctx context.Context, c *Client, token string) (string, error) {
	wrong := func(why string) error {
		return &Error{kinds: []error{ErrLogin}, text: fmt.Sprintf("the wrapped secret-id in %s cannot be used: %s: issue a new one", a.SecretIDFile, why)}
	}
	const lookup = "sys/wrapping/lookup"
	r, err := post(ctx, c, lookup, "", object("token", token))
	if err != nil {
		if err := refused(a.name(), lookup, err, token); !errors.Is(err, ErrLogin) {
			return "", err
		}
		return "", wrong("it expired or was unwrapped before; if not by this machine, someone else has it")
	}
	path, _ := r.Data["creation_path"].(string)
	if mount := "auth/" + cmp.Or(a.Mount, "approle") + "/role/"; !strings.HasPrefix(path, mount) || !strings.HasSuffix(path, "secret-id") {
		return "", wrong("it was not made for an AppRole below " + mount + "; it may have been tampered with")
	}
	r, err = post(ctx, c, "sys/wrapping/unwrap", token, "{}")
	if err != nil {
		if err := refused(a.name(), "sys/wrapping/unwrap", err, token); !errors.Is(err, ErrLogin) {
			return "", err
		}
		return "", wrong("someone else unwrapped it just now")
	}
	secretID, _ := r.Data["secret_id"].(string)
	if secretID == "" {
		return "", wrong("it wraps no secret-id")
	}
	return secretID, nil
}

// bearer logs in with a JWT from a file.
type bearer struct{ method, mount, role, file string }

func (b bearer) name() string    { return b.method }
func (b bearer) files() []string { return []string{b.file} }

func (b bearer) login(ctx context.Context, c *Client) (grant, error) {
	jwt, err := credential(b.method+" token", b.file)
	if err != nil {
		return grant{}, err
	}
	path := "auth/" + b.mount + "/login"
	r, err := post(ctx, c, path, "", object("role", b.role, "jwt", jwt))
	if err != nil {
		return grant{}, refused(b.method, path, err, jwt)
	}
	return r.grant()
}

type certificate struct{ mount, role, cert, key string }

func (certificate) name() string      { return "certificate" }
func (l certificate) files() []string { return []string{l.cert, l.key} }

// login opens a new connection, since the certificate of one that is open may
// have been replaced.
func (l certificate) login(ctx context.Context, c *Client) (grant, error) {
	c.idle()
	path := "auth/" + l.mount + "/login"
	body := "{}"
	if l.role != "" {
		body = object("name", l.role)
	}
	r, err := post(ctx, c, path, "", body)
	if err != nil {
		return grant{}, refused(l.name(), path, err)
	}
	return r.grant()
}

// tokenFile takes the token that it finds, if it works.
//
// https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self
type tokenFile struct{ path string }

func (*tokenFile) name() string      { return "token file" }
func (f *tokenFile) files() []string { return []string{f.path} }

func (f *tokenFile) login(ctx context.Context, c *Client) (grant, error) {
	token, err := credential("token", f.path)
	if err != nil {
		return grant{}, err
	}
	var self struct {
		TTL       int64 `json:"ttl"`
		Renewable bool  `json:"renewable"`
	}
	const path = "auth/token/lookup-self"
	err = c.send(ctx, path, token, &self, func(ctx context.Context, node *api.Client) (*api.Response, error) {
		return node.Logical().ReadRawWithContext(ctx, path)
	})
	if errors.Is(err, ErrForbidden) {
		text := fmt.Sprintf("Vault refuses the token in %s: it is not valid (revoked, expired or mistyped), or its policies lack auth/token/lookup-self: put a good one there", f.path)
		return grant{}, &Error{Status: 403, kinds: []error{ErrLogin}, text: text}
	}
	if err != nil {
		return grant{}, refused(f.name(), path, err, token)
	}
	return grant{token, time.Duration(self.TTL) * time.Second, self.Renewable}, nil
}
