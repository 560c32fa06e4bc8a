package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/config"
)

// sessions are the shell sessions of the README, by the name in the comment in
// front of them.
func sessions(t *testing.T) map[string][]step {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]step{}
	block := regexp.MustCompile("(?s)<!-- session: (\\w+) -->\n```console\n(.*?)```")
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		found[m[1]] = steps(m[2])
	}
	return found
}

// step is a command with the lines it is expected to print, in which "…"
// stands for anything.
type step struct {
	command string
	want    []string
}

func steps(session string) []step {
	var out []step
	for line := range strings.Lines(session) {
		line = strings.TrimRight(line, "\n")
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			out = append(out, step{command: command})
			continue
		}
		last := &out[len(out)-1]
		last.want = append(last.want, line)
	}
	return out
}

// matches compares a printed line with an expected one.
func matches(want, got string) bool {
	parts := strings.Split(want, "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(got)
}

// shell runs the commands of one terminal, one after the other.
type shell struct {
	t     *testing.T
	in    io.WriteCloser
	lines chan string
}

// newShell starts a bash in the repository, in a process group of its own so
// that what it started can be ended with it.
func newShell(t *testing.T, env []string) *shell {
	t.Helper()
	cmd := exec.Command("bash")
	cmd.Dir, cmd.Env = "../..", env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s := &shell{t: t, in: in, lines: make(chan string, 1000)}
	go func() {
		defer close(s.lines)
		for sc := bufio.NewScanner(r); sc.Scan(); {
			s.lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		cmd.Wait()
		r.Close()
	})
	return s
}

// sessionTimeout bounds one command, compiling included.
const sessionTimeout = 5 * time.Minute

// expect reads lines until all that are wanted came, in order. Empty lines and
// log lines of the daemon and of the go command in between are passed over.
func (s *shell) expect(want []string) {
	s.t.Helper()
	deadline := time.After(sessionTimeout)
	for len(want) > 0 {
		select {
		case got, ok := <-s.lines:
			switch {
			case !ok:
				s.t.Fatalf("the shell ended; still wanted: %q", want)
			case matches(want[0], got):
				want = want[1:]
			case got == "" || strings.HasPrefix(got, "time=") || strings.HasPrefix(got, "go: downloading"):
			default:
				s.t.Fatalf("printed\n  %s\nbut the README says\n  %s", got, want[0])
			}
		case <-deadline:
			s.t.Fatalf("nothing came within %s; still wanted: %q", sessionTimeout, want)
		}
	}
}

func TestREADMESessionsWorkAsPrinted(t *testing.T) {
	found := sessions(t)
	if len(found["serve"]) == 0 || len(found["use"]) == 0 {
		t.Fatalf("the README has no sessions serve and use: %v", found)
	}
	bin := t.TempDir()
	env := append(os.Environ(), "XDG_STATE_HOME="+t.TempDir(), "STATE_DIRECTORY=", "GOBIN="+bin, "GOFLAGS=-buildvcs=false",
		"PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "JWKSD_SERVER=", "JWKSD_DATA_DIR=", "JWKSD_TOKEN_FILE=")
	serve := newShell(t, env)
	for _, st := range found["serve"] {
		io.WriteString(serve.in, st.command+"\n")
		serve.expect(st.want)
	}
	use := newShell(t, env)
	for _, st := range found["use"] {
		// The status line proves that the command succeeded, and that nothing
		// was printed that the README does not show.
		io.WriteString(use.in, st.command+"\nrc=$?; echo; echo status $rc\n")
		use.expect(append(st.want, "status 0"))
	}
}

func TestREADMEConfigurationHolds(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)<!-- config -->\n```yaml\n(.*?)```").FindSubmatch(text)
	if m == nil {
		t.Fatal("the README has no configuration")
	}
	if _, err := config.Parse("README.md", m[1], time.Now()); err != nil {
		t.Fatal(err)
	}
}
