package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// binary is the jwksd under test, built once by TestMain.
var binary string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	sideBySide(8)
	dir, err := os.MkdirTemp("", "jwksd-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run it too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(dir, "jwksd")
	os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0") // for the binary
	if err := build(binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// sideBySide lets more tests run at a time than there are processors: most of
// them wait most of the time. Who says -parallel gets that.
func sideBySide(n int) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		flag.Set("test.parallel", strconv.Itoa(n))
	}
}

func build(to string) error {
	args := []string{"build", "-o", to}
	if raceEnabled {
		args = append(args, "-race")
	}
	c := exec.Command("go", append(args, "github.com/jwksd/jwksd/cmd/jwksd")...)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("building jwksd: %w\n%s", err, out)
	}
	return nil
}

// patience bounds every waiting for something that takes a moment on an idle
// machine. It is no statement about speed.
const patience = time.Minute

// eventually polls until ok tells that what is waited for has come.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}
