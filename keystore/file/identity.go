package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
)

// readIdentity reads the age identity at path. fs.ErrNotExist if there is
// none. No error contains a part of the file.
func readIdentity(path string) (*age.X25519Identity, error) {
	f, err := openAtOnce(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, fmt.Errorf("reading the identity file: %w", advise(path, err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the identity file: %w", advise(path, err))
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the identity file %s is not a regular file", path)
	}
	if uid, other := OwnedByOther(info); other {
		return nil, fmt.Errorf("the identity file %s belongs to user %d, who knows it or could replace it; this jwksd runs as user %d: if the file is the right one, run `chown %d %s`", path, uid, os.Geteuid(), os.Geteuid(), path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("the identity file %s is open to group or others (mode %04o): run `chmod 600 %s`, and if others had access to this machine, treat the keys as known to them", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("reading the identity file: %w", advise(path, err))
	}
	defer clear(text)
	all, err := age.ParseIdentities(bytes.NewReader(text))
	if err == nil && len(all) == 1 {
		if identity, ok := all[0].(*age.X25519Identity); ok {
			return identity, nil
		}
	}
	return nil, fmt.Errorf("the identity file %s is malformed: it must hold one line AGE-SECRET-KEY-1… (and comments); restore it from a backup", path)
}

// createIdentity reads the identity at path, and generates it if there is
// none. Of two that do so at a time, both get the same.
func createIdentity(path string, now time.Time) (*age.X25519Identity, error) {
	identity, err := readIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return identity, err
	}
	identity, err = age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("generating an identity: %w", err)
	}
	text := fmt.Appendf(nil, "# jwksd: decrypts the private keys in %s. Keep a copy elsewhere, and keep it secret.\n# created: %s\n# public key: %s\n%s\n",
		DatabaseName, now.UTC().Format(time.RFC3339), identity.Recipient(), identity)
	defer clear(text)
	err = createFile(path, func(f *os.File) error {
		_, err := f.Write(text)
		return err
	})
	// What is there counts, whoever wrote it.
	identity, readErr := readIdentity(path)
	if err != nil && errors.Is(readErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("creating the identity file: %w", advise(path, err))
	}
	return identity, readErr
}

// createFile makes a file appear at path, whole and durable, or not at all. It
// never replaces: fs.ErrExist if there is a file already.
func createFile(path string, fill func(f *os.File) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, temporary(path)) // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := publish(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// publish gives the file at temp its name. A link, unlike a rename, does not
// replace; but not every filesystem has links.
func publish(temp, path string) error {
	err := os.Link(temp, path)
	if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	return os.Rename(temp, path)
}

// temporary is the pattern of the names of files that are to become path.
func temporary(path string) string { return filepath.Base(path) + ".tmp-*" }

// removeTemporary removes what a crash left of files that were to become path.
// Some hold secrets. Only the holder of the database's lock may do this.
func removeTemporary(path string) error {
	dir, prefix := filepath.Dir(path), strings.TrimSuffix(temporary(path), "*")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
