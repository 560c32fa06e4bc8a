package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
)

// TestStopDrains stops a daemon while a request is under way. The request is
// answered, new ones are refused, and the daemon ends with status 0.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t, calm(t.TempDir()))
			idle, err := net.Dial("tcp", address(d.public)) // must not hold up the end
			if err != nil {
				t.Fatal(err)
			}
			defer idle.Close()
			set, api := d.fetchSet("default"), address(d.line("api.url"))
			slow := d.beginUpload()
			d.signal(sig)
			eventually(t, "a listener that refuses", func() bool { return refused(api) })
			if !d.alive() {
				t.Fatal("the daemon ended with a request under way")
			}
			token := slow.finish()
			if _, err := check(set, token.Token); err != nil {
				t.Errorf("the token of the slow request: %v", err)
			}
			answered := time.Now()
			d.end(0)
			t.Logf("ended %s after the last answer", time.Since(answered).Round(time.Millisecond))
			if !refused(address(d.public)) {
				t.Error("the public listener still answers")
			}
		})
	}
}

// TestStopDoesNotWaitForEver stops a daemon while a client holds a request open
// for good.
func TestStopDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, calm(t.TempDir()))
	slow := d.beginUpload()
	defer slow.conn.Close()
	start := time.Now()
	d.stop()
	t.Logf("ended %s after the signal", time.Since(start).Round(time.Millisecond))
}

func address(url string) string { return strings.TrimPrefix(url, "http://") }

func refused(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		c.Close()
	}
	return err != nil
}

// upload is a request to sign whose body is sent by halves.
type upload struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	rest string
}

// beginUpload sends the header and half the body, once the daemon wants it.
func (d *daemon) beginUpload() *upload {
	d.t.Helper()
	conn, err := net.Dial("tcp", address(d.line("api.url")))
	if err != nil {
		d.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	body := `{"claims":{"sub":"alice","aud":"api"},"ttl":"5m"}`
	fmt.Fprintf(conn, "POST /v1/keysets/default/sign HTTP/1.1\r\nHost: jwksd\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", d.token, len(body))
	u := &upload{t: d.t, conn: conn, in: bufio.NewReader(conn), rest: body[len(body)/2:]}
	if line, err := u.in.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		d.t.Fatalf("instead of reading the body the daemon answers %q, %v", line, err)
	}
	if _, err := u.in.ReadString('\n'); err != nil { // the empty line after it
		d.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, body[:len(body)/2]); err != nil {
		d.t.Fatal(err)
	}
	return u
}

// finish sends the rest and reads the answer.
func (u *upload) finish() wire.Token {
	u.t.Helper()
	defer u.conn.Close()
	if _, err := io.WriteString(u.conn, u.rest); err != nil {
		u.t.Fatal(err)
	}
	resp, err := http.ReadResponse(u.in, nil)
	if err != nil {
		u.t.Fatalf("the request under way was not answered: %v", err)
	}
	defer resp.Body.Close()
	var token wire.Token
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil || resp.StatusCode != http.StatusOK {
		u.t.Fatalf("the request under way was answered with %s, %v", resp.Status, err)
	}
	return token
}

// TestRestartKeepsEverything stops and kills a daemon; its keys, its generation
// and its revocations stay.
func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	s := calm(t.TempDir())
	s.blocks[0].algorithms = "ES256, EdDSA"
	d := newDaemon(t, s)
	started := time.Now()
	d.start()
	t.Logf("ready %s after the first start", time.Since(started).Round(time.Millisecond))
	old := d.keyset("default")
	standby := old.Lanes[0].Keys[1].KID
	if r := d.cli("revoke", "--reason", "drill", "--", standby); r.status != 0 {
		t.Fatalf("revoke ends with status %d:\n%s", r.status, r.stderr)
	}
	eventually(t, "a new standby", func() bool { return len(d.keyset("default").Lanes[0].Keys) == 2 })
	token := d.sign("default", "EdDSA", "5m").Token
	before := d.settled()

	for i, end := range []func(){d.stop, d.kill, d.stop} {
		end()
		started = time.Now()
		d.start()
		took := time.Since(started)
		t.Logf("ready %s after start %d", took.Round(time.Millisecond), i+2)
		if took > 10*time.Second {
			t.Errorf("the start took %s", took)
		}
		after := d.keyset("default")
		if after.Generation != before.Generation || !slices.Equal(kids(after), kids(before)) {
			t.Errorf("generation %d with %v became %d with %v", before.Generation, kids(before), after.Generation, kids(after))
		}
		if len(after.Revoked) != 1 || after.Revoked[0].KID != standby {
			t.Errorf("the revoked keys are %v", after.Revoked)
		}
		if _, err := check(d.fetchSet("default"), token); err != nil {
			t.Errorf("a token from before: %v", err)
		}
	}
	d.stop()
}

// settled waits until the keyset changes no more, and returns it.
func (d *daemon) settled() wire.Keyset {
	d.t.Helper()
	last := d.keyset("default")
	eventually(d.t, "a keyset that is settled", func() bool {
		time.Sleep(300 * time.Millisecond)
		was := last.Generation
		last = d.keyset("default")
		return last.Generation == was
	})
	return last
}

// TestStopWhileStarting stops daemons at any moment of their start. Each ends
// in an orderly way, unless it did not even come to listen to signals, and its
// directory can be used.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, calm(filepath.Join(t.TempDir(), "data")))
	for range 25 {
		d.spawn()
		time.Sleep(time.Duration(rand.Int64N(int64(40 * time.Millisecond))))
		d.signal(syscall.SIGTERM)
		eventually(t, "the end of the daemon", func() bool { return !d.alive() })
		if got := d.status(); got != 0 && !d.killedBy(syscall.SIGTERM) {
			t.Errorf("the daemon ended with status %d:\n%s", got, d.log.fresh())
		}
	}
	d.start()
	d.sign("default", "", "")
	d.stop()
}
