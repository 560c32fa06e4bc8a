package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
)

const token = "the-token-0123456789abcdefghijklmnop"

// wantQuiet checks that an error or a text does not give the token away.
func wantQuiet(t *testing.T, what any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		text := fmt.Sprintf(verb, what)
		if strings.Contains(text, token) || strings.Contains(text, fmt.Sprintf("%x", token)) {
			t.Errorf("%s gives the token away: %s", verb, text)
		}
	}
}

// serve runs a server and a client of it.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(srv.URL, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answering(status int, media, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", media)
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// calls are every method, as one that returns the error alone.
func calls(c *Client, keyset string) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Sign": func(ctx context.Context) error {
			_, err := c.Sign(ctx, keyset, wire.SignRequest{Claims: []byte("{}")})
			return err
		},
		"SigningKey": func(ctx context.Context) error { _, err := c.SigningKey(ctx, keyset, "ES256"); return err },
		"Keyset":     func(ctx context.Context) error { _, err := c.Keyset(ctx, keyset); return err },
		"Keysets":    func(ctx context.Context) error { _, err := c.Keysets(ctx); return err },
		"Plan":       func(ctx context.Context) error { _, err := c.Plan(ctx, keyset, "1d"); return err },
		"Rotate": func(ctx context.Context) error {
			_, err := c.Rotate(ctx, keyset, wire.RotateRequest{}, "k")
			return err
		},
		"Revoke": func(ctx context.Context) error {
			_, err := c.Revoke(ctx, keyset, wire.RevokeRequest{}, "k")
			return err
		},
		"Apply":  func(ctx context.Context) error { _, err := c.Apply(ctx, keyset, wire.ApplyRequest{}); return err },
		"Delete": func(ctx context.Context) error { _, err := c.Delete(ctx, keyset, "r", false); return err },
	}
}

func TestNew(t *testing.T) {
	for _, base := range []string{"", "x", "127.0.0.1:8081", "ftp://h", "http://", "http:///v1", "://", "http://h:port", "http://\x00", "http://u:" + token + "@h:1", "http://" + token + "@h", "http://h/?a=1", "http://h?", "http://h/#x", "http://h\n" + token} {
		c, err := New(base, token)
		if err == nil {
			t.Errorf("%q is taken for an address: %s", base, c)
		}
		wantQuiet(t, err)
	}
	for _, bad := range []string{token + "\n", token + "\r\nX: y", " " + token, token + "é", token + "\x00"} {
		_, err := New("http://h", bad)
		if err == nil {
			t.Errorf("%q is taken for a token", bad)
		}
		wantQuiet(t, err)
	}
	for base, want := range map[string]string{"http://h:1": "http://h:1", "https://h/": "https://h", "http://h/jwksd//": "http://h/jwksd", "http://[::1]:8081": "http://[::1]:8081"} {
		if c, err := New(base, ""); err != nil || c.base != want {
			t.Errorf("%q: %v %v", base, c, err)
		}
	}
}

func TestClientPrintsNoToken(t *testing.T) {
	c, err := New("http://h:1", token)
	if err != nil {
		t.Fatal(err)
	}
	wantQuiet(t, c)
	wantQuiet(t, *c)
	wantQuiet(t, struct{ C *Client }{c})
	wantQuiet(t, []Client{*c})
	wantQuiet(t, map[string]any{"c": c})
	if got := fmt.Sprint(c); !strings.Contains(got, "http://h:1") {
		t.Errorf("%q does not name the daemon", got)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c, "v", *c)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "v", *c)
	//lint:ignore SA9005 that nothing comes out is what is tested
	data, _ := json.Marshal(c)
	wantQuiet(t, log.String()+string(data))
	_ = fmt.Sprintf("%v", (*Client)(nil)) // must not panic
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c, err := New("http://"+l.Addr().String(), token)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(c, "default") {
		err := call(t.Context())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), l.Addr().String()) {
			t.Errorf("%s: %v", name, err)
		}
		wantQuiet(t, err)
	}
}

func TestSilentServer(t *testing.T) {
	stop := make(chan struct{})
	c := serve(t, func(http.ResponseWriter, *http.Request) { <-stop })
	t.Cleanup(func() { close(stop) }) // before the server's own
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Keysets(ctx)
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	wantQuiet(t, err)
}

