package api

import (
	"net/http"
	"slices"
	"strings"
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
	now := s.now()
	out := wire.Keysets{Keysets: []wire.Keyset{}, Daemon: s.daemon(c.caller, now)}
	s.replicas(c, &out.Daemon)
	names := s.opt.Keysets.Names()
	slices.Sort(names)
	configured := s.configured()
	for _, name := range names {
		if !c.caller.reads(name) {
			continue
		}
		if v, err := s.opt.Keysets.View(name); err == nil {
			out.Keysets = append(out.Keysets, s.describe(v, configured, now))
		}
	}
	return c.answer(http.StatusOK, out)
}

// daemon tells how this replica is doing. Alarms and the errors of a reload can
// name the store and other people's keysets, so a caller who may not read
// everything gets only what concerns their own, and hears that there is more.
func (s *Server) daemon(c *Caller, now time.Time) wire.Daemon {
	d := wire.Daemon{Version: s.opt.Version, Now: now, Alarms: []wire.Alarm{}}
	all := c.reads("*")
	for _, a := range s.opt.Keysets.Alarms() {
		_, about, narrow := strings.Cut(a.Name, ":")
		switch {
		case all || narrow && s.readsAbout(c, about):
		case narrow:
			continue
		default:
			a.Message = "an operator who may read every keyset can see the details"
		}
		a.Since = a.Since.UTC()
		d.Alarms = append(d.Alarms, wire.Alarm{Name: a.Name, Message: a.Message, Since: a.Since})
	}
	if s.opt.Reload == nil {
		return d
	}
	if latest := s.opt.Reload(); latest != nil {
		told := *latest
		if told.At = told.At.UTC(); !all {
			told.Error = ""
		}
		d.Config = &told
	}
	return d
}

// readsAbout tells whether a keyset of that name, or the one that has a key of
// that kid, is the caller's to read.
func (s *Server) readsAbout(c *Caller, about string) bool {
	if c.reads(about) {
		return true
	}
	for _, name := range s.opt.Keysets.Names() {
		if v, err := s.opt.Keysets.View(name); err == nil && c.reads(name) {
			if _, named := v.State.Key(about); named {
				return true
			}
		}
	}
	return false
}

// keyset answers GET /v1/keysets/{keyset}.
func (s *Server) keyset(c *call) error {
	v, err := s.view(c, ActionRead)
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, s.describe(v, s.configured(), s.now()))
}

// describe turns a view into its answer.
func (s *Server) describe(v *rotator.View, configured map[string]rotation.Policy, now time.Time) wire.Keyset {
	st := v.State
	k := wire.Keyset{
		Keyset: st.Keyset, Issuer: st.Policy.Issuer, Generation: st.Generation, UpdatedAt: st.UpdatedAt,
		FreshAt: s.opt.Keysets.FreshAt(v), Stale: s.opt.Keysets.Fresh(v, now) != nil,
		Policy: st.Policy, Timing: st.Timing(),
		Lanes: []wire.Lane{}, Revoked: revoked(st.Tombstones),
		Deleted: st.Closed, Drift: drift(st, configured),
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

func (s *Server) configured() map[string]rotation.Policy {
	if s.opt.Configured == nil {
		return nil
	}
	return s.opt.Configured()
}

// drift lists where this replica's configuration differs from the policy in
// force. A configuration without a revision agrees with any.
func drift(st rotation.State, configured map[string]rotation.Policy) []rotation.FieldChange {
	p, ok := configured[st.Keyset]
	if !ok {
		return nil
	}
	if p.Revision == 0 {
		p.Revision = st.Policy.Revision
	}
	return rotation.Diff(st.Policy, p)
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
	v, err := s.view(c, ActionRead)
	if err != nil {
		return err
	}
	// An issuer builds headers with this key, so a state that is too old to sign
	// under is too old to name it.
	now := s.now()
	if v.State.Closed != nil {
		return rotation.ErrClosed
	}
	if err := s.opt.Keysets.Fresh(v, now); err != nil {
		return err
	}
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
	v, err := s.view(c, ActionRead)
	if err != nil {
		return err
	}
	horizon := defaultHorizon
	if text := c.r.URL.Query().Get("horizon"); text != "" {
		if horizon, err = rotation.ParseDuration(text); err != nil || horizon <= 0 || horizon > maxHorizon {
			return badRequest("invalid_horizon", "horizon %.40q is not a duration of up to five years, such as 90d", text)
		}
	}
	now := s.now()
	until := now.Add(horizon.Std())
	spans := v.State.Forecast(now, until)
	return c.answer(http.StatusOK, wire.Plan{
		Keyset: c.keyset, Now: now, Horizon: until, Keys: spans, Events: rotation.Events(spans, now, until),
	})
}
