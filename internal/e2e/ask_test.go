package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
)

// sign gets a token, trying again while the daemon asks for it: on a loaded
// machine a replica may find itself stale for a moment.
func (d *daemon) sign(keyset, alg, ttl string) wire.Token {
	d.t.Helper()
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		out, err := d.client.Sign(context.Background(), keyset, signRequest(alg, ttl))
		if err == nil {
			return out
		}
		if last = err; !transient(err) {
			break
		}
	}
	d.t.Fatalf("signing with keyset %s, algorithm %q: %v", keyset, alg, last)
	return wire.Token{}
}

func signRequest(alg, ttl string) wire.SignRequest {
	return wire.SignRequest{Claims: json.RawMessage(`{"sub":"alice","aud":"api"}`), Alg: alg, TTL: ttl}
}

// transient tells whether an answer asks to try again.
func transient(err error) bool {
	var answered *client.Error
	return errors.As(err, &answered) && answered.Status == http.StatusServiceUnavailable
}

// overview is what status asks for.
func (d *daemon) overview() wire.Keysets {
	d.t.Helper()
	list, err := d.client.Keysets(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

// keyset returns one keyset of the overview.
func (d *daemon) keyset(name string) wire.Keyset {
	d.t.Helper()
	k, err := d.client.Keyset(context.Background(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	return k
}

// kids lists every published kid.
func kids(k wire.Keyset) []string {
	var list []string
	for _, l := range k.Lanes {
		for _, key := range l.Keys {
			list = append(list, key.KID)
		}
	}
	return list
}

// setURL is where a keyset is published.
func (d *daemon) setURL(keyset string) string {
	return d.public + "/" + keyset + "/.well-known/jwks.json"
}

// get fetches a URL and returns body and header; any status but 200 is an
// error.
func get(url string) ([]byte, http.Header, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return body, resp.Header, err
}

// ran is how a command ended.
type ran struct {
	status      int
	out, stderr string
}

// cli runs the command line of the binary to its end.
func cli(t testing.TB, stdin string, env []string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, binary, args...)
	c.Env = append(os.Environ(), env...)
	c.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("jwksd %s: %v", strings.Join(args, " "), err)
	}
	return ran{c.ProcessState.ExitCode(), out.String(), stderr.String()}
}

// cli runs a command that finds the daemon by its data directory.
func (d *daemon) cli(args ...string) ran {
	d.t.Helper()
	return cli(d.t, "", []string{"JWKSD_DATA_DIR=" + d.dir}, args...)
}
