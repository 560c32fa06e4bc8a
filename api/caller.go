package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strings"
)

// Action is something that a grant allows.
type Action string

// Actions.
const (
	ActionSign      Action = "sign"
	ActionSignInput Action = "sign-input"
	ActionRead      Action = "read"
	ActionRotate    Action = "rotate"
	ActionRevoke    Action = "revoke"
	ActionRevokeAll Action = "revoke-all"
	ActionApply     Action = "apply" // founds keysets too
	ActionDelete    Action = "delete"
)

// Actions lists every action.
func Actions() []Action {
	return []Action{ActionSign, ActionSignInput, ActionRead, ActionRotate, ActionRevoke, ActionRevokeAll, ActionApply, ActionDelete}
}

// Grant allows actions on keysets.
type Grant struct {
	Keysets []string // names, or "*" for all
	Actions []Action
	Types   []string // typ values that may be signed beyond JWT and at+jwt
}

func (g Grant) covers(keyset string) bool {
	return slices.Contains(g.Keysets, keyset) || slices.Contains(g.Keysets, "*")
}

// Caller is somebody who was identified.
type Caller struct {
	Name   string
	Grants []Grant
}

// may returns errForbidden unless a grant allows the action on the keyset.
func (c *Caller) may(keyset string, action Action) error {
	for i := range c.Grants {
		if g := &c.Grants[i]; g.covers(keyset) && slices.Contains(g.Actions, action) {
			return nil
		}
	}
	return errForbidden
}

// types lists the typ values that any grant for the action on the keyset adds:
// grants add up, in whatever order they stand.
func (c *Caller) types(keyset string, action Action) []string {
	var types []string
	for i := range c.Grants {
		switch g := &c.Grants[i]; {
		case len(g.Types) == 0 || !g.covers(keyset) || !slices.Contains(g.Actions, action):
		case types == nil:
			types = g.Types // most callers have one such grant: nothing is copied
		default:
			types = slices.Concat(types, g.Types)
		}
	}
	return types
}

// reads tells whether the caller may see the keyset.
func (c *Caller) reads(keyset string) bool {
	return c.may(keyset, ActionRead) == nil
}

// Authenticator finds out who sent a request. It returns ErrUnauthenticated if
// nobody it knows did. It is safe for concurrent use.
type Authenticator interface {
	Authenticate(ctx context.Context, r *http.Request) (*Caller, error)
}

// ErrUnauthenticated: the request carries no credentials, or wrong ones.
var ErrUnauthenticated = errors.New("no valid credentials")

// Tokens authenticates static bearer tokens by their SHA-256, so that it holds
// nothing worth stealing. Looking up a hash in a map tells an attacker who
// measures time nothing about other tokens, since nobody can choose a hash.
type Tokens struct {
	byHash map[[sha256.Size]byte]*Caller
}

// NewTokens returns an authenticator for the callers, by the hash of their
// token.
func NewTokens(callers map[[sha256.Size]byte]*Caller) *Tokens {
	return &Tokens{byHash: callers}
}

// maxToken bounds the work on credentials.
const maxToken = 4096

// Authenticate implements Authenticator.
func (t *Tokens) Authenticate(_ context.Context, r *http.Request) (*Caller, error) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxToken {
		return nil, ErrUnauthenticated
	}
	var buf [128]byte
	sum := sha256.Sum256(append(buf[:0], token...))
	caller, ok := t.byHash[sum]
	if !ok {
		return nil, ErrUnauthenticated
	}
	return caller, nil
}

// TokenHash returns what NewTokens wants for a token.
func TokenHash(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }
