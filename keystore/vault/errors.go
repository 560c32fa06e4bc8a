package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// What is wrong, for errors.Is. What does not exist is keystore.ErrNotFound,
// and a check-and-set that did not match is keystore.ErrConflict.
var (
	// ErrUnreachable: no answer came, or none of Vault's. A write may have been
	// applied.
	ErrUnreachable = errors.New("no answer from Vault")
	// ErrSealed: the node is sealed or not initialised.
	ErrSealed = errors.New("sealed Vault")
	// ErrStandby: the node is a standby that cannot reach an active one.
	ErrStandby = errors.New("no active node of Vault")
	// ErrThrottled: a rate limit of Vault, or its overload protection.
	ErrThrottled = errors.New("throttled by Vault")
	// ErrForbidden: the token is not valid or its policies do not allow it.
	ErrForbidden = errors.New("forbidden by Vault")
	// ErrLogin: the login was refused, or a credential is missing.
	ErrLogin = errors.New("cannot log in to Vault")
	// ErrMount: no secrets engine is mounted there, or one of another type.
	ErrMount = errors.New("wrong mount")
	// ErrKVv1: the mount is a KV engine of version 1, which has no
	// check-and-set.
	ErrKVv1 = errors.New("KV version 1")
	// ErrFailed: Vault failed, or refused for another reason. A write may have
	// been applied if the status is 500 or above.
	ErrFailed = errors.New("refused by Vault")
)

// Details that only this package must tell apart.
var (
	errBadToken = errors.New("the token is not valid")
	errNotSent  = errors.New("not connected")
)

// Error is what Vault answered, or that it did not. It wraps one of the errors
// above. Its text is one line.
type Error struct {
	Status  int      // of HTTP; 0 without an answer
	Reasons []string // Vault's own words
	kinds   []error
	text    string
}

func (e *Error) Error() string   { return e.text }
func (e *Error) Unwrap() []error { return e.kinds }

// classify tells what an answer of 400 or above means.
//
// https://developer.hashicorp.com/vault/api-docs#http-status-codes
func classify(path string, status int, body []byte) error {
	e := &Error{Status: status, Reasons: reasons(body)}
	said := strings.Join(e.Reasons, "; ")
	set := func(text string, kinds ...error) error {
		e.kinds, e.text = kinds, fmt.Sprintf(text, path)
		return e
	}
	switch {
	case status == 400 && slices.ContainsFunc(e.Reasons, isConflict):
		return set("%s: "+keystore.ErrConflict.Error(), keystore.ErrConflict)
	case status == 403 && strings.Contains(said, "invalid token"):
		return set("%s: Vault does not know our token any more (revoked or expired), and logging in again did not help: check the auth settings and the token's life", ErrForbidden, errBadToken)
	case status == 403:
		return set("%s: permission denied: attach the policy of this role in deploy/vault to the login, and check mount and path", ErrForbidden)
	case status == 404 && strings.Contains(said, "no handler for route"):
		return set("%s: no secrets engine is mounted there: correct the mount, or enable one (vault secrets enable)", ErrMount)
	case status == 404:
		return set("%s: "+keystore.ErrNotFound.Error(), keystore.ErrNotFound)
	case status == 405 || strings.Contains(said, "unsupported operation") || strings.Contains(said, "unsupported path"):
		return set("%s: the secrets engine mounted there does not know this path: correct the mount", ErrMount)
	case status == 429, status == http.StatusServiceUnavailable && strings.Contains(said, "overloaded"):
		return set("%s: Vault throttles us: raise its rate limit quota for this path", ErrThrottled)
	case status == 472, status == 473, status == 412, strings.Contains(said, "active cluster node not found"), strings.Contains(said, "is in standby mode"):
		return set("%s: this Vault node is a standby without an active one: check the other nodes (vault operator raft list-peers)", ErrStandby)
	case strings.Contains(said, "to versioned data"):
		return set("%s: the KV engine is being prepared, which passes by itself", ErrStandby)
	case strings.Contains(said, "not initialized"):
		return set("%s: Vault is not initialised: run vault operator init, then unseal it", ErrSealed)
	case status == http.StatusServiceUnavailable && strings.Contains(said, "sealed"):
		return set("%s: Vault is sealed: unseal it (vault operator unseal)", ErrSealed)
	}
	e.kinds = []error{ErrFailed}
	e.text = fmt.Sprintf("%s: Vault answers %d %s", path, status, http.StatusText(status))
	if said != "" {
		e.text += ": " + said
	}
	return e
}

// isConflict knows the one answer that says that a check-and-set did not match.
// Others that speak of check-and-set say that it was missing or malformed.
//
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#create-update-secret
func isConflict(reason string) bool {
	return reason == "check-and-set parameter did not match the current version"
}

// reasons are Vault's words in one line each, and nothing if the answer is not
// Vault's: a proxy may quote the request.
func reasons(body []byte) []string {
	var answer struct{ Errors []string }
	if json.Unmarshal(body, &answer) != nil {
		return nil
	}
	for i, reason := range answer.Errors {
		line := strings.Join(strings.Fields(reason), " ")
		if len(line) > 300 {
			line = line[:300] + "…"
		}
		answer.Errors[i] = line
	}
	return answer.Errors
}

// redirected is a standby that sends us elsewhere instead of forwarding. After
// a write that is no proof that nothing was written: it also does so when the
// forwarding failed on its way back.
//
// https://developer.hashicorp.com/vault/docs/concepts/ha#client-redirection
func redirected(path string, status int) error {
	return &Error{
		Status: status,
		kinds:  []error{ErrStandby},
		text:   path + ": this Vault node is a standby that did not forward the request: a fail-over, which passes by itself, or forwarding is switched off; then list the nodes as addresses",
	}
}

// unreachable is a request without an answer.
func unreachable(ctx context.Context, address string, timeout time.Duration, cause error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &Error{kinds: []error{ErrUnreachable}}
	var (
		op      *net.OpError
		wrapper *url.Error
	)
	if errors.As(cause, &wrapper) {
		cause = wrapper.Err // its text would repeat the URL
	}
	hint := "check the address, and that Vault runs"
	switch {
	case errors.Is(cause, context.DeadlineExceeded):
		e.text = fmt.Sprintf("%s: Vault does not answer within %v: check its load, or raise the time-out", address, timeout)
		return e
	case errors.As(cause, &op) && op.Op == "dial":
		e.kinds = append(e.kinds, errNotSent)
	case isCertificate(cause):
		e.kinds = append(e.kinds, errNotSent)
		hint = "give the certificate authority that signed Vault's certificate, and the name that stands in it"
	}
	e.text = fmt.Sprintf("%s: Vault does not answer: %s: %s", address, oneLine(cause), hint)
	return e
}

func oneLine(err error) string {
	if err == nil {
		return "no answer"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// again tells whether a read that failed like this may succeed soon.
func again(err error) bool {
	var e *Error
	return passOver(err) || errors.Is(err, ErrThrottled) || errors.As(err, &e) && e.Status >= 500
}

// passOver tells whether another node may serve instead.
func passOver(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrSealed) || errors.Is(err, ErrStandby)
}
