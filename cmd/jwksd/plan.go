package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/internal/timeline"
	"github.com/jwksd/jwksd/rotation"
)

func (a *app) planCommand() *cobra.Command {
	var horizon durationFlag
	var path string
	var ascii bool
	c := &cobra.Command{
		Use:     "plan",
		GroupID: "watch",
		Short:   "Show what will happen when, as a picture",
		Long: `Show what will happen to the keys of a keyset if nobody intervenes: a row a
key, time from left to right. It asks a running daemon; with --config it shows
how a new keyset of that configuration would begin.`,
		Example: "  jwksd plan\n  jwksd plan --horizon 180d\n  jwksd plan --config jwksd.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.plan(c, path, rotation.Duration(horizon))
			if err != nil {
				return err
			}
			if a.wantsJSON() {
				return a.json(p)
			}
			return a.writePlan(p, ascii)
		},
	}
	a.conn.flags(c)
	durationVar(c, &horizon, "horizon", "how far to look, such as 90d (default: three rotations)")
	c.Flags().StringVarP(&path, "config", "c", "", "configuration `FILE` to plan for, without a daemon")
	c.Flags().BoolVar(&ascii, "ascii", false, "draw with ASCII characters only")
	return c
}

// plan asks the daemon, or the configuration if there is a path.
func (a *app) plan(c *cobra.Command, path string, horizon rotation.Duration) (wire.Plan, error) {
	if path != "" {
		return a.imagine(c, path, horizon)
	}
	cl, err := a.conn.client()
	if err != nil {
		return wire.Plan{}, err
	}
	if horizon == 0 {
		k, err := cl.Keyset(c.Context(), a.conn.keyset)
		if err != nil {
			return wire.Plan{}, err
		}
		horizon = fewRotations(k.Timing)
	}
	return cl.Plan(c.Context(), a.conn.keyset, horizon.String())
}

// fewRotations is long enough for three rotations and the last retirement.
func fewRotations(t rotation.Timing) rotation.Duration {
	return min(3*t.Period+t.Retention, rotation.Duration(5*365*24*time.Hour))
}

// imagine plays the life of a keyset that is founded now.
func (a *app) imagine(c *cobra.Command, path string, horizon rotation.Duration) (wire.Plan, error) {
	conf, err := loadConfig(c, path, "")
	if err != nil {
		return wire.Plan{}, err
	}
	for _, k := range conf.Keysets {
		if k.Name != a.conn.keyset {
			continue
		}
		now := time.Now()
		var fresh []rotation.NewKey
		for i, alg := range k.Policy.Algorithms {
			for j := range 2 {
				fresh = append(fresh, rotation.NewKey{KID: fmt.Sprintf("future-%d", 2*i+j+1), Algorithm: alg, Public: json.RawMessage("{}")})
			}
		}
		s, err := rotation.Found(k.Name, k.Policy, now, fresh, rotation.Operation{ID: "plan"})
		if err != nil {
			return wire.Plan{}, err
		}
		if horizon == 0 {
			horizon = fewRotations(s.Timing())
		}
		until := now.Add(horizon.Std())
		spans := s.Forecast(now, until)
		return wire.Plan{Keyset: k.Name, Now: now, Horizon: until, Keys: spans, Events: rotation.Events(spans, now, until)}, nil
	}
	return wire.Plan{}, fmt.Errorf("%s has no keyset %q", path, a.conn.keyset)
}

func (a *app) writePlan(p wire.Plan, ascii bool) error {
	for i := range p.Keys {
		p.Keys[i].KID, p.Keys[i].Algorithm = clean(p.Keys[i].KID), clean(p.Keys[i].Algorithm)
	}
	fmt.Fprintf(a.out, "keyset %s\n\n", clean(p.Keyset))
	err := timeline.Render(a.out, p.Keys, timeline.Options{
		Now: p.Now, From: p.Now, Until: p.Horizon,
		Width: a.width(), Color: a.colour(), ASCII: ascii, Location: time.UTC,
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	return timeline.RenderEvents(a.out, p.Keys, timeline.Options{Now: p.Now, From: p.Now, Until: p.Horizon, Location: time.UTC})
}
