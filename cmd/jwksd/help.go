package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// addHelp adds the commands help and completion. Cobra's own pass over a name
// that they do not know in silence.
func (a *app) addHelp(root *cobra.Command) {
	root.SetHelpCommand(&cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Explain a command",
		Example: "  jwksd help rotate",
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			at, _, err := c.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range at.Commands() {
				if sub.IsAvailableCommand() && strings.HasPrefix(sub.Name(), begun) {
					names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			at := c.Root()
			for _, name := range args {
				next := child(at, name)
				if next == nil {
					return unknown(at, "command", name)
				}
				at = next
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
	})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	completion := child(root, "completion")
	completion.Short = "Print a completion script for a shell"
	completion.Example = "  source <(jwksd completion bash)\n  jwksd completion zsh > \"${fpath[1]}/_jwksd\""
	completion.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknown(c, "shell", args[0])
	}
	completion.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	for _, shell := range completion.Commands() {
		shell.Example = fmt.Sprintf("  jwksd completion %s", shell.Name())
		shell.Args = noArgs
	}
}

// child is the command of that name below another, or nil.
func child(c *cobra.Command, name string) *cobra.Command {
	for _, sub := range c.Commands() {
		if sub.Name() == name || sub.HasAlias(name) {
			return sub
		}
	}
	return nil
}

// unknown is an error about a word that is none of the commands below c, with
// the nearest of them.
func unknown(c *cobra.Command, what, name string) error {
	msg := fmt.Sprintf("there is no %s %q", what, name)
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(name); len(near) > 0 {
		msg += ", did you mean " + near[0] + "?"
	}
	return usage(c, "%s", msg)
}