// TestOtherServers: whatever is not a daemon's answer is an error that says so.
func TestOtherServers(t *testing.T) {
	const page = "<html><body>welcome</body></html>"
	for name, h := range map[string]http.HandlerFunc{
		"a page":             answering(200, "text/html", page),
		"a page for 404":     answering(404, "text/html", page),
		"a page for 502":     answering(502, "text/html", page),
		"nothing":            answering(200, "application/json", ""),
		"no content":         answering(204, "application/json", ""),
		"an array":           answering(200, "application/json", "[]"),
		"text":               answering(200, "application/json", `"hello"`),
		"foreign JSON error": answering(400, "application/json", `{"error":"no"}`),
		"a redirect":         answering(302, "text/html", page, "Location", "/elsewhere"),
		"a redirect in JSON": answering(302, "application/json", `{"token":"a"}`, "Location", "/elsewhere"),
		"a redirect of POST": answering(307, "text/html", page, "Location", "http://127.0.0.1:1/"),
		"not HTTP": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(conn, "SSH-2.0-OpenSSH_9.6\r\n")
			conn.Close()
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"token":"`)
		},
		"cut off in a chunk": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"token":"`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"cut off in its JSON": answering(200, "application/json", `{"token":"a"`),
		"two answers":         answering(200, "application/json", `{"token":"a"}{"token":"b"}`),
		"a mirror": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(400)
			fmt.Fprintf(w, "<pre>%v</pre>", r.Header)
		},
	} {
		c := serve(t, h)
		for method, call := range calls(c, "default") {
			err := call(t.Context())
			if err == nil {
				t.Errorf("%s: %s succeeds", name, method)
				continue
			}
			var answered *Error
			if errors.As(err, &answered) || strings.Contains(err.Error(), "welcome") {
				t.Errorf("%s: %s: %v", name, method, err)
			}
			wantQuiet(t, err)
		}
	}
	// JSON that is somebody else's has no token in it.
	c := serve(t, answering(200, "application/json", `{"status":"ok"}`))
	if got, err := c.Sign(t.Context(), "default", wire.SignRequest{}); err == nil || got != (wire.Token{}) {
		t.Errorf("somebody's JSON is taken for a token: %+v", got)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	followed := false
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if followed = r.URL.Path == "/elsewhere"; !followed {
			http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect)
		}
	})
	for method, call := range calls(c, "default") {
		if err := call(t.Context()); err == nil || followed {
			t.Errorf("%s follows a redirect: %v", method, err)
		}
	}
}

func TestHugeAnswer(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"keyset":"`)
		chunk := strings.Repeat("x", 1<<20)
		for range 200 {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
		io.WriteString(w, `"}`)
	})
	if _, err := c.Keyset(t.Context(), "default"); err == nil || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("%v", err)
	}
}

func TestErrorFields(t *testing.T) {
	const problem = `{"type":"about:blank","title":"Conflict","status":409,"code":"lead_not_reached","detail":"too early","hint":"wait","field":"f","earliest":"2026-01-15T11:00:00Z"}`
	c := serve(t, answering(409, "application/problem+json", problem, "Retry-After", "7"))
	_, err := c.Rotate(t.Context(), "default", wire.RotateRequest{}, "")
	var got *Error
	if !errors.As(err, &got) {
		t.Fatalf("%v", err)
	}
	want := wire.Problem{Type: "about:blank", Title: "Conflict", Status: 409, Code: "lead_not_reached", Detail: "too early", Hint: "wait", Field: "f", Earliest: time.Date(2026, 1, 15, 11, 0, 0, 0, time.UTC)}
	if got.Problem != want || got.RetryAfter != 7*time.Second || got.Error() != "too early (wait)" {
		t.Errorf("%+v after %s: %s", got.Problem, got.RetryAfter, got)
	}
	for header, after := range map[string]time.Duration{"": 0, "x": 0, "-1": 0, "0": 0, "5": 5 * time.Second} {
		c := serve(t, answering(503, "application/problem+json", `{"title":"Service Unavailable","code":"stale"}`, "Retry-After", header))
		_, err := c.Keysets(t.Context())
		if !errors.As(err, &got) || got.RetryAfter != after || got.Status != 503 || got.Error() != "Service Unavailable" {
			t.Errorf("Retry-After %q: %+v %v", header, got, err)
		}
	}
}

