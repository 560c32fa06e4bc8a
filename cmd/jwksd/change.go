package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
	"github.com/jwksd/jwksd/rotation"
)

func (a *app) rotateCommand() *cobra.Command {
	var req wire.RotateRequest
	var key string
	c := &cobra.Command{
		Use:     "rotate",
		GroupID: "act",
		Short:   "Let the standby key take over now",
		Long: `Promote the standby key and prepare the next one. It is refused, with the
earliest time, while some verifier may not know the standby yet; --force does it
nevertheless and lets those verifiers fail until their caches turn over.`,
		Example: "  jwksd rotate\n  jwksd rotate --alg RS256 --reason 'quarterly drill'",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := a.conn.client()
			if err != nil {
				return err
			}
			key := orRandom(key)
			var out wire.Change
			err = changing(c.Context(), repeating(c, nil, "--idempotency-key", key), func(ctx context.Context) (err error) {
				out, err = cl.Rotate(ctx, a.conn.keyset, req, key)
				return err
			})
			if err != nil {
				return nameLane(err, a.conn.keyset, req.Alg)
			}
			return a.writeChange(out)
		},
	}
	a.conn.flags(c)
	c.Flags().StringVar(&req.Reason, "reason", "", "`TEXT` that says why, for the record")
	c.Flags().StringVar(&req.Alg, "alg", "", "rotate only the lane of this `ALGORITHM`")
	c.Flags().BoolVar(&req.Force, "force", false, "promote a standby that some verifiers may not know yet")
	idempotencyFlag(c, &key)
	waitFlag(c, &req.Wait)
	return c
}

func (a *app) revokeCommand() *cobra.Command {
	var req wire.RevokeRequest
	var key string
	var yes bool
	c := &cobra.Command{
		Use:     "revoke [KID]",
		GroupID: "act",
		Short:   "Take back a key that leaked",
		Long: `Take a key out of the set at once, for ever. If it was the active key, the
standby takes over in the same change. The answer says until when caches may
still trust the revoked key. KID may be shortened to its first characters.

--all takes back every key of the keyset, for a leaked store: verifiers then fail
until their caches turn over.`,
		Example: "  jwksd revoke NzbLsXh8 --reason 'found on a paste site' --dry-run\n  jwksd revoke NzbLsXh8 --reason 'found on a paste site'",
		Args:    atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				req.KID = args[0]
			}
			switch {
			case req.All == (req.KID != ""):
				return usage(c, "name one key, or give --all")
			case req.Reason == "":
				return usage(c, "give a --reason; it stays in the record")
			}
			cl, err := a.conn.client()
			if err != nil {
				return err
			}
			return a.revoke(c, cl, req, key, yes)
		},
	}
	a.conn.flags(c)
	c.Flags().StringVar(&req.Reason, "reason", "", "`TEXT` that says why, for the record (required)")
	c.Flags().BoolVar(&req.All, "all", false, "revoke every key of the keyset")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "only say what would happen")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	idempotencyFlag(c, &key)
	waitFlag(c, &req.Wait)
	return c
}

func idempotencyFlag(c *cobra.Command, key *string) {
	c.Flags().StringVar(key, "idempotency-key", "", "repeat with the same `KEY` after a lost answer; nothing happens twice (default: random)")
}

// waitFlag adds --wait, which needs no value.
func waitFlag(c *cobra.Command, wait *rotation.Duration) {
	durationVar(c, (*durationFlag)(wait), "wait", "wait up to this long, at most 1m, until every live replica confirms (10s if given alone, as in --wait or --wait=30s)")
	c.Flags().Lookup("wait").NoOptDefVal = "10s"
}

func orRandom(key string) string {
	if key == "" {
		return rand.Text()
	}
	return key
}

// nameLane names the algorithm that a keyset was found not to have.
func nameLane(err error, keyset, alg string) error {
	var answered *client.Error
	if errors.As(err, &answered) && answered.Code == "unknown_lane" {
		answered.Detail = fmt.Sprintf("keyset %s has no algorithm %s", keyset, alg)
		answered.Hint = "jwksd status lists the algorithms"
	}
	return err
}

