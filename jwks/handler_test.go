package jwks

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fixed is a Source with published keysets; a nil entry has no key yet.
type fixed map[string]*Published

func (f fixed) Lookup(keyset string) (*Published, Status) {
	p, ok := f[keyset]
	switch {
	case !ok:
		return nil, Unknown
	case p == nil:
		return nil, Pending
	}
	return p, Ready
}

const path = "/.well-known/jwks.json"

// newSource has keysets default and tenant-1, and one without keys, pending.
func newSource(t testing.TB) fixed {
	t.Helper()
	return fixed{
		"default":  NewPublished(newSet(t, newJWK(t, "ES256"), newJWK(t, "RS256")), 5*time.Minute),
		"tenant-1": NewPublished(newSet(t, newJWK(t, "ES256")), time.Minute),
		"pending":  nil,
	}
}

// first always draws the lowest max-age, so that answers can be compared.
func first() uint32 { return 0 }

func do(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestC40Get(t *testing.T) {
	src := newSource(t)
	for target, keyset := range map[string]string{
		path:                       "default",
		"/default" + path:          "default",
		"/tenant-1" + path:         "tenant-1",
		"/tenant-1" + path + "?a=": "tenant-1",
	} {
		for _, accept := range []string{"", "*/*", "text/html", "application/json;q=0", "nonsense"} {
			r := do(Handler(src, Options{}), "GET", target, "Accept", accept)
			if r.StatusCode != 200 || body(t, r) != string(src[keyset].Bytes()) {
				t.Errorf("%s, Accept %q: %d", target, accept, r.StatusCode)
			}
			for name, want := range map[string]string{
				"Content-Type":                  "application/jwk-set+json",
				"Content-Length":                strconv.Itoa(len(src[keyset].Bytes())),
				"Etag":                          src[keyset].ETag(),
				"X-Content-Type-Options":        "nosniff",
				"Access-Control-Allow-Origin":   "*",
				"Access-Control-Expose-Headers": "ETag, Retry-After",
			} {
				if got := r.Header.Get(name); got != want {
					t.Errorf("%s: %s is %q, want %q", target, name, got, want)
				}
			}
		}
	}
	r := do(Handler(src, Options{PlainJSON: true}), "GET", path)
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("PlainJSON: Content-Type %q", got)
	}
}

func TestC42IfNoneMatch(t *testing.T) {
	src := newSource(t)
	h := Handler(src, Options{Random: first})
	e := src["default"].ETag()
	inner := strings.Trim(e, `"`)
	for name, c := range map[string]struct {
		lines []string
		want  int
	}{
		"none":               {nil, 200},
		"match":              {[]string{e}, 304},
		"weak":               {[]string{"W/" + e}, 304},
		"star":               {[]string{"*"}, 304},
		"star with space":    {[]string{" * "}, 304},
		"list, first":        {[]string{e + `, "b"`}, 304},
		"list, last":         {[]string{`"a", W/"b",` + e}, 304},
		"list, weak":         {[]string{`"a",W/` + e + ` , "b"`}, 304},
		"list, empty parts":  {[]string{`, ,"a",, ` + e}, 304},
		"comma in a tag":     {[]string{`"a,b", ` + e}, 304},
		"two lines":          {[]string{`"a"`, e}, 304},
		"empty tag":          {[]string{`""`}, 200},
		"another":            {[]string{`"a"`}, 200},
		"empty":              {[]string{""}, 200},
		"without quotes":     {[]string{inner}, 200},
		"longer":             {[]string{`"` + inner + `x"`}, 200},
		"shorter":            {[]string{`"` + inner[1:] + `"`}, 200},
		"inside another tag": {[]string{`"a` + strings.ReplaceAll(e, `"`, ``) + `"`}, 200},
		"w/ in lower case":   {[]string{"w/" + e}, 200},
		"star in a list":     {[]string{`"a", *`}, 200},
		"star in a line":     {[]string{`"a"`, "*"}, 200},
		"unclosed":           {[]string{`"` + inner}, 200},
		"no comma":           {[]string{`"a" ` + e}, 200},
		"of another keyset":  {[]string{src["tenant-1"].ETag()}, 200},
	} {
		var header []string
		for _, l := range c.lines {
			header = append(header, "If-None-Match", l)
		}
		for _, method := range []string{"GET", "HEAD"} {
			r := do(h, method, path, header...)
			if r.StatusCode != c.want {
				t.Errorf("%s: %s: %d, want %d", name, method, r.StatusCode, c.want)
			}
			if r.Header.Get("ETag") != e || !strings.HasPrefix(r.Header.Get("Cache-Control"), "public, max-age=") {
				t.Errorf("%s: %s: %v", name, method, r.Header)
			}
			if r.StatusCode == 304 && (body(t, r) != "" || r.Header.Get("Access-Control-Allow-Origin") != "*") {
				t.Errorf("%s: %s: 304 with a body or without CORS", name, method)
			}
		}
	}
	// Preconditions do not apply to errors (RFC 9110 section 13.2.1).
	for target, want := range map[string]int{"/pending" + path: 503, "/nobody" + path: 404} {
		if r := do(h, "GET", target, "If-None-Match", "*"); r.StatusCode != want {
			t.Errorf("%s: %d, want %d", target, r.StatusCode, want)
		}
	}
}

