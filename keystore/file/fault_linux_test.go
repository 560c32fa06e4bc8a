package file

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/jwksd/jwksd/keystore"
)

func TestFileSizeLimit(t *testing.T) {
	out, err := child(t, "limit", t.TempDir()).Output()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// TestDiskFull fills a small filesystem of its own. Where it may not mount
// one, TestFileSizeLimit is what is left: the same with a limit on the file.
func TestDiskFull(t *testing.T) {
	dir := tmpfs(t, "size=1m")
	if dir == "" {
		t.Skip("no permission to mount a filesystem; see TestFileSizeLimit")
	}
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = fillUp(s, func() error { return unix.Mount("", dir, "tmpfs", unix.MS_REMOUNT, "size=32m") })
	if err != nil {
		t.Fatal(err)
	}
}

// A scrub that has no room fails, says so, and is made up for.
func TestDiskFullScrub(t *testing.T) {
	dir := tmpfs(t, "size=4m")
	if dir == "" {
		t.Skip("no permission to mount a filesystem")
	}
	ctx := t.Context()
	s := mustOpen(t, Options{Dir: dir, ScrubInterval: -1})
	secret := bytes.Repeat([]byte("s"), 100_000)
	for _, kid := range []string{"1", "2", "3", "4"} {
		if err := s.CreateKey(ctx, "a", kid, secret); err != nil {
			t.Fatal(err)
		}
	}
	filler := filepath.Join(dir, "filler")
	if err := fillFile(filler); err != nil {
		t.Fatal(err)
	}
	err := s.DestroyKey(ctx, "a", "1")
	if err == nil || !strings.Contains(err.Error(), "may still be in the file") || errors.Is(err, keystore.ErrNotWritten) {
		t.Fatalf("DestroyKey without room for the scrub: %v", err)
	}
	if _, err := s.ReadKey(ctx, "a", "1"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("the key can be read: %v", err)
	}
	wantFiles(t, dir, "filler", "identity.txt", "jwksd.db")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.DestroyKey(ctx, "a", "1"); err != nil {
		t.Errorf("the same with room: %v", err)
	}
	if s.isDirty() {
		t.Error("the scrub was not made up for")
	}
}

func fillFile(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				return err
			}
			return nil
		}
	}
}

// tmpfs mounts a filesystem for the test, or returns "".
func tmpfs(t *testing.T, options string) string {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options+",mode=700"); err != nil {
		t.Logf("mounting a tmpfs: %v", err)
		return ""
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestReadOnlyFilesystem(t *testing.T) {
	dir := tmpfs(t, "size=2m")
	if dir == "" {
		t.Skip("no permission to mount a filesystem")
	}
	fresh := filepath.Join(dir, "fresh")
	mustClose(t, mustOpen(t, Options{Dir: dir}))
	if err := unix.Mount("", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, fresh} {
		_, err := Open(Options{Dir: d})
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), d) || !strings.Contains(err.Error(), "remount") {
			t.Errorf("Open(%s): %v", d, err)
		}
	}
}

// openAsNobody opens the store in a process to which permission bits apply.
func openAsNobody(t *testing.T, dir string) (output string, ok bool) {
	t.Helper()
	cmd := child(t, "open", dir)
	if os.Geteuid() == 0 {
		cmd.Path = filepath.Join(reachable(t), "program") // that user cannot get to ours
		program, err := os.ReadFile(cmd.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cmd.Path, program, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.Output()
	if err != nil && len(out) == 0 {
		t.Skipf("this program cannot be run as another user: %v", err)
	}
	return string(out), err == nil
}

// reachable returns a directory that belongs to user 65534.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "jwksd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
		os.RemoveAll(dir)
	})
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPermissions(t *testing.T) {
	dir := reachable(t)
	if out, ok := openAsNobody(t, filepath.Join(dir, "store")); !ok {
		t.Fatalf("a store of one's own: %s", out)
	}
	store := filepath.Join(dir, "store")
	database, identity := filepath.Join(store, DatabaseName), filepath.Join(store, identityName)
	tests := []struct {
		name   string
		path   string // whose mode is changed
		mode   os.FileMode
		open   string
		naming string
	}{
		{"parent not writable", dir, 0o500, filepath.Join(dir, "another"), "another"},
		{"directory not writable", store, 0o500, store, store},
		{"directory closed", store, 0o000, store, store},
		{"database closed", database, 0o000, store, database},
		{"database read-only", database, 0o400, store, database},
		{"identity closed", identity, 0o000, store, identity},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			info, err := os.Stat(tt.path)
			if err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, store)
			if err := os.Chmod(tt.path, tt.mode); err != nil {
				t.Fatal(err)
			}
			out, ok := openAsNobody(t, tt.open)
			if err := os.Chmod(tt.path, info.Mode()); err != nil {
				t.Fatal(err)
			}
			if ok || !strings.Contains(out, "permission denied") || !strings.Contains(out, tt.naming) || !strings.Contains(out, "chown") {
				t.Errorf("refused: %v, saying %q", !ok, out)
			}
			wantUnchanged(t, store, before)
		})
	}
	if out, ok := openAsNobody(t, store); !ok {
		t.Errorf("afterwards: %s", out)
	}
}

