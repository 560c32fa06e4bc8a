package jwks

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultKeyset is the keyset behind the paths that name none.
const DefaultKeyset = "default"

// setPath is where a set is found, below the keyset if one is named.
const setPath = "/.well-known/jwks.json"

// Status says what a Source knows about a keyset.
type Status int

// The answers of Source.Lookup.
const (
	Unknown Status = iota // there is no such keyset
	Pending               // the keyset exists, but has no key to publish yet
	Ready                 // the keyset is published
)

// Source is where the handler finds what to publish. Lookup is called once for
// each request, by many goroutines at once, with a name that has the form of a
// keyset name; it must not wait for anything. The *Published is used for Ready
// only.
type Source interface {
	Lookup(keyset string) (*Published, Status)
}

// Options of Handler. The zero value is ready to use.
type Options struct {
	// PlainJSON answers with application/json instead of
	// application/jwk-set+json, for verifiers that insist on it.
	PlainJSON bool
	// RetryAfter is what a client is told to wait for the first key; rounded up
	// to whole seconds, 2 s if zero or less.
	RetryAfter time.Duration
	// Random picks the max-age of an answer; uniform over all values and safe
	// for concurrent use. math/rand/v2 if nil.
	Random func() uint32
}

// Handler answers for the sets of source, to anyone and without looking at
// Accept:
//
//	GET, HEAD /.well-known/jwks.json            the set of DefaultKeyset
//	GET, HEAD /{keyset}/.well-known/jwks.json   the set of that keyset
//
// A set comes with a strong ETag, honours If-None-Match and may be read by
// scripts of any origin. Errors are application/problem+json with a stable
// code (RFC 9457) and are never cached:
//
//	404 unknown_path         the path is none of the above
//	404 unknown_keyset       there is no keyset of that name
//	405 method_not_allowed   neither GET, HEAD nor OPTIONS
//	503 no_key_yet           the keyset has no key yet; with Retry-After
//
// The handler is safe for concurrent use and keeps nothing between requests.
func Handler(source Source, opts Options) http.Handler {
	h := &handler{
		source:      source,
		random:      opts.Random,
		contentType: []string{"application/jwk-set+json"},
		problemType: []string{"application/problem+json"},
		noStore:     []string{"no-store"},
		nosniff:     []string{"nosniff"},
		any:         []string{"*"},
		exposed:     []string{"ETag, Retry-After"},
		methods:     []string{"GET, HEAD, OPTIONS"},
		day:         []string{"86400"},
		retryAfter:  []string{"2"},
		unknownPath: newProblem(http.StatusNotFound, "unknown_path",
			"nothing is served under this path",
			"sets are at /.well-known/jwks.json (keyset "+DefaultKeyset+") and /{keyset}/.well-known/jwks.json"),
		unknownKeyset: newProblem(http.StatusNotFound, "unknown_keyset",
			"there is no keyset of this name",
			"check the spelling; a keyset that was just created can take a moment to reach this replica"),
		badMethod: newProblem(http.StatusMethodNotAllowed, "method_not_allowed",
			"sets can only be read",
			"use GET, HEAD or OPTIONS; changes are made on the api listener"),
		pending: newProblem(http.StatusServiceUnavailable, "no_key_yet",
			"this keyset has no key to publish yet",
			"try again after the time in Retry-After"),
	}
	if opts.PlainJSON {
		h.contentType = []string{"application/json"}
	}
	if opts.RetryAfter > 0 {
		seconds := (opts.RetryAfter-1)/time.Second + 1
		h.retryAfter = []string{strconv.FormatInt(int64(seconds), 10)}
	}
	if h.random == nil {
		h.random = rand.Uint32
	}
	return h
}

// handler holds the values of header fields in the form that http.Header
// holds, so that an answer only points to them. They are never written to
// after Handler returns, and each has no room to append in place.
type handler struct {
	source Source
	random func() uint32

	contentType, problemType []string
	noStore, nosniff         []string
	any, exposed, methods    []string
	day, retryAfter          []string
	unknownPath, badMethod   *problem
	unknownKeyset, pending   *problem
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// An escape is another spelling of a path that needs none, and whoever
	// filters paths in front of us may not read it as we do.
	keyset, ok := route(r.URL.Path)
	if !ok || r.URL.RawPath != "" {
		h.fail(w, r, h.unknownPath)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		h.serveSet(w, r, keyset)
	case http.MethodOptions:
		h.preflight(w)
	default:
		w.Header()["Allow"] = h.methods
		h.fail(w, r, h.badMethod)
	}
}

// route finds the keyset that a path asks for. It does not clean the path:
// each set has its one spelling.
func route(path string) (keyset string, ok bool) {
	prefix, ok := strings.CutSuffix(path, setPath)
	if !ok {
		return "", false
	}
	if prefix == "" {
		return DefaultKeyset, true
	}
	return prefix[1:], prefix[0] == '/' && ValidKeyset(prefix[1:])
}

// ValidKeyset reports whether name has the form of a keyset name:
// [a-z0-9][a-z0-9._-]{0,62}. Such a name needs no escape in a URL.
func ValidKeyset(name string) bool {
	if len(name) == 0 || len(name) > 63 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// serveSet answers GET and HEAD. Header names are written in their canonical
// form and assigned directly: Set would allocate.
func (h *handler) serveSet(w http.ResponseWriter, r *http.Request, keyset string) {
	p, status := h.source.Lookup(keyset)
	switch {
	case status == Unknown:
		h.fail(w, r, h.unknownKeyset)
		return
	case status != Ready || p == nil:
		w.Header()["Retry-After"] = h.retryAfter
		h.fail(w, r, h.pending)
		return
	}
	header := w.Header()
	header["Etag"] = p.etag
	header["Cache-Control"] = h.age(p)
	header["Access-Control-Allow-Origin"] = h.any
	header["Access-Control-Expose-Headers"] = h.exposed
	header["X-Content-Type-Options"] = h.nosniff
	if noneMatchFails(r.Header["If-None-Match"], p.etag[0]) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header["Content-Type"] = h.contentType
	header["Content-Length"] = p.length
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return
	}
	w.Write(p.body) // a client that went away is no news
}

// age draws one of the Cache-Control values.
func (h *handler) age(p *Published) []string {
	i := int(uint64(h.random()) * uint64(len(p.ages)) >> 32)
	return p.ages[i : i+1 : i+1]
}

// preflight answers the question of a browser whether a script of another
// origin may ask (Fetch standard, CORS protocol). It may, with any header: the
// set is public and no credential means anything here.
func (h *handler) preflight(w http.ResponseWriter) {
	header := w.Header()
	header["Allow"] = h.methods
	header["Access-Control-Allow-Origin"] = h.any
	header["Access-Control-Allow-Methods"] = h.methods
	header["Access-Control-Allow-Headers"] = h.any
	header["Access-Control-Max-Age"] = h.day
	header["X-Content-Type-Options"] = h.nosniff
	w.WriteHeader(http.StatusNoContent)
}

// fail answers with an error, which no cache may keep: it would outlive its
// cause.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, p *problem) {
	header := w.Header()
	header["Content-Type"] = h.problemType
	header["Content-Length"] = p.length
	header["Cache-Control"] = h.noStore
	header["Access-Control-Allow-Origin"] = h.any
	header["Access-Control-Expose-Headers"] = h.exposed
	header["X-Content-Type-Options"] = h.nosniff
	w.WriteHeader(p.status)
	if r.Method != http.MethodHead {
		w.Write(p.body)
	}
}
