package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/rotation"
)

// app is what the commands share.
type app struct {
	terminal
	output string // -o
	conn   connection
}

// execute runs one command line and returns the exit status.
func execute(ctx context.Context, args []string, t terminal) int {
	a := &app{terminal: t}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, errNo) {
		return 1
	}
	return t.fail(err)
}

// errNo ends a command with status 1 after it has said why.
var errNo = errors.New("no")

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "jwksd",
		Short: "Rotates JWT signing keys, signs for issuers, publishes a JWKS",
		Long: `jwksd owns JWT signing keys so that nobody else has to. It makes keys on a
schedule, signs for token issuers, and publishes the public halves as a JWK Set,
with a timing that is derived: no verifier meets a key it cannot know, and no
key leaves before its last token.`,
		Example:           "  jwksd serve\n  jwksd sign --sub alice --aud api --ttl 5m\n  jwksd status",
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return a.checkOutput(c) },
		Args:              knownCommand,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "text", "`FORMAT` of the answer: text or json")
	root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, "%v", err) })
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run a daemon:"},
		&cobra.Group{ID: "watch", Title: "Look at one:"},
		&cobra.Group{ID: "act", Title: "Change something:"},
		&cobra.Group{ID: "use", Title: "Use it:"},
	)
	root.AddCommand(
		a.serveCommand(), a.checkCommand(), a.migrateCommand(),
		a.statusCommand(), a.planCommand(),
		a.rotateCommand(), a.revokeCommand(), a.applyCommand(), a.deleteCommand(),
		a.signCommand(), a.verifyCommand(),
		a.versionCommand(),
	)
	a.addHelp(root)
	return root
}

func (a *app) checkOutput(c *cobra.Command) error {
	if a.output != "text" && a.output != "json" {
		return usage(c, "unknown output format %q: choose text or json", a.output)
	}
	return nil
}

func (a *app) wantsJSON() bool { return a.output == "json" }

// usage is an error about the command line.
func usage(c *cobra.Command, format string, args ...any) error {
	return &usageError{command: strings.TrimPrefix(c.CommandPath(), "jwksd"), msg: fmt.Sprintf(format, args...)}
}

// noArgs refuses arguments, naming the first.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(c, "unexpected argument %q", args[0])
	}
	return nil
}

// atMostOne refuses a second argument.
func atMostOne(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage(c, "unexpected argument %q", args[1])
	}
	return nil
}

// knownCommand refuses a command that does not exist, with the nearest one.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return unknown(c, "command", args[0])
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  jwksd version",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.wantsJSON() {
				return a.json(map[string]string{"version": version()})
			}
			fmt.Fprintln(a.out, "jwksd", version())
			return nil
		},
	}
}

// version is the module version or the commit that the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// durationVar adds a flag whose default, if it has one, its usage tells.
func durationVar(c *cobra.Command, d *durationFlag, name, usage string) {
	c.Flags().Var(d, name, usage)
	c.Flags().Lookup(name).DefValue = ""
}

// durationFlag reads a duration with days.
type durationFlag rotation.Duration

func (d *durationFlag) String() string { return rotation.Duration(*d).String() }
func (d *durationFlag) Type() string   { return "duration" }
func (d *durationFlag) Set(s string) error {
	parsed, err := rotation.ParseDuration(s)
	*d = durationFlag(parsed)
	return err
}
