package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// limit is the largest body in bytes.
const limit = 64 << 10

// counted is a listener that counts what is read from its connections.
type counted struct {
	net.Listener
	read atomic.Int64
}

type countedConn struct {
	net.Conn
	read *atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &countedConn{c, &l.read}, err
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// dial opens a connection to a server of its own, whose reading is counted.
func (r *rig) dial() (net.Conn, *counted) {
	r.t.Helper()
	srv := httptest.NewUnstartedServer(r.api)
	l := &counted{Listener: srv.Listener}
	srv.Listener = l
	srv.Start()
	r.t.Cleanup(srv.Close)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, l
}

func head(token, more string) string {
	return "POST " + signPath + " HTTP/1.1\r\nHost: jwksd\r\nAuthorization: Bearer " + token + "\r\nContent-Type: application/json\r\n" + more + "\r\n"
}

// receive reads one answer from a bare connection.
func (r *rig) receive(conn net.Conn) (answer, *http.Response) {
	r.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		r.t.Fatal(err)
	}
	r.wantPromises("a bare request", false, &a)
	return a, resp
}

func TestC13AnnouncedBodyIsRefusedUnread(t *testing.T) {
	for _, size := range []int{limit + 1, 200 << 10, 1 << 30} {
		r := newRig(t)
		conn, l := r.dial()
		h := head(issuer, fmt.Sprintf("Content-Length: %d\r\n", size))
		io.WriteString(conn, h) // and then wait, the body unsent
		a, resp := r.receive(conn)
		r.want(a, 413, "body_too_large")
		if !resp.Close {
			t.Errorf("%d bytes: the connection is not closed", size)
		}
		if n := l.read.Load(); n != int64(len(h)) {
			t.Errorf("%d bytes: %d were read, the head has %d", size, n, len(h))
		}
	}
}

func TestC13WaitingForContinueIsRefusedUnread(t *testing.T) {
	r := newRig(t)
	conn, _ := r.dial()
	io.WriteString(conn, head(issuer, "Content-Length: 100000\r\nExpect: 100-continue\r\n"))
	a, _ := r.receive(conn)
	r.want(a, 413, "body_too_large")
}

func TestC13EndlessBodyIsCutOff(t *testing.T) {
	r := newRig(t)
	conn, l := r.dial()
	io.WriteString(conn, head(issuer, "Transfer-Encoding: chunked\r\n"))
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		chunk := "1000\r\n" + strings.Repeat(" ", 0x1000) + "\r\n"
		for range 64 << 10 { // 256 MiB, if anybody read them
			if _, err := io.WriteString(conn, chunk); err != nil {
				return
			}
		}
	}()
	a, _ := r.receive(conn)
	r.want(a, 413, "body_too_large")
	<-stop
	// After the answer net/http reads on for at most 256 KiB, to spare the
	// client a reset connection.
	if n := l.read.Load(); n > limit+300<<10 {
		t.Errorf("%d bytes were read of an endless body", n)
	}
}

// TestC13BodyIsReadToTheBoundOnly looks at the handler alone: one byte past the
// bound decides.
func TestC13BodyIsReadToTheBoundOnly(t *testing.T) {
	r := newRig(t)
	body := &endless{}
	req := httptest.NewRequest(http.MethodPost, signPath, body)
	req.ContentLength = -1
	req.Header.Set("Authorization", "Bearer "+issuer)
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, req)
	if w.Code != 413 || body.read != limit+1 {
		t.Errorf("answer %d after reading %d bytes, want 413 after %d", w.Code, body.read, limit+1)
	}
}

type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.read += len(p)
	return len(p), nil
}

// padded is a good body of exactly n bytes.
func padded(n int) string {
	const frame = `{"claims":{"a":""}}`
	return `{"claims":{"a":"` + strings.Repeat("x", n-len(frame)) + `"}}`
}

func TestC13BodyOfExactlyTheBound(t *testing.T) {
	r := newRig(t)
	r.want(r.do(http.MethodPost, signPath, issuer, padded(limit)), 200, "")
	r.want(r.do(http.MethodPost, signPath, issuer, padded(limit+1)), 413, "body_too_large")
	for size, status := range map[int]int{limit - 1: 200, limit: 200, limit + 1: 413, 600: 200} {
		req, _ := http.NewRequest(http.MethodPost, r.http.URL+signPath, io.MultiReader(strings.NewReader(padded(size)))) // length unknown
		req.Header.Set("Authorization", "Bearer "+issuer)
		req.Header.Set("Content-Type", "application/json")
		if a := r.send(req); a.status != status {
			t.Errorf("a chunked body of %d bytes: %d, want %d", size, a.status, status)
		}
	}
	for _, path := range []string{"rotate", "revoke"} {
		a := r.do(http.MethodPost, "/v1/keysets/default/"+path, operator, `{"reason":"`+strings.Repeat("x", limit)+`"}`)
		r.want(a, 413, "body_too_large")
	}
}

