package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// commands that a user may type.
func commands() []string {
	return []string{"serve", "check", "migrate", "status", "plan", "rotate", "revoke", "apply", "delete", "sign", "verify", "version", "completion", "help"}
}

// TestHelp wants every command to explain itself, with an example.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, name := range append(commands(), "") {
		r := cli(t, "", nil, append(strings.Fields(name), "--help")...)
		if r.status != 0 || r.stderr != "" {
			t.Errorf("jwksd %s --help ends with status %d and says %q", name, r.status, r.stderr)
		}
		_, example, found := strings.Cut(r.out, "\nExamples:\n")
		if !found || !strings.Contains(example, "jwksd "+name) {
			t.Errorf("jwksd %s --help has no example of it:\n%s", name, r.out)
		}
	}
	whole := cli(t, "", nil, "--help").out
	for _, name := range commands() {
		if !regexp.MustCompile(`(?m)^  ` + name + ` +[A-Z]`).MatchString(whole) {
			t.Errorf("jwksd --help does not list %s", name)
		}
	}
	if bare := cli(t, "", nil); bare.status != 0 || bare.out != whole {
		t.Errorf("jwksd alone ends with status %d and does not print the help", bare.status)
	}
}

// TestCompletion wants scripts for the shells, which the shells can read.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for shell, check := range map[string][]string{"bash": {"-n"}, "zsh": {"-n"}, "fish": {"--no-execute"}} {
		r := cli(t, "", nil, "completion", shell)
		if r.status != 0 || r.stderr != "" || !strings.Contains(r.out, "jwksd") {
			t.Errorf("completion %s ends with status %d, prints %d bytes and says %q", shell, r.status, len(r.out), r.stderr)
		}
		if _, err := exec.LookPath(shell); err != nil && shell != "bash" {
			t.Logf("there is no %s here to read its script", shell)
			continue
		}
		script := filepath.Join(t.TempDir(), "completion."+shell)
		writeText(t, script, r.out)
		if out, err := exec.Command(shell, append(check, script)...).CombinedOutput(); err != nil {
			t.Errorf("%s cannot read its script: %v\n%s", shell, err, out)
		}
	}
}

// line is a command line and how it must end. A kid stands behind two dashes,
// since it may itself begin with one.
type line struct {
	args   string // split at spaces; TOKEN, FILE and KID are filled in
	stdin  string
	env    []string
	status int
	out    string // a pattern for all of standard output; empty: nothing
	stderr string // the same for standard error
}

