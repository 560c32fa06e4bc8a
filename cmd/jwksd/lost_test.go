package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
	"github.com/jwksd/jwksd/rotation"
)

const wholeKid = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

// hangUp is a daemon that takes a change and breaks the connection before the
// answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

// TestLostAnswers: after an error that leaves open whether a change was made,
// the command says so, and how to repeat it as the same request.
func TestLostAnswers(t *testing.T) {
	f := newFake(t)
	path := writeFile(t, twoKeysets)
	changed := wire.Applied{Diff: []rotation.FieldChange{{Field: "rotate"}}}
	f.answers["PUT /v1/keysets/default dry"], f.answers["PUT /v1/keysets/shop dry"] = changed, changed
	problem := func(status int, code string) *wire.Problem {
		return &wire.Problem{Status: status, Code: code, Detail: code + "!", Hint: "the daemon's hint"}
	}
	for _, c := range []struct {
		args   []string
		answer *wire.Problem // none: the connection breaks
		repeat string        // none: nothing was changed
	}{
		{[]string{"rotate", "--reason", "it's a drill"}, nil, `jwksd rotate --reason 'it'\''s a drill' `},
		{[]string{"rotate", "--wait"}, problem(503, "unconfirmed"), `jwksd rotate `},
		{[]string{"rotate", "--force"}, problem(503, "timeout"), `jwksd rotate --force `},
		{[]string{"rotate"}, problem(500, "internal"), `jwksd rotate `},
		{[]string{"rotate"}, problem(503, "store_unavailable"), ""},
		{[]string{"rotate"}, problem(409, "lead_not_reached"), ""},
		{[]string{"revoke", wholeKid, "--reason", "leak"}, nil, "jwksd revoke " + wholeKid + " --reason leak "},
		{[]string{"revoke", "--all", "--reason", "leak", "-y"}, problem(503, "unconfirmed"), "jwksd revoke --all --reason leak "},
		{[]string{"revoke", wholeKid, "--reason", "leak", "--dry-run"}, nil, ""},
		{[]string{"delete", "shop", "--reason", "over"}, nil, "jwksd delete shop --reason over "},
		{[]string{"apply", "--file", path}, nil, "jwksd apply --file " + path + " "},
		{[]string{"apply", "--file", path}, problem(503, "stale"), ""},
	} {
		f.asked = nil
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			switch {
			case r.Method == http.MethodPut && strings.Contains(string(body), `"dry_run":true`):
				r.Body = io.NopCloser(strings.NewReader(string(body)))
				f.ServeHTTP(w, r)
			case c.answer == nil:
				f.asked = append(f.asked, r.Header.Get("Idempotency-Key"))
				hangUp(w)
			default:
				f.asked = append(f.asked, r.Header.Get("Idempotency-Key"))
				w.WriteHeader(c.answer.Status)
				json.NewEncoder(w).Encode(c.answer)
			}
		}))
		var out, errs strings.Builder
		args := append(c.args, "--server", srv.URL, "--token-file", f.token)
		status := execute(t.Context(), args, terminal{in: strings.NewReader(""), out: &out, err: &errs})
		srv.Close()
		says := errs.String()
		if status != 1 || strings.Contains(says, "may have been made") != (c.repeat != "") || !strings.Contains(says, "jwksd: "+c.repeat) || strings.Contains(says, "is it running") {
			t.Errorf("%v: status %d\n%s", c.args, status, says)
		}
		if c.repeat == "" {
			continue
		}
		last := says[strings.LastIndex(says, "jwksd: jwksd")+len("jwksd: "):]
		if !strings.HasPrefix(last, c.repeat) || !strings.Contains(last, "--server "+srv.URL) {
			t.Errorf("%v: repeat it with %s", c.args, last)
		}
		if key := f.asked[len(f.asked)-1]; key != "" && !strings.Contains(last, "--idempotency-key "+key) {
			t.Errorf("%v: the key was %s, repeat it with %s", c.args, key, last)
		}
		if c.args[0] == "rotate" || c.args[0] == "revoke" {
			if !strings.Contains(last, "--idempotency-key ") {
				t.Errorf("%v: there is no key in %s", c.args, last)
			}
		}
	}
}

// TestNothingSent: what never left cannot have changed anything.
func TestNothingSent(t *testing.T) {
	f := newFake(t)
	for server, says := range map[string]string{
		"http://127.0.0.1:1":                         "hint: is it running?",
		"http://nowhere.invalid.":                    "hint: check the host name",
		strings.Replace(f.url, "http:", "https:", 1): "no answer from https://",
	} {
		var out, errs strings.Builder
		status := execute(t.Context(), []string{"rotate", "--server", server, "--token-file", f.token}, terminal{in: strings.NewReader(""), out: &out, err: &errs})
		if got := errs.String(); status != 1 || !strings.Contains(got, says) || strings.Contains(got, "may have been made") ||
			strings.Contains(got, "is it running") != strings.Contains(says, "is it running") {
			t.Errorf("%s: status %d\n%s", server, status, got)
		}
	}
}

