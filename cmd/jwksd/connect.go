package main

import (
	"errors"
	"fmt"
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

// flags adds the flags of a command that talks to a daemon.
func (n *connection) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&n.server, "server", "", "`URL` of the api listener (default: what the daemon wrote into its data directory; $"+envServer+")")
	f.StringVar(&n.tokenFile, "token-file", "", "`FILE` with the bearer token (default: operator.token in the data directory; $"+envTokenFile+")")
	f.StringVar(&n.dataDir, "data-dir", "", "data `DIR` of a daemon on this machine (default: the user's state directory; $"+envDataDir+")")
	f.StringVarP(&n.keyset, "keyset", "k", "default", "`NAME` of the keyset")
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
	token, err := daemon.ReadOperatorToken(tokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no token at %s: name one with --token-file", tokenFile)
	}
	if err != nil {
		return nil, err
	}
	return client.New(server, token)
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
