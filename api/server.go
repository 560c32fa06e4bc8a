package api

import (
	"context"
	"log/slog"
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

// call is a request on its way: who calls, what about.
type call struct {
	caller  *Caller // nil until somebody was identified
	keyset  string
	r       *http.Request
	w       http.ResponseWriter
	started bool // the answer has begun, so it cannot become another one
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
	c := &call{r: r, w: w}
	defer s.catch(c)
	if err := s.serve(c); err != nil {
		s.fail(c, explain(err), err)
	}
}

// fail logs what an operator should know of and answers.
func (s *Server) fail(c *call, f *failure, err error) {
	switch {
	case f.status >= 500:
		s.log.Error("request failed", "method", c.r.Method, "path", clip(c.r.URL.Path), "code", f.code, "error", err)
	case f.status == http.StatusUnauthorized || f.status == http.StatusForbidden:
		name := ""
		if c.caller != nil {
			name = c.caller.Name
		}
		s.log.Warn("request denied", "method", c.r.Method, "path", clip(c.r.URL.Path), "code", f.code, "caller", name, "remote", c.r.RemoteAddr)
	}
	f.write(c.w)
}

// clip shortens a stranger's text for the log.
func clip(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

func (s *Server) serve(c *call) error {
	var err error
	if c.caller, err = (*s.auth.Load()).Authenticate(c.r.Context(), c.r); err != nil {
		return err
	}
	// A path has one spelling, so that whoever filters paths in front of us
	// reads them as we do: no escapes (a keyset's name needs none), no empty
	// segment at the end.
	rest, ok := strings.CutPrefix(c.r.URL.Path, "/v1/keysets")
	if !ok || c.r.URL.RawPath != "" || strings.HasSuffix(rest, "/") {
		return errNoPath
	}
	if rest == "" {
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
func (s *Server) view(c *call, action Action) (*rotator.View, error) {
	if err := c.caller.may(c.keyset, action); err != nil {
		return nil, err
	}
	return s.opt.Keysets.View(c.keyset)
}

// now is the time that everything here goes by, as it stands in answers.
func (s *Server) now() time.Time { return s.opt.Now().Round(0).UTC() }
