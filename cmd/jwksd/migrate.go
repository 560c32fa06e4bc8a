package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/internal/daemon"
	"github.com/jwksd/jwksd/internal/migrate"
)

func (a *app) migrateCommand() *cobra.Command {
	var from, to, dataDir string
	var dryRun, verbose bool
	c := &cobra.Command{
		Use:     "migrate",
		GroupID: "run",
		Short:   "Move the keys of a file store to Vault",
		Long: `Move the keys of a file store to Vault. Stop the daemon first, migrate, and start
it with the new configuration: keys, set and schedule are the same as before, so
that no verifier notices. What is missing meanwhile is only who signs.

Private keys go first, each checked by a signature, and the state document last.
After an error, whatever it was, run it again: it goes on where it stopped. The
file store stays as it is, but no daemon starts on it any more.

With --dry-run it looks at both stores and writes nothing.`,
		Example: "  jwksd migrate --from old.yaml --to new.yaml --dry-run\n  jwksd migrate --from old.yaml --to new.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			hardened := daemon.Harden()
			if to == "" {
				return usage(c, "say where to: --to FILE, a configuration with keystore.vault")
			}
			old, err := loadConfig(c, from, dataDir)
			if err != nil {
				return err
			}
			next, err := config.Load(to, time.Now())
			if err != nil {
				return err
			}
			log, err := a.logger(c, "text", verbose)
			if err != nil {
				return err
			}
			if hardened != nil {
				log.Warn("private keys are less well guarded than they could be", "error", hardened)
			}
			done, err := daemon.Migrate(c.Context(), daemon.Migration{From: old, To: next, DryRun: dryRun, Log: log, Progress: a.note})
			if err != nil {
				return err
			}
			return a.migrated(done, to, dryRun)
		},
	}
	c.Flags().StringVar(&from, "from", "", "configuration `FILE` of the file store (default: the embedded default)")
	c.Flags().StringVar(&to, "to", "", "configuration `FILE` with keystore.vault")
	c.Flags().StringVar(&dataDir, "data-dir", "", "`DIR` of the embedded default's data, in place of --from")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "look, and write nothing")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more")
	c.MarkFlagFilename("from", "yaml", "yml")
	c.MarkFlagFilename("to", "yaml", "yml")
	return c
}

// migrated tells what was done.
func (a *app) migrated(done []migrate.Keyset, to string, dryRun bool) error {
	if a.wantsJSON() {
		return a.json(map[string]any{"keysets": done, "dry_run": dryRun})
	}
	for _, k := range done {
		line := fmt.Sprintf("%s: generation %d, %d private keys", k.Keyset, k.Generation, k.Keys)
		switch {
		case dryRun && k.Done:
			line += ", there already"
		case dryRun:
			line += ", to be moved"
		default:
			line += ", moved"
		}
		if len(k.Lost) > 0 {
			line += fmt.Sprintf(", lost before: %d", len(k.Lost))
		}
		fmt.Fprintln(a.out, line)
	}
	if !dryRun {
		a.note("start the daemon now: jwksd serve --config %s", to)
	}
	return nil
}
