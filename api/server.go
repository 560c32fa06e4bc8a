package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// Keysets is what the API needs of the rotator.
type Keysets interface {
	View(keyset string) (*rotator.View, error)
	Names() []string
	Fresh(v *rotator.View, now time.Time) error
	FreshAt(v *rotator.View) time.Time
	Change(ctx context.Context, keyset string, op rotation.Operation, fn rotator.ChangeFunc) (rotation.Operation, bool, error)
	Alarms() []rotator.Alarm
}

// Options of New. All but Log, Version and Reload are required.
type Options struct {
	Keysets Keysets
	Auth    Authenticator
	Now     func() time.Time
	Log     *slog.Logger
	Version string
	// Reload tells how the latest reload of the configuration ended.
	Reload func() *wire.Reload
}

// Server answers the API. It is safe for concurrent use.
type Server struct {
	opt  Options
	log  *slog.Logger
	auth atomic.Pointer[Authenticator]
}

// New returns a server; it is an http.Handler.
func New(opt Options) *Server {
	s := &Server{opt: opt, log: opt.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.SetAuth(opt.Auth)
	return s
}

// SetAuth replaces who may call, from the next request on.
func (s *Server) SetAuth(a Authenticator) { s.auth.Store(&a) }

// Bounds on bodies in bytes (rule C13).
const maxBody = 64 << 10

// call is a request on its way: who calls, what about.
type call struct {
	caller *Caller
	keyset string
	r      *http.Request
	w      http.ResponseWriter
}

// endpoint answers one kind of request, or returns an error to be explained.
type endpoint struct {
	method string
	serve  func(*Server, *call) error
}

// endpointOf finds the endpoint below /v1/keysets/{keyset}.
func endpointOf(name string) (endpoint, bool) {
	switch name {
	case "sign":
		return endpoint{http.MethodPost, (*Server).sign}, true
	case "":
		return endpoint{http.MethodGet, (*Server).keyset}, true
	case "signing-key":
		return endpoint{http.MethodGet, (*Server).signingKey}, true
	case "plan":
		return endpoint{http.MethodGet, (*Server).plan}, true
	case "rotate":
		return endpoint{http.MethodPost, (*Server).rotate}, true
	case "revoke":
		return endpoint{http.MethodPost, (*Server).revoke}, true
	}
	return endpoint{}, false
}

// ServeHTTP identifies the caller, finds the endpoint and explains errors.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := s.serve(w, r)
	if err == nil {
		return
	}
	f := explain(err)
	switch {
	case f.status >= 500:
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "code", f.code, "error", err)
	case f.status == http.StatusUnauthorized || f.status == http.StatusForbidden:
		s.log.Warn("request denied", "method", r.Method, "path", r.URL.Path, "code", f.code, "remote", r.RemoteAddr)
	}
	f.write(w)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	caller, err := (*s.auth.Load()).Authenticate(r.Context(), r)
	if err != nil {
		return err
	}
	c := &call{caller: caller, r: r, w: w}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v1/keysets")
	if !ok {
		return errNoPath
	}
	if rest == "" || rest == "/" {
		return s.only(http.MethodGet, (*Server).list, c)
	}
	var name string
	if c.keyset, name, _ = strings.Cut(rest[1:], "/"); rest[0] != '/' || c.keyset == "" {
		return errNoPath
	}
	e, ok := endpointOf(name)
	if !ok {
		return errNoPath
	}
	return s.only(e.method, e.serve, c)
}

var errNoPath = &failure{status: http.StatusNotFound, code: "unknown_path", detail: "nothing is served under this path", hint: "the API lives under /v1/keysets"}

// only answers 405 to other methods (RFC 9110 section 15.5.6).
func (s *Server) only(method string, serve func(*Server, *call) error, c *call) error {
	if c.r.Method != method && (method != http.MethodGet || c.r.Method != http.MethodHead) {
		allow := method
		if method == http.MethodGet {
			allow = "GET, HEAD"
		}
		return &failure{status: http.StatusMethodNotAllowed, code: "method_not_allowed", detail: "this path takes " + allow, allow: allow}
	}
	return serve(s, c)
}

// view returns the keyset's view. The grant is checked first, so that a caller
// without one learns nothing.
func (s *Server) view(c *call, action Action) (*rotator.View, *Grant, error) {
	g, err := c.caller.may(c.keyset, action)
	if err != nil {
		return nil, nil, err
	}
	v, err := s.opt.Keysets.View(c.keyset)
	return v, g, err
}

// body reads a JSON body of at most maxBody bytes. It reads no further than
// one byte past the bound.
func (c *call) body() ([]byte, error) {
	tooLarge := &failure{status: http.StatusRequestEntityTooLarge, code: "body_too_large", detail: "the body is over 64 KiB", hint: "put less into the claims"}
	if c.r.ContentLength > maxBody {
		c.w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	if err := c.mediaType(); err != nil {
		return nil, err
	}
	size := max(c.r.ContentLength, 0)
	if size == 0 {
		size = 512
	}
	// One byte more than announced, so that ReadFull-like reading meets the end
	// without growing the buffer.
	buf := make([]byte, 0, size+1)
	src := http.MaxBytesReader(c.w, c.r.Body, maxBody)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		var over *http.MaxBytesError
		switch {
		case err == io.EOF:
			return buf, nil
		case errors.As(err, &over):
			return nil, tooLarge
		case err != nil:
			return nil, badRequest("body_unreadable", "the body could not be read to its end")
		}
	}
}

// mediaType refuses a body that does not say it is JSON.
func (c *call) mediaType() error {
	value := c.r.Header.Get("Content-Type")
	if value == "application/json" {
		return nil
	}
	if t, params, err := mime.ParseMediaType(value); err == nil && t == "application/json" {
		if charset, ok := params["charset"]; !ok || strings.EqualFold(charset, "utf-8") {
			return nil
		}
	}
	return &failure{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", detail: "the body must be application/json in UTF-8", hint: "send Content-Type: application/json"}
}

// answer writes a JSON answer.
func (c *call) answer(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead {
		c.w.Write(append(body, '\n'))
	}
	return nil
}
