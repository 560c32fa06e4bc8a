package vaulttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// Binary returns the path of the vault program, and builds it if there is none.
func Binary() (string, error) {
	if path := os.Getenv("VAULT_BIN"); path != "" {
		return exec.LookPath(path)
	}
	if path, err := exec.LookPath("vault"); err == nil {
		return path, nil
	}
	root, err := repository()
	if err != nil {
		return "", err
	}
	return build(filepath.Join(root, "tools", "vault"), filepath.Join(root, ".cache", "bin"))
}

// repository is the folder that holds the tools, at or above this one.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "tools", "vault", "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("there is no tools/vault here or above: set VAULT_BIN to a vault program")
		}
		dir = up
	}
}

// build builds Vault from the module in source, unless that was done already
// from the same module by the same Go. Tests of several packages run at a
// time: the first builds, the others wait.
func build(source, bin string) (string, error) {
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	lock, err := lockFile(filepath.Join(bin, "vault.lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	module, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append(module, runtime.Version()...))
	want := []byte(hex.EncodeToString(sum[:]))
	path, stamp := filepath.Join(bin, "vault"), filepath.Join(bin, "vault.stamp")
	if _, err := os.Stat(path); err == nil {
		if got, err := os.ReadFile(stamp); err == nil && bytes.Equal(got, want) {
			return path, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := compile(source, path); err != nil {
		return "", err
	}
	return path, os.WriteFile(stamp, want, 0o644)
}

func compile(source, path string) error {
	// The tag leaves out what these tests do not need: databases and clouds.
	cmd := exec.Command("go", "build", "-tags", "minimal", "-o", path, "github.com/hashicorp/vault")
	cmd.Dir = source
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	done := make(chan struct{})
	go progress(done)
	err := cmd.Run()
	close(done)
	if err != nil {
		return fmt.Errorf("building Vault in %s: %w\n%s", source, err, out.Bytes())
	}
	return nil
}

func progress(done <-chan struct{}) {
	start := time.Now()
	tick := time.NewTicker(20 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			fmt.Fprintf(os.Stderr, "vaulttest: building Vault, %v so far; the first time takes some minutes\n", time.Since(start).Round(time.Second))
		}
	}
}
