//go:build unix && !solaris && !illumos && !aix

package file

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jwksd/jwksd/keystore"
)

// How long to wait for the lock: enough for a predecessor that is just going.
const (
	lockPatience = 800 * time.Millisecond
	lockPoll     = 20 * time.Millisecond
)

// openLocked opens the file at path for reading and writing and locks it, the
// way bbolt locks: bbolt is later given this very file, and finds the lock its
// own. In between, the file can be looked at without anyone writing to it.
//
// The holder of the lock may have replaced the file while we waited. The lock
// on the old one is then worth nothing, and we start over.
func openLocked(path string) (*os.File, error) {
	deadline := time.Now().Add(lockPatience)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		err = tryLock(f, path)
		if err == nil {
			return f, nil
		}
		info, _ := f.Stat()
		f.Close()
		if !errors.Is(err, keystore.ErrLocked) {
			return nil, err
		}
		if time.Now().After(deadline) {
			if pid := lockHolder(info); pid > 0 {
				return nil, fmt.Errorf("%w (pid %d)", keystore.ErrLocked, pid)
			}
			return nil, keystore.ErrLocked
		}
		time.Sleep(lockPoll)
	}
}

func tryLock(f *os.File, path string) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return keystore.ErrLocked
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, there) {
		return keystore.ErrLocked // replaced meanwhile: look again
	}
	return err
}

// lockHolder finds the process that holds the lock, as Linux tells it. It
// returns 0 where that is not to be had.
func lockHolder(info fs.FileInfo) int {
	if info == nil {
		return 0
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(stat.Dev)), unix.Minor(uint64(stat.Dev)), stat.Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 fd:00:123456 0 EOF
		if w := strings.Fields(lines.Text()); len(w) >= 6 && w[1] == "FLOCK" && w[5] == file {
			var pid int
			fmt.Sscan(w[4], &pid)
			return pid
		}
	}
	return 0
}

// openAtOnce opens a file for reading; a pipe without a writer does not keep
// it waiting.
func openAtOnce(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// OwnedByOther tells whether a file belongs to neither the user that this
// process runs as nor root, and to whom.
func OwnedByOther(info fs.FileInfo) (uid int, other bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	uid = int(stat.Uid)
	return uid, uid != 0 && uid != os.Geteuid()
}

// writableByOthers tells whether the mode lets group or others write.
func writableByOthers(mode fs.FileMode) bool { return mode.Perm()&0o022 != 0 }

// mayWrite says whether files can be created and replaced in dir, as far as
// that is to be known without trying.
func mayWrite(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return err
	}
	return nil
}

// sameOwner gives f the owner of the file that it is to replace. It matters
// when someone runs a command as root on the files of a service.
func sameOwner(f *os.File, old fs.FileInfo) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	was, is := old.Sys().(*syscall.Stat_t), info.Sys().(*syscall.Stat_t)
	if was.Uid == is.Uid && was.Gid == is.Gid {
		return nil
	}
	return f.Chown(int(was.Uid), int(was.Gid))
}
