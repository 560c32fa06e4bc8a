package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

// example is where the script lives.
var example = filepath.Join("..", "..", "deploy", "examples", "vault")

// TestVaultExample runs the script of deploy/examples/vault on free ports, plays
// the sessions of its README against it, looks in Vault whether the private
// keys are where they should be, and ends it: nothing is left.
func TestVaultExample(t *testing.T) {
	t.Parallel()
	e := startExample(t)
	found := readmeSessions(t)
	e.serves(found["serve"])
	for _, name := range []string{"use", "look"} {
		if len(found[name]) == 0 {
			t.Fatalf("the README has no session %s", name)
		}
		e.play(found[name])
	}
	e.keysAreInVault()
	e.filesArePrivate()
	e.leavesNothing()
}

// running is the script at work.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   journal
	tmp   string
	ports *strings.Replacer // the README's ports to those of the test
	addrs []string          // of Vault, public, api, ops
	vault string            // URL
	env   []string          // of the other terminal

	exports string // lines for the other terminal
}

func startExample(t *testing.T) *running {
	t.Helper()
	vault, err := vaulttest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	e := &running{t: t, tmp: t.TempDir()}
	var pairs []string
	env := append(os.Environ(), "TMPDIR="+e.tmp, "VAULT_BIN="+vault, "JWKSD_BIN="+binary)
	e.addrs = examplePorts(t)
	for i, p := range []struct{ name, usual string }{{"VAULT_PORT", "8200"}, {"PUBLIC_PORT", "8080"}, {"API_PORT", "8081"}, {"OPS_PORT", "9090"}} {
		_, port, _ := net.SplitHostPort(e.addrs[i])
		env = append(env, p.name+"="+port)
		pairs = append(pairs, "127.0.0.1:"+p.usual, e.addrs[i])
	}
	e.ports, e.vault = strings.NewReplacer(pairs...), "http://"+e.addrs[0]

	// The commands are those that a user has on the PATH.
	bin := t.TempDir()
	for name, path := range map[string]string{"vault": vault, "jwksd": binary} {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	e.env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "HOME="+t.TempDir())

	e.cmd = exec.Command("bash", filepath.Join(example, "run.sh"))
	e.cmd.Env, e.cmd.Stdout, e.cmd.Stderr = env, &e.out, &e.out
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to end what may be left
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-e.cmd.Process.Pid, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("run.sh printed:\n%s", e.out.tail(8<<10))
		}
	})
	return e
}

// examplePorts finds four addresses that nobody listens on now. Vault takes the
// port after its own too.
func examplePorts(t *testing.T) (list []string) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // together, so that none comes twice
		at := l.Addr().(*net.TCPAddr)
		if len(list) == 0 {
			next, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", at.Port+1))
			if err != nil {
				continue
			}
			defer next.Close()
		}
		if list = append(list, at.String()); len(list) == 4 {
			return list
		}
	}
	t.Fatal("there are no free ports")
	return nil
}

// command is a line of a session and the pattern of what it prints.
type command struct {
	line string
	want string
}

// readmeSessions are the shell sessions of the README, by the name in the
// comment in front of them. In what is printed "…" stands for anything, and on
// a line of its own for any lines.
func readmeSessions(t *testing.T) map[string][]command {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(example, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]command{}
	block := regexp.MustCompile("(?s)<!-- session: (\\w+) -->\n```console\n(.*?)```")
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		var list []command
		for line := range strings.Lines(m[2]) {
			if c, ok := strings.CutPrefix(line, "$ "); ok {
				list = append(list, command{line: strings.TrimSpace(c)})
				continue
			}
			list[len(list)-1].want += line
		}
		found[m[1]] = list
	}
	return found
}

// pattern is an expression for a text in which "…" stands for anything.
func pattern(text string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(text)
	lines := regexp.MustCompile(`\n…(\n|$)`)
	quoted = lines.ReplaceAllString(quoted, "\n(?s:.*)$1")
	return regexp.MustCompile("^" + strings.ReplaceAll(quoted, "…", ".*") + "$")
}

// serves waits until the script has printed what the README says, the log
// apart, and takes over the lines for the other terminal.
func (e *running) serves(session []command) {
	e.t.Helper()
	if len(session) != 1 {
		e.t.Fatal("the README has no session serve of one command")
	}
	exited := make(chan struct{})
	go func() {
		e.cmd.Wait()
		close(exited)
	}()
	eventually(e.t, "a daemon that is ready", func() bool {
		select {
		case <-exited:
			e.t.Fatalf("run.sh ended:\n%s", e.out.fresh())
		default:
		}
		return e.out.says("jwksd: ready\n")
	})
	var said strings.Builder
	for line := range strings.Lines(e.out.fresh()) {
		if !strings.HasPrefix(line, "time=") {
			said.WriteString(line)
		}
		if strings.HasPrefix(line, "export ") {
			e.exports += line
		}
	}
	if want := e.ports.Replace(session[0].want); !pattern(want).MatchString(said.String()) {
		e.t.Errorf("run.sh prints\n%s\nbut the README says\n%s", &said, want)
	}
}