func TestC13MediaTypes(t *testing.T) {
	r := newRig(t)
	const body = `{"claims":{}}`
	for _, media := range []string{"application/json", "application/json; charset=UTF-8", "application/json;charset=utf-8", "Application/JSON", `application/json; charset="utf-8"`} {
		r.want(r.do(http.MethodPost, signPath, issuer, body, "Content-Type", media), 200, "")
	}
	for _, media := range []string{"", "text/plain", "application/json; charset=latin1", "application/jsonp", "application/problem+json", "application/x-www-form-urlencoded", "*/*", "json", "application/json, text/plain", "application/json; charset"} {
		r.want(r.do(http.MethodPost, signPath, issuer, body, "Content-Type", media), 415, "unsupported_media_type")
		for _, path := range []string{"rotate", "revoke"} {
			r.want(r.do(http.MethodPost, "/v1/keysets/default/"+path, operator, `{"reason":"a"}`, "Content-Type", media), 415, "unsupported_media_type")
		}
	}
}

func TestC13Methods(t *testing.T) {
	r := newRig(t)
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"}
	for path, allow := range map[string]string{
		"/v1/keysets": "GET, HEAD", "/v1/keysets/default": "GET, HEAD, PUT, DELETE", "/v1/keysets/default/signing-key": "GET, HEAD", "/v1/keysets/default/plan": "GET, HEAD",
		signPath: "POST", "/v1/keysets/default/rotate": "POST", "/v1/keysets/default/revoke": "POST",
	} {
		for _, m := range methods {
			allowed := slices.Contains(strings.Split(allow, ", "), m)
			if allowed && m != "GET" && m != "HEAD" {
				continue
			}
			a := r.do(m, path, operator, "")
			switch {
			case allowed && (a.status != 200 || a.header.Get("Allow") != ""):
				t.Errorf("%s %s: %s", m, path, a)
			case !allowed && (a.status != 405 || a.header.Get("Allow") != allow):
				t.Errorf("%s %s: %d with Allow %q", m, path, a.status, a.header.Get("Allow"))
			case !allowed && m != "HEAD":
				r.want(a, 405, "method_not_allowed")
			}
		}
	}
}

// TestHeadEqualsGet compares the fields of the answers.
func TestHeadEqualsGet(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/v1/keysets", "/v1/keysets/default", "/v1/keysets/tenant/signing-key", "/v1/keysets/default/plan?horizon=2y"} {
		get, head := r.do("GET", path, operator, ""), r.do("HEAD", path, operator, "")
		get.header.Del("Date")
		head.header.Del("Date")
		if a, b := fmt.Sprint(get.status, get.header), fmt.Sprint(head.status, head.header); a != b {
			t.Errorf("%s:\nGET  %s\nHEAD %s", path, a, b)
		}
	}
}

func TestClientLeavesInMidBody(t *testing.T) {
	left := make(chan error, 1)
	r := newRig(t)
	inner := r.api
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, req)
		left <- checkRecorded(rec, 400, "body_unreadable")
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, head(issuer, "Content-Length: 1000\r\n")+`{"claims":`)
	conn.Close()
	select {
	case err := <-left:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the handler still waits for a client that left")
	}
	r.signed(issuer, `{"claims":{}}`)
}

func checkRecorded(rec *httptest.ResponseRecorder, status int, code string) error {
	if rec.Code != status || !strings.Contains(rec.Body.String(), `"code":"`+code+`"`) {
		return fmt.Errorf("answer %d %s, want %d %s", rec.Code, rec.Body, status, code)
	}
	return nil
}

// TestSlowBodyMeetsTheRevocation: a request that was begun before its key was
// revoked, and whose body came after, must not get a token of that key.
func TestSlowBodyMeetsTheRevocation(t *testing.T) {
	r := newRig(t)
	kid := r.active("default", "ES256")
	conn, _ := r.dial()
	const body = `{"claims":{"sub":"slow"}}`
	io.WriteString(conn, head(issuer, fmt.Sprintf("Content-Length: %d\r\n", len(body)))+body[:5])
	time.Sleep(50 * time.Millisecond) // for the request to reach its handler and wait there
	r.want(r.do(http.MethodPost, "/v1/keysets/default/revoke", revoker, `{"kid":"`+kid+`","reason":"leaked"}`), 200, "")
	io.WriteString(conn, body[5:])
	a, _ := r.receive(conn)
	if r.want(a, 200, ""); strings.Contains(string(a.body), kid) {
		t.Errorf("a revoked key signed: %s", a.body)
	}
}
