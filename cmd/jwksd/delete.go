package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
)

// deleting is the command line of delete.
type deleting struct {
	keyset, reason string
	dryRun, yes    bool
}

func (a *app) deleteCommand() *cobra.Command {
	var on deleting
	c := &cobra.Command{
		Use:     "delete KEYSET",
		GroupID: "act",
		Short:   "Wind a keyset down for good",
		Long: `Delete a keyset: it signs no more, its set stays published until the last token
has expired, and then it is gone. Its name is never used again. There is no way
back.`,
		Example: "  jwksd delete tenant-7 --reason 'contract ended' --dry-run\n  jwksd delete tenant-7 --reason 'contract ended'",
		Args:    atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usage(c, "name the keyset")
			case on.reason == "":
				return usage(c, "give a --reason; it stays in the record")
			}
			on.keyset = args[0]
			cl, err := a.conn.client()
			if err != nil {
				return err
			}
			return a.delete(c, cl, on)
		},
	}
	a.conn.reachFlags(c)
	c.Flags().StringVar(&on.reason, "reason", "", "`TEXT` that says why, for the record (required)")
	c.Flags().BoolVar(&on.dryRun, "dry-run", false, "only say what would happen")
	c.Flags().BoolVarP(&on.yes, "yes", "y", false, "do not ask")
	return c
}

// delete shows a person what will happen before it does.
func (a *app) delete(c *cobra.Command, cl *client.Client, on deleting) error {
	ctx := c.Context()
	if !on.dryRun && !on.yes && a.interactive() {
		out, err := cl.Delete(ctx, on.keyset, on.reason, true)
		if err != nil {
			return err
		}
		to := a.out
		if a.wantsJSON() {
			to = a.err
		}
		writeDeleted(to, out)
		if err := a.ask("type the keyset's name to delete it", on.keyset); err != nil {
			return err
		}
	}
	var out wire.Deleted
	request := func(ctx context.Context) (err error) {
		out, err = cl.Delete(ctx, on.keyset, on.reason, on.dryRun)
		return err
	}
	var err error
	if on.dryRun {
		err = request(ctx)
	} else {
		err = changing(ctx, repeating(c, []string{on.keyset}, "--yes"), request)
	}
	if err != nil {
		return err
	}
	if a.wantsJSON() {
		return a.json(out)
	}
	writeDeleted(a.out, out)
	return nil
}

func writeDeleted(w io.Writer, out wire.Deleted) {
	if out.DryRun {
		fmt.Fprintf(w, "dry run: keyset %s would be deleted\n", clean(out.Keyset))
	} else {
		fmt.Fprintf(w, "keyset %s is deleted since %s\n", clean(out.Keyset), clockText(out.At))
	}
	if !out.PublishedUntil.IsZero() {
		fmt.Fprintf(w, "its set stays published until %s\n", relative(out.PublishedUntil, out.At))
	}
	writeEvents(w, out.Events, out.At)
	for _, warning := range out.Warnings {
		fmt.Fprintf(w, "note: %s\n", clean(warning))
	}
}
