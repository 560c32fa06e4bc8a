//go:build !unix || solaris || illumos || aix

package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

// The file store needs flock and the atomic replacement of open files.
var errSystem = fmt.Errorf("the file store does not work on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func openLocked(string) (*os.File, error) { return nil, errSystem }

func openAtOnce(path string) (*os.File, error) { return os.Open(path) }

// OwnedByOther tells whether a file belongs to neither the user that this
// process runs as nor root, and to whom. That is not known on this system.
func OwnedByOther(fs.FileInfo) (uid int, other bool) { return 0, false }

// writableByOthers cannot be told from the mode on this system.
func writableByOthers(fs.FileMode) bool { return false }

func mayWrite(string) error { return errSystem }

func sameOwner(*os.File, fs.FileInfo) error { return errSystem }