func TestRequests(t *testing.T) {
	var seen []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = append(seen, strings.Join([]string{r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.Header.Get("Idempotency-Key"), string(body)}, " "))
		io.WriteString(w, `{"token":"t"}`)
	})
	ctx := t.Context()
	const auth = " Bearer " + token + " "
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error {
			_, err := c.Sign(ctx, "default", wire.SignRequest{Claims: []byte(`{"n":9007199254740993}`)})
			return err
		}, "POST /v1/keysets/default/sign" + auth + `application/json  {"claims":{"n":9007199254740993}}`},
		{func() error { _, err := c.SigningKey(ctx, "default", ""); return err }, "GET /v1/keysets/default/signing-key" + auth + "  "},
		{func() error { _, err := c.SigningKey(ctx, "default", "a&b=c#"); return err }, "GET /v1/keysets/default/signing-key?alg=a%26b%3Dc%23" + auth + "  "},
		{func() error { _, err := c.Keysets(ctx); return err }, "GET /v1/keysets" + auth + "  "},
		{func() error { _, err := c.Keyset(ctx, "a/b?c#d%2f é"); return err }, "GET /v1/keysets/a%2Fb%3Fc%23d%252f%20%C3%A9" + auth + "  "},
		{func() error { _, err := c.Keyset(ctx, "../x"); return err }, "GET /v1/keysets/..%2Fx" + auth + "  "},
		{func() error { _, err := c.Plan(ctx, "default", ""); return err }, "GET /v1/keysets/default/plan" + auth + "  "},
		{func() error { _, err := c.Plan(ctx, "default", "90d&x=1"); return err }, "GET /v1/keysets/default/plan?horizon=90d%26x%3D1" + auth + "  "},
		{func() error { _, err := c.Rotate(ctx, "default", wire.RotateRequest{Force: true}, ""); return err }, "POST /v1/keysets/default/rotate" + auth + `application/json  {"force":true}`},
		{func() error {
			_, err := c.Revoke(ctx, "default", wire.RevokeRequest{KID: "k", Reason: "r"}, "once")
			return err
		}, "POST /v1/keysets/default/revoke" + auth + `application/json once {"kid":"k","reason":"r"}`},
		{func() error {
			_, err := c.Rotate(ctx, "default", wire.RotateRequest{Wait: rotation.Duration(10 * time.Second)}, "")
			return err
		}, "POST /v1/keysets/default/rotate" + auth + `application/json  {"wait":"10s"}`},
		{func() error { _, err := c.Apply(ctx, "default", wire.ApplyRequest{Issuer: "i"}); return err }, "PUT /v1/keysets/default" + auth + `application/json  {"issuer":"i"}`},
		{func() error {
			_, err := c.Apply(ctx, "default", wire.ApplyRequest{Issuer: "i", VerifierCache: new(rotation.Duration), Discovery: new(bool), DryRun: true})
			return err
		}, "PUT /v1/keysets/default" + auth + `application/json  {"issuer":"i","verifier_cache":"0s","discovery":false,"dry_run":true}`},
		{func() error { _, err := c.Delete(ctx, "default", "the end & more", false); return err }, "DELETE /v1/keysets/default?dry_run=false&reason=the+end+%26+more" + auth + "  "},
		{func() error { _, err := c.Delete(ctx, "a?b", "", true); return err }, "DELETE /v1/keysets/a%3Fb?dry_run=true&reason=" + auth + "  "},
	} {
		seen = nil
		if err := step.do(); err != nil || len(seen) != 1 || seen[0] != step.want {
			t.Errorf("%q, want %q: %v", seen, step.want, err)
		}
	}
	for _, name := range []string{"", ".", ".."} {
		for method, call := range calls(c, name) {
			if seen = nil; method == "Keysets" {
				continue
			}
			if err := call(ctx); !errors.Is(err, ErrKeysetName) || len(seen) != 0 {
				t.Errorf("%s of %q asks for %q: %v", method, name, seen, err)
			}
		}
	}
	if _, err := c.Rotate(ctx, "default", wire.RotateRequest{}, "a\r\nX-Evil: 1"); err == nil {
		t.Error("a header was split")
	} else {
		wantQuiet(t, err)
	}
}

// TestWaitingTakesLonger: the client's time-out does not count the waiting that
// was asked for, and stays as it is for everything else.
func TestWaitingTakesLonger(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(300 * time.Millisecond)
		io.WriteString(w, `{}`)
	})
	WithHTTPClient(&http.Client{Timeout: 50 * time.Millisecond})(c)
	if _, err := c.Rotate(t.Context(), "default", wire.RotateRequest{Wait: rotation.Duration(10 * time.Second)}, ""); err != nil {
		t.Errorf("waiting: %v", err)
	}
	if _, err := c.Rotate(t.Context(), "default", wire.RotateRequest{}, ""); !errors.Is(err, ErrUnreachable) {
		t.Errorf("not waiting: %v", err)
	}
}
