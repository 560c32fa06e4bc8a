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
	"strings"
	"time"

	"github.com/jwksd/jwksd/api/wire"
)

// Client talks to one daemon.
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
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("address %q is no URL such as http://127.0.0.1:8081", base)
	}
	c := &Client{base: strings.TrimRight(base, "/"), token: token, http: &http.Client{Timeout: time.Minute}}
	for _, o := range opts {
		o(c)
	}
	return c, nil
}

// Error is an error answer of the daemon. Its Code is stable.
type Error struct {
	wire.Problem
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
	var out wire.Token
	return out, c.do(ctx, http.MethodPost, path(keyset, "sign"), req, &out)
}

// SigningKey returns the key that signs, of the default lane if alg is empty.
func (c *Client) SigningKey(ctx context.Context, keyset, alg string) (wire.SigningKey, error) {
	p := path(keyset, "signing-key")
	if alg != "" {
		p += "?alg=" + url.QueryEscape(alg)
	}
	var out wire.SigningKey
	return out, c.do(ctx, http.MethodGet, p, nil, &out)
}

// Keysets lists the keysets that the caller may read, and how the daemon is
// doing.
func (c *Client) Keysets(ctx context.Context) (wire.Keysets, error) {
	var out wire.Keysets
	return out, c.do(ctx, http.MethodGet, "/v1/keysets", nil, &out)
}

// Keyset returns one keyset.
func (c *Client) Keyset(ctx context.Context, keyset string) (wire.Keyset, error) {
	var out wire.Keyset
	return out, c.do(ctx, http.MethodGet, path(keyset, ""), nil, &out)
}

// Plan returns what will happen until the horizon, a duration such as 90d; the
// daemon chooses one if it is empty.
func (c *Client) Plan(ctx context.Context, keyset, horizon string) (wire.Plan, error) {
	p := path(keyset, "plan")
	if horizon != "" {
		p += "?horizon=" + url.QueryEscape(horizon)
	}
	var out wire.Plan
	return out, c.do(ctx, http.MethodGet, p, nil, &out)
}

// Rotate promotes the standby. Repeating it with the same idempotency key, if
// that is not empty, changes nothing and gives the same answer.
func (c *Client) Rotate(ctx context.Context, keyset string, req wire.RotateRequest, idempotencyKey string) (wire.Change, error) {
	var out wire.Change
	return out, c.do(ctx, http.MethodPost, path(keyset, "rotate"), req, &out, idempotencyKey)
}

// Revoke takes back one key or all. The idempotency key is as for Rotate.
func (c *Client) Revoke(ctx context.Context, keyset string, req wire.RevokeRequest, idempotencyKey string) (wire.Change, error) {
	var out wire.Change
	return out, c.do(ctx, http.MethodPost, path(keyset, "revoke"), req, &out, idempotencyKey)
}

func path(keyset, rest string) string {
	p := "/v1/keysets/" + url.PathEscape(keyset)
	if rest != "" {
		p += "/" + rest
	}
	return p
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

func (c *Client) do(ctx context.Context, method, path string, in, out any, idempotencyKey ...string) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
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
		return unreachable(c.base, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", c.base, err)
	}
	if resp.StatusCode >= 300 {
		return answerError(resp, data)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("the answer of %s is not jwksd's: %w", c.base, err)
	}
	return nil
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
	return e
}
