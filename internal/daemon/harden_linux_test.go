package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Harden cannot be undone, so that a child tries it.
func TestHarden(t *testing.T) {
	if os.Getenv("JWKSD_TEST_HARDEN") != "" {
		err := Harden()
		dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		var core unix.Rlimit
		_ = unix.Getrlimit(unix.RLIMIT_CORE, &core)
		fmt.Println(err, dumpable, core)
		os.Exit(0)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestHarden$")
	child.Env = append(os.Environ(), "JWKSD_TEST_HARDEN=1")
	out, err := child.Output()
	if want := "<nil> 0 {0 0}\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}
