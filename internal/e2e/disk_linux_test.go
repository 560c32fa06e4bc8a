package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jwksd/jwksd/api/wire"
)

// TestDiskFull fills the disk under a running daemon, in two ways. It goes on
// signing and publishing, says what is wrong, and goes on rotating once there
// is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	t.Run("file size limit", func(t *testing.T) {
		t.Parallel()
		d := startDaemon(t, calm(t.TempDir()))
		d.fullDisk(
			func() { limitFiles(t, d.cmd.Process.Pid, 4096) },
			func() { limitFiles(t, d.cmd.Process.Pid, unix.RLIM_INFINITY) },
			"RLIMIT_FSIZE")
		token := d.sign("default", "", "5m").Token
		d.stop()
		d.start()
		if _, err := check(d.fetchSet("default"), token); err != nil {
			t.Errorf("a token from before the restart: %v", err)
		}
	})
	t.Run("small filesystem", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t, calm(t.TempDir()))
		d.mount(fmt.Sprintf("mount -t tmpfs -o size=1m,mode=0700 none %q", d.dir))
		filler := filepath.Join(d.dir, "filler")
		d.fullDisk(
			func() { fill(t, filler) },
			func() { os.Remove(filler) },
			"full")
	})
}

// limitFiles sets the largest size that the process may make a file.
func limitFiles(t testing.TB, pid int, size uint64) {
	t.Helper()
	limit := unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}

// fill writes a file until there is no room.
func fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4 << 10, 1} {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		err = nil
	}
}

// fullDisk takes the daemon through a full disk and back.
func (d *daemon) fullDisk(full, room func(), cause string) {
	d.t.Helper()
	t := d.t
	d.rotateUntil("a rotation on an empty disk", func(err error) bool { return err == nil })
	before := d.keyset("default")
	full()
	d.rotateUntil("a change that fails", func(err error) bool { return err != nil })
	// The change that fails is either ours, answered with 503, or the daemon's
	// own, an alarm. Either way the log says why.
	eventually(t, "the cause in the log", func() bool {
		_, err := d.client.Rotate(context.Background(), "default", wire.RotateRequest{Force: true}, "")
		return (transient(err) || len(d.overview().Daemon.Alarms) > 0) && d.log.says(cause)
	})
	if len(d.overview().Daemon.Alarms) > 0 {
		r := d.cli("status")
		if r.status != 0 || !strings.Contains(r.out, "ALARM") || !strings.Contains(r.out, cause) {
			t.Errorf("status ends with %d and says:\n%s%s", r.status, r.out, r.stderr)
		}
	}
	token := d.sign("default", "", "5m")
	set := d.fetchSet("default")
	if _, err := check(set, token.Token); err != nil {
		t.Errorf("a token signed on a full disk: %v", err)
	}
	if missing := without(kids(before), set); len(missing) > 0 {
		t.Errorf("the keys %v left the set", missing)
	}

	room()
	d.rotateUntil("a rotation after there is room again", func(err error) bool { return err == nil })
	eventually(t, "the end of the alarm", func() bool { return len(d.overview().Daemon.Alarms) == 0 })
	if _, err := check(d.fetchSet("default"), token.Token); err != nil {
		t.Errorf("a token from the time of the full disk: %v", err)
	}
}

// rotateUntil forces rotations until one ends as wanted.
func (d *daemon) rotateUntil(what string, ends func(error) bool) {
	d.t.Helper()
	eventually(d.t, what, func() bool {
		_, err := d.client.Rotate(context.Background(), "default", wire.RotateRequest{Force: true, Reason: "drill"}, "")
		return ends(err)
	})
}

// mount starts the daemon in a mount namespace of its own, after a mount
// command. Everything is undone when its process ends. From then on d.dir is
// how this process sees the directory.
func (d *daemon) mount(command string) {
	d.t.Helper()
	mayMount(d.t, command)
	d.wrap = inNamespace(command)
	d.spawn()
	// The shell becomes the daemon: the process stays the same.
	d.dir = fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, d.dir)
	if !d.await() {
		d.t.Fatalf("the daemon does not start:\n%s", d.log.fresh())
	}
}

// mayMount skips the test if this user may not do what the command does.
func mayMount(t testing.TB, command string) {
	t.Helper()
	probe := exec.Command("true")
	inNamespace(command)(probe)
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("this user may not mount: %v: %s", err, out)
	}
}

// inNamespace runs a shell command in a new mount namespace before the daemon.
func inNamespace(command string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		script := "PATH=$PATH:/usr/sbin:/sbin; " + command + ` && exec "$0" "$@"`
		c.Args = append([]string{"sh", "-c", script}, c.Args...)
		c.Path = "/bin/sh"
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if uid := os.Getuid(); uid != 0 {
			c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
			c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
	}
}

// TestReadOnlyFilesystem has the data directory on a filesystem without
// writing.
func TestReadOnlyFilesystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	readOnly := fmt.Sprintf("mount --bind %[1]q %[1]q && mount -o remount,bind,ro %[1]q", dir)
	mayMount(t, readOnly)
	d := newDaemon(t, calm(dir))
	d.wrap = inNamespace(readOnly)
	d.refuses(dir, "read-only file system", "remount")
}
