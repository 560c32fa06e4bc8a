package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// errDryRun keeps a change from being written after everything else was done,
// so that a dry run meets the same store and the same refusals.
var errDryRun = errors.New("dry run")

// apply answers PUT /v1/keysets/{keyset}: it puts a policy in force, and founds
// the keyset if there is none.
func (s *Server) apply(c *call) error {
	if err := s.may(c, ActionApply); err != nil {
		return err
	}
	if !jwks.ValidKeyset(c.keyset) {
		return badRequest("invalid_keyset_name", "a keyset's name has 1 to 63 of a-z, 0-9, dot, underscore and hyphen, and begins with a letter or a digit")
	}
	req, err := c.block()
	if err != nil {
		return err
	}
	p, err := s.policy(req, s.now())
	if err != nil {
		return err
	}
	out, err := s.setPolicy(c, p, req.DryRun)
	if errors.Is(err, rotator.ErrNoKeyset) {
		out, err = s.found(c, p, req.DryRun)
	}
	if err != nil {
		return err
	}
	if out.DryRun = req.DryRun; !out.DryRun && len(out.Diff) > 0 {
		s.log.Info("policy in force", "keyset", c.keyset, "by", c.caller.Name, "generation", out.Generation, "created", out.Created, "fields", changedFields(out.Diff))
	}
	return c.answer(http.StatusOK, out)
}

// setPolicy changes the policy of a keyset that exists.
func (s *Server) setPolicy(c *call, p rotation.Policy, dry bool) (wire.Applied, error) {
	var before, after rotation.State
	op := rotation.Operation{Kind: "policy", By: c.caller.Name}
	err := s.changeKnown(c, op, func(st rotation.State, now time.Time, _ []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		next, err := st.SetPolicy(p, now, op)
		before, after = st, next
		if err == nil && dry {
			err = errDryRun
		}
		return next, err
	})
	now := s.now()
	switch {
	case errors.Is(err, rotation.ErrNothingDue):
		return applied(before, rotation.Timing{}, []rotation.FieldChange{}, now), nil
	case err != nil && !errors.Is(err, errDryRun):
		return wire.Applied{}, err
	}
	out := applied(after, before.Timing(), rotation.Diff(before.Policy, after.Policy), now)
	out.At = after.UpdatedAt
	out.Warnings = consequences(before.Policy, after.Policy)
	return out, nil
}

// changeKnown makes a change, also in a keyset that another replica founded
// just now.
func (s *Server) changeKnown(c *call, op rotation.Operation, fn rotator.ChangeFunc) error {
	_, _, err := s.change(c, op, fn)
	if !errors.Is(err, rotator.ErrNoKeyset) {
		return err
	}
	known, unread := s.opt.Keysets.Known(c.r.Context(), c.keyset)
	switch {
	case unread != nil:
		return &storeError{unread}
	case !known:
		return err
	}
	_, _, err = s.change(c, op, fn)
	return err
}

// found makes a keyset that does not exist.
func (s *Server) found(c *call, p rotation.Policy, dry bool) (wire.Applied, error) {
	now := s.now()
	var st rotation.State
	if dry {
		var err error
		if st, err = imagined(c.keyset, p, now); err != nil {
			return wire.Applied{}, err
		}
	} else {
		wrote, err := s.opt.Keysets.Ensure(c.r.Context(), c.keyset, p, c.caller.Name)
		if err != nil {
			return wire.Applied{}, &storeError{err}
		}
		v, err := s.opt.Keysets.View(c.keyset)
		if err != nil {
			return wire.Applied{}, err
		}
		now = s.now()
		if st = v.State; !wrote || st.Operations[0].By != c.caller.Name {
			return s.setPolicy(c, p, false) // somebody else was first
		}
	}
	first := st.Operations[0]
	out := applied(st, rotation.Timing{}, diffOfNew(st.Policy), now)
	out.Created, out.Generation, out.At = true, first.Generation, first.At
	return out, nil
}

func changedFields(diff []rotation.FieldChange) []string {
	var names []string
	for _, f := range diff {
		names = append(names, f.Field)
	}
	return names
}

// imagined is the keyset as it would be founded, with keys that do not exist.
func imagined(keyset string, p rotation.Policy, now time.Time) (rotation.State, error) {
	var fresh []rotation.NewKey
	for _, alg := range p.Algorithms {
		for range 2 {
			fresh = append(fresh, rotation.NewKey{KID: fmt.Sprintf("future-%d", len(fresh)+1), Algorithm: alg, Public: json.RawMessage("{}")})
		}
	}
	return rotation.Found(keyset, p, now, fresh, rotation.Operation{Kind: "found"})
}

// diffOfNew lists every field that a new keyset's policy sets.
func diffOfNew(p rotation.Policy) []rotation.FieldChange {
	diff := rotation.Diff(rotation.Policy{}, p)
	for i := range diff {
		diff[i].From = "-"
	}
	return diff
}

