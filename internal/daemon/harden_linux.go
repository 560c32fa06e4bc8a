package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps the memory of this process to itself: it holds private keys. No
// core dump is written, whatever the limits were, and processes of the same user
// cannot read the memory or attach a debugger. Root can. Call it once, before
// any secret is read; it cannot be undone. After an error the process is as safe
// as it was before.
func Harden() error {
	// The limit keeps the kernel from writing a file, and the flag from piping
	// the memory to a collector, which the limit does not stop everywhere.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping other processes from reading our memory: %w", err)
	}
	return nil
}