// Over a real connection: what net/http adds and takes away counts.
func TestC42HeadEqualsGet(t *testing.T) {
	src := newSource(t)
	srv := httptest.NewServer(Handler(src, Options{Random: first}))
	defer srv.Close()
	ask := func(method, target string) (*http.Response, string) {
		req, err := http.NewRequest(method, srv.URL+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		r.Header.Del("Date")
		return r, body(t, r)
	}
	for _, target := range []string{path, "/tenant-1" + path, "/pending" + path, "/nobody" + path, "/"} {
		get, content := ask("GET", target)
		head, none := ask("HEAD", target)
		if none != "" || content == "" {
			t.Errorf("%s: bodies %q and %q", target, content, none)
		}
		if get.StatusCode != head.StatusCode || get.ContentLength != head.ContentLength || get.ContentLength != int64(len(content)) {
			t.Errorf("%s: GET %d, %d bytes; HEAD %d, %d bytes", target, get.StatusCode, get.ContentLength, head.StatusCode, head.ContentLength)
		}
		if !maps.EqualFunc(get.Header, head.Header, func(a, b []string) bool { return strings.Join(a, "|") == strings.Join(b, "|") }) {
			t.Errorf("%s: GET %v\nHEAD %v", target, get.Header, head.Header)
		}
	}
}

// problemOf checks what all errors have in common and returns the code.
func problemOf(t *testing.T, r *http.Response) string {
	t.Helper()
	var p struct {
		Type, Title, Code, Detail, Hint string
		Status                          int
	}
	if err := json.Unmarshal([]byte(body(t, r)), &p); err != nil {
		t.Fatal(err)
	}
	if p.Type != "about:blank" || p.Title != http.StatusText(r.StatusCode) || p.Status != r.StatusCode || p.Detail == "" || p.Hint == "" {
		t.Errorf("%d: %+v", r.StatusCode, p)
	}
	for name, want := range map[string]string{
		"Content-Type":                "application/problem+json",
		"Cache-Control":               "no-store",
		"X-Content-Type-Options":      "nosniff",
		"Access-Control-Allow-Origin": "*",
		"ETag":                        "",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%d: %s is %q, want %q", r.StatusCode, name, got, want)
		}
	}
	return p.Code
}

func TestC42OtherMethods(t *testing.T) {
	h := Handler(newSource(t), Options{})
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "get"} {
		r := do(h, method, path)
		if r.StatusCode != 405 || r.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("%s: %d, Allow %q", method, r.StatusCode, r.Header.Get("Allow"))
		}
		if code := problemOf(t, r); code != "method_not_allowed" {
			t.Errorf("%s: code %s", method, code)
		}
	}
	r := do(h, "OPTIONS", "/tenant-1"+path, "Origin", "https://app.example", "Access-Control-Request-Method", "GET",
		"Access-Control-Request-Headers", "if-none-match")
	if r.StatusCode != 204 || body(t, r) != "" {
		t.Errorf("preflight: %d", r.StatusCode)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":  "*",
		"Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
		"Access-Control-Allow-Headers": "*",
		"Allow":                        "GET, HEAD, OPTIONS",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("preflight: %s is %q", name, got)
		}
	}
}

