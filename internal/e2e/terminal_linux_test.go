package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// person is somebody at a terminal who answers each question with the same
// words.
func (d *daemon) person(answer string, env []string, args ...string) ran {
	d.t.Helper()
	screen, tty := openTerminal(d.t)
	c := exec.Command(binary, args...)
	c.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NO_COLOR=") || strings.HasPrefix(v, "TERM=")
	}), "JWKSD_DATA_DIR="+d.dir, "TERM=xterm")
	c.Env = append(c.Env, env...)
	var stderr bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = tty, tty, &stderr
	if err := c.Start(); err != nil {
		d.t.Fatal(err)
	}
	tty.Close()
	timer := time.AfterFunc(patience, func() { c.Process.Kill() })
	defer timer.Stop()
	if answer != "" {
		fmt.Fprintln(screen, answer)
	}
	shown, _ := io.ReadAll(screen) // ends with an error when the last writer is gone
	c.Wait()
	return ran{c.ProcessState.ExitCode(), string(shown), stderr.String()}
}

// openTerminal returns both ends of a pseudo-terminal.
func openTerminal(t testing.TB) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	return screen, tty
}

// TestColours: a terminal gets colours unless somebody objects, a pipe never
// does.
func TestColours(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, calm(t.TempDir()))
	const escape = "\x1b["
	for _, c := range []struct {
		env  []string
		want bool
	}{{nil, true}, {[]string{"NO_COLOR=1"}, false}, {[]string{"TERM=dumb"}, false}} {
		r := d.person("", c.env, "plan")
		if r.status != 0 || strings.Contains(r.out, escape) != c.want {
			t.Errorf("with %v: status %d, colours wanted: %t:\n%q", c.env, r.status, c.want, r.out)
		}
	}
	if r := d.cli("plan"); strings.Contains(r.out, escape) {
		t.Errorf("colours in a pipe: %q", r.out)
	}
}

// TestRevokeAsks: at a terminal a revocation is shown first and wants a yes.
func TestRevokeAsks(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, calm(t.TempDir()))
	kid := d.sign("default", "", "").KID
	r := d.person("no", nil, "revoke", "--reason", "drill", "--", kid)
	if r.status != 1 || !strings.Contains(r.stderr, "nothing was changed") || !strings.Contains(r.out, "would be revoked") {
		t.Errorf("after a no: status %d\n%s%s", r.status, r.out, r.stderr)
	}
	if got := d.keyset("default"); len(got.Revoked) > 0 {
		t.Errorf("after a no these are revoked: %v", got.Revoked)
	}
	r = d.person("yes", nil, "revoke", "--reason", "drill", "--", kid[:8])
	if r.status != 0 || !strings.Contains(r.out, kid+" is revoked") {
		t.Errorf("after a yes: status %d\n%s%s", r.status, r.out, r.stderr)
	}
	if got := d.keyset("default"); len(got.Revoked) != 1 || got.Revoked[0].KID != kid {
		t.Errorf("after a yes these are revoked: %v", got.Revoked)
	}
}

// interruption is what ^C sends, or its nearest kin where the tests run in the
// background and hand down that it is ignored.
func interruption() syscall.Signal {
	if signal.Ignored(syscall.SIGINT) {
		return syscall.SIGTERM
	}
	return syscall.SIGINT
}

// endsBy sends the signal and wants the process to end by it.
func endsBy(t *testing.T, c *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	c.Process.Signal(sig)
	timer := time.AfterFunc(patience, func() { c.Process.Kill() })
	defer timer.Stop()
	c.Wait()
	if ws := c.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != sig {
		t.Errorf("%v after %s: %s", c.Args[1:], sig, c.ProcessState)
	}
}

// waitsIn waits until the process does nothing but wait.
func waitsIn(t *testing.T, c *exec.Cmd) {
	t.Helper()
	stat := fmt.Sprintf("/proc/%d/stat", c.Process.Pid)
	quiet := 0
	eventually(t, "a process that waits", func() bool {
		data, err := os.ReadFile(stat)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if strings.HasPrefix(rest, "S") {
			quiet++
		} else {
			quiet = 0
		}
		return quiet > 30
	})
}

// TestInterruptedInput: ^C ends a command that waits for its input.
func TestInterruptedInput(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "config.yaml")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Skip(err)
	}
	for _, args := range [][]string{{"verify"}, {"sign", "--claims", "-"}, {"check", "-c", fifo}, {"serve", "-c", fifo}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			c := exec.Command(binary, args...)
			c.Stdin = r
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			waitsIn(t, c)
			endsBy(t, c, interruption())
		})
	}
}

// TestInterruptedPrompt: ^C in place of an answer changes nothing.
func TestInterruptedPrompt(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, calm(t.TempDir()))
	before := d.keyset("default")
	file := filepath.Join(t.TempDir(), "keysets.yaml")
	writeText(t, file, "keysets:\n  new: {issuer: \"https://new.example.com\"}\n")
	for _, args := range [][]string{
		{"revoke", "--all", "--reason", "drill"}, {"delete", "default", "--reason", "drill"}, {"apply", "--file", file},
	} {
		_, tty := openTerminal(t)
		c := exec.Command(binary, args...)
		c.Env = append(os.Environ(), "JWKSD_DATA_DIR="+d.dir)
		c.Stdin, c.Stdout = tty, tty
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stderr = w
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		tty.Close()
		w.Close()
		said := ""
		for buf := make([]byte, 1000); !strings.Contains(said, "jwksd: type "); {
			n, err := r.Read(buf)
			if said += string(buf[:n]); err != nil {
				t.Fatalf("%v ends without asking: %s", args, said)
			}
		}
		endsBy(t, c, interruption())
		r.Close()
	}
	if after := d.keyset("default"); after.Generation != before.Generation || after.Deleted != nil {
		t.Errorf("generation %d became %d", before.Generation, after.Generation)
	}
	if r := d.cli("status", "-k", "new"); r.status != 1 {
		t.Errorf("there is a new keyset:\n%s", r.out)
	}
}

// TestSecondSignal: a daemon that drains ends at once when it is told again.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, calm(t.TempDir()))
	api := d.line("api.url")
	slow := d.beginUpload()
	defer slow.conn.Close()
	d.signal(syscall.SIGTERM)
	eventually(t, "a listener that refuses", func() bool { return refused(address(api)) })
	d.signal(syscall.SIGTERM)
	eventually(t, "the end of the daemon", func() bool { return !d.alive() })
	if !d.killedBy(syscall.SIGTERM) {
		t.Errorf("the daemon ended otherwise:\n%s", d.log.fresh())
	}
}
