package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// How long the calls of the transit engine may take. The caller's deadline
// counts too.
const (
	transitSignTimeout  = 5 * time.Second
	transitBatchTimeout = 20 * time.Second
	transitTimeout      = 10 * time.Second
	// Vault makes an RSA key while the request waits, and takes seconds for a
	// large one.
	transitMakeTimeout = time.Minute
)

// transitClient is what Transit needs of a Client.
type transitClient interface {
	Read(ctx context.Context, path string, query url.Values, out any) error
	List(ctx context.Context, path string) ([]string, error)
	Write(ctx context.Context, path string, in, out any) error
	Delete(ctx context.Context, path string) error
}

// Transit makes, uses and destroys signature keys of Vault's transit secrets
// engine (https://developer.hashicorp.com/vault/api-docs/secret/transit). Every
// key has one version, and its private half cannot leave Vault. Transit knows
// names and bytes only. It is safe for concurrent use.
type Transit struct {
	client transitClient
	slow   transitClient // the same with more patience
	mount  string
}

// NewTransit returns the transit engine that is mounted at that path. Nothing
// is asked of Vault before the first call; see Check.
func NewTransit(c *Client, mount string) *Transit {
	// Both share the connections and the login. A Client bounds each request
	// by itself, by less than it takes to make a large RSA key.
	slow := &Client{
		nodes: c.nodes, timeout: max(c.timeout, transitMakeTimeout), log: c.log,
		session: c.session, idle: c.idle, stop: c.stop, stopped: c.stopped,
	}
	return &Transit{client: c, slow: slow, mount: strings.Trim(mount, "/")}
}

