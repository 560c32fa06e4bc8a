package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
)

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "status",
		GroupID: "watch",
		Short:   "Show keysets, keys and alarms of a running daemon",
		Example: "  jwksd status\n  jwksd status -o json | jq '.keysets[].lanes[].keys[] | {kid, phase}'",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := a.conn.client()
			if err != nil {
				return err
			}
			list, err := cl.Keysets(c.Context())
			if err != nil {
				return err
			}
			if c.Flags().Changed("keyset") {
				if list.Keysets, err = only(list.Keysets, a.conn.keyset); err != nil {
					return err
				}
			}
			if a.wantsJSON() {
				return a.json(list)
			}
			return a.writeStatus(list)
		},
	}
	a.conn.flags(c)
	return c
}

func only(list []wire.Keyset, name string) ([]wire.Keyset, error) {
	for _, k := range list {
		if k.Keyset == name {
			return []wire.Keyset{k}, nil
		}
	}
	return nil, fmt.Errorf("there is no keyset %q", name)
}

func (a *app) writeStatus(list wire.Keysets) error {
	for _, alarm := range list.Daemon.Alarms {
		fmt.Fprintf(a.out, "ALARM since %s: %s\n", clockText(alarm.Since), alarm.Message)
	}
	if r := list.Daemon.Config; r != nil && !r.OK {
		fmt.Fprintf(a.out, "CONFIGURATION rejected at %s, the old one is in force:\n%s\n", clockText(r.At), r.Error)
	}
	if len(list.Keysets) == 0 {
		a.note("no keysets")
	}
	for i, k := range list.Keysets {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := a.writeKeyset(k, list.Daemon.Now); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) writeKeyset(k wire.Keyset, now time.Time) error {
	fmt.Fprintf(a.out, "keyset %s  issuer %s  generation %d\n", k.Keyset, k.Issuer, k.Generation)
	if k.Stale {
		fmt.Fprintf(a.out, "STALE: last refreshed %s; this replica signs no more\n", relative(k.FreshAt, now))
	}
	w := tabwriter.NewWriter(a.out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  ALG\tKID\tSTATE\tNEXT\t")
	for _, l := range k.Lanes {
		for _, key := range l.Keys {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", key.Alg, key.KID, key.Phase, nextOf(key, now), remark(l, key))
		}
	}
	for _, r := range k.Revoked {
		fmt.Fprintf(w, "  %s\t%s\trevoked\t%s\t%s\n", r.Alg, r.KID, relative(r.RevokedAt, now), r.Reason)
	}
	return w.Flush()
}

// nextOf says what happens next to a key.
func nextOf(k wire.Key, now time.Time) string {
	switch {
	case k.Phase == rotation.PhaseStandby && k.ActivateAt.IsZero():
		return "waits to be scheduled"
	case k.Phase == rotation.PhaseStandby:
		return "signs from " + relative(k.ActivateAt, now)
	case k.Phase == rotation.PhaseActive && k.SignsUntil.IsZero():
		return "signs until it has a successor"
	case k.Phase == rotation.PhaseActive:
		return "signs until " + relative(k.SignsUntil, now)
	case k.RemoveAt.IsZero():
		return "leaves when its last token has expired"
	}
	return "leaves at " + relative(k.RemoveAt, now)
}

func remark(l wire.Lane, k wire.Key) string {
	switch {
	case k.Problem != "":
		return "PROBLEM: " + k.Problem
	case k.Phase == rotation.PhaseActive && l.Overdue:
		return "OVERDUE: no successor in time"
	case k.Phase == rotation.PhaseActive && l.Winding:
		return "winding down"
	}
	return ""
}

// relative writes an instant and its distance from now.
func relative(at, now time.Time) string {
	d := at.Sub(now).Round(time.Second)
	if d < 0 {
		return fmt.Sprintf("%s (%s ago)", clockText(at), brief(-d))
	}
	return fmt.Sprintf("%s (in %s)", clockText(at), brief(d))
}

// brief keeps the two largest units of a duration.
func brief(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		d = d.Round(time.Hour)
	case d >= 2*time.Hour:
		d = d.Round(time.Minute)
	}
	return rotation.Duration(d).String()
}

func clockText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