// play types a session in the other terminal and compares what each command
// prints.
func (e *running) play(session []command) {
	e.t.Helper()
	script := "set -euo pipefail\n" + e.exports
	for _, c := range session {
		script += e.ports.Replace(c.line) + "\nprintf '\\0'\n"
	}
	cmd := exec.Command("bash", "-c", script)
	cmd.Env = e.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	printed := strings.Split(string(out), "\x00")
	if err != nil {
		e.t.Fatalf("$ %s\n%s%s%v", session[len(printed)-1].line, printed[len(printed)-1], &stderr, err)
	}
	for i, c := range session {
		got, want := strings.TrimSpace(printed[i]), strings.TrimSpace(e.ports.Replace(c.want))
		if !pattern(want).MatchString(got) {
			e.t.Errorf("$ %s\nprints\n%s\nbut the README says\n%s", c.line, got, want)
		}
	}
}

// home is the directory that the script works in.
func (e *running) home() string {
	e.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(e.tmp, "jwksd-vault.*"))
	if err != nil || len(dirs) != 1 {
		e.t.Fatalf("run.sh has made %v, %v", dirs, err)
	}
	return dirs[0]
}

// list asks Vault for the names below a path.
func (e *running) list(path string) []string {
	e.t.Helper()
	token, err := os.ReadFile(filepath.Join(e.home(), ".vault-token"))
	if err != nil {
		e.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(e.t.Context(), "GET", e.vault+"/v1/"+path+"?list=true", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		e.t.Fatalf("listing %s: %s, %v: %s", path, resp.Status, err, body)
	}
	var out struct{ Data struct{ Keys []string } }
	if err := json.Unmarshal(body, &out); err != nil {
		e.t.Fatal(err)
	}
	return out.Data.Keys
}

// keysAreInVault compares the private keys in Vault with the sets.
func (e *running) keysAreInVault() {
	e.t.Helper()
	d := &daemon{t: e.t, public: "http://" + e.addrs[1]}
	var published []string
	for _, k := range d.fetchSet("default").Keys {
		published = append(published, k.KeyID)
	}
	stored := e.list("secret/metadata/jwksd/keys/default")
	slices.Sort(published)
	slices.Sort(stored)
	if len(published) != 3 || !slices.Equal(published, stored) {
		e.t.Errorf("the set has %v, Vault keeps the private keys of %v", published, stored)
	}
	if got := e.list("secret/metadata/jwksd/keys"); !slices.Equal(got, []string{"default/"}) {
		e.t.Errorf("Vault's KV has private keys of the keysets %v, want only those of default", got)
	}
	if got := e.list("transit/keys"); len(got) != 2 {
		e.t.Errorf("the transit engine has the keys %v, want two of keyset strict", got)
	}
	if got := e.list("secret/metadata/jwksd/state"); !slices.Equal(got, []string{"default", "strict"}) {
		e.t.Errorf("Vault has the state documents %v", got)
	}
}

// filesArePrivate looks at what the script and the daemon wrote: nobody else
// may read it, and no private key is among it.
func (e *running) filesArePrivate() {
	e.t.Helper()
	err := filepath.Walk(e.home(), func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			e.t.Errorf("others may use %s, mode %s", path, info.Mode())
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("PRIVATE KEY")) {
			e.t.Errorf("there is a private key in %s", path)
		}
		return err
	})
	if err != nil {
		e.t.Error(err)
	}
}

// leavesNothing ends the script as Ctrl-C and kill do.
func (e *running) leavesNothing() {
	e.t.Helper()
	home := e.home()
	secret, err := os.ReadFile(filepath.Join(home, "secret-id"))
	if err != nil {
		e.t.Fatal(err)
	}
	if e.out.says(strings.TrimSpace(string(secret))) {
		e.t.Error("run.sh prints the secret-id")
	}
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		e.t.Fatal(err)
	}
	eventually(e.t, "an empty process group", func() bool {
		return syscall.Kill(-e.cmd.Process.Pid, 0) == syscall.ESRCH
	})
	for _, addr := range e.addrs {
		if !refused(addr) {
			e.t.Errorf("something still listens on %s", addr)
		}
	}
	if _, err := os.Lstat(home); !os.IsNotExist(err) {
		e.t.Errorf("%s is still there: %v", home, err)
	}
	if !e.out.says("msg=stopping") {
		e.t.Error("the daemon did not end in an orderly way")
	}
}