// transitName is what Vault takes for the name of a key, and nothing that
// needs an escape in a path.
var transitName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?$`)

// keyPath is where something about a key is asked for.
func (t *Transit) keyPath(verb, name, suffix string) (string, error) {
	if !transitName.MatchString(name) {
		return "", fmt.Errorf("%w: not the name of a transit key", keystore.ErrCorrupt)
	}
	return t.mount + "/" + verb + "/" + name + suffix, nil
}

// Create makes a key of that type under a name that was never used, and reads
// it back, for the caller to check. If the outcome of the request is unknown,
// what is found under the name counts.
//
// See https://developer.hashicorp.com/vault/api-docs/secret/transit#create-key
func (t *Transit) Create(ctx context.Context, name, keyType string) (TransitKey, error) {
	ctx, cancel := context.WithTimeout(ctx, transitMakeTimeout)
	defer cancel()
	path, err := t.keyPath("keys", name, "")
	if err != nil {
		return TransitKey{}, fmt.Errorf("making transit key %s: %w", name, err)
	}
	if err := t.Check(ctx); err != nil { // a KV engine would store the request
		return TransitKey{}, fmt.Errorf("making transit key %s: %w", name, err)
	}
	made := t.slow.Write(ctx, path, map[string]any{
		"type":                   keyType,
		"derived":                false,
		"exportable":             false,
		"allow_plaintext_backup": false,
		"auto_rotate_period":     0,
	}, nil)
	key, err := t.Read(ctx, name)
	switch {
	case err != nil && made != nil:
		return TransitKey{}, fmt.Errorf("making transit key %s: %w", name, made)
	case err != nil:
		return TransitKey{}, fmt.Errorf("reading back what was made: %w", err)
	}
	return key, nil
}

// Read returns what Vault tells about a key. If there is none, though the mount
// is a transit engine, the error wraps keystore.ErrNotFound.
//
// See https://developer.hashicorp.com/vault/api-docs/secret/transit#read-key
func (t *Transit) Read(ctx context.Context, name string) (TransitKey, error) {
	ctx, cancel := context.WithTimeout(ctx, transitTimeout)
	defer cancel()
	key, err := t.read(ctx, name)
	if err != nil {
		return TransitKey{}, fmt.Errorf("reading transit key %s: %w", name, err)
	}
	return key, nil
}

func (t *Transit) read(ctx context.Context, name string) (TransitKey, error) {
	path, err := t.keyPath("keys", name, "")
	if err != nil {
		return TransitKey{}, err
	}
	var answer transitKeyData
	err = t.client.Read(ctx, path, nil, &answer)
	var key TransitKey
	if err == nil {
		key, err = answer.key(name)
	}
	if errors.Is(err, keystore.ErrNotFound) || errors.Is(err, errTransitAnswer) {
		// Any other engine says the same of a path it does not know, and who
		// believes it takes every key for lost.
		if err := t.Check(ctx); err != nil {
			return TransitKey{}, err
		}
	}
	return key, err
}

// Names lists the names of all keys of the engine, whoever made them.
//
// See https://developer.hashicorp.com/vault/api-docs/secret/transit#list-keys
func (t *Transit) Names(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, transitTimeout)
	defer cancel()
	names, err := t.client.List(ctx, t.mount+"/keys")
	if err == nil && len(names) == 0 {
		err = t.Check(ctx) // no other engine has keys of ours either
	}
	if err != nil {
		return nil, fmt.Errorf("listing transit keys: %w", err)
	}
	return names, nil
}

// Destroy ends a key for good. An absent one is no error.
//
// See https://developer.hashicorp.com/vault/api-docs/secret/transit#update-key-configuration
// and https://developer.hashicorp.com/vault/api-docs/secret/transit#delete-key
func (t *Transit) Destroy(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, transitTimeout)
	defer cancel()
	err := t.destroy(ctx, name)
	if err == nil {
		return nil
	}
	// Vault answers 400 to a deletion of what is not there, and so does it if
	// somebody else was faster or the reply to our own first try was lost.
	if _, readErr := t.read(ctx, name); errors.Is(readErr, keystore.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("destroying transit key %s: %w", name, err)
}

func (t *Transit) destroy(ctx context.Context, name string) error {
	config, err := t.keyPath("keys", name, "/config")
	if err != nil {
		return err
	}
	if _, err := t.read(ctx, name); err != nil {
		return err // nothing is written where no key was seen
	}
	allow := map[string]any{"deletion_allowed": true}
	if err := t.client.Write(ctx, config, allow, nil); err != nil {
		return err
	}
	return t.client.Delete(ctx, strings.TrimSuffix(config, "/config"))
}

// Check tells whether a transit engine is mounted where it is said to be, as
// far as this token may know. If not, the error wraps ErrMount and says what to
// fix.
func (t *Transit) Check(ctx context.Context) error {
	var mount struct {
		Type string `json:"type"`
	}
	err := t.client.Read(ctx, "sys/internal/ui/mounts/"+t.mount, nil, &mount)
	switch {
	case errors.Is(err, ErrForbidden):
		return fmt.Errorf("%w or %w: the token finds no transit engine at %q: enable one there, correct transit_mount, or attach the policy of this role in deploy/vault to the login", ErrMount, ErrForbidden, t.mount)
	case errors.Is(err, keystore.ErrNotFound):
		// The cause is not wrapped: a missing engine says nothing about keys.
		return fmt.Errorf("%w: there is no transit engine at %q: enable one there, or correct transit_mount", ErrMount, t.mount)
	case err != nil:
		return fmt.Errorf("asking what is mounted at %q: %w", t.mount, err)
	case mount.Type == "":
		return fmt.Errorf("asking what is mounted at %q: %w", t.mount, errTransitAnswer)
	case mount.Type != "transit":
		return fmt.Errorf("%w: a %s engine is mounted at %q where a transit engine should be: correct transit_mount", ErrMount, excerptOf(mount.Type), t.mount)
	}
	return nil
}

// errTransitAnswer is all that is said about an answer that is not what the
// API of Vault promises. Nothing is concluded from such an answer.
var errTransitAnswer = errors.New("the answer is not what Vault's transit engine gives")

// excerptOf is text of Vault's that is fit for one line of an error.
func excerptOf(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// badRequest tells whether Vault refused what it was asked to do as such.
func badRequest(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusBadRequest
}
