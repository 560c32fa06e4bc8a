package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
)

// daemon is one replica: a process that can be started again, its files, and
// its way to Vault.
type daemon struct {
	t       testing.TB
	name    string
	dir     string
	config  string
	network *network

	public, api, ops string // URLs, the same for every process
	client           *client.Client
	probe            *http.Client // gives up early

	cmd    *exec.Cmd
	exited chan struct{}

	mu  sync.Mutex
	log bytes.Buffer // of all processes
}

// newDaemon prepares a replica without starting it.
func newDaemon(t testing.TB, name string, c *cluster, n *network) *daemon {
	t.Helper()
	d := &daemon{t: t, name: name, dir: t.TempDir(), network: n, probe: &http.Client{Timeout: 700 * time.Millisecond}}
	at := freeAddresses(t, 3)
	d.public, d.api, d.ops = "http://"+at[0], "http://"+at[1], "http://"+at[2]
	d.config = filepath.Join(t.TempDir(), "jwksd.yaml")
	if err := os.WriteFile(d.config, []byte(configuration(d, c, at)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.kill()
		d.probe.CloseIdleConnections()
		d.sound()
		if t.Failed() {
			t.Logf("log of daemon %s:\n%s", name, d.tail(64<<10))
		}
	})
	return d
}

// freeAddresses finds addresses that nobody listens on now. They stay the same
// over restarts, as a balancer expects.
func freeAddresses(t testing.TB, count int) []string {
	t.Helper()
	var list []string
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // together, so that none comes twice
		list = append(list, l.Addr().String())
	}
	return list
}

// spawn starts the process.
func (d *daemon) spawn() {
	d.t.Helper()
	d.cmd = exec.Command(binary, "serve", "--config", d.config)
	d.cmd.Stderr = (*journal)(d)
	d.cmd.WaitDelay = 5 * time.Second
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	exited, cmd := make(chan struct{}), d.cmd
	d.exited = exited
	go func() {
		cmd.Wait() // the status stands in cmd.ProcessState
		close(exited)
	}()
}

// await waits until the process that was spawned is ready, and returns how
// often it was started. One that ends, because Vault did not answer it in time,
// is started again, as an init system does.
func (d *daemon) await() (starts int) {
	d.t.Helper()
	starts = 1
	within(d.t, patience, "daemon "+d.name+" that is ready", func() bool {
		if !d.alive() {
			if got := d.cmd.ProcessState.ExitCode(); got != 1 {
				d.t.Fatalf("daemon %s ended with status %d", d.name, got)
			}
			starts++
			d.spawn()
		}
		return d.ready("publish")
	})
	return starts
}

// connect makes the client, with the token that the daemon has made. The token
// stays the same over restarts.
func (d *daemon) connect() {
	d.t.Helper()
	token, err := os.ReadFile(filepath.Join(d.dir, "operator.token"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.client, err = client.New(d.api, strings.TrimSpace(string(token)), client.WithHTTPClient(&http.Client{Timeout: 4 * time.Second}))
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) alive() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// kill ends the process at once, if it runs, paused or not.
func (d *daemon) kill() {
	if d.cmd == nil || d.cmd.Process == nil || !d.alive() {
		return
	}
	d.cmd.Process.Kill()
	<-d.exited
}

// stop ends the process in an orderly way.
func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	within(d.t, patience, "the end of daemon "+d.name, func() bool { return !d.alive() })
	if got := d.cmd.ProcessState.ExitCode(); got != 0 {
		d.t.Errorf("daemon %s ended with status %d:\n%s", d.name, got, d.tail(4<<10))
	}
}

func (d *daemon) signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatal(err)
	}
}

// ready asks as a balancer does whether to send requests here: for sets
// (publish) or for signatures (sign).
func (d *daemon) ready(what string) bool {
	resp, err := d.probe.Get(d.ops + "/readyz/" + what)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// setURL is where a keyset is published.
func (d *daemon) setURL(keyset string) string {
	return d.public + "/" + keyset + "/.well-known/jwks.json"
}

// overview is what status asks for.
func (d *daemon) overview() (wire.Keysets, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	return d.client.Keysets(ctx)
}

// keyset is the daemon's view of one keyset.
func (d *daemon) keyset(ctx context.Context, name string) (wire.Keyset, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return d.client.Keyset(ctx, name)
}

// journal is a daemon that is written to.
type journal daemon

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.Write(p)
}

func (d *daemon) tail(n int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := d.log.String()
	return text[max(0, len(text)-n):]
}

// sound holds the whole log to what no log may contain.
func (d *daemon) sound() {
	text := d.tail(1 << 30)
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "PRIVATE KEY", "hvs."} {
		if strings.Contains(text, bad) {
			d.t.Errorf("the log of daemon %s says %s", d.name, bad)
		}
	}
}

func configuration(d *daemon, c *cluster, at []string) string {
	return fmt.Sprintf(`replica: %s
data_dir: %q
keystore:
  vault:
    address: %q
    transit_mount: transit
    timeout: 1500ms
    auth: {approle: {role_id_file: %q, secret_id_file: %q}}
sync_interval: 200ms
max_staleness: %s
clock_skew: %s
keysets:
%s%slisteners:
  public: {address: %q}
  api: {address: %q}
  ops: {address: %q}
`, d.name, d.dir, d.network.address(), c.roleID, c.secretID, staleness, skew,
		keysetBlock("local", "ES256, EdDSA"), keysetBlock("transit", "ES256"), at[0], at[1], at[2])
}

// keysetBlock is a keyset that is named after its custody.
func keysetBlock(custody, algorithms string) string {
	return fmt.Sprintf(`  %s:
    issuer: %s
    algorithms: [%s]
    custody: %s
    rotate: "@every %s"
    token_ttl_max: %s
    jwks_max_age: %s
    verifier_cache: %s
    verifier_leeway: 0s
    handover_grace: %s
`, custody, issuer, algorithms, custody, period, tokenLife, maxAge, cacheFor, grace)
}
