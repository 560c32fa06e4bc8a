package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
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