// revoke shows a person what will happen before it does.
func (a *app) revoke(c *cobra.Command, cl *client.Client, req wire.RevokeRequest, key string, yes bool) error {
	ctx := c.Context()
	if req.KID != "" {
		kid, err := a.wholeKID(ctx, cl, req.KID)
		if err != nil {
			return err
		}
		req.KID = kid
	}
	if !req.DryRun && !yes && a.interactive() {
		dry := req
		dry.DryRun, dry.Wait = true, 0
		out, err := cl.Revoke(ctx, a.conn.keyset, dry, "")
		if err != nil {
			return err
		}
		a.previewChange(out)
		if err := a.ask("type yes to revoke", "yes"); err != nil {
			return err
		}
	}
	if req.DryRun {
		out, err := cl.Revoke(ctx, a.conn.keyset, req, key)
		if err != nil {
			return err
		}
		return a.writeChange(out)
	}
	var args []string
	if req.KID != "" {
		args = []string{req.KID}
	}
	key = orRandom(key)
	var out wire.Change
	err := changing(ctx, repeating(c, args, "--yes", "--idempotency-key", key), func(ctx context.Context) (err error) {
		out, err = cl.Revoke(ctx, a.conn.keyset, req, key)
		return err
	})
	if err != nil {
		return err
	}
	return a.writeChange(out)
}

// previewChange shows a dry run to a person, away from an answer for machines.
func (a *app) previewChange(out wire.Change) {
	shown := *a
	if a.wantsJSON() {
		shown.out = a.err
	}
	shown.printChange(out)
}

// minPrefix is the shortest beginning of a kid that is taken for it.
const minPrefix = 6

// kidLength is that of a whole kid, a thumbprint by SHA-256.
const kidLength = 43

// wholeKID completes the first characters of a kid, of one that was revoked
// already too: the daemon says so. A whole one needs no grant to read.
func (a *app) wholeKID(ctx context.Context, cl *client.Client, prefix string) (string, error) {
	switch {
	case len(prefix) < minPrefix:
		return "", fmt.Errorf("%q is too short: give at least the first %d characters of the kid", prefix, minPrefix)
	case len(prefix) == kidLength:
		return prefix, nil
	}
	k, err := cl.Keyset(ctx, a.conn.keyset)
	var answered *client.Error
	if errors.As(err, &answered) && answered.Status == http.StatusForbidden {
		return "", fmt.Errorf("%q cannot be completed without the grant to read: give all %d characters of the kid", prefix, kidLength)
	}
	if err != nil {
		return "", err
	}
	var found []string
	for _, r := range k.Revoked {
		if strings.HasPrefix(r.KID, prefix) {
			found = append(found, r.KID)
		}
	}
	for _, l := range k.Lanes {
		for _, key := range l.Keys {
			if strings.HasPrefix(key.KID, prefix) {
				found = append(found, key.KID)
			}
		}
	}
	switch len(found) {
	case 0:
		return prefix, nil // the daemon knows what became of it
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%q fits %d keys: give more of the kid", prefix, len(found))
}

// writeChange prints what a change did. It fails if a replica that was waited
// for did not confirm.
func (a *app) writeChange(c wire.Change) error {
	if a.wantsJSON() {
		if err := a.json(c); err != nil {
			return err
		}
	} else {
		a.printChange(c)
	}
	if c.Replicas != nil && !c.Everywhere {
		return errNo
	}
	return nil
}

func (a *app) printChange(c wire.Change) {
	did := func(past, future string) string {
		if c.DryRun {
			return future
		}
		return past
	}
	if c.DryRun {
		fmt.Fprintln(a.out, "dry run: nothing was changed")
	}
	if c.Replayed {
		fmt.Fprintln(a.out, "done before with this idempotency key; the answer was:")
	}
	for _, r := range c.Revoked {
		fmt.Fprintf(a.out, "%s %s %s\n", clean(r.Alg), clean(r.KID), did("is revoked", "would be revoked"))
	}
	for _, p := range c.Promoted {
		fmt.Fprintf(a.out, "%s %s %s\n", clean(p.Algorithm), clean(p.To), did("signs now", "would sign"))
	}
	if !c.Everywhere || c.Replicas != nil && len(c.Replicas.Silent) > 0 {
		fmt.Fprintf(a.out, "everywhere by %s\n", relative(c.EverywhereBy, c.At))
	}
	if !c.FlushAt.IsZero() {
		fmt.Fprintf(a.out, "verifiers that never expire a set fetch it again from %s on, about\n", relative(c.FlushAt, c.At))
	}
	for _, warning := range c.Warnings {
		a.note("note: %s", warning)
	}
	a.printReplicas(c)
}

// printReplicas says whether the replicas confirmed.
func (a *app) printReplicas(c wire.Change) {
	switch r := c.Replicas; {
	case r == nil:
	case len(r.Missing) > 0:
		a.note("not confirmed in time by: %s", strings.Join(r.Missing, ", "))
		a.note("hint: the change stands; look at jwksd status, they follow when they can")
	case c.Everywhere && len(r.Confirmed) == 1:
		fmt.Fprintf(a.out, "the only live replica confirms\n")
	case c.Everywhere:
		fmt.Fprintf(a.out, "all %d replicas confirm\n", len(r.Confirmed))
	}
}

// requestTimeout bounds a command that only asks.
const requestTimeout = 15 * time.Second