func TestRepeating(t *testing.T) {
	a := &app{}
	for _, c := range []struct {
		typed, args []string
		want        string
	}{
		{[]string{"--reason", "-x", "--wait", "-k", "shop", "--idempotency-key=old"}, []string{"-kid"}, "jwksd revoke --keyset shop --reason=-x --wait=10s --idempotency-key K -- -kid"},
		{[]string{"--reason", "a\n'b\\", "--wait=30s", "--force=false"}, nil, `jwksd rotate --force=false --reason $'a\n\'b\\' --wait=30s --idempotency-key K`},
	} {
		root := a.root()
		name := strings.Fields(c.want)[1]
		var cmd *cobra.Command
		for _, sub := range root.Commands() {
			if sub.Name() == name {
				cmd = sub
			}
		}
		if err := cmd.ParseFlags(c.typed); err != nil {
			t.Fatal(err)
		}
		if got := repeating(cmd, c.args, "--idempotency-key", "K"); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

// TestShellWords asks a shell.
func TestShellWords(t *testing.T) {
	for _, want := range []string{"plain", "", "two words", "it's", "$HOME `x` \"q\" \\", "a\nb\t'\\\x1b[0m", "né", "\u202eevil", "@%+=:,./-_"} {
		got, err := exec.Command("bash", "-c", "printf %s "+shellWord(want)).Output()
		if err != nil || string(got) != want {
			t.Errorf("%q as %s is %q, %v", want, shellWord(want), got, err)
		}
	}
}

func TestKidsAreCompleted(t *testing.T) {
	f := newFake(t)
	const gone = "Revoked-uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
	f.answers["GET /v1/keysets/default"] = wire.Keyset{
		Lanes:   []wire.Lane{{Keys: []wire.Key{{KID: wholeKid}}}},
		Revoked: []wire.Revoked{{KID: gone}},
	}
	f.answers["POST /v1/keysets/default/revoke"] = wire.Change{}
	const lookup, revoke = "GET /v1/keysets/default", "POST /v1/keysets/default/revoke"
	for _, c := range []struct {
		given, want string
		asks        string
	}{
		{wholeKid[:8], wholeKid, lookup + " " + revoke},
		{gone[:6], gone, lookup + " " + revoke},
		{wholeKid, wholeKid, revoke},
	} {
		status, _, errs := f.run("revoke", c.given, "--reason", "drill")
		if got := strings.Join(f.requests(), " "); status != 0 || got != c.asks || !strings.Contains(f.asked[len(f.asked)-1], `"kid":"`+c.want+`"`) {
			t.Errorf("%s: status %d after %v\n%s", c.given, status, f.asked, errs)
		}
	}
}

func TestTokenFiles(t *testing.T) {
	f := newFake(t)
	f.answers["GET /v1/keysets"] = wire.Keysets{}
	dir := t.TempDir()
	for i, c := range []struct {
		text string
		mode os.FileMode
		says string // none: it is fine
	}{
		{"  pasted-token \r\n\n", 0o600, ""},
		{"token", 0o644, "others may read it (mode 0644): chmod 600 it"},
		{" \n", 0o600, "it is empty"},
		{"two words", 0o600, "a space, a line break"},
		{strings.Repeat("x", maxToken+1), 0o600, "too large"},
	} {
		f.token = filepath.Join(dir, string(rune('a'+i)))
		if err := errors.Join(os.WriteFile(f.token, []byte(c.text), 0o600), os.Chmod(f.token, c.mode)); err != nil {
			t.Fatal(err)
		}
		status, _, errs := f.run("status")
		if (status == 0) != (c.says == "") || !strings.Contains(errs, c.says) || strings.Contains(errs, "operator") || status != 0 && !strings.HasPrefix(errs, "jwksd: token file "+f.token+": ") {
			t.Errorf("%q: status %d\n%s", clip(c.text, 20), status, errs)
		}
	}
	f.token = dir
	if _, _, errs := f.run("status"); !strings.HasPrefix(errs, "jwksd: token file "+dir+": ") {
		t.Errorf("a directory: %s", errs)
	}
}

func TestRefusedTokens(t *testing.T) {
	var errs strings.Builder
	e := &client.Error{Problem: wire.Problem{Status: 401, Code: "unauthenticated", Detail: "no valid credentials", Hint: "send Authorization: Bearer TOKEN"}}
	if (terminal{err: &errs}).fail(e) != 1 || !strings.Contains(errs.String(), "hint: check --token-file") || strings.Contains(errs.String(), "Bearer") {
		t.Error(errs.String())
	}
}

// TestInterruptedRequest: an interruption of a change under way still says how
// to repeat it.
func TestInterruptedRequest(t *testing.T) {
	f := newFake(t)
	came := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body)
		close(came)
		<-r.Context().Done()
	}))
	defer srv.Close()
	go func() {
		<-came
		p, _ := os.FindProcess(os.Getpid())
		p.Signal(os.Interrupt)
	}()
	var out, errs strings.Builder
	start := time.Now()
	status := execute(t.Context(), []string{"rotate", "--server", srv.URL, "--token-file", f.token}, terminal{in: strings.NewReader(""), out: &out, err: &errs})
	if got := errs.String(); status != 1 || !strings.Contains(got, "interrupted") || !strings.Contains(got, "jwksd rotate --server") {
		t.Errorf("status %d after %s\n%s", status, time.Since(start), got)
	}
}
