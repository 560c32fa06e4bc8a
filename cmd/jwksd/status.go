package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
)

func (a *app) statusCommand() *cobra.Command {
	var wide bool
	c := &cobra.Command{
		Use:     "status",
		GroupID: "watch",
		Short:   "Show keysets, keys and alarms of a running daemon",
		Long: `Show the keysets, keys and alarms of a running daemon. Kids are shortened to
their first characters, which the other commands take as well.`,
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
			return a.writeStatus(list, wide)
		},
	}
	a.conn.flags(c)
	c.Flags().BoolVar(&wide, "wide", false, "whole kids and reasons, however long the lines get")
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

// writeStatus shows everything in 80 columns, or wide.
func (a *app) writeStatus(list wire.Keysets, wide bool) error {
	for _, alarm := range list.Daemon.Alarms {
		fmt.Fprintf(a.out, "ALARM since %s: %s\n", clockText(alarm.Since), clean(alarm.Message))
	}
	if r := list.Daemon.Config; r != nil && !r.OK {
		fmt.Fprintf(a.out, "CONFIGURATION rejected at %s, the old one is in force:\n", clockText(r.At))
		for line := range strings.Lines(r.Error) {
			fmt.Fprintln(a.out, "  "+clean(strings.TrimRight(line, "\n")))
		}
	}
	if err := a.writeReplicas(list.Daemon); err != nil {
		return err
	}
	if len(list.Keysets) == 0 {
		a.note("no keysets")
	}
	for i, k := range list.Keysets {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := a.writeKeyset(k, list.Daemon.Now, wide); err != nil {
			return err
		}
	}
	return nil
}

