package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/rotation"
)

// applying is the command line of apply.
type applying struct {
	file        string
	dryRun, yes bool
}

func (a *app) applyCommand() *cobra.Command {
	var on applying
	c := &cobra.Command{
		Use:     "apply --file FILE",
		GroupID: "act",
		Short:   "Put the keysets of a file in force",
		Long: `Put the keysets of a configuration file in force on a running daemon, and found
those that do not exist. Only keysets and revision are taken from the file; what
max_staleness and clock_skew are is the daemon's to say. What would change is
shown first. All keysets are checked before the first is changed.`,
		Example: "  jwksd apply --file keysets.yaml --dry-run\n  jwksd apply --file keysets.yaml\n  jwksd apply --file keysets.yaml --keyset tenant-7",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if on.file == "" {
				return usage(c, "name a --file")
			}
			keysets, err := readKeysets(on.file, time.Now())
			if err != nil {
				return err
			}
			if c.Flags().Changed("keyset") {
				keysets = slices.DeleteFunc(keysets, func(k config.Keyset) bool { return k.Name != a.conn.keyset })
				if len(keysets) == 0 {
					return fmt.Errorf("%s has no keyset %q", on.file, a.conn.keyset)
				}
			}
			cl, err := a.conn.client()
			if err != nil {
				return err
			}
			return a.apply(c, cl, keysets, on)
		},
	}
	a.conn.flags(c)
	c.Flags().Lookup("keyset").DefValue = ""
	c.Flags().Lookup("keyset").Usage = "apply only the keyset of that `NAME`"
	c.Flags().StringVarP(&on.file, "file", "f", "", "configuration `FILE` with the keysets (required)")
	c.Flags().BoolVar(&on.dryRun, "dry-run", false, "only say what would happen")
	c.Flags().BoolVarP(&on.yes, "yes", "y", false, "do not ask")
	c.MarkFlagFilename("file", "yaml", "yml")
	return c
}

// readKeysets reads the keysets of a file. What else it names need not exist
// here.
func readKeysets(path string, now time.Time) ([]config.Keyset, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the keysets: %w", err)
	}
	c, err := config.Parse(path, data, now)
	return c.Keysets, err
}

// block is a policy as a request that says everything.
func block(p rotation.Policy) wire.ApplyRequest {
	return wire.ApplyRequest{
		Issuer: p.Issuer, Algorithms: p.Algorithms, RSABits: &p.RSABits, Rotate: &p.Rotate,
		TokenTTLMax: &p.TokenTTLMax, JWKSMaxAge: &p.JWKSMaxAge, VerifierCache: &p.VerifierCache,
		VerifierLeeway: &p.VerifierLeeway, HandoverGrace: &p.HandoverGrace,
		Custody: &p.Custody, Discovery: &p.Discovery, Revision: p.Revision,
	}
}

// apply shows what every keyset comes to before it changes the first.
func (a *app) apply(c *cobra.Command, cl *client.Client, keysets []config.Keyset, on applying) error {
	put := func(dryRun bool) ([]wire.Applied, error) {
		var list []wire.Applied
		for _, k := range keysets {
			req := block(k.Policy)
			req.DryRun = dryRun
			var out wire.Applied
			request := func(ctx context.Context) (err error) {
				out, err = cl.Apply(ctx, k.Name, req)
				return err
			}
			var err error
			if dryRun {
				err = request(c.Context())
			} else {
				err = changing(c.Context(), repeating(c, nil, "--yes"), request)
			}
			if err != nil {
				a.note("keyset %s:", k.Name)
				return list, err
			}
			list = append(list, out)
		}
		return list, nil
	}
	plan, err := put(true)
	if err != nil {
		if !on.dryRun {
			a.note("nothing was changed")
		}
		return err
	}
	changes := slices.ContainsFunc(plan, func(p wire.Applied) bool { return len(p.Diff) > 0 })
	if on.dryRun || !changes && !a.wantsJSON() {
		return a.writeAppliedList(plan)
	}
	if !on.yes && a.interactive() {
		if err := a.previewApplied(plan); err != nil {
			return err
		}
		if err := a.ask("type yes to apply", "yes"); err != nil {
			return err
		}
	}
	done, err := put(false)
	if err != nil {
		a.note("%d of %d keysets were applied; repeat it for the rest", len(done), len(keysets))
	}
	return errors.Join(a.writeAppliedList(done), err)
}

// ask lets a person agree by typing a word, or ends the command.
func (a *app) ask(question, word string) error {
	agreed, err := a.confirm(question, word)
	switch {
	case err != nil:
		return err
	case !agreed:
		a.note("nothing was changed")
		return errNo
	}
	return nil
}

// previewApplied shows a dry run to a person, away from an answer for machines.
func (a *app) previewApplied(plan []wire.Applied) error {
	to := a.out
	if a.wantsJSON() {
		to = a.err
	}
	return writeAppliedText(to, plan)
}

func (a *app) writeAppliedList(list []wire.Applied) error {
	if a.wantsJSON() {
		if list == nil {
			list = []wire.Applied{}
		}
		return a.json(list)
	}
	return writeAppliedText(a.out, list)
}

func writeAppliedText(w io.Writer, list []wire.Applied) error {
	for _, out := range list {
		if err := writeApplied(w, out); err != nil {
			return err
		}
	}
	return nil
}

// writeApplied shows one keyset: what it comes to, field by field, and what
// happens to its keys.
func writeApplied(w io.Writer, out wire.Applied) error {
	did := "changed"
	switch {
	case len(out.Diff) == 0:
		_, err := fmt.Fprintf(w, "keyset %s: nothing to change\n", clean(out.Keyset))
		return err
	case out.Created && out.DryRun:
		did = "would be created"
	case out.Created:
		did = "created"
	case out.DryRun:
		did = "would change"
	}
	fmt.Fprintf(w, "keyset %s: %s\n", clean(out.Keyset), did)
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	for _, f := range out.Diff {
		fmt.Fprintf(t, "  %s\t%s\t-> %s\n", clean(f.Field), clean(f.From), clean(f.To))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "  lead %s, retention %s, at most %d keys per algorithm\n", out.Timing.Lead, out.Timing.Retention, out.Timing.Bound)
	writeEvents(w, out.Events, out.At)
	for _, warning := range out.Warnings {
		fmt.Fprintf(w, "  note: %s\n", clean(warning))
	}
	return nil
}

// shownEvents is how many events are shown to a person.
const shownEvents = 12

func writeEvents(w io.Writer, events []rotation.Event, now time.Time) {
	for i, e := range events {
		if i == shownEvents {
			fmt.Fprintf(w, "  and %d more; see jwksd plan\n", len(events)-i)
			return
		}
		fmt.Fprintf(w, "  %s  %s %s %s\n", relative(e.At, now), clean(e.Algorithm), clean(e.KID), clean(string(e.Kind)))
	}
}
