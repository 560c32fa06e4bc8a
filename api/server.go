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
	Known(ctx context.Context, keyset string) (bool, error)
	Ensure(ctx context.Context, keyset string, p rotation.Policy, by string) (bool, error)
	Alarms() []rotator.Alarm
	Replicas(ctx context.Context) ([]rotator.Report, error)
	Await(ctx context.Context, keyset string, generation uint64) (rotator.Confirmation, error)
}

// Options of New. Keysets, Auth and Now are required.
type Options struct {
	Keysets Keysets
	Auth    Authenticator
	Now     func() time.Time
	Log     *slog.Logger
	Version string
	// Reload tells how the latest reload of the configuration ended.
	Reload func() *wire.Reload
	// Defaults holds what a policy takes that a request does not say:
	// max_staleness and clock_skew always, the rest where it is missing. Nil
	// stands for rotation.DefaultPolicy.
	Defaults func() rotation.Policy
	// Custodies are those that a policy may ask for, local alone if there are
	// none.
	Custodies []rotation.Custody
	// Configured returns the policies in the configuration of this replica, by
	// keyset.
	Configured func() map[string]rotation.Policy
	// Shared: other replicas use the same store, and may act on what they know
	// until max_staleness is over.
	Shared bool
	// ReadOnly: this replica publishes only, and neither signs nor changes
	// anything.
	ReadOnly bool
}

// Server answers the API. It is safe for concurrent use.
type Server struct {
	opt  Options
	log  *slog.Logger
	auth atomic.Pointer[Authenticator]

	denials denials
}

// New returns a server; it is an http.Handler.
func New(opt Options) *Server {
	if opt.Defaults == nil {
		opt.Defaults = rotation.DefaultPolicy
	}
	if len(opt.Custodies) == 0 {
		opt.Custodies = []rotation.Custody{rotation.CustodyLocal}
	}
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
type endpoint func(*Server, *call) error

// resource is a path with what may be done to it; nil is what may not.
type resource struct{ get, put, post, delete endpoint }

// resourceOf finds the resource below /v1/keysets/{keyset}.
func resourceOf(name string) (resource, bool) {
	switch name {
	case "sign":
		return resource{post: (*Server).sign}, true
	case "":
		return resource{get: (*Server).keyset, put: (*Server).apply, delete: (*Server).delete}, true
	case "signing-key":
		return resource{get: (*Server).signingKey}, true
	case "plan":
		return resource{get: (*Server).plan}, true
	case "rotate":
		return resource{post: (*Server).rotate}, true
	case "revoke":
		return resource{post: (*Server).revoke}, true
	}
	return resource{}, false
}

// method returns the endpoint of a method, or nil.
func (r resource) method(name string) endpoint {
	switch name {
	case http.MethodGet, http.MethodHead:
		return r.get
	case http.MethodPut:
		return r.put
	case http.MethodPost:
		return r.post
	case http.MethodDelete:
		return r.delete
	}
	return nil
}

// allow lists the methods for the header Allow.
func (r resource) allow() string {
	var names []string
	for _, m := range []struct {
		name string
		e    endpoint
	}{{"GET, HEAD", r.get}, {"PUT", r.put}, {"POST", r.post}, {"DELETE", r.delete}} {
		if m.e != nil {
			names = append(names, m.name)
		}
	}
	return strings.Join(names, ", ")
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
		s.denied(c, f.code)
	}
	f.write(c.w)
}

// denied logs a denial, unless the log has just heard of one like it: anybody
// who reaches the listener can cause denials, as fast as they like.
func (s *Server) denied(c *call, code string) {
	name := ""
	if c.caller != nil {
		name = c.caller.Name
	}
	tell, more := s.denials.note(denial{code, name}, s.opt.Now())
	if !tell {
		return
	}
	args := []any{"method", clip(c.r.Method), "path", clip(c.r.URL.Path), "code", code, "caller", name, "remote", c.r.RemoteAddr}
	if more > 0 {
		args = append(args, "unlogged", more) // like this one, since the line before
	}
	s.log.Warn("request denied", args...)
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
	// Whoever filters requests in front of us may take the other one.
	if len(c.r.Header["Authorization"]) > 1 {
		return badRequest("duplicate_header", "the request has more than one Authorization header")
	}
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
		return s.on(resource{get: (*Server).list}, c)
	}
	var name string
	if c.keyset, name, _ = strings.Cut(rest[1:], "/"); rest[0] != '/' || c.keyset == "" {
		return errNoPath
	}
	res, ok := resourceOf(name)
	if !ok {
		return errNoPath
	}
	return s.on(res, c)
}

var errNoPath = &failure{status: http.StatusNotFound, code: "unknown_path", detail: "nothing is served under this path", hint: "the API lives under /v1/keysets"}

// on serves the resource, or answers 405 to a method that it has not (RFC 9110
// section 15.5.6).
func (s *Server) on(res resource, c *call) error {
	if e := res.method(c.r.Method); e != nil {
		return e(s, c)
	}
	allow := res.allow()
	return &failure{status: http.StatusMethodNotAllowed, code: "method_not_allowed", detail: "this path takes " + allow, allow: allow}
}

// may tells whether the caller may do that to the keyset of the call, and this
// replica can. The grant is checked first, so that a caller without one learns
// nothing.
func (s *Server) may(c *call, action Action) error {
	if err := c.caller.may(c.keyset, action); err != nil {
		return err
	}
	if s.opt.ReadOnly && action != ActionRead {
		return rotator.ErrReadOnly
	}
	return nil
}

// view returns the keyset's view for an action.
func (s *Server) view(c *call, action Action) (*rotator.View, error) {
	if err := s.may(c, action); err != nil {
		return nil, err
	}
	return s.opt.Keysets.View(c.keyset)
}

// now is the time that everything here goes by, as it stands in answers.
func (s *Server) now() time.Time { return s.opt.Now().Round(0).UTC() }
