package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/rotation"
)

// Default is the configuration in force where there is no file: a file store in
// stateDir, the keyset "default" with rotation.DefaultPolicy, the public
// listener on 127.0.0.1:8080 and the api listener on 127.0.0.1:8081.
func Default(stateDir string) Config {
	c := base()
	c.Keystore.File.Dir, c.DataDir = stateDir, stateDir
	c.Keysets = []Keyset{{Name: jwks.DefaultKeyset, Policy: rotation.DefaultPolicy()}}
	return c
}

// base holds the defaults of a file.
func base() Config {
	p := rotation.DefaultPolicy()
	return Config{
		SyncInterval: rotation.Duration(500 * time.Millisecond),
		MaxStaleness: p.MaxStaleness,
		ClockSkew:    p.ClockSkew,
		Role:         RoleSigner,
		Listeners: Listeners{
			Public: PublicListener{Address: "127.0.0.1:8080", ContentType: ContentTypeJWKSet},
			API:    APIListener{Address: "127.0.0.1:8081"},
		},
	}
}

// baseBlock holds the defaults of a keyset in a file. The issuer has none: a
// token that names the wrong one is worth nothing.
func baseBlock() Block {
	p := rotation.DefaultPolicy()
	return Block{
		Algorithms:     p.Algorithms,
		Rotate:         p.Rotate,
		TokenTTLMax:    p.TokenTTLMax,
		JWKSMaxAge:     p.JWKSMaxAge,
		VerifierCache:  p.VerifierCache,
		VerifierLeeway: p.VerifierLeeway,
		HandoverGrace:  p.HandoverGrace,
		RSABits:        p.RSABits,
		Custody:        string(p.Custody),
		Discovery:      p.Discovery,
	}
}

// policy is the block as a policy; max_staleness and clock_skew are not part of
// it.
func (b Block) policy() rotation.Policy {
	return rotation.Policy{
		Issuer:         b.Issuer,
		Algorithms:     b.Algorithms,
		RSABits:        b.RSABits,
		Rotate:         b.Rotate,
		TokenTTLMax:    b.TokenTTLMax,
		JWKSMaxAge:     b.JWKSMaxAge,
		VerifierCache:  b.VerifierCache,
		VerifierLeeway: b.VerifierLeeway,
		HandoverGrace:  b.HandoverGrace,
		Custody:        rotation.Custody(b.Custody),
		Discovery:      b.Discovery,
	}
}

// DefaultStateDir is where state is kept if nothing else is said: the first of
// $STATE_DIRECTORY (systemd sets it for a service with StateDirectory=),
// $XDG_STATE_HOME/jwksd and ~/.local/state/jwksd. A relative path in these
// variables is ignored.
func DefaultStateDir() (string, error) { return stateDir(os.Getenv, os.UserHomeDir) }

func stateDir(getenv func(string) string, home func() (string, error)) (string, error) {
	service, _, _ := strings.Cut(getenv("STATE_DIRECTORY"), ":")
	if filepath.IsAbs(service) {
		return filepath.Clean(service), nil
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "jwksd"), nil
	}
	dir, err := home()
	if err != nil || !filepath.IsAbs(dir) {
		return "", errors.New("there is no home directory to keep state in: set keystore.file.dir in a configuration file, or $XDG_STATE_HOME")
	}
	return filepath.Join(dir, ".local", "state", "jwksd"), nil
}
