package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/jwksd/jwksd/keystore"
)

// Config says how to reach Vault and how to log in. It holds names of files
// only, never a secret.
type Config struct {
	// Addresses are the URLs of the nodes, "https://vault:8200". One is enough;
	// with several, a node that cannot serve is passed over. Required.
	Addresses []string
	// Namespace is that of Vault Enterprise or HCP; empty for none.
	Namespace string

	CACertFile     string // PEM; empty: the system's certificate authorities
	ClientCertFile string // PEM; for mutual TLS and for certificate login
	ClientKeyFile  string // PEM
	ServerName     string // expected in Vault's certificate; empty: the address's host

	// Timeout bounds one request; 5 s by default.
	Timeout time.Duration

	Auth Auth

	// Log hears about logins and what goes wrong in the background.
	Log *slog.Logger
}

// Client speaks to Vault: it logs in, keeps its token alive, passes over nodes
// that cannot serve and tells what an error means. It is safe for concurrent
// use. Paths are those of Vault's API without "/v1/", with segments made by
// segment, which need no further escaping.
//
// https://developer.hashicorp.com/vault/api-docs
type Client struct {
	nodes   []*api.Client
	current atomic.Int32 // the node that served last
	timeout time.Duration
	log     *slog.Logger
	session *session
	skew    skew
	idle    func() // closes idle connections

	stop      context.CancelFunc
	stopped   context.Context
	closeOnce sync.Once
	working   sync.WaitGroup
}

const defaultTimeout = 5 * time.Second

// NewClient checks the configuration and reads the certificates. It does not
// connect; the first request logs in. Close it after use.
func NewClient(cfg Config) (*Client, error) {
	c := &Client{timeout: cfg.Timeout, log: cfg.Log}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	transport, err := newTransport(cfg)
	if err != nil {
		return nil, err
	}
	c.idle = transport.CloseIdleConnections
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("no address of Vault is given")
	}
	for _, address := range cfg.Addresses {
		node, err := newNode(address, cfg.Namespace, dated{transport, &c.skew})
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, node)
	}
	login, err := newLogin(cfg.Auth, cfg)
	if err != nil {
		return nil, err
	}
	c.stopped, c.stop = context.WithCancel(context.Background())
	c.session = newSession(c, login)
	return c, nil
}

// Close stops the renewal of the token. The token is not revoked: it ends by
// itself, and with a token file it is not ours.
func (c *Client) Close() error {
	c.closeOnce.Do(func() {
		c.session.end()
		c.working.Wait()
		c.idle()
	})
	return nil
}

// String keeps a Client out of logs; it has nothing to say.
func (c *Client) String() string { return "vault.Client" }

// GoString is String.
func (c *Client) GoString() string { return c.String() }

// Format prints every verb as String, since %+v would print the token.
func (c *Client) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// Read gets a path and decodes the data of the answer into out, unless that is
// nil. What does not exist is keystore.ErrNotFound; if Vault answers that with
// data, as KV does for a deleted version, out is filled too. Reads are tried
// again while Vault cannot serve.
func (c *Client) Read(ctx context.Context, path string, query url.Values, out any) error {
	return c.retry(ctx, func(ctx context.Context) error {
		return c.authorized(ctx, path, out, func(ctx context.Context, node *api.Client) (*api.Response, error) {
			return node.Logical().ReadRawWithDataWithContext(ctx, path, query)
		})
	})
}

// List returns the names below a path in Vault's order; those of folders end
// in "/". There may be none.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	var out struct{ Keys []string }
	err := c.Read(ctx, path, url.Values{"list": {"true"}}, &out)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, nil
	}
	return out.Keys, err
}

// Write posts in, as JSON, and decodes the data of the answer into out, unless
// that is nil. It is sent once, and again only after a refusal of the token or
// to a node that could not be connected to: Vault has then certainly not
// looked at it. An error other than a refusal leaves the outcome unknown.
func (c *Client) Write(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encoding the request for %s: %w", path, err)
	}
	return c.authorized(ctx, path, out, func(ctx context.Context, node *api.Client) (*api.Response, error) {
		return node.Logical().WriteRawWithContext(ctx, path, body)
	})
}

// Delete deletes a path. Like Write, it is sent once.
func (c *Client) Delete(ctx context.Context, path string) error {
	return c.authorized(ctx, path, nil, func(ctx context.Context, node *api.Client) (*api.Response, error) {
		return node.Logical().DeleteRawWithContext(ctx, path)
	})
}

