package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
	"github.com/jwksd/jwksd/signer"
)

// failure is an error with its answer.
type failure struct {
	status     int
	code       string
	detail     string
	hint       string
	field      string
	earliest   time.Time
	retryAfter time.Duration
	allow      string // for 405
}

func (f *failure) Error() string { return f.code + ": " + f.detail }

func badRequest(code, format string, args ...any) *failure {
	return &failure{status: http.StatusBadRequest, code: code, detail: fmt.Sprintf(format, args...)}
}

var (
	errForbidden = &failure{status: http.StatusForbidden, code: "forbidden", detail: "no grant of this caller allows this"}
	errUnknown   = &failure{status: http.StatusNotFound, code: "unknown_keyset", detail: "there is no such keyset", hint: "jwksd status lists the keysets"}
)

// sentinels maps errors of the inner packages to answers. The detail is the
// error's own text where it is empty; it is given where that text could name
// what the store is and where, or repeat a long request.
func sentinels() []struct {
	err error
	failure
} {
	type row = struct {
		err error
		failure
	}
	return []row{
		{rotator.ErrReadOnly, failure{status: 409, code: "read_only_replica", hint: "ask a replica of the role signer"}},
		{rotation.ErrClosed, failure{status: 409, code: "keyset_deleted", detail: rotation.ErrClosed.Error(), hint: "choose another name"}},
		{rotation.ErrOlderRevision, failure{status: 409, code: "older_revision", hint: "take the newer file, or raise the revision above the one in force", field: "revision"}},
		{ErrUnauthenticated, failure{status: 401, code: "unauthenticated", detail: "no valid credentials", hint: "send Authorization: Bearer TOKEN"}},
		{rotator.ErrNoKeyset, *errUnknown},
		{rotator.ErrDocument, failure{status: 503, code: "keyset_unusable", detail: rotator.ErrDocument.Error(), hint: "jwksd status and the log say why", retryAfter: 5 * time.Second}},
		{rotator.ErrStale, failure{status: 503, code: "stale", hint: "the store has been out of reach for longer than max_staleness; look at the daemon's log", retryAfter: 5 * time.Second}},
		{rotator.ErrFrozen, failure{status: 503, code: "frozen", retryAfter: 5 * time.Second}},
		{rotator.ErrUnconfirmed, failure{status: 503, code: "unconfirmed", detail: rotator.ErrUnconfirmed.Error(), hint: "the change may have been written; look at the status, or repeat the request with the same Idempotency-Key", retryAfter: time.Second}},
		// Behind ErrUnconfirmed: a write before this one may have arrived.
		{keystore.ErrNotWritten, failure{status: 503, code: "not_written", detail: "the key store takes no writes now, as when it is full; nothing was changed", hint: "free space on the store, or make it writable again; the daemon's log says more; signing and publishing go on"}},
		{rotator.ErrKeyReused, failure{status: 422, code: "idempotency_key_reused", hint: "choose a new Idempotency-Key for a new request"}},
		{rotator.ErrNoLane, failure{status: 400, code: "no_active_key", hint: "ask without alg, or for one of the algorithms in the keyset's status", field: "alg"}},
		{rotator.ErrUnusable, failure{status: 503, code: "key_unusable", hint: "revoke the key so that its standby takes over", retryAfter: 5 * time.Second}},
		{rotation.ErrNoLane, failure{status: 400, code: "unknown_lane", hint: "the algorithms are in the keyset's status", detail: rotation.ErrNoLane.Error(), field: "alg"}},
		{rotation.ErrUnknownKey, failure{status: 404, code: "unknown_kid", detail: rotation.ErrUnknownKey.Error(), hint: "jwksd status lists the keys", field: "kid"}},
		{rotation.ErrAlreadyRevoked, failure{status: 409, code: "already_revoked", detail: rotation.ErrAlreadyRevoked.Error(), field: "kid"}},
		{keystore.ErrConflict, failure{status: 409, code: "conflict", detail: "other changes kept coming first", hint: "try again", retryAfter: time.Second}},
		{context.DeadlineExceeded, failure{status: 503, code: "timeout", detail: "this took too long", retryAfter: time.Second}},
	}
}

// explain turns any error into an answer. What it does not know becomes a 500
// whose text stays in the log.
func explain(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var input *signer.InputError
	if errors.As(err, &input) {
		status := http.StatusBadRequest
		if input.Forbidden {
			status = http.StatusForbidden
		}
		return &failure{status: status, code: input.Code, detail: input.Detail, field: input.Field}
	}
	var early *rotation.NotReadyError
	if errors.As(err, &early) {
		return &failure{status: http.StatusConflict, code: "lead_not_reached", detail: early.Error(), earliest: early.Earliest}
	}
	var full *rotation.SetFullError
	if errors.As(err, &full) {
		return &failure{status: http.StatusConflict, code: "set_full", detail: full.Error(), earliest: full.Earliest}
	}
	for _, row := range sentinels() {
		if errors.Is(err, row.err) {
			f := row.failure
			if f.detail == "" {
				f.detail = err.Error()
			}
			return &f
		}
	}
	var store *storeError
	if errors.As(err, &store) {
		return errStore
	}
	var custody *custodyError
	if errors.As(err, &custody) {
		return errCustody
	}
	return errInternal
}

// storeError is a change that did not come about because the place of documents
// or private keys did not do its part. Its text is for the log only.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

var errStore = &failure{status: http.StatusServiceUnavailable, code: "store_unavailable", detail: "the key store cannot be used now; nothing was changed", hint: "the daemon's log and its alarms say why; signing and publishing go on", retryAfter: 5 * time.Second}

// write answers with the failure.
func (f *failure) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="jwksd"`)
	}
	if f.allow != "" {
		h.Set("Allow", f.allow)
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(max(1, f.retryAfter/time.Second))))
	}
	body, err := json.Marshal(wire.Problem{
		Type: "about:blank", Title: http.StatusText(f.status), Status: f.status,
		Code: f.code, Detail: f.detail, Hint: f.hint, Field: f.field, Earliest: f.earliest,
	})
	if err != nil {
		panic("api: a problem that is no JSON: " + err.Error()) // our own type always is
	}
	w.WriteHeader(f.status)
	w.Write(append(body, '\n'))
}