// What a scrub puts in the place of a file has its owner.
func TestOwnerIsKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	s := mustOpen(t, Options{Dir: dir})
	if err := s.CreateKey(t.Context(), "a", "k", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(s.path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := s.DestroyKey(t.Context(), "a", "k"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if uid, other := OwnedByOther(info); !other || uid != 65534 {
		t.Errorf("after a scrub the database belongs to user %d", uid)
	}
}

// Files of others, and directories in which others can plant files, are refused
// and left as they are.
func TestOthersCouldPlantFiles(t *testing.T) {
	root := os.Geteuid() == 0
	for _, tt := range []struct {
		name   string
		spoil  func(parent, dir string) error
		saying string
		root   bool // only root can do this
	}{
		{"group writes", func(_, dir string) error { return os.Chmod(dir, 0o770) }, "chmod go-w ", false},
		{"others write", func(_, dir string) error { return os.Chmod(dir, 0o703) }, "chmod go-w ", false},
		{"sticky", func(_, dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, "chmod go-w ", false},
		{"parent", func(parent, _ string) error { return os.Chmod(parent, 0o777) }, "chmod o-w ", false},
		{"directory of another", func(_, dir string) error { return os.Chown(dir, 65534, 65534) }, "belongs to user 65534", true},
		{"link of another", func(parent, dir string) error {
			return errors.Join(os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir), os.Lchown(dir, 65534, 65534))
		}, "symbolic link of user 65534", true},
		{"identity of another", func(_, dir string) error { return os.Chown(filepath.Join(dir, identityName), 65534, 65534) }, "belongs to user 65534", true},
		{"identity is a pipe", func(_, dir string) error {
			path := filepath.Join(dir, identityName)
			return errors.Join(os.Rename(path, dir+".identity"), syscall.Mkfifo(path, 0o600))
		}, "not a regular file", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root && !root {
				t.Skip("only root can give files away")
			}
			parent := t.TempDir()
			dir := filepath.Join(parent, "store")
			mustClose(t, mustOpen(t, Options{Dir: dir}))
			if err := tt.spoil(parent, dir); err != nil {
				t.Fatal(err)
			}
			left, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(Options{Dir: dir})
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.saying) || !strings.Contains(err.Error(), dir) {
				t.Errorf("Open: %v", err)
			}
			if now, _ := os.ReadDir(dir); len(now) != len(left) {
				t.Errorf("files came or went: %v", now)
			}
		})
	}
	// A sticky parent, such as /tmp, is none of them, nor is a link of one's own.
	parent := t.TempDir()
	if err := errors.Join(os.Chmod(parent, 0o777|os.ModeSticky), os.Symlink("store", filepath.Join(parent, "link"))); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, Options{Dir: filepath.Join(parent, "store")}))
	mustClose(t, mustOpen(t, Options{Dir: filepath.Join(parent, "link")}))
}

// What belongs to root is as good as one's own.
func TestRootMayOwnFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	store := filepath.Join(reachable(t), "store")
	if out, ok := openAsNobody(t, store); !ok {
		t.Fatal(out)
	}
	if err := os.Chown(store, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(store, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, ok := openAsNobody(t, store); ok || !strings.Contains(out, "belongs to user 1,") || !strings.Contains(out, "chown -R 65534 ") {
		t.Errorf("the directory of user 1: %s", out)
	}
	if err := os.Chown(store, 0, 65534); err != nil { // it may use, not write: another refusal
		t.Fatal(err)
	}
	if out, ok := openAsNobody(t, store); ok || !strings.Contains(out, "permission denied") {
		t.Errorf("the directory of root: %s", out)
	}
	if err := os.Chown(store, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	identity := filepath.Join(store, identityName)
	if err := os.Chown(identity, 1, 1); err != nil {
		t.Fatal(err)
	}
	if out, ok := openAsNobody(t, store); ok || !strings.Contains(out, identity) {
		t.Errorf("the identity of user 1: %s", out)
	}
}

// A file that is cut while it is mapped makes the memory behind it go away.
func TestCutWhileOpen(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Swap(t.Context(), "a", "", bytes.Repeat([]byte("x"), 20_000)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, DatabaseName), 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Load(t.Context(), "a"); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("Load: %v, want ErrCorrupt", err)
		}
		if _, err := s.Swap(t.Context(), "b", "", nil); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("Swap: %v, want ErrCorrupt", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// Whether a failed commit happened is told by its transaction id.
func TestCommitFailed(t *testing.T) {
	ctx := t.Context()
	s, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, err := s.Swap(ctx, "a", "", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	newest := 0
	if err := s.view(ctx, func(tx *bbolt.Tx) error { newest = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.commitFailed(newest+1, syscall.EIO); !errors.Is(err, syscall.EIO) || errors.Is(err, keystore.ErrNotWritten) {
		t.Error(err)
	}
	for _, no := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS} {
		if err := s.commitFailed(newest+1, no); !errors.Is(err, no) || !errors.Is(err, keystore.ErrNotWritten) {
			t.Error(err)
		}
	}
	if v, err = s.Swap(ctx, "a", v, []byte("2")); err != nil {
		t.Fatalf("after a commit that did not happen: %v", err)
	}
	if err := s.commitFailed(newest+1, syscall.ENOSPC); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, keystore.ErrNotWritten) {
		t.Errorf("a commit that may last: %v", err)
	}
	if _, err := s.Swap(ctx, "a", v, []byte("3")); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "restart jwksd") {
		t.Errorf("a write after a commit that may not last: %v", err)
	}
	if _, err := s.Load(ctx, "a"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a read after a commit that may not last: %v", err)
	}
}

// While the name of a scrubbed file may not be on the disk, nothing is written
// to it.
func TestDirectoryNotSynced(t *testing.T) {
	ctx := t.Context()
	s := mustOpen(t, Options{Dir: t.TempDir()})
	dir := s.dir
	s.dirUnsynced, s.dir = true, filepath.Join(dir, "missing")
	if _, err := s.Swap(ctx, "a", "", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Swap: %v", err)
	}
	if _, err := s.Load(ctx, "a"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("Load: %v", err)
	}
	s.dir = dir
	if _, err := s.Swap(ctx, "a", "", nil); err != nil || s.dirUnsynced {
		t.Errorf("Swap: %v", err)
	}
}
