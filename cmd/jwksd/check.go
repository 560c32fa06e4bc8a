package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/internal/config"
)

func (a *app) checkCommand() *cobra.Command {
	var path, dataDir string
	c := &cobra.Command{
		Use:     "check",
		GroupID: "run",
		Short:   "Check a configuration and print what follows from it",
		Long: `Check a configuration without starting anything, and print the numbers that
follow from it: the lead, the retention, the bound on the set, how long a revoked
key may be trusted, and the next rotations. It talks to no daemon.`,
		Example: "  jwksd check --config jwksd.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := loadConfig(c, path, dataDir)
			if err != nil {
				return err
			}
			derived, err := config.Check(conf, time.Now())
			if err != nil {
				return err
			}
			if a.wantsJSON() {
				return a.json(derived)
			}
			return config.WriteCheck(a.out, derived)
		},
	}
	configFlags(c, &path, &dataDir)
	return c
}
