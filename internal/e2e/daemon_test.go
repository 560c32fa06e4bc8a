package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jwksd/jwksd/client"
)

// daemon is one data directory with the process that serves it. After it has
// ended it can be started again.
type daemon struct {
	t      testing.TB
	dir    string // as this process sees it
	config string
	wrap   func(*exec.Cmd) // changes the command before it starts

	cmd    *exec.Cmd
	exited chan struct{} // closed once the process has been waited for
	log    journal

	public string
	token  string
	client *client.Client
}

// newDaemon prepares a daemon without starting it. It is killed, and its log
// shown if something failed, when the test ends.
func newDaemon(t testing.TB, s settings) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: s.dir, config: s.write(t)}
	t.Cleanup(func() {
		d.kill()
		d.log.sound(t, d.token)
		if t.Failed() {
			t.Logf("log of the daemon in %s:\n%s", d.dir, d.log.tail(12<<10))
		}
	})
	return d
}

// startDaemon starts a daemon and waits until it is ready.
func startDaemon(t testing.TB, s settings) *daemon {
	t.Helper()
	d := newDaemon(t, s)
	d.start()
	return d
}

// spawn starts the process and does not wait for anything.
func (d *daemon) spawn() {
	d.t.Helper()
	d.cmd = exec.Command(binary, "serve", "--config", d.config)
	d.cmd.Stderr = &d.log
	d.cmd.WaitDelay = 5 * time.Second
	if d.wrap != nil {
		d.wrap(d.cmd)
	}
	d.log.mark()
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

// start spawns the process and waits until it is ready.
func (d *daemon) start() {
	d.t.Helper()
	d.spawn()
	if !d.await() {
		d.t.Fatalf("the daemon ended with status %d instead of getting ready:\n%s", d.status(), d.log.fresh())
	}
}

// await waits until the daemon is ready, and tells whether it is.
func (d *daemon) await() bool {
	d.t.Helper()
	eventually(d.t, "a daemon that is ready", func() bool { return d.log.says("jwksd: ready\n") || !d.alive() })
	if !d.log.says("jwksd: ready\n") {
		return false
	}
	d.public = d.line("public.url")
	d.token = d.line("operator.token")
	c, err := client.New(d.line("api.url"), d.token)
	if err != nil {
		d.t.Fatal(err)
	}
	d.client = c
	return true
}

// line reads a file of one line in the data directory.
func (d *daemon) line(name string) string {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func (d *daemon) alive() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// status is the exit status of a process that has ended, -1 after a signal.
func (d *daemon) status() int { return d.cmd.ProcessState.ExitCode() }

// killedBy tells whether a signal ended the process before it could act on it.
func (d *daemon) killedBy(sig syscall.Signal) bool {
	status, ok := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == sig
}

// signal sends a signal to this very process. One that has ended gets none.
func (d *daemon) signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatal(err)
	}
}

// kill ends the process at once, if it runs.
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
	d.end(0)
}

// end waits until the process has ended by itself and holds it to a status.
func (d *daemon) end(status int) {
	d.t.Helper()
	eventually(d.t, "the end of the daemon", func() bool { return !d.alive() })
	if got := d.status(); got != status {
		d.t.Errorf("the daemon ended with status %d, want %d:\n%s", got, status, d.log.fresh())
	}
}

// hup asks for a reload.
func (d *daemon) hup() { d.signal(syscall.SIGHUP) }

// refuses starts a daemon that must end with status 1 and say each of the
// texts.
func (d *daemon) refuses(texts ...string) {
	d.t.Helper()
	d.spawn()
	d.end(1)
	for _, text := range texts {
		if !d.log.says(text) {
			d.t.Errorf("the daemon does not say %q but:\n%s", text, d.log.fresh())
		}
	}
	if d.log.says("jwksd: ready\n") {
		d.t.Error("the daemon says that it is ready")
	}
}

// journal keeps what a daemon writes. It is safe for concurrent use.
type journal struct {
	mu    sync.Mutex
	text  []byte
	start int // of what the present process wrote
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, p...)
	return len(p), nil
}

func (j *journal) mark() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.start = len(j.text)
}

// says tells whether the present process wrote the text.
func (j *journal) says(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.Contains(j.text[j.start:], []byte(text))
}

// fresh is what the present process wrote.
func (j *journal) fresh() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text[j.start:])
}

// sound holds the whole log to what no log may contain.
func (j *journal) sound(t testing.TB, token string) {
	t.Helper()
	text := j.tail(1 << 30)
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "AGE-SECRET-KEY", "PRIVATE KEY"} {
		if strings.Contains(text, bad) {
			t.Errorf("the log says %s", bad)
		}
	}
	if token != "" && strings.Contains(text, token) {
		t.Error("the log has the operator's token")
	}
}

// tail is the end of everything.
func (j *journal) tail(n int) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text[max(0, len(j.text)-n):])
}
