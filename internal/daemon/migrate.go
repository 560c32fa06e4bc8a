package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/internal/migrate"
	"github.com/jwksd/jwksd/keystore/file"
	"github.com/jwksd/jwksd/keystore/vault"
)

// Migration is a move from a file store to Vault.
type Migration struct {
	From, To config.Config
	DryRun   bool
	Log      *slog.Logger
	// Progress hears of each step.
	Progress func(format string, args ...any)
}

// Migrate moves every keyset, and marks the file store so that no daemon starts
// on it by accident. No daemon may run on the file store, which is locked
// meanwhile. It can be repeated after any error.
func Migrate(ctx context.Context, m Migration) (_ []migrate.Keyset, err error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	from := m.From.Keystore.File
	source, err := file.Open(file.Options{Dir: from.Dir, Identity: from.Identity, Logger: m.Log})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	v := m.To.Keystore.Vault
	client, err := vault.NewClient(vaultClient(v, m.Log))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	target, err := vault.NewStore(client, vault.Options{Mount: v.Mount, Path: v.Path, Log: m.Log})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := target.Check(ctx); err != nil {
		return nil, err
	}
	done, err := migrate.Run(ctx, migrate.Options{
		Source: source, Target: target, Now: time.Now, DryRun: m.DryRun, Progress: m.Progress,
	})
	if err != nil || m.DryRun {
		return done, err
	}
	return done, migrate.Mark(from.Dir, fmt.Sprintf("Vault at %s, %s/%s,", v.Address, v.Mount, v.Path), time.Now())
}

// check refuses a move between other kinds of stores, and a source that is not
// there: opening it would make one.
func (m Migration) check() error {
	switch {
	case m.From.Keystore.Vault != nil:
		return errors.New("the keys of the old configuration are in Vault already: only a file store can be migrated")
	case m.To.Keystore.Vault == nil:
		return errors.New("the new configuration has no keystore.vault to migrate to")
	}
	dir := m.From.Keystore.File.Dir
	if _, err := os.Stat(filepath.Join(dir, file.DatabaseName)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no file store in %s: check keystore.file.dir of the old configuration", dir)
	}
	return nil
}
