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

func mayWrite(string) error { return errSystem }

func sameOwner(*os.File, fs.FileInfo) error { return errSystem }