// applied builds the answer of a PUT from the state that came of it and the
// timing before.
func applied(st rotation.State, before rotation.Timing, diff []rotation.FieldChange, now time.Time) wire.Applied {
	t := st.Timing()
	lead, hold := max(t.Lead, before.Lead), max(t.Retention, before.Retention)
	// A new lane earns its lead, perhaps once a longer one has run out; then
	// the old ones end and leave.
	settled := now.Add((2*lead + hold + st.Policy.HandoverGrace).Std() + time.Minute)
	return wire.Applied{
		Keyset: st.Keyset, Generation: st.Generation, Diff: diff, Timing: t,
		Events: someEvents(st.Forecast(now, settled), now, settled),
	}
}

// maxEvents bounds the events in the answer of a change.
const maxEvents = 200

// someEvents lists what happens to keys, but not the turns that come after their
// key's end.
func someEvents(spans []rotation.Span, now, until time.Time) []rotation.Event {
	spans = slices.Clone(spans)
	for i := range spans {
		if sp := &spans[i]; !sp.RetireAt.IsZero() && !sp.ActivateAt.Before(sp.RetireAt) {
			sp.ActivateAt = time.Time{}
		}
	}
	events := rotation.Events(spans, now, until)
	return append([]rotation.Event{}, events[:min(len(events), maxEvents)]...)
}

// delete answers DELETE /v1/keysets/{keyset}: every promise is kept, then the
// keyset is gone, and its name is not used again.
func (s *Server) delete(c *call) error {
	if err := s.may(c, ActionDelete); err != nil {
		return err
	}
	req, err := c.deletion()
	if err != nil {
		return err
	}
	var after rotation.State
	op := rotation.Operation{Kind: "delete", By: c.caller.Name, Reason: req.Reason}
	err = s.changeKnown(c, op, func(st rotation.State, now time.Time, _ []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		next, err := st.Close(now, op)
		switch {
		case err != nil:
			after = st
		case req.DryRun:
			after, err = next, errDryRun
		default:
			after = next
		}
		return next, err
	})
	switch {
	case errors.Is(err, rotation.ErrClosed), errors.Is(err, errDryRun):
	case err != nil:
		return err
	default:
		s.log.Warn("keyset deleted", "keyset", c.keyset, "by", c.caller.Name, "reason", req.Reason)
	}
	out := deleted(after, s.now())
	out.DryRun = req.DryRun
	return c.answer(http.StatusOK, out)
}

// farthest is further than any promise reaches.
const farthest = 50 * 365 * 24 * time.Hour

// deleted builds the answer of a DELETE from the closed state.
func deleted(st rotation.State, now time.Time) wire.Deleted {
	until := now.Add(farthest)
	spans := st.Forecast(now, until)
	out := wire.Deleted{Keyset: st.Keyset, Generation: st.Generation, At: st.Closed.At, Events: someEvents(spans, now, until)}
	for _, sp := range spans {
		if sp.RemoveAt.After(out.PublishedUntil) {
			out.PublishedUntil = sp.RemoveAt
		}
	}
	out.Warnings = []string{"nobody gets a token from this keyset any more, and its name is never used again"}
	if !out.PublishedUntil.IsZero() {
		out.Warnings = append(out.Warnings, fmt.Sprintf("its set stays published until %s, when its last token has expired; then it is gone", stampText(out.PublishedUntil)))
	}
	return out
}

// deletionRequest is the optional body of DELETE, or its query.
type deletionRequest struct {
	Reason string `json:"reason"`
	DryRun bool   `json:"dry_run"`
}

// deletion reads what is asked for from the body or the query. The body of a
// DELETE can get lost in a proxy, and a dry run with it, so careful callers use
// the query.
func (c *call) deletion() (req deletionRequest, err error) {
	switch {
	case c.r.ContentLength == 0:
		req, err = deletionQuery(c.r.URL.RawQuery)
	case c.r.URL.RawQuery != "":
		err = badRequest("invalid_body", "give either a body or a query")
	default:
		var body []byte
		if body, err = c.body(); err == nil {
			err = decode(body, &req)
		}
	}
	if err == nil {
		err = checkReason(req.Reason)
	}
	return req, err
}

// deletionQuery is as strict as a body: a misspelt dry_run must not delete.
func deletionQuery(raw string) (req deletionRequest, err error) {
	bad := badRequest("invalid_query", "the query may have reason=TEXT and dry_run=true or false, each once")
	query, err := url.ParseQuery(raw)
	if err != nil {
		return req, bad
	}
	for name, values := range query {
		switch {
		case len(values) != 1:
			return req, bad
		case name == "reason" && utf8.ValidString(values[0]):
			req.Reason = values[0]
		case name == "dry_run" && slices.Contains([]string{"true", "false"}, values[0]):
			req.DryRun = values[0] == "true"
		default:
			return req, bad
		}
	}
	return req, nil
}
