package config

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"reflect"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// Vault keeps documents and private keys in HashiCorp Vault, which any number
// of daemons may share.
type Vault struct {
	// Address is Vault's URL. Off the loopback it must be https. Required.
	Address string `yaml:"address"`
	// Namespace is the Vault Enterprise or HCP namespace. None by default.
	Namespace string `yaml:"namespace"`
	// Mount is where a KV version 2 engine is mounted, secret by default.
	Mount string `yaml:"mount"`
	// Path is what everything in the mount lies below, jwksd by default.
	// Daemons that share it share their keysets.
	Path string `yaml:"path"`
	// TransitMount is where the transit engine of keysets with custody transit
	// is mounted. transit by default if a keyset of this file has that custody;
	// else none, unless it is given.
	TransitMount string `yaml:"transit_mount"`
	// CACert is a PEM file with the certificates that Vault's is checked
	// against. A path, relative to the configuration file; those of the system
	// by default.
	CACert string `yaml:"ca_cert"`
	// Timeout bounds one request. A duration, 5s by default.
	Timeout rotation.Duration `yaml:"timeout"`
	// Auth says how to log in: exactly one of its ways.
	Auth VaultAuth `yaml:"auth"`
}

// VaultAuth is how a daemon logs in to Vault. Files are read again at each
// login, so that what they hold may change.
type VaultAuth struct {
	// AppRole logs in with a role-id and a secret-id.
	AppRole *AppRole `yaml:"approle"`
	// Kubernetes logs in with the service account's token.
	Kubernetes *RoleToken `yaml:"kubernetes"`
	// JWT logs in with a JWT from a file.
	JWT *RoleToken `yaml:"jwt"`
	// Cert logs in with a TLS client certificate.
	Cert *CertAuth `yaml:"cert"`
	// TokenFile holds a Vault token that somebody else keeps fresh, such as
	// Vault's agent. A path, relative to the configuration file.
	TokenFile string `yaml:"token_file"`
}

// AppRole is a login by role-id and secret-id.
type AppRole struct {
	// RoleIDFile holds the role-id. A path, relative to the configuration
	// file. Required.
	RoleIDFile string `yaml:"role_id_file"`
	// SecretIDFile holds the secret-id, or the token that wraps it. A path,
	// relative to the configuration file. Required.
	SecretIDFile string `yaml:"secret_id_file"`
	// Wrapped says that SecretIDFile holds a response-wrapping token, which is
	// unwrapped once. true or false, false by default.
	Wrapped bool `yaml:"wrapped"`
	// Mount is where the method is mounted, approle by default.
	Mount string `yaml:"mount"`
}

// RoleToken is a login by a token for a role.
type RoleToken struct {
	// Role is the role to log in to. Required.
	Role string `yaml:"role"`
	// TokenFile holds the token. A path, relative to the configuration file;
	// for kubernetes that of the service account by default.
	TokenFile string `yaml:"token_file"`
	// Mount is where the method is mounted, kubernetes or jwt by default.
	Mount string `yaml:"mount"`
}

// CertAuth is a login by TLS client certificate.
type CertAuth struct {
	// Name is the role to log in to; Vault looks for one that fits by default.
	Name string `yaml:"name"`
	// Cert and Key are PEM files. Paths, relative to the configuration file.
	// Required.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// Mount is where the method is mounted, cert by default.
	Mount string `yaml:"mount"`
}

// serviceAccountToken is where Kubernetes mounts a pod's token.
const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// complete fills in the defaults.
func (v *Vault) complete(transit bool) {
	fill := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	fill(&v.Mount, "secret")
	fill(&v.Path, "jwksd")
	if transit {
		fill(&v.TransitMount, "transit")
	}
	if v.Timeout == 0 {
		v.Timeout = rotation.Duration(5 * time.Second)
	}
	if a := v.Auth.AppRole; a != nil {
		fill(&a.Mount, "approle")
	}
	if k := v.Auth.Kubernetes; k != nil {
		fill(&k.Mount, "kubernetes")
		fill(&k.TokenFile, serviceAccountToken)
	}
	if j := v.Auth.JWT; j != nil {
		fill(&j.Mount, "jwt")
	}
	if c := v.Auth.Cert; c != nil {
		fill(&c.Mount, "cert")
	}
}

