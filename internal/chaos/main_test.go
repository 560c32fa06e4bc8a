package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// binary is the jwksd under test, built once by TestMain.
var binary string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics print what they do
	dir, err := os.MkdirTemp("", "jwksd-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "jwksd")
	os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0") // for the binary
	if err := build(binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds the product in its own module, with its own dependencies.
func build(to string) error {
	args := []string{"build", "-o", to}
	if raceEnabled {
		args = append(args, "-race")
	}
	c := exec.Command("go", append(args, "./cmd/jwksd")...)
	c.Dir = filepath.Join("..", "..")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("building jwksd: %w\n%s", err, out)
	}
	return nil
}

// patience bounds every waiting for something that takes a moment on an idle
// machine. It is no statement about speed.
const patience = 2 * time.Minute

// within polls until ok tells that what is waited for has come, and returns how
// long that took.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("waited %s in vain: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(start)
}
