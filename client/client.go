// Package client is the Go client of jwksd for issuers and operators.
//
// A Client is safe for concurrent use and reuses its connections. It repeats
// nothing by itself yet: an error tells whether trying again can help.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jwksd/jwksd/api/wire"
)

// Client talks to one daemon. Printing it shows the address and no token.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// Option changes a Client.
type Option func(*Client)

// WithHTTPClient replaces the HTTP client, whose default has a time-out of a
// minute.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// New returns a client for the api listener at base, such as
// https://jwksd.internal:8081, that identifies itself by a bearer token.
func New(base, token string, opts ...Option) (*Client, error) {
	u, err := url.Parse(base)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return nil, errors.New("the address is no URL such as http://127.0.0.1:8081")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("address %q: give scheme, host and port only, and credentials as a token", u.Scheme+"://"+u.Host)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return nil, errors.New("the token has a space, a line break or another character that no token has")
	}
	c := &Client{base: strings.TrimRight(base, "/#"), token: token, http: &http.Client{
		Timeout: time.Minute,
		// A daemon never redirects, and a token is not for whoever does.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, o := range opts {
		o(c)
	}
	return c, nil
}

// String names the daemon.
func (c Client) String() string { return "jwksd client of " + c.base }

// Format makes every verb, %#v included, print what String gives.
func (c Client) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// Error is an error answer of the daemon. Its Code is stable.
type Error struct {
	wire.Problem
	// RetryAfter is how long to wait before trying again may help; zero if the
	// daemon does not say that it may.
	RetryAfter time.Duration
}

// Error gives the detail and, where there is one, the hint.
func (e *Error) Error() string {
	msg := e.Detail
	if msg == "" {
		msg = e.Title
	}
	if e.Hint != "" {
		msg += " (" + e.Hint + ")"
	}
	return msg
}

// Sign asks for a token.
func (c *Client) Sign(ctx context.Context, keyset string, req wire.SignRequest) (wire.Token, error) {
	t, err := do[wire.Token](ctx, c, http.MethodPost, path(keyset, "sign"), req)
	if err == nil && t.Token == "" {
		return t, fmt.Errorf("the answer of %s is not jwksd's: it has no token", c.base)
	}
	return t, err
}

// SigningKey returns the key that signs, of the default lane if alg is empty.
func (c *Client) SigningKey(ctx context.Context, keyset, alg string) (wire.SigningKey, error) {
	p := path(keyset, "signing-key")
	if alg != "" {
		p += "?alg=" + url.QueryEscape(alg)
	}
	return do[wire.SigningKey](ctx, c, http.MethodGet, p, nil)
}

// Keysets lists the keysets that the caller may read, and how the daemon is
// doing.
func (c *Client) Keysets(ctx context.Context) (wire.Keysets, error) {
	return do[wire.Keysets](ctx, c, http.MethodGet, "/v1/keysets", nil)
}

// Keyset returns one keyset.
func (c *Client) Keyset(ctx context.Context, keyset string) (wire.Keyset, error) {
	return do[wire.Keyset](ctx, c, http.MethodGet, path(keyset, ""), nil)
}

// Plan returns what will happen until the horizon, a duration such as 90d; the
// daemon chooses one if it is empty.
func (c *Client) Plan(ctx context.Context, keyset, horizon string) (wire.Plan, error) {
	p := path(keyset, "plan")
	if horizon != "" {
		p += "?horizon=" + url.QueryEscape(horizon)
	}
	return do[wire.Plan](ctx, c, http.MethodGet, p, nil)
}

// Rotate promotes the standby. Repeating it with the same idempotency key, if
// that is not empty, changes nothing and gives the same answer.
func (c *Client) Rotate(ctx context.Context, keyset string, req wire.RotateRequest, idempotencyKey string) (wire.Change, error) {
	return do[wire.Change](ctx, c.patient(req.Wait.Std()), http.MethodPost, path(keyset, "rotate"), req, idempotencyKey)
}

// Revoke takes back one key or all. The idempotency key is as for Rotate.
func (c *Client) Revoke(ctx context.Context, keyset string, req wire.RevokeRequest, idempotencyKey string) (wire.Change, error) {
	return do[wire.Change](ctx, c.patient(req.Wait.Std()), http.MethodPost, path(keyset, "revoke"), req, idempotencyKey)
}

// Apply puts a policy in force, and founds the keyset if there is none. It may
// be repeated.
func (c *Client) Apply(ctx context.Context, keyset string, req wire.ApplyRequest) (wire.Applied, error) {
	return do[wire.Applied](ctx, c, http.MethodPut, path(keyset, ""), req)
}

// Delete winds the keyset down for good, or with dryRun only says what that
// means. It may be repeated.
func (c *Client) Delete(ctx context.Context, keyset, reason string, dryRun bool) (wire.Deleted, error) {
	p := path(keyset, "")
	if p != "" { // not in a body, which a proxy may drop, and the dry run with it
		p += "?" + url.Values{"reason": {reason}, "dry_run": {strconv.FormatBool(dryRun)}}.Encode()
	}
	return do[wire.Deleted](ctx, c, http.MethodDelete, p, nil)
}

// patient is a client that gives an answer so much more time.
func (c *Client) patient(wait time.Duration) *Client {
	if wait <= 0 || c.http.Timeout == 0 {
		return c
	}
	h := *c.http
	h.Timeout += wait
	return &Client{base: c.base, token: c.token, http: &h}
}

// path names what belongs to a keyset. A name that would change the path's
// meaning on its way is left to fail in send.
func path(keyset, rest string) string {
	if keyset == "" || keyset == "." || keyset == ".." {
		return ""
	}
	p := "/v1/keysets/" + url.PathEscape(keyset)
	if rest != "" {
		p += "/" + rest
	}
	return p
}

// ErrKeysetName: no keyset can have that name.
var ErrKeysetName = errors.New("not the name of a keyset")

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// do sends a request and decodes its answer into a T; that is zero with an
// error.
func do[T any](ctx context.Context, c *Client, method, path string, in any, idempotencyKey ...string) (T, error) {
	var out, none T
	resp, err := c.send(ctx, method, path, in, idempotencyKey)
	if err != nil {
		return none, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return none, fmt.Errorf("reading the answer of %s: %w", c.base, err)
	case len(data) > maxAnswer:
		return none, fmt.Errorf("the answer of %s is not jwksd's: it is over %d MiB", c.base, maxAnswer>>20)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return none, answerError(resp, data)
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return none, fmt.Errorf("the answer of %s is not jwksd's: %w", c.base, err)
	}
	return out, nil
}

func (c *Client) send(ctx context.Context, method, path string, in any, idempotencyKey []string) (*http.Response, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, ErrKeysetName
	}
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for _, key := range idempotencyKey {
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(c.base, err)
	}
	return resp, nil
}

// ErrUnreachable: no daemon answered.
var ErrUnreachable = errors.New("no answer")

func unreachable(base string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("%w from %s: %w", ErrUnreachable, base, err)
}

func answerError(resp *http.Response, data []byte) error {
	e := &Error{}
	if json.Unmarshal(data, &e.Problem) != nil || e.Code == "" {
		return fmt.Errorf("the answer %s is not jwksd's: check the address", resp.Status)
	}
	e.Status = resp.StatusCode
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}
