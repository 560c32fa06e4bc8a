package vault

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/keystore"
)

// connect returns a client with the token of root.
func connect(t *testing.T, v *vaulttest.Vault, addresses ...string) *Client {
	t.Helper()
	if len(addresses) == 0 {
		addresses = v.Addresses()
	}
	return mustClient(t, Config{Addresses: addresses, Timeout: 20 * time.Second, Auth: Auth{TokenFile: vaulttest.File(t, v.RootToken())}})
}

func mustClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func mustStore(t *testing.T, c *Client, opt Options) *Store {
	t.Helper()
	s, err := NewStore(c, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fault is what a proxy does with one request.
type fault int

const (
	pass      fault = iota
	drop            // it does not arrive; the connection breaks
	loseReply       // it arrives, and the connection breaks before the answer
	late            // the connection breaks, and the request arrives when let go
	twice           // it arrives twice, and the second answer is given
)

// proxy stands in front of a real Vault. It counts requests and breaks those
// that its hook picks.
type proxy struct {
	URL   string
	count atomic.Int64

	mu   sync.Mutex
	seen []string
	pick func(r *http.Request) fault
	skew time.Duration // added to the Date of answers

	held chan func() // requests that are late
}

func newProxy(t *testing.T, v *vaulttest.Vault) *proxy {
	t.Helper()
	target, err := url.Parse(v.Address())
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{held: make(chan func(), 100)}
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: v.HTTP().Transport,
		ModifyResponse: func(r *http.Response) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			r.Header.Set("Date", time.Now().Add(p.skew).UTC().Format(http.TimeFormat))
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(forward, w, r) }))
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

func (p *proxy) serve(forward http.Handler, w http.ResponseWriter, r *http.Request) {
	p.count.Add(1)
	p.mu.Lock()
	p.seen = append(p.seen, r.Method+" "+r.URL.Path)
	pick := p.pick
	p.mu.Unlock()
	what := pass
	if pick != nil {
		what = pick(r)
	}
	var body bytes.Buffer
	body.ReadFrom(r.Body)
	copied := func() *http.Request {
		c := r.Clone(context.WithoutCancel(r.Context()))
		c.Body = io.NopCloser(bytes.NewReader(body.Bytes()))
		return c
	}
	switch what {
	case drop:
		panic(http.ErrAbortHandler)
	case loseReply:
		forward.ServeHTTP(httptest.NewRecorder(), copied())
		panic(http.ErrAbortHandler)
	case late:
		p.held <- func() { forward.ServeHTTP(httptest.NewRecorder(), copied()) }
		panic(http.ErrAbortHandler)
	case twice:
		forward.ServeHTTP(httptest.NewRecorder(), copied())
	}
	forward.ServeHTTP(w, copied())
}

// breaking sets the hook: the first n requests of a method to a path with that
// end are broken.
func (p *proxy) breaking(what fault, n int, method, part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var done atomic.Int64
	p.pick = func(r *http.Request) fault {
		if r.Method == method && strings.Contains(r.URL.Path, part) && done.Add(1) <= int64(n) {
			return what
		}
		return pass
	}
}

func (p *proxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.seen...)
}

func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.pick = nil, nil
	p.count.Store(0)
}

// logs catches what is logged, at every level.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustSwap(t *testing.T, s *Store, keyset string, old keystore.Version, data string) keystore.Version {
	t.Helper()
	v, err := s.Swap(within(t, time.Minute), keyset, old, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustChanges(t *testing.T, s *Store, since keystore.Cursor) ([]string, keystore.Cursor) {
	t.Helper()
	changed, next, err := s.Changes(within(t, time.Minute), since)
	if err != nil {
		t.Fatal(err)
	}
	return changed, next
}

// wantLine checks what every error promises: a line that names what to do.
func wantLine(t *testing.T, err error, kind error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	t.Log(text)
	if kind != nil && !isKind(err, kind) {
		t.Errorf("the error is not %q: %s", kind, text)
	}
	if strings.Contains(text, "\n") || len(text) > 500 {
		t.Errorf("the error is not one line: %q", text)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("the error does not say %q: %s", part, text)
		}
	}
}
