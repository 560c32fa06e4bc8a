package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/internal/daemon"
)

func (a *app) serveCommand() *cobra.Command {
	var path, dataDir, logFormat string
	var verbose bool
	c := &cobra.Command{
		Use:     "serve",
		GroupID: "run",
		Short:   "Run the daemon",
		Long: `Run the daemon until SIGTERM or SIGINT, which let requests under way end; a
second one does not.
SIGHUP reads the configuration again; one that does not hold together is
rejected whole.

Without --config it runs the embedded default: keys in a file store in the
user's state directory, keyset "default" (ES256, rotated monthly), the JWKS on
127.0.0.1:8080 and the API on 127.0.0.1:8081 for the operator whose token it
writes into that directory.`,
		Example: "  jwksd serve\n  jwksd serve --config /etc/jwksd/jwksd.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			// First of all, since an early SIGHUP would end the process.
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			hardened := daemon.Harden()
			conf, err := loadConfig(c, path, dataDir)
			if err != nil {
				return err
			}
			log, err := a.logger(c, logFormat, verbose)
			if err != nil {
				return err
			}
			if hardened != nil {
				log.Warn("private keys are less well guarded than they could be", "error", hardened)
			}
			// The first signal drains; a second one ends the process.
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			defer context.AfterFunc(ctx, stop)()
			return daemon.Run(ctx, daemon.Options{
				Config: conf, Path: path, Version: version(), Log: log,
				Reload: relay(ctx, hup),
				Ready:  func(at daemon.Addresses) { a.ready(conf, at) },
			})
		},
	}
	configFlags(c, &path, &dataDir)
	c.Flags().StringVar(&logFormat, "log-format", "text", "`FORMAT` of the log on standard error: text or json")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more")
	return c
}

// configFlags adds the flags that choose a configuration.
func configFlags(c *cobra.Command, path, dataDir *string) {
	c.Flags().StringVarP(path, "config", "c", "", "configuration `FILE` (default: the embedded default)")
	c.Flags().StringVar(dataDir, "data-dir", "", "`DIR` for the embedded default's data (default: the user's state directory; $"+envDataDir+")")
	c.MarkFlagFilename("config", "yaml", "yml")
}

// loadConfig reads the file, or makes the embedded default if there is none.
func loadConfig(c *cobra.Command, path, dataDir string) (config.Config, error) {
	if path != "" && dataDir != "" {
		return config.Config{}, usage(c, "give either --config or --data-dir: the configuration says where its data is")
	}
	if path != "" {
		return config.Load(path, time.Now())
	}
	n := connection{dataDir: dataDir}
	dir, err := n.dir()
	if err != nil {
		return config.Config{}, err
	}
	return config.Default(dir), nil
}

func (a *app) logger(c *cobra.Command, format string, verbose bool) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		opts.Level = slog.LevelDebug
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(a.err, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.err, opts)), nil
	}
	return nil, usage(c, "unknown log format %q: choose text or json", format)
}

// ready tells the person where to go from here.
func (a *app) ready(conf config.Config, at daemon.Addresses) {
	a.note("JWKS  %s", at.Public+setPath(conf.Keysets[0].Name))
	a.note("API   %s", at.API)
	if len(conf.Callers) == 0 {
		a.note("operator's token in %s", conf.DataDir)
	}
	a.note("ready")
}

// setPath is where the set of a keyset is published.
func setPath(keyset string) string {
	if keyset == "default" {
		return "/.well-known/jwks.json"
	}
	return fmt.Sprintf("/%s/.well-known/jwks.json", keyset)
}

// relay passes signals on as requests; several at a time count as one.
func relay(ctx context.Context, signals <-chan os.Signal) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}