func TestC43ErrorsAreNotCached(t *testing.T) {
	h := Handler(newSource(t), Options{RetryAfter: 1500 * time.Millisecond})
	for target, want := range map[string]struct {
		status int
		code   string
	}{
		"/pending" + path:                      {503, "no_key_yet"},
		"/nobody" + path:                       {404, "unknown_keyset"},
		"/":                                    {404, "unknown_path"},
		"/.well-known/jwks":                    {404, "unknown_path"},
		path + "/":                             {404, "unknown_path"},
		"/" + path:                             {404, "unknown_path"},
		"/a/b" + path:                          {404, "unknown_path"},
		"xab" + path:                           {404, "unknown_path"},
		"/Tenant" + path:                       {404, "unknown_path"},
		"/-a" + path:                           {404, "unknown_path"},
		"/.." + path:                           {404, "unknown_path"},
		"/" + strings.Repeat("a", 64) + path:   {404, "unknown_path"},
		"/" + strings.Repeat("a", 63) + path:   {404, "unknown_keyset"},
		"/9._-" + path:                         {404, "unknown_keyset"},
		"/a%00" + path:                         {404, "unknown_path"},
		"/.well-known/openid-configuration":    {404, "unknown_path"},
		"/tenant-1/.WELL-KNOWN/jwks.json":      {404, "unknown_path"},
		"/.well-known" + path + "?keyset=x":    {404, "unknown_path"},
		"/tenant-1%2f.well-known/jwks.json%20": {404, "unknown_path"},
		"/default%2f.well-known/jwks.json":     {404, "unknown_path"},
		"/default%2F.well-known/jwks.json":     {404, "unknown_path"},
		"/default/%2ewell-known/jwks.json":     {404, "unknown_path"},
		"/default/%2E%2e/default" + path:       {404, "unknown_path"},
		"/%64efault" + path:                    {404, "unknown_path"},
		"/%2ewell-known/jwks.json":             {404, "unknown_path"},
	} {
		var r *http.Response
		if target[0] == 'x' { // no server lets such a path through
			w, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			req.URL.Path = target
			h.ServeHTTP(w, req)
			r = w.Result()
		} else {
			r = do(h, "GET", target)
		}
		if r.StatusCode != want.status {
			t.Errorf("%s: %d, want %d", target, r.StatusCode, want.status)
		}
		if code := problemOf(t, r); code != want.code {
			t.Errorf("%s: code %s, want %s", target, code, want.code)
		}
		if retry := r.Header.Get("Retry-After"); (retry == "2") != (want.status == 503) {
			t.Errorf("%s: Retry-After %q", target, retry)
		}
	}
	if r := do(Handler(fixed{"default": nil}, Options{}), "GET", path); r.Header.Get("Retry-After") != "2" {
		t.Errorf("default Retry-After %q", r.Header.Get("Retry-After"))
	}
	// A source that contradicts itself does not get an empty set published.
	if r := do(Handler(contradiction{}, Options{}), "GET", path); r.StatusCode != 503 {
		t.Errorf("ready without a set: %d", r.StatusCode)
	}
}

type contradiction struct{}

func (contradiction) Lookup(string) (*Published, Status) { return nil, Ready }

func TestC43MaxAgeIsSpreadAndNeverBeyond(t *testing.T) {
	for _, c := range []struct {
		maxAge    time.Duration
		low, high int
		distinct  int
	}{
		{5 * time.Minute, 270, 300, 16},
		{5*time.Minute - 1, 270, 299, 16},
		{24 * time.Hour, 77760, 86400, 16},
		{time.Minute, 54, 60, 7},
		{10 * time.Second, 9, 10, 2},
		{9 * time.Second, 9, 9, 1},
		{1999 * time.Millisecond, 1, 1, 1},
		{time.Second, 1, 1, 1},
	} {
		p := NewPublished(newSet(t, newJWK(t, "ES256")), c.maxAge)
		h := Handler(fixed{"default": p}, Options{})
		seen := map[int]bool{}
		for range 2000 {
			cc := do(h, "GET", path).Header.Get("Cache-Control")
			age, err := strconv.Atoi(strings.TrimPrefix(cc, "public, max-age="))
			if err != nil || age < c.low || age > c.high {
				t.Fatalf("%v: %q", c.maxAge, cc)
			}
			seen[age] = true
		}
		if !seen[c.low] || !seen[c.high] || len(seen) != c.distinct {
			t.Errorf("%v: %d ages drawn: %v", c.maxAge, len(seen), seen)
		}
		if p.MaxAge() != time.Duration(c.high)*time.Second {
			t.Errorf("%v: MaxAge %v", c.maxAge, p.MaxAge())
		}
	}
	for _, maxAge := range []time.Duration{999 * time.Millisecond, 0, -time.Hour} {
		p := NewPublished(newSet(t, newJWK(t, "ES256")), maxAge)
		cc := do(Handler(fixed{"default": p}, Options{}), "GET", path).Header.Get("Cache-Control")
		if cc != "public, max-age=0, no-cache" || p.MaxAge() != 0 {
			t.Errorf("%v: %q", maxAge, cc)
		}
	}
}