// paths lists every path to a file, by its field.
func (v *Vault) paths() map[string]*string {
	p := map[string]*string{"ca_cert": &v.CACert, "auth.token_file": &v.Auth.TokenFile}
	if a := v.Auth.AppRole; a != nil {
		p["auth.approle.role_id_file"], p["auth.approle.secret_id_file"] = &a.RoleIDFile, &a.SecretIDFile
	}
	if k := v.Auth.Kubernetes; k != nil {
		p["auth.kubernetes.token_file"] = &k.TokenFile
	}
	if j := v.Auth.JWT; j != nil {
		p["auth.jwt.token_file"] = &j.TokenFile
	}
	if c := v.Auth.Cert; c != nil {
		p["auth.cert.cert"], p["auth.cert.key"] = &c.Cert, &c.Key
	}
	return p
}

func (r *report) checkVault(v *Vault, transit bool) {
	at := fieldPath{"keystore", "vault"}
	u, err := url.Parse(v.Address)
	switch {
	case v.Address == "":
		r.add(at.key("address"), "missing: give Vault's URL, as in https://vault:8200")
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		r.add(at.key("address"), "%s is no URL such as https://vault:8200", excerpt(v.Address))
	case u.Scheme == "http" && !loopback(u.Hostname()):
		r.add(at.key("address"), "%s sends private keys over the network in the clear: use https", excerpt(v.Address))
	}
	if v.Timeout < 0 {
		r.add(at.key("timeout"), "%s: must be longer than zero, as in 5s", v.Timeout)
	}
	r.checkVaultAuth(at.key("auth"), &v.Auth)
	v.complete(transit)
	for field, path := range v.paths() {
		r.checkPath(dotted(at, field), *path)
	}
}

func (r *report) checkVaultAuth(at fieldPath, a *VaultAuth) {
	ways := 0
	for _, on := range []bool{a.AppRole != nil, a.Kubernetes != nil, a.JWT != nil, a.Cert != nil, a.TokenFile != ""} {
		if on {
			ways++
		}
	}
	if ways != 1 {
		r.add(at, "give exactly one of approle, kubernetes, jwt, cert and token_file")
		return
	}
	need := func(at fieldPath, value string) {
		if value == "" {
			r.add(at, "missing")
		}
	}
	switch {
	case a.AppRole != nil:
		need(at.key("approle").key("role_id_file"), a.AppRole.RoleIDFile)
		need(at.key("approle").key("secret_id_file"), a.AppRole.SecretIDFile)
	case a.Kubernetes != nil:
		need(at.key("kubernetes").key("role"), a.Kubernetes.Role)
	case a.JWT != nil:
		need(at.key("jwt").key("role"), a.JWT.Role)
		need(at.key("jwt").key("token_file"), a.JWT.TokenFile)
	case a.Cert != nil:
		need(at.key("cert").key("cert"), a.Cert.Cert)
		need(at.key("cert").key("key"), a.Cert.Key)
	}
}

// vaultFiles looks whether the files can be read. The secret-id may come
// later, from whoever delivers it.
func (r *report) vaultFiles(v *Vault) {
	for field, path := range v.paths() {
		if *path == "" || field == "auth.approle.secret_id_file" {
			continue
		}
		f, err := os.Open(*path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.add(dotted(fieldPath{"keystore", "vault"}, field), "%s: there is no such file: put it there, or correct the path", *path)
		case err != nil:
			r.add(dotted(fieldPath{"keystore", "vault"}, field), "%s: %s", *path, advise(err))
		default:
			f.Close()
		}
	}
}

// dotted goes down from a place by a path such as auth.cert.key.
func dotted(at fieldPath, field string) fieldPath {
	start := 0
	for i := range field {
		if field[i] == '.' {
			at = at.key(field[start:i])
			start = i + 1
		}
	}
	return at.key(field[start:])
}

// Equal tells whether two configurations keep their keys in the same place
// in the same way.
func (k Keystore) Equal(other Keystore) bool { return reflect.DeepEqual(k, other) }
