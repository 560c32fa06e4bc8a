package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/client"
	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/internal/daemon"
)

// connection is how a command finds a running daemon: by flags, else by the
// environment, else by what the daemon wrote into its data directory.
type connection struct {
	server    string
	tokenFile string
	dataDir   string
	keyset    string
}

// Environment variables that stand in for flags.
const (
	envServer    = "JWKSD_SERVER"
	envTokenFile = "JWKSD_TOKEN_FILE"
	envDataDir   = "JWKSD_DATA_DIR"
)

// flags adds the flags of a command that talks to a daemon about a keyset.
func (n *connection) flags(c *cobra.Command) {
	n.reachFlags(c)
	c.Flags().StringVarP(&n.keyset, "keyset", "k", "default", "`NAME` of the keyset")
}

// reachFlags adds the flags that say where the daemon is.
func (n *connection) reachFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&n.server, "server", "", "`URL` of the api listener (default: what the daemon wrote into its data directory; $"+envServer+")")
	f.StringVar(&n.tokenFile, "token-file", "", "`FILE` with the bearer token (default: operator.token in the data directory; $"+envTokenFile+")")
	f.StringVar(&n.dataDir, "data-dir", "", "data `DIR` of a daemon on this machine (default: the user's state directory; $"+envDataDir+")")
	c.MarkFlagDirname("data-dir")
	c.MarkFlagFilename("token-file")
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// dir is the data directory to look into.
func (n *connection) dir() (string, error) {
	if d := firstOf(n.dataDir, os.Getenv(envDataDir)); d != "" {
		return d, nil
	}
	return config.DefaultStateDir()
}

// client returns a client for the daemon.
func (n *connection) client() (*client.Client, error) {
	server, err := n.address(firstOf(n.server, os.Getenv(envServer)), daemon.APIAddressFile)
	if err != nil {
		return nil, err
	}
	tokenFile := firstOf(n.tokenFile, os.Getenv(envTokenFile))
	if tokenFile == "" {
		dir, err := n.dir()
		if err != nil {
			return nil, err
		}
		tokenFile = filepath.Join(dir, daemon.OperatorTokenFile)
	}
	token, err := readTokenFile(tokenFile)
	if err != nil {
		return nil, err
	}
	return client.New(server, token)
}

// maxToken bounds what is read of a token file.
const maxToken = 16 << 10

// readTokenFile reads a token, whoever gave it out. White space around it, as
// pasting leaves it, is no part of it.
func readTokenFile(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no token at %s: name one with --token-file", path)
	}
	if err != nil {
		return "", fmt.Errorf("token file %w", pathless(err, path))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("token file %s: others may read it (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	token := strings.TrimSpace(string(data))
	switch {
	case err != nil:
		return "", fmt.Errorf("token file %w", pathless(err, path))
	case len(data) > maxToken:
		return "", fmt.Errorf("token file %s: it is too large for a token", path)
	case token == "":
		return "", fmt.Errorf("token file %s: it is empty", path)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", fmt.Errorf("token file %s: there is a space, a line break or another character in it that no token has", path)
	}
	return token, nil
}

// pathless is an error about a path without the name of the call.
func pathless(err error, path string) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// address returns given, or the address that the daemon wrote down.
func (n *connection) address(given, name string) (string, error) {
	if given != "" {
		return given, nil
	}
	dir, err := n.dir()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no daemon has run with the data directory %s: start one with jwksd serve, or say where it is with --server or --data-dir", dir)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(data)), nil
}
