package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// rotate answers POST /v1/keysets/{keyset}/rotate.
func (s *Server) rotate(c *call) error {
	v, err := s.view(c, ActionRotate)
	if err != nil {
		return err
	}
	var req wire.RotateRequest
	op, err := c.operation("rotate", &req, &req.Wait)
	if err != nil {
		return err
	}
	op.Reason = req.Reason
	if err := errors.Join(checkReason(req.Reason), checkWait(req.Wait)); err != nil {
		return err
	}
	var algs []string
	if req.Alg != "" {
		algs = []string{req.Alg}
	}
	done, replayed, err := s.change(c, op,
		func(st rotation.State, now time.Time, _ []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
			if st.Closed != nil {
				return rotation.State{}, rotation.ErrClosed
			}
			next, _, err := st.Promote(algs, req.Force, now, op)
			return next, err
		})
	if err != nil {
		return err
	}
	out := s.changed(c.keyset, done, replayed, v.State.Policy)
	if err := json.Unmarshal(done.Result, &out.Promoted); err != nil {
		return fmt.Errorf("reading the result of operation %s: %w", done.ID, err)
	}
	out.Warnings = leadWarnings(out.Promoted, v.State)
	s.log.Info("rotated", "keyset", c.keyset, "by", c.caller.Name, "reason", req.Reason, "force", req.Force, "promoted", out.Promoted, "replayed", replayed)
	s.confirm(c, &out, req.Wait)
	return c.answer(http.StatusOK, out)
}

// revoke answers POST /v1/keysets/{keyset}/revoke.
func (s *Server) revoke(c *call) error {
	var req wire.RevokeRequest
	if err := s.may(c, ActionRevoke); err != nil {
		return err
	}
	op, err := c.operation("revoke", &req, &req.Wait)
	if err != nil {
		return err
	}
	action := ActionRevoke
	if req.All {
		action = ActionRevokeAll
	}
	v, err := s.view(c, action)
	if err != nil {
		return err
	}
	if err := checkRevoke(req); err != nil {
		return err
	}
	op.Reason = req.Reason
	if req.DryRun {
		return s.dryRevoke(c, v.State, req, op)
	}
	done, replayed, err := s.change(c, op,
		func(st rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
			next, _, err := revokeIn(st, req, now, fresh, op)
			return next, err
		})
	if err != nil {
		return err
	}
	var result rotation.Revocation
	if err := json.Unmarshal(done.Result, &result); err != nil {
		return fmt.Errorf("reading the result of operation %s: %w", done.ID, err)
	}
	var kids []string
	for _, t := range result.Revoked {
		kids = append(kids, t.KID)
	}
	s.log.Warn("revoked", "keyset", c.keyset, "by", c.caller.Name, "kids", kids, "all", req.All, "reason", req.Reason, "replayed", replayed)
	out := s.revocation(c.keyset, done, replayed, v.State, result)
	s.confirm(c, &out, req.Wait)
	return c.answer(http.StatusOK, out)
}

func revokeIn(st rotation.State, req wire.RevokeRequest, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, rotation.Revocation, error) {
	if req.All {
		return st.RevokeAll(now, fresh, op)
	}
	return st.Revoke(req.KID, now, fresh, op)
}

// dryRevoke answers what a revocation would do, with keys that do not exist.
func (s *Server) dryRevoke(c *call, st rotation.State, req wire.RevokeRequest, op rotation.Operation) error {
	now := s.now()
	next, result, err := revokeIn(st, req, now, nil, op)
	var need *rotation.NeedKeysError
	if errors.As(err, &need) {
		var fresh []rotation.NewKey
		for i, alg := range need.Algorithms {
			fresh = append(fresh, rotation.NewKey{KID: fmt.Sprintf("(new key %d)", i+1), Algorithm: alg, Public: json.RawMessage("{}")})
		}
		next, result, err = revokeIn(st, req, now, fresh, op)
	}
	if err != nil {
		return err
	}
	done := rotation.Operation{At: now, Generation: next.Generation}
	out := s.revocation(c.keyset, done, false, st, result)
	out.DryRun = true
	return c.answer(http.StatusOK, out)
}