// Skew returns by how much Vault's clock was ahead of ours at least, negative
// if behind, in the newest answer that told its time; false before the first.
// Vault tells whole seconds, so that less than about one goes unnoticed. A proxy
// that puts its own Date into answers tells its own clock.
func (c *Client) Skew() (time.Duration, bool) { return c.skew.last() }

type send func(context.Context, *api.Client) (*api.Response, error)

// authorized sends a request with our token. If Vault refuses the token, it
// logs in again and sends it once more: a refused request had no effect.
func (c *Client) authorized(ctx context.Context, path string, out any, do send) error {
	token, err := c.session.token(ctx)
	if err != nil {
		return err
	}
	err = c.send(ctx, path, token, out, do)
	if !errors.Is(err, ErrForbidden) {
		return err
	}
	fresh, failure := c.session.replace(ctx, token, errors.Is(err, errBadToken))
	if errors.Is(failure, errKeep) {
		return err
	} else if failure != nil {
		return failure
	}
	return c.send(ctx, path, fresh, out, do)
}

// send sends a request to the node that served last, and to the others while
// none can be connected to.
func (c *Client) send(ctx context.Context, path, token string, out any, do send) (err error) {
	for range c.nodes {
		i := c.current.Load()
		err = c.exchange(ctx, c.nodes[i], path, token, out, do)
		if err == nil || !passOver(err) || ctx.Err() != nil {
			return err
		}
		c.current.CompareAndSwap(i, (i+1)%int32(len(c.nodes)))
		if !errors.Is(err, errNotSent) {
			return err
		}
	}
	return err
}

// exchange is one request to one node, and its answer.
func (c *Client) exchange(ctx context.Context, node *api.Client, path, token string, out any, do send) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	node = node.WithRequestCallbacks(func(r *api.Request) { r.ClientToken = token })
	resp, err := do(bounded, node)
	if resp == nil {
		return unreachable(ctx, node.Address(), c.timeout, err)
	}
	defer resp.Body.Close()
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	defer clear(body)
	if err != nil {
		err = classify(path, resp.StatusCode, body)
		if errors.Is(err, keystore.ErrNotFound) {
			decodeData(body, out) // of a deleted version, if there
		}
		return err
	}
	if readErr != nil {
		return unreachable(ctx, node.Address(), c.timeout, readErr)
	}
	if resp.StatusCode >= 300 {
		return redirected(path, resp.StatusCode)
	}
	if len(body) == 0 || out == nil {
		return nil
	}
	if err := decodeData(body, out); err != nil {
		return fmt.Errorf("the answer to %s is not what Vault answers: is %s the address of a Vault?", path, node.Address())
	}
	return nil
}

// maxAnswer bounds what is read of an answer: Vault's own limit for a request
// is 32 MiB.
const maxAnswer = 64 << 20

// decodeData decodes an answer into out, either its "data" or, if out is a
// *reply, the whole. Its error may quote the answer, and is not for printing.
func decodeData(body []byte, out any) error {
	if out == nil {
		return nil
	}
	if whole, ok := out.(*reply); ok {
		return json.Unmarshal(body, whole)
	}
	var r struct{ Data json.RawMessage }
	if err := json.Unmarshal(body, &r); err != nil {
		return err
	}
	defer clear(r.Data)
	if len(r.Data) == 0 || bytes.Equal(r.Data, []byte("null")) {
		return nil
	}
	return json.Unmarshal(r.Data, out)
}

// newNode returns the official client of one node, without anything that it
// would take from the environment or do by itself.
func newNode(address, namespace string, transport http.RoundTripper) (*api.Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("an address of Vault must look like https://vault.example.com:8200")
	}
	node, err := api.NewClient(&api.Config{
		Address: address,
		HttpClient: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		MaxRetries:       0,
		CheckRetry:       func(context.Context, *http.Response, error) (bool, error) { return false, nil },
		DisableRedirects: true,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the client of %s: the environment has a VAULT_ variable that it cannot use", u.Host)
	}
	node.ClearToken()
	node.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	node.SetWrappingLookupFunc(func(string, string) string { return "" })
	if namespace != "" {
		node.SetNamespace(namespace)
	}
	return node, nil
}
