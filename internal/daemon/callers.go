package daemon

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jwksd/jwksd/api"
	"github.com/jwksd/jwksd/internal/config"
)

// Names of the files in the data directory by which the command line finds a
// running daemon.
const (
	OperatorTokenFile = "operator.token"
	APIAddressFile    = "api.url"
	PublicAddressFile = "public.url"
)

// callers turns the configured callers into an authenticator. Where none are
// configured, one operator is made up, whose token lies in the data directory.
func callers(c config.Config) (api.Authenticator, error) {
	byHash := map[[sha256.Size]byte]*api.Caller{}
	for _, configured := range c.Callers {
		sum, err := hex.DecodeString(configured.Identity.TokenSHA256)
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("caller %s: token_sha256 is not 64 hexadecimal digits", configured.Name)
		}
		caller := &api.Caller{Name: configured.Name}
		for _, g := range configured.Grants {
			caller.Grants = append(caller.Grants, grant(g))
		}
		byHash[[sha256.Size]byte(sum)] = caller
	}
	if len(c.Callers) == 0 {
		token, err := operatorToken(c.DataDir)
		if err != nil {
			return nil, err
		}
		byHash[api.TokenHash(token)] = &api.Caller{
			Name:   "operator",
			Grants: []api.Grant{{Keysets: []string{"*"}, Actions: api.Actions()}},
		}
	}
	return api.NewTokens(byHash), nil
}

func grant(g config.Grant) api.Grant {
	out := api.Grant{Keysets: g.Keysets, Types: g.Types}
	for _, a := range g.Actions {
		out.Actions = append(out.Actions, api.Action(a))
	}
	return out
}

// operatorToken returns the token in the data directory, making one first if
// there is none.
func operatorToken(dir string) (string, error) {
	path := filepath.Join(dir, OperatorTokenFile)
	token, err := ReadOperatorToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	var secret [32]byte
	rand.Read(secret[:])
	token = base64.RawURLEncoding.EncodeToString(secret[:])
	if err := writeFile(path, token+"\n"); err != nil {
		return "", fmt.Errorf("writing the operator's token: %w", err)
	}
	return token, nil
}

// minToken is the shortest token that is taken for one.
const minToken = 32

// ReadOperatorToken reads a token that operatorToken wrote.
func ReadOperatorToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("reading the operator's token: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("reading the operator's token: others may read %s (mode %04o): delete it and restart jwksd to get a new one", path, mode)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the operator's token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if len(token) < minToken {
		return "", fmt.Errorf("reading the operator's token: %s is damaged: delete it and restart jwksd to get a new one", path)
	}
	return token, nil
}

// writeFile writes a small private file so that it is there whole or not at
// all. The temporary name is always the same, so that the next start writes over
// what a crash left; the lock of the store keeps other processes away.
func writeFile(path, text string) error {
	tmp, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(text)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