// Every draw stays inside the variants.
func TestC43DrawAtTheEdges(t *testing.T) {
	p := NewPublished(newSet(t, newJWK(t, "ES256")), 5*time.Minute)
	for draw, want := range map[uint32]string{0: "270", 1<<32 - 1: "300"} {
		h := Handler(fixed{"default": p}, Options{Random: func() uint32 { return draw }})
		if cc := do(h, "GET", path).Header.Get("Cache-Control"); cc != "public, max-age="+want {
			t.Errorf("draw %d: %q", draw, cc)
		}
	}
}

// Somebody who adds to an answer's header fields after the handler must not
// change what later answers say.
func TestC42AnswersDoNotShareWhatCanGrow(t *testing.T) {
	draw := uint32(0)
	h := Handler(newSource(t), Options{Random: func() uint32 { return draw }})
	for range 2 {
		for draw = range uint32(16) {
			draw <<= 28 // each of the 16 ages once
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			for name, values := range w.Header() {
				if len(values) != 1 || values[0] == "intruder" {
					t.Fatalf("draw %x: %s: %q", draw, name, values)
				}
				w.Header().Add(name, "intruder")
			}
		}
	}
}

// sink is a ResponseWriter that keeps its header map, as one that costs
// nothing by itself.
type sink struct {
	header http.Header
	status int
	n      int
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(c int)   { s.status = c }
func (s *sink) Write(b []byte) (int, error) {
	s.n += len(b)
	return len(b), nil
}

// cheap returns one request for tenant-1, ready to be answered again and
// again. The If-None-Match field is left out if empty; "%" stands for the ETag.
func cheap(t testing.TB, target, noneMatch string) (run func(), s *sink) {
	t.Helper()
	src := newSource(t)
	h := Handler(src, Options{})
	r := httptest.NewRequest("GET", target, nil)
	if noneMatch != "" {
		r.Header.Set("If-None-Match", strings.ReplaceAll(noneMatch, "%", src["tenant-1"].ETag()))
	}
	s = &sink{header: http.Header{}}
	return func() {
		clear(s.header)
		s.status = http.StatusOK
		h.ServeHTTP(s, r)
	}, s
}

func TestC42AnswersDoNotAllocate(t *testing.T) {
	for name, c := range map[string]struct {
		target, noneMatch string
		status            int
	}{
		"200":       {"/tenant-1" + path, "", 200},
		"200, list": {"/tenant-1" + path, `"a", W/"b"`, 200},
		"304":       {"/tenant-1" + path, "%", 304},
		"304, list": {"/tenant-1" + path, `"a", W/%`, 304},
		"304, star": {"/tenant-1" + path, "*", 304},
		"404":       {"/nobody" + path, "", 404},
		"503":       {"/pending" + path, "", 503},
	} {
		run, s := cheap(t, c.target, c.noneMatch)
		if n := testing.AllocsPerRun(200, run); n > 0 || s.status != c.status {
			t.Errorf("%s: %v allocations, status %d", name, n, s.status)
		}
	}
}

func benchmark(b *testing.B, noneMatch string, status int) {
	run, s := cheap(b, "/tenant-1"+path, noneMatch)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
	if s.status != status {
		b.Fatal(s.status)
	}
}

func BenchmarkGet200(b *testing.B) { benchmark(b, "", 200) }
func BenchmarkGet304(b *testing.B) { benchmark(b, "%", 304) }

// BenchmarkHTTP is one client on one connection, net/http on both ends.
func BenchmarkHTTP(b *testing.B) {
	srv := httptest.NewServer(Handler(newSource(b), Options{}))
	defer srv.Close()
	b.ReportAllocs()
	for b.Loop() {
		r, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
}