// TestCommandLine holds commands to their exit status and to where they say
// what: the answer on standard output, everything else on standard error.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, calm(t.TempDir()))
	token := strings.TrimSpace(d.cli("sign", "--sub", "alice", "--aud", "api").out)
	tokenFile := filepath.Join(t.TempDir(), "token.jwt")
	writeText(t, tokenFile, token+"\n")
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, []byte(strings.Repeat("w", 43)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("WRONG", wrong, "TOKEN", token, "FILE", tokenFile, "KID", d.sign("default", "", "").KID,
		"CONFIG", d.config, "URL", d.setURL("default"))

	const jws = `^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\n$`
	const valid = `^valid until .*\n\{.*"sub":"alice".*\}\n$`
	for _, c := range []line{
		{args: "version", out: `^jwksd \S+\n$`},
		{args: "check --config CONFIG", out: `(?s)^keyset default: .*lead P +1m12s .*next ticks`},
		{args: "status", out: `(?s)^keyset default .*active.*standby`},
		{args: "plan", out: `(?s)^keyset default\n.*\[?.*standby`},
		{args: "plan --config CONFIG --ascii", out: `^[ -~\n]+$`},
		{args: "sign --sub alice --aud api --ttl 5m", out: jws},
		{args: "sign --claims -", stdin: `{"sub":"alice"}`, out: jws},
		{args: "verify FILE", out: valid},
		{args: "verify", stdin: token + "\n", out: valid},
		{args: "verify - --audience api --issuer " + issuer, stdin: token, out: valid},
		{args: "verify FILE --jwks URL", out: valid},
		{args: "revoke --reason drill --dry-run -- KID", out: `(?s)^dry run.*KID would be revoked\n`, stderr: `note: `},
		{args: "rotate --reason drill", out: `(?s)^ES256 \S+ signs now\neverywhere by `},

		{args: "verify FILE --audience other", status: 1, stderr: `^jwksd: not valid: .*"other"\njwksd: hint: `},
		{args: "verify", stdin: token[:len(token)-9], status: 1, stderr: `^jwksd: not valid: `},
		{args: "verify", stdin: "", status: 1, stderr: `^jwksd: not valid: `},
		{args: "verify TOKEN", status: 1, stderr: `^jwksd: give the token in a file or on standard input`},
		{args: "verify /nowhere/token", status: 1, stderr: `^jwksd: reading the token: .*/nowhere/token`},
		{args: "revoke abc --reason drill", status: 1, stderr: `too short: give at least`},
		{args: "revoke abcdefgh --reason drill", status: 1, stderr: `^jwksd: no such key.*\njwksd: hint: jwksd status lists the keys`},
		{args: "sign --ttl 10h", status: 1, stderr: `longer than the keyset's maximum of 1h`},
		{args: "sign --claims [1]", status: 1, stderr: `must be a JSON object`},
		{args: "sign --claims {", status: 1, stderr: `no JSON`},
		{args: "sign --alg RS256", status: 1, stderr: `jwksd: hint: `},
		{args: "sign --keyset nope", status: 1, stderr: `no such keyset\njwksd: hint: `},
		{args: "rotate --alg RS256", status: 1, stderr: `^jwksd: keyset default has no algorithm RS256\njwksd: hint: `},
		{args: "status --token-file WRONG", status: 1, stderr: `^jwksd: no valid credentials\njwksd: hint: check --token-file`},
		{args: "status --keyset nope", status: 1, stderr: `no keyset "nope"`},
		{args: "status --server http://127.0.0.1:1", status: 1, stderr: `^jwksd: no answer from http://127.0.0.1:1: .*\njwksd: hint: is it running`},
		{args: "status", env: []string{"JWKSD_DATA_DIR=/nowhere"}, status: 1, stderr: `no daemon has run with the data directory /nowhere: start one with jwksd serve`},
		{args: "status", env: []string{"JWKSD_TOKEN_FILE=/nowhere"}, status: 1, stderr: `no token at /nowhere: name one with --token-file`},
		{args: "check --config /nowhere/c.yaml", status: 1, stderr: `^jwksd: /nowhere/c.yaml: there is no such file`},

		{args: "statsu", status: 2, stderr: `^jwksd: there is no command "statsu", did you mean status\?\njwksd: see: jwksd --help\n$`},
		{args: "help rotat", status: 2, stderr: `^jwksd: there is no command "rotat", did you mean rotate\?\njwksd: see: jwksd --help\n$`},
		{args: "completion foo", status: 2, stderr: `there is no shell "foo"\njwksd: see: jwksd completion --help\n$`},
		{args: "status --bogus", status: 2, stderr: `unknown flag: --bogus\njwksd: see: jwksd status --help\n$`},
		{args: "status --output yaml", status: 2, stderr: `"yaml": choose text or json`},
		{args: "rotate now", status: 2, stderr: `unexpected argument "now"`},
		{args: "verify one two", status: 2, stderr: `unexpected argument "two"`},
		{args: "revoke", status: 2, stderr: `name one key, or give --all`},
		{args: "revoke -- KID", status: 2, stderr: `give a --reason`},
		{args: "revoke --all --reason drill -- KID", status: 2, stderr: `name one key, or give --all`},
		{args: "plan --horizon soon", status: 2, stderr: `want a number with a unit`},
		{args: "sign --claims {} --sub alice", status: 2, stderr: `either --claims or --sub`},
		{args: "serve --log-format xml --config CONFIG", status: 2, stderr: `choose text or json`},
	} {
		var args []string
		for _, arg := range strings.Fields(c.args) {
			args = append(args, fill.Replace(arg))
		}
		r := cli(t, c.stdin, append([]string{"JWKSD_DATA_DIR=" + d.dir}, c.env...), args...)
		if r.status != c.status {
			t.Errorf("jwksd %s: status %d, want %d", c.args, r.status, c.status)
		}
		matches(t, c.args, "standard output", r.out, fill.Replace(c.out))
		matches(t, c.args, "standard error", r.stderr, fill.Replace(c.stderr))
		if strings.Contains(r.stderr, token) {
			t.Errorf("jwksd %s repeats the token", c.args)
		}
	}
}

