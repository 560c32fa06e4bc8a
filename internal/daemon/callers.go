package daemon

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jwksd/jwksd/api"
	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/keystore/file"
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

// ReadOperatorToken reads a token that operatorToken wrote. It takes none that
// somebody else could have put there, or can read.
func ReadOperatorToken(path string) (string, error) {
	data, err := readOwn(path)
	if err != nil {
		return "", fmt.Errorf("reading the operator's token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if len(token) < minToken {
		return "", fmt.Errorf("reading the operator's token: %s is damaged: delete it and restart jwksd to get a new one", path)
	}
	return token, nil
}

// maxTokenFile bounds how much of a file is read for a token.
const maxTokenFile = 4096

// readOwn reads a private file that lies where it says it does and belongs to
// this user or root.
func readOwn(path string) ([]byte, error) {
	named, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !named.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (a link could lead anywhere): delete it and restart jwksd to get a new one", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(named, info) {
		return nil, fmt.Errorf("%s was replaced while it was read: try again", path)
	}
	if uid, other := file.OwnedByOther(info); other {
		return nil, fmt.Errorf("%s belongs to user %d, and this process runs as user %d: run it as that user, or give the file to this one (chown)", path, uid, os.Geteuid())
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("others may read %s (mode %04o): delete it and restart jwksd to get a new one", path, mode)
	}
	return io.ReadAll(io.LimitReader(f, maxTokenFile))
}

// writeFile writes a small private file so that it is there whole or not at
// all. The temporary name is always the same, so that the next start removes
// what a crash left; the lock of the store keeps other processes away. The
// temporary file is made anew, never opened: what somebody else put in its place
// could be a link to a file that is none of ours, or be open to others.
func writeFile(path, text string) error {
	name := path + ".tmp"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// O_EXCL does not follow a symbolic link either (POSIX, open).
	tmp, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	_, err = tmp.WriteString(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(name, path)
}