// writeReplicas shows the daemons that share the store, if there are several.
func (a *app) writeReplicas(d wire.Daemon) error {
	if d.ReplicasProblem != "" {
		a.note("note: %s", d.ReplicasProblem)
	}
	if len(d.Replicas) < 2 {
		return nil
	}
	w := tabwriter.NewWriter(a.out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REPLICA\tROLE\tVERSION\tSTATE\tSYNCED")
	for _, r := range d.Replicas {
		state := "live"
		if !r.Live {
			state = "SILENT, seen " + distance(r.SeenAt, d.Now)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", clean(r.Replica), clean(r.Role), clean(r.Version), state, distance(r.SyncedAt, d.Now))
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// shownRevoked is how many revoked keys are shown to a person.
const shownRevoked = 5

func (a *app) writeKeyset(k wire.Keyset, now time.Time, wide bool) error {
	a.writeHeading(k, wide)
	if k.Stale {
		fmt.Fprintf(a.out, "STALE: last refreshed %s; this replica signs no more\n", relative(k.FreshAt, now))
	}
	if d := k.Deleted; d != nil {
		fmt.Fprintf(a.out, "DELETED %s by %s: %s\n", relative(d.At, now), clean(d.By), clean(firstUp(d.Reason, "no reason given")))
	}
	for _, f := range k.Drift {
		fmt.Fprintf(a.out, "DRIFT: %s is %s, this replica's configuration says %s\n", clean(f.Field), clean(f.From), clean(f.To))
	}
	shown := shorten(k)
	if wide {
		shown = clean
	}
	t := table{rows: [][]string{{"ALG", "KID", "STATE", "NEXT"}}, below: map[int]string{}}
	for _, l := range k.Lanes {
		for _, key := range l.Keys {
			t.add(remark(l, key), clean(key.Alg), shown(key.KID), clean(string(key.Phase)), nextOf(l, key, now))
		}
	}
	revoked := slices.Clone(k.Revoked)
	slices.SortStableFunc(revoked, func(a, b wire.Revoked) int { return b.RevokedAt.Compare(a.RevokedAt) })
	latest := revoked[:min(shownRevoked, len(revoked))]
	for _, r := range latest {
		t.add(clean(r.Reason), clean(r.Alg), shown(r.KID), "revoked", relative(r.RevokedAt, now))
	}
	width := a.width()
	if wide {
		width = math.MaxInt
	}
	if err := t.write(a.out, width); err != nil {
		return err
	}
	if more := len(revoked) - len(latest); more > 0 {
		fmt.Fprintf(a.out, "  and %d more revoked; -o json lists them\n", more)
	}
	return nil
}

// writeHeading names the keyset, on two lines if it must.
func (a *app) writeHeading(k wire.Keyset, wide bool) {
	keyset, issuer := "keyset "+clean(k.Keyset), fmt.Sprintf("  issuer %s  generation %d", clean(k.Issuer), k.Generation)
	if !wide && utf8.RuneCountInString(keyset+issuer) > a.width() {
		keyset += "\n"
	}
	fmt.Fprintln(a.out, keyset+issuer)
}

// table is rows of cells, below some of which stands a remark.
type table struct {
	rows  [][]string
	below map[int]string
}

func (t *table) add(below string, cells ...string) {
	if below != "" {
		t.below[len(t.rows)] = below
	}
	t.rows = append(t.rows, cells)
}

// write aligns the cells, and cuts remarks to the width.
func (t *table) write(to io.Writer, width int) error {
	var aligned strings.Builder
	w := tabwriter.NewWriter(&aligned, 2, 0, 2, ' ', 0)
	for _, cells := range t.rows {
		fmt.Fprintln(w, "  "+strings.Join(cells, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	i := 0
	for line := range strings.Lines(aligned.String()) {
		fmt.Fprint(to, line)
		if below := t.below[i]; below != "" {
			fmt.Fprintln(to, clip("    "+below, width))
		}
		i++
	}
	return nil
}

// shortKID is how many characters of a kid tell it from others, mostly.
const shortKID = 8

// shorten returns a function that leaves of a kid what no other key of the
// keyset begins with.
func shorten(k wire.Keyset) func(string) string {
	var kids []string
	for _, l := range k.Lanes {
		for _, key := range l.Keys {
			kids = append(kids, key.KID)
		}
	}
	for _, r := range k.Revoked {
		kids = append(kids, r.KID)
	}
	return func(kid string) string {
		n := shortKID
		for n < len(kid) && slices.ContainsFunc(kids, func(other string) bool { return other != kid && strings.HasPrefix(other, kid[:n]) }) {
			n++
		}
		return clean(kid[:min(n, len(kid))])
	}
}

// nextOf says what happens next to a key.
func nextOf(l wire.Lane, k wire.Key, now time.Time) string {
	until := signsUntil(l, k)
	switch {
	case k.Phase == rotation.PhaseStandby && k.ActivateAt.IsZero():
		return "waits to be scheduled"
	case k.Phase == rotation.PhaseStandby:
		return "signs from " + relative(k.ActivateAt, now)
	case k.Phase == rotation.PhaseActive && until.IsZero():
		return "signs until it has a successor"
	case k.Phase == rotation.PhaseActive:
		return "signs until " + relative(until, now)
	case k.RemoveAt.IsZero():
		return "leaves when its last token has expired"
	}
	return "leaves at " + relative(k.RemoveAt, now)
}

// signsUntil is when the successor of an active key takes its turn. What the
// key may still sign in the grace after that is of no interest to a person.
func signsUntil(l wire.Lane, k wire.Key) time.Time {
	until := k.SignsUntil
	for _, next := range l.Keys {
		if next.Phase == rotation.PhaseStandby && !next.ActivateAt.IsZero() && (until.IsZero() || next.ActivateAt.Before(until)) {
			until = next.ActivateAt
		}
	}
	return until
}

func remark(l wire.Lane, k wire.Key) string {
	switch {
	case k.Problem != "":
		return "PROBLEM: " + clean(k.Problem)
	case k.Phase == rotation.PhaseActive && l.Overdue:
		return "OVERDUE: no successor in time"
	case k.Phase == rotation.PhaseActive && l.Winding:
		return "winding down"
	}
	return ""
}

// relative writes an instant and its distance from now.
func relative(at, now time.Time) string {
	return fmt.Sprintf("%s (%s)", clockText(at), distance(at, now))
}

// distance says how far an instant is from now.
func distance(at, now time.Time) string {
	switch d := at.Sub(now).Round(time.Second); {
	case d < 0:
		return brief(-d) + " ago"
	case d > 0:
		return "in " + brief(d)
	}
	return "just now"
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