func matches(t *testing.T, args, where, got, pattern string) {
	t.Helper()
	if pattern == "" && got == "" || pattern != "" && regexp.MustCompile(pattern).MatchString(got) {
		return
	}
	t.Errorf("jwksd %s: %s is not %q but:\n%s", args, where, pattern, got)
}

// TestAnswersInJSON wants each answer as one JSON value on standard output.
func TestAnswersInJSON(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, calm(t.TempDir()))
	token := d.sign("default", "", "").Token
	for _, c := range []struct {
		args, stdin string
		status      int
		member      string // that the answer has
	}{
		{"version", "", 0, "version"},
		{"check --config " + d.config, "", 0, "0.timing"},
		{"status", "", 0, "keysets"},
		{"plan", "", 0, "events"},
		{"plan --config " + d.config, "", 0, "keys"},
		{"sign --sub alice", "", 0, "token"},
		{"verify", token, 0, "claims"},
		{"verify", token[:len(token)-9], 1, "code"},
		{"revoke --reason drill --dry-run -- " + d.sign("default", "", "").KID, "", 0, "trusted_until"},
		{"rotate --reason drill", "", 0, "promoted"},
		{"rotate --force", "", 0, "warnings"},
		{"revoke --all --reason drill", "", 0, "revoked"},
	} {
		r := cli(t, c.stdin, []string{"JWKSD_DATA_DIR=" + d.dir}, append([]string{"-o", "json"}, strings.Fields(c.args)...)...)
		var v any
		if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.status != c.status {
			t.Errorf("jwksd %s -o json: status %d, %v\n%s%s", c.args, r.status, err, r.out, r.stderr)
			continue
		}
		if list, ok := v.([]any); ok && strings.HasPrefix(c.member, "0.") {
			v, c.member = list[0], c.member[2:]
		}
		if object, _ := v.(map[string]any); object[c.member] == nil {
			t.Errorf("jwksd %s -o json: there is no %s:\n%s", c.args, c.member, r.out)
		}
		if r.stderr != "" {
			t.Errorf("jwksd %s -o json says %q", c.args, r.stderr)
		}
	}
}

// TestRevokedTwice: a revocation can be repeated, with a short kid too, and one
// with the same idempotency key is the same.
func TestRevokedTwice(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, calm(t.TempDir()))
	kid := d.sign("default", "", "").KID
	for _, c := range []struct {
		kid, key string
		status   int
		says     string
	}{
		{kid[:8], "once", 0, kid + " is revoked"},
		{kid, "once", 0, "done before with this idempotency key"},
		{kid[:8], "once", 0, "done before with this idempotency key"},
		{kid[:8], "other", 1, "revoked already"},
		{kid, "other", 1, "revoked already"},
	} {
		r := d.cli("revoke", "--yes", "--reason", "drill", "--idempotency-key", c.key, "--", c.kid)
		if r.status != c.status || !strings.Contains(r.out+r.stderr, c.says) {
			t.Errorf("revoking %s as %s: status %d\n%s%s", c.kid, c.key, r.status, r.out, r.stderr)
		}
	}
}

// TestDefaultsNeedNoFile runs the embedded default: only its checks, since its
// ports are fixed.
func TestDefaultsNeedNoFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	r := cli(t, "", []string{"JWKSD_DATA_DIR=" + dir}, "check")
	if r.status != 0 || !strings.Contains(r.out, "keyset default: ") {
		t.Errorf("check ends with status %d:\n%s%s", r.status, r.out, r.stderr)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("check made the data directory: %v", err)
	}
}
