package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
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
			out, err := cl.Rotate(c.Context(), a.conn.keyset, req, orRandom(key))
			if err != nil {
				return err
			}
			return a.writeChange(out)
		},
	}
	a.conn.flags(c)
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	c.Flags().StringVar(&req.Alg, "alg", "", "rotate only the lane of this `ALGORITHM`")
	c.Flags().BoolVar(&req.Force, "force", false, "promote a standby that some verifiers may not know yet")
	idempotencyFlag(c, &key)
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
			return a.revoke(c.Context(), cl, req, orRandom(key), yes)
		},
	}
	a.conn.flags(c)
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the record (required)")
	c.Flags().BoolVar(&req.All, "all", false, "revoke every key of the keyset")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "only say what would happen")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	idempotencyFlag(c, &key)
	return c
}

func idempotencyFlag(c *cobra.Command, key *string) {
	c.Flags().StringVar(key, "idempotency-key", "", "repeat with the same `KEY` after a lost answer; nothing happens twice (default: random)")
}

func orRandom(key string) string {
	if key == "" {
		return rand.Text()
	}
	return key
}

// revoke shows a person what will happen before it does.
func (a *app) revoke(ctx context.Context, cl *client.Client, req wire.RevokeRequest, key string, yes bool) error {
	if req.KID != "" {
		kid, err := a.wholeKID(ctx, cl, req.KID)
		if err != nil {
			return err
		}
		req.KID = kid
	}
	if !req.DryRun && !yes && a.interactive() {
		dry := req
		dry.DryRun = true
		out, err := cl.Revoke(ctx, a.conn.keyset, dry, "")
		if err != nil {
			return err
		}
		if err := a.writeChange(out); err != nil {
			return err
		}
		agreed, err := a.confirm("type yes to revoke", "yes")
		if err != nil {
			return err
		}
		if !agreed {
			a.note("nothing was changed")
			return errNo
		}
	}
	out, err := cl.Revoke(ctx, a.conn.keyset, req, key)
	if err != nil {
		return err
	}
	return a.writeChange(out)
}

// minPrefix is the shortest beginning of a kid that is taken for it.
const minPrefix = 6

// wholeKID completes the first characters of a kid.
func (a *app) wholeKID(ctx context.Context, cl *client.Client, prefix string) (string, error) {
	if len(prefix) < minPrefix {
		return "", fmt.Errorf("%q is too short: give at least the first %d characters of the kid", prefix, minPrefix)
	}
	k, err := cl.Keyset(ctx, a.conn.keyset)
	if err != nil {
		return "", err
	}
	var found []string
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

func (a *app) writeChange(c wire.Change) error {
	if a.wantsJSON() {
		return a.json(c)
	}
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
		fmt.Fprintf(a.out, "%s %s %s\n", r.Alg, r.KID, did("is revoked", "would be revoked"))
	}
	for _, p := range c.Promoted {
		fmt.Fprintf(a.out, "%s %s %s\n", p.Algorithm, p.To, did("signs now", "would sign"))
	}
	fmt.Fprintf(a.out, "everywhere by %s\n", relative(c.EverywhereBy, c.At))
	if !c.FlushAt.IsZero() {
		fmt.Fprintf(a.out, "verifiers that never expire a set fetch it again from %s on, about\n", relative(c.FlushAt, c.At))
	}
	for _, warning := range c.Warnings {
		a.note("note: %s", warning)
	}
	return nil
}

// requestTimeout bounds a command that only asks.
const requestTimeout = 15 * time.Second
