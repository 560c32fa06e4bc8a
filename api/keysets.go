package api

import (
	"net/http"
	"slices"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// list answers GET /v1/keysets with the keysets that the caller may read.
func (s *Server) list(c *call) error {
	readable := slices.ContainsFunc(c.caller.Grants, func(g Grant) bool { return slices.Contains(g.Actions, ActionRead) })
	if !readable {
		return errForbidden
	}
	now := s.opt.Now()
	out := wire.Keysets{Keysets: []wire.Keyset{}, Daemon: s.daemon(now)}
	names := s.opt.Keysets.Names()
	slices.Sort(names)
	for _, name := range names {
		if !c.caller.reads(name) {
			continue
		}
		if v, err := s.opt.Keysets.View(name); err == nil {
			out.Keysets = append(out.Keysets, s.describe(v, now))
		}
	}
	return c.answer(http.StatusOK, out)
}

func (s *Server) daemon(now time.Time) wire.Daemon {
	d := wire.Daemon{Version: s.opt.Version, Now: now, Alarms: []wire.Alarm{}}
	for _, a := range s.opt.Keysets.Alarms() {
		d.Alarms = append(d.Alarms, wire.Alarm(a))
	}
	if s.opt.Reload != nil {
		d.Config = s.opt.Reload()
	}
	return d
}

// keyset answers GET /v1/keysets/{keyset}.
func (s *Server) keyset(c *call) error {
	v, _, err := s.view(c, ActionRead)
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, s.describe(v, s.opt.Now()))
}

// describe turns a view into its answer.
func (s *Server) describe(v *rotator.View, now time.Time) wire.Keyset {
	st := v.State
	k := wire.Keyset{
		Keyset: st.Keyset, Issuer: st.Policy.Issuer, Generation: st.Generation, UpdatedAt: st.UpdatedAt,
		FreshAt: s.opt.Keysets.FreshAt(v), Stale: s.opt.Keysets.Fresh(v, now) != nil,
		Policy: st.Policy, Timing: st.Timing(),
		Lanes: []wire.Lane{}, Revoked: revoked(st.Tombstones),
	}
	byDefault, _ := st.Default(now)
	for _, l := range st.Lanes {
		lane := wire.Lane{
			Alg: l.Algorithm, Default: l.Algorithm == byDefault.Algorithm, Winding: st.Winding(l),
			Overdue: st.Overdue(l, now), Bound: st.Bound(l), Keys: []wire.Key{},
		}
		for _, key := range l.Keys {
			lane.Keys = append(lane.Keys, describeKey(v, l, key, now))
		}
		k.Lanes = append(k.Lanes, lane)
	}
	return k
}

func describeKey(v *rotator.View, l rotation.Lane, k rotation.Key, now time.Time) wire.Key {
	out := wire.Key{
		KID: k.KID, Alg: k.Algorithm, Phase: l.Phase(k, now),
		CreatedAt: k.CreatedAt, PublishedAt: k.PublishedAt, ReadyAt: k.ReadyAt, ActivateAt: k.ActivateAt,
		SignsUntil: k.SignsUntil, DestroyAt: k.DestroyAt, RemoveAt: k.RemoveAt,
		TokenTTLMax: k.TokenTTLMax, JWK: k.Public,
	}
	if until, ok := l.Until(k); ok {
		out.SignsUntil = until
	}
	if v.Unusable[k.KID] != nil {
		out.Problem = "the private half cannot be used on this replica; the log says why"
	}
	return out
}

func revoked(tombstones []rotation.Tombstone) []wire.Revoked {
	out := make([]wire.Revoked, 0, len(tombstones))
	for _, t := range tombstones {
		out = append(out, wire.Revoked{KID: t.KID, Alg: t.Algorithm, RevokedAt: t.RevokedAt, Reason: t.Reason, By: t.By})
	}
	return out
}

// signingKey answers GET /v1/keysets/{keyset}/signing-key, of the default lane
// or the one named by ?alg=.
func (s *Server) signingKey(c *call) error {
	v, _, err := s.view(c, ActionRead)
	if err != nil {
		return err
	}
	now := s.opt.Now()
	alg := c.r.URL.Query().Get("alg")
	if alg == "" {
		k, ok := v.State.Default(now)
		if !ok {
			return rotator.ErrNoLane
		}
		alg = k.Algorithm
	}
	l, _ := v.State.Lane(alg)
	active, ok := l.Active(now)
	if !ok {
		return rotator.ErrNoLane
	}
	out := wire.SigningKey{KID: active.KID, Alg: alg, JWK: active.Public}
	out.SignsUntil, _ = l.Until(active)
	if next, ok := l.Standby(now); ok {
		out.Next = &wire.NextKey{KID: next.KID, JWK: next.Public, ReadyAt: next.ReadyAt, ActivateAt: next.ActivateAt}
	}
	return c.answer(http.StatusOK, out)
}

// defaultHorizon is how far a plan looks where the request does not say.
const defaultHorizon = rotation.Duration(90 * 24 * time.Hour)

// maxHorizon bounds the work of one plan.
const maxHorizon = rotation.Duration(5 * 366 * 24 * time.Hour)

// plan answers GET /v1/keysets/{keyset}/plan, until ?horizon= (a duration) from
// now.
func (s *Server) plan(c *call) error {
	v, _, err := s.view(c, ActionRead)
	if err != nil {
		return err
	}
	horizon := defaultHorizon
	if text := c.r.URL.Query().Get("horizon"); text != "" {
		if horizon, err = rotation.ParseDuration(text); err != nil || horizon <= 0 || horizon > maxHorizon {
			return badRequest("invalid_horizon", "horizon %.40q is not a duration of up to five years, such as 90d", text)
		}
	}
	now := s.opt.Now()
	until := now.Add(horizon.Std())
	spans := v.State.Forecast(now, until)
	return c.answer(http.StatusOK, wire.Plan{
		Keyset: c.keyset, Now: now, Horizon: until, Keys: spans, Events: rotation.Events(spans, now, until),
	})
}
