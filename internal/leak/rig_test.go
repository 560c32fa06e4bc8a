package leak

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// The tokens of callers.
const (
	issuerToken   = "canary-token-of-an-issuer-4f0c1b7de2a9"
	operatorToken = "canary-token-of-an-operator-93be01a7cc55"
	wrongToken    = "canary-token-that-nobody-knows-a0b1c2d3e4"
	wrongSecretID = "canary-secret-id-that-is-wrong-77aa88bb99"
)

// rig is a daemon on a Vault of its own.
type rig struct {
	t        *testing.T
	vault    *vaulttest.Vault
	canaries canaries
	forbid   atomic.Bool  // Vault refuses everything
	token    atomic.Value // that the daemon used last

	dir, binary, mount, secretID string // secretID: a file

	cmd    *exec.Cmd
	exited chan struct{}
	log    journal
	seen   bytes.Buffer // every answer, with what was asked
}

type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, vault: vaulttest.New(t, vaulttest.Options{}), dir: t.TempDir()}
	r.binary = filepath.Join(t.TempDir(), "jwksd")
	build := []string{"build", "-o", r.binary}
	if raceEnabled {
		build = append(build, "-race")
	}
	if out, err := exec.Command("go", append(build, "github.com/jwksd/jwksd/cmd/jwksd")...).CombinedOutput(); err != nil {
		t.Fatalf("building jwksd: %v\n%s", err, out)
	}
	r.mount = r.vault.KV(t)
	r.write("jwksd.yaml", r.config())
	for _, token := range []string{issuerToken, operatorToken, wrongToken} {
		r.canaries.add("caller's token", []byte(token))
	}
	return r
}

func (r *rig) write(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// config makes the way to log in, and the file that names it.
func (r *rig) config() string {
	v, t := r.vault, r.t
	policy := v.Policy(t, fmt.Sprintf("path %q { capabilities = [\"create\", \"read\", \"update\", \"delete\", \"list\"] }", r.mount+"/*"))
	auth := v.EnableAuth(t, "approle")
	v.Do(t, "POST", "auth/"+auth+"/role/r", map[string]any{"token_policies": policy, "token_ttl": "3s"})
	data := func(answer map[string]any, name string) string { return answer["data"].(map[string]any)[name].(string) }
	roleID := data(v.Do(t, "GET", "auth/"+auth+"/role/r/role-id", nil), "role_id")
	secretID := data(v.Do(t, "POST", "auth/"+auth+"/role/r/secret-id", nil), "secret_id")
	r.canaries.add("secret-id", []byte(secretID))
	r.canaries.add("wrong secret-id", []byte(wrongSecretID))
	r.secretID = r.write("secret-id", secretID)
	sum := func(token string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(token))) }
	return fmt.Sprintf(`
keystore:
  vault: {address: %q, mount: %s, timeout: 2s, auth: {approle: {mount: %s, role_id_file: %s, secret_id_file: secret-id}}}
data_dir: .
last_good: copy
sync_interval: 100ms
max_staleness: 1m
keysets:
  default: {issuer: "https://issuer.test", algorithms: [ES256, EdDSA], rotate: "@every 720h", verifier_cache: 1s, jwks_max_age: 1s}
  rsa: {issuer: "https://issuer.test", algorithms: [RS256], rotate: "@every 720h", verifier_cache: 1s, jwks_max_age: 1s}
callers:
  - {name: issuer, identity: {token_sha256: %s}, grants: [{keysets: [default], actions: [sign, sign-input, read]}]}
  - {name: operator, identity: {token_sha256: %s}, grants: [{keysets: ["*"], actions: [sign, read, rotate, revoke, revoke-all]}]}
listeners: {public: {address: "127.0.0.1:0"}, api: {address: "127.0.0.1:0"}, ops: {address: "127.0.0.1:%d"}}
`, r.tap(), r.mount, auth, r.write("role-id", roleID), sum(issuerToken), sum(operatorToken), r.opsPort())
}

// opsPort is a port that is free now.
func (r *rig) opsPort() int {
	s := httptest.NewServer(nil)
	defer s.Close()
	u, _ := url.Parse(s.URL)
	var port int
	fmt.Sscan(u.Port(), &port)
	r.write("ops.url", s.URL)
	return port
}

// tap stands between the daemon and Vault. It learns the daemon's tokens, and
// can refuse everything.
func (r *rig) tap() string {
	to, err := url.Parse(r.vault.Address())
	if err != nil {
		r.t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if token := req.Header.Get("X-Vault-Token"); token != "" {
			r.canaries.add("Vault token", []byte(token))
			r.token.Store(token)
		}
		if r.forbid.Load() {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors":["permission denied"]}`)
			return
		}
		proxy.ServeHTTP(w, req)
	}))
	r.t.Cleanup(s.Close)
	return s.URL
}

// keys makes a canary of each private key in Vault, and tells how many there
// are.
func (r *rig) keys() int {
	r.t.Helper()
	count := 0
	for _, keyset := range []string{"default", "rsa"} {
		list := r.vault.Do(r.t, "GET", r.mount+"/metadata/jwksd/keys/"+keyset+"?list=true", nil)
		for _, kid := range list["data"].(map[string]any)["keys"].([]any) {
			answer := r.vault.Do(r.t, "GET", fmt.Sprintf("%s/data/jwksd/keys/%s/%s", r.mount, keyset, kid), nil)
			secret := answer["data"].(map[string]any)["data"].(map[string]any)["secret"].(string)
			der, err := base64.StdEncoding.DecodeString(secret)
			if err != nil {
				r.t.Fatal(err)
			}
			r.canaries.addKey(r.t, der)
			count++
		}
	}
	return count
}

// start runs the daemon, with core dumps allowed, until it is ready.
func (r *rig) start(env ...string) {
	r.t.Helper()
	r.spawn(env...)
	before := strings.Count(r.log.String(), "jwksd: ready\n")
	r.eventually("a daemon that is ready", func() bool { return strings.Count(r.log.String(), "jwksd: ready\n") > before })
}

func (r *rig) spawn(env ...string) {
	r.t.Helper()
	cmd := exec.Command("sh", "-c", `ulimit -c unlimited; exec "$0" serve --verbose --config jwksd.yaml`, r.binary)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, &r.log, &r.log
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	exited := make(chan struct{})
	r.cmd, r.exited = cmd, exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
	})
}

// end sends a signal and waits until the process is gone.
func (r *rig) end(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-r.exited:
	case <-time.After(time.Minute):
		r.t.Fatalf("the daemon survives %s", sig)
	}
}

func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	for start := time.Now(); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			r.t.Fatalf("in vain: %s; the log ends with\n%s", what, tail(r.log.String()))
		}
	}
}

func tail(text string) string { return text[max(0, len(text)-4000):] }

// url reads an address that the daemon wrote down.
func (r *rig) url(name string) string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// ask sends a request and keeps the answer; it returns its status, 0 for none.
func (r *rig) ask(method, url, authorization, body string) int {
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	resp.Header.Write(&r.seen)
	_, _ = r.seen.ReadFrom(resp.Body)
	return resp.StatusCode
}

// cli runs a command against the daemon, and keeps what it says.
func (r *rig) cli(args ...string) {
	r.t.Helper()
	token := r.write("operator-token", operatorToken)
	out, _ := exec.Command(r.binary, append(args, "--server", r.url("api.url"), "--token-file", token)...).CombinedOutput()
	r.seen.Write(out)
}
