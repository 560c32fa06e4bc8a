package leak

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestC69NoSecretLeaves(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs signals")
	}
	r := newRig(t)
	r.start("GOTRACEBACK=all")
	if n := r.keys(); n != 6 {
		t.Fatalf("%d private keys in Vault, want 6", n)
	}
	r.traffic()
	r.changes()
	r.keys()
	r.reads()
	r.trouble()
	r.eventually("a debug line", func() bool { return strings.Contains(r.log.String(), "level=DEBUG") })
	r.end(syscall.SIGQUIT)
	if log := r.log.String(); !strings.Contains(log, "SIGQUIT") || !strings.Contains(log, "goroutine ") {
		t.Errorf("no dump of goroutines: this tests little\n%s", tail(log))
	}
	r.cores()
	copied, err := os.ReadFile(filepath.Join(r.dir, "copy"))
	if err != nil {
		t.Errorf("no last good copy: %v", err)
	}
	r.canaries.hunt(t, "the log or a stack dump", r.log.String())
	r.canaries.hunt(t, "an answer", r.seen.String())
	r.canaries.hunt(t, "the last good copy", string(copied))
	if r.seen.Len() < 20<<10 {
		t.Errorf("only %d bytes of answers: this tests little", r.seen.Len())
	}
}

const claims = `{"claims":{"sub":"alice"}}`

// traffic is what callers send, well and badly.
func (r *rig) traffic() {
	sign := r.url("api.url") + "/v1/keysets/default/sign"
	for range 20 {
		if status := r.ask("POST", sign, "Bearer "+issuerToken, claims); status != http.StatusOK {
			r.t.Fatalf("signing answers %d", status)
		}
	}
	for _, alg := range []string{"ES256", "EdDSA", "HS256"} {
		r.ask("POST", sign, "Bearer "+issuerToken, fmt.Sprintf(`{"claims":{"sub":"alice"},"alg":%q}`, alg))
	}
	for _, authorization := range []string{
		"Bearer " + wrongToken, "Basic " + issuerToken, "Bearer" + issuerToken, issuerToken,
		"Bearer  " + issuerToken, "Bearer " + issuerToken + " " + operatorToken, "bearer\t" + issuerToken,
	} {
		r.ask("POST", sign, authorization, claims)
	}
	for _, body := range []string{"", "{", `{"claims":[]}`, `{"claims":{"sub":1}}`, `{"claims":{"iss":"x"}}`, strings.Repeat("x", 1<<21), "\x00"} {
		r.ask("POST", sign, "Bearer "+issuerToken, body)
	}
	for _, path := range []string{"/", "/v1", "/v1/keysets/none/sign", "/v1/keysets/rsa/sign", "/v1/keysets/default/rotate", "/v1/keysets/../../x", "/v1/keysets/default/keys/x/usage"} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "TRACE"} {
			r.ask(method, r.url("api.url")+path, "Bearer "+issuerToken, claims)
		}
	}
}

// changes are what operators do.
func (r *rig) changes() {
	api, bearer := r.url("api.url")+"/v1/keysets/", "Bearer "+operatorToken
	if status := r.ask("POST", api+"default/rotate", bearer, `{"force":true,"reason":"drill"}`); status != http.StatusOK {
		r.t.Fatalf("rotating answers %d", status)
	}
	r.keys() // before they are destroyed
	if status := r.ask("POST", api+"rsa/revoke", bearer, `{"all":true,"reason":"drill"}`); status != http.StatusOK {
		r.t.Fatalf("revoking answers %d", status)
	}
	r.ask("POST", api+"default/revoke", bearer, `{"kid":"none"}`)
}

// reads is everything that answers.
func (r *rig) reads() {
	for _, url := range []string{
		r.url("api.url") + "/v1/keysets", r.url("api.url") + "/v1/keysets/default", r.url("api.url") + "/v1/keysets/default/signing-key", r.url("api.url") + "/v1/events-none",
		r.url("public.url") + "/.well-known/jwks.json", r.url("public.url") + "/rsa/.well-known/jwks.json", r.url("public.url") + "/.well-known/openid-configuration",
		r.url("ops.url") + "/livez", r.url("ops.url") + "/readyz/sign", r.url("ops.url") + "/readyz/publish", r.url("ops.url") + "/metrics",
		r.url("ops.url") + "/debug/pprof/", r.url("ops.url") + "/debug/pprof/goroutine?debug=2", r.url("ops.url") + "/debug/pprof/heap", r.url("ops.url") + "/debug/vars",
	} {
		r.ask("GET", url, "Bearer "+operatorToken, "")
	}
	r.cli("status")
	r.cli("status", "-o", "json")
	r.cli("plan")
	r.cli("rotate", "--reason", "drill")
	r.cli("sign", "--sub", "alice")
}

// trouble is what Vault does to us, one after the other.
func (r *rig) trouble() {
	busy := func() {
		r.attempts()
		r.reads()
	}
	r.forbid.Store(true)
	r.says("permission denied")
	busy()
	r.forbid.Store(false)

	good, err := os.ReadFile(r.secretID)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("secret-id", wrongSecretID)
	r.vault.Do(r.t, "POST", "auth/token/revoke", map[string]any{"token": r.token.Load()})
	r.says("invalid role or secret ID")
	busy()
	if err := os.WriteFile(r.secretID, good, 0o600); err != nil {
		r.t.Fatal(err)
	}

	r.vault.Nodes[0].Seal(r.t)
	r.says("sealed")
	busy()
	r.vault.Nodes[0].Unseal(r.t)
	r.eventually("readiness", func() bool { return r.ask("GET", r.url("ops.url")+"/readyz/sign", "", "") == http.StatusOK })
	r.traffic()
}

// attempts are what operators try while nothing works.
func (r *rig) attempts() {
	for _, what := range []string{"sign", "rotate", "revoke"} {
		r.ask("POST", r.url("api.url")+"/v1/keysets/default/"+what, "Bearer "+operatorToken, claims)
	}
}

// says waits until the log has a text that it did not have so often before.
func (r *rig) says(text string) {
	r.t.Helper()
	before := strings.Count(r.log.String(), text)
	r.eventually(text, func() bool { return strings.Count(r.log.String(), text) > before })
}

// cores: private keys are in the memory of the process, so that no core dump of
// it may ever be written, however much its surroundings ask for one.
func (r *rig) cores() {
	if runtime.GOOS != "linux" {
		return
	}
	for _, sig := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGABRT} {
		r.start("GOTRACEBACK=crash")
		r.attempts()
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.cmd.Process.Pid))
		if err != nil {
			r.t.Fatal(err)
		}
		if line := lineOf(string(limits), "Max core file size"); strings.Join(strings.Fields(line), " ") != "Max core file size 0 0 bytes" {
			r.t.Errorf("the limit of core dumps is %q", line)
		}
		r.end(sig)
		if status, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.CoreDump() {
			r.t.Errorf("after %s the process ended with %v", sig, r.cmd.ProcessState)
		}
		if found, _ := filepath.Glob(filepath.Join(r.dir, "*core*")); len(found) > 0 {
			r.t.Errorf("after %s there is %v", sig, found)
		}
	}
	// Another process, in the same surroundings, does leave one, or this tests
	// less than it seems.
	control := exec.Command("sh", "-c", "ulimit -c unlimited; kill -ABRT $$")
	control.Dir = r.t.TempDir()
	_ = control.Run()
	if status, ok := control.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.CoreDump() {
		r.t.Log("this machine writes no core dumps at all: only the limit was tested")
	}
}

func lineOf(text, prefix string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			return line
		}
	}
	return ""
}
