package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/jwksd/jwksd/keystore"
)

// damaged is the refusal of a database that this package did not write, or not
// like this.
func damaged(path, why string) error {
	return fmt.Errorf("%s: %w: %s; it is left as it is: put back a good copy, or move it away to begin afresh", path, keystore.ErrCorrupt, why)
}

// advise adds to an error of the operating system what can be done about it.
func advise(path string, err error) error {
	var todo string
	switch {
	case is(err, syscall.ENOSPC), is(err, syscall.EDQUOT):
		todo = "the disk or the quota is full; free some space and try again: what was stored before is safe"
	case is(err, syscall.EFBIG):
		todo = "the file may not grow beyond its limit (RLIMIT_FSIZE); raise it: what was stored before is safe"
	case is(err, syscall.EROFS):
		todo = "jwksd must write there: remount the filesystem writable, or choose another directory"
	case errors.Is(err, fs.ErrPermission):
		todo = fmt.Sprintf("jwksd runs as user %d and must be able to read and write there: change the owner (chown), or choose another directory", os.Geteuid())
	case is(err, syscall.EIO):
		todo = "the disk reports a fault; check it before anything else"
	default:
		return fmt.Errorf("%s: %w", path, err)
	}
	return fmt.Errorf("%s: %w: %s", path, err, todo)
}

// unwritten is advise for a write of which certainly nothing will be seen. Where
// only a change elsewhere helps, it says so to the caller.
func unwritten(path string, err error) error {
	for _, no := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS} {
		if is(err, no) {
			return fmt.Errorf("%w: %w", keystore.ErrNotWritten, advise(path, err))
		}
	}
	return advise(path, err)
}

// is also looks at the text, since bbolt does not wrap each error.
func is(err error, no syscall.Errno) bool {
	return errors.Is(err, no) || err != nil && strings.Contains(err.Error(), no.Error())
}