// revocation builds the answer of a revocation.
func (s *Server) revocation(keyset string, done rotation.Operation, replayed bool, before rotation.State, r rotation.Revocation) wire.Change {
	out := s.changed(keyset, done, replayed, before.Policy)
	out.Revoked, out.Promoted = revoked(r.Revoked), r.Promoted
	out.TrustedUntil, out.FlushAt = r.TrustedUntil, r.FlushAt
	out.Warnings = append(leadWarnings(r.Promoted, before),
		fmt.Sprintf("verifiers may accept tokens of the revoked key until %s, when their caches have turned over", stampText(r.TrustedUntil)))
	return out
}

func (s *Server) changed(keyset string, done rotation.Operation, replayed bool, p rotation.Policy) wire.Change {
	out := wire.Change{
		Keyset: keyset, Generation: done.Generation, Operation: done.ID, At: done.At, Replayed: replayed,
		EverywhereBy: done.At, // this replica acts on it already
	}
	if s.opt.Shared {
		out.EverywhereBy = done.At.Add(p.MaxStaleness.Std())
	}
	return out
}

// leadWarnings says what a key that signs without its full lead means.
func leadWarnings(promoted []rotation.Promotion, st rotation.State) []string {
	var out []string
	for _, p := range promoted {
		if !p.FullLead {
			out = append(out, fmt.Sprintf("key %s signs before every verifier can know it: those with a cached set may reject its tokens for up to %s", p.To, st.Timing().Exposure))
		}
	}
	return out
}

func stampText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// maxReason bounds what is kept in the state document for ever.
const maxReason = 500

func checkReason(reason string) error {
	if len(reason) > maxReason {
		return &failure{status: http.StatusBadRequest, code: "invalid_reason", detail: fmt.Sprintf("the reason is over %d bytes", maxReason), field: "reason"}
	}
	if !printable(reason) {
		return &failure{status: http.StatusBadRequest, code: "invalid_reason", detail: "the reason has a control character, or another that does not show", hint: "write it in one line of plain text", field: "reason"}
	}
	return nil
}

// printable tells whether all of the text shows where it is read later, in a
// terminal say: no control characters, nothing that turns the direction of
// writing, no spaces but the ordinary one.
func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

func checkRevoke(req wire.RevokeRequest) error {
	switch {
	case req.All == (req.KID != ""):
		return &failure{status: http.StatusBadRequest, code: "invalid_revoke", detail: `give either "kid" or "all": true`, field: "kid"}
	case strings.TrimSpace(req.Reason) == "":
		return &failure{status: http.StatusBadRequest, code: "reason_required", detail: "a revocation needs a reason; it stays in the record", field: "reason"}
	}
	return errors.Join(checkReason(req.Reason), checkWait(req.Wait))
}

// change asks the rotator for a change. What neither the change itself nor the
// rotator refused is the store's doing, or the custody's.
func (s *Server) change(c *call, op rotation.Operation, fn rotator.ChangeFunc) (rotation.Operation, bool, error) {
	var refused error
	done, replayed, err := s.opt.Keysets.Change(c.r.Context(), c.keyset, op,
		func(st rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (next rotation.State, err error) {
			next, refused = fn(st, now, fresh, op)
			return next, refused
		})
	if err != nil && !errors.Is(err, refused) {
		err = &storeError{err}
	}
	return done, replayed, err
}

// operation reads a change request strictly and names the operation after its
// Idempotency-Key. An empty body stands for {}. How long to wait is no part of
// what is asked for.
func (c *call) operation(kind string, req any, wait *rotation.Duration) (rotation.Operation, error) {
	op := rotation.Operation{Kind: kind, By: c.caller.Name}
	body := []byte("{}")
	if c.r.ContentLength != 0 {
		var err error
		if body, err = c.body(); err != nil {
			return op, err
		}
	}
	if err := decode(body, req); err != nil {
		return op, err
	}
	key := c.r.Header.Get("Idempotency-Key")
	switch {
	case len(c.r.Header["Idempotency-Key"]) > 1:
		return op, badRequest("duplicate_header", "the request has more than one Idempotency-Key header")
	case len(key) > 255:
		return op, badRequest("invalid_idempotency_key", "the Idempotency-Key is over 255 bytes")
	case !printable(key):
		return op, badRequest("invalid_idempotency_key", "the Idempotency-Key has a character that does not show")
	}
	if key != "" {
		op.Key = digest(key)
		held := *wait
		*wait = 0
		canonical, err := json.Marshal(req)
		*wait = held
		if err != nil {
			return op, err
		}
		op.Request = digest(string(canonical))
	}
	return op, nil
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
