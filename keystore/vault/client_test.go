package vault

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

// C65: Vault's clock against ours.
func TestC65Skew(t *testing.T) {
	v, p, s, _ := setup(t)
	c := mustClient(t, Config{Addresses: v.Addresses(), Auth: Auth{TokenFile: vaulttest.File(t, v.RootToken())}})
	if _, known := c.Skew(); known {
		t.Error("a skew before the first answer")
	}
	if _, err := whoami(t, c); err != nil {
		t.Fatal(err)
	}
	if ahead, known := c.Skew(); !known || ahead.Abs() > 500*time.Millisecond {
		t.Errorf("the skew of this machine against itself is %v, %v", ahead, known)
	}
	for _, skew := range []time.Duration{0, time.Minute, -time.Minute, 3 * time.Second, -3 * time.Second} {
		p.mu.Lock()
		p.skew = skew
		p.mu.Unlock()
		mustChanges(t, s, "")
		ahead, _ := s.client.Skew()
		// What is told is certain, hence never more than the truth; it is less
		// by up to a second and the time of the request.
		if ahead.Abs() > skew.Abs() || ahead < 0 && skew > 0 || ahead > 0 && skew < 0 || skew.Abs() == time.Minute && ahead.Abs() < 45*time.Second {
			t.Errorf("a skew of %v is reported as %v", skew, ahead)
		}
	}
}

func TestSkewIsCertain(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	date := at.Format(http.TimeFormat)
	for _, c := range []struct{ sent, received, want time.Duration }{
		{0, 0, 0},
		{900 * time.Millisecond, 950 * time.Millisecond, 0},
		{-10 * time.Second, 10 * time.Second, 0}, // slow
		{-5 * time.Second, -3 * time.Second, 3 * time.Second},
		{4 * time.Second, 5 * time.Second, -3 * time.Second},
	} {
		var s skew
		s.note(date, at.Add(c.sent), at.Add(c.received))
		if got, known := s.last(); got != c.want || !known {
			t.Errorf("sent at %v, received at %v: %v, want %v", c.sent, c.received, got, c.want)
		}
		s.note("nonsense", at, at)
		if got, _ := s.last(); got != c.want {
			t.Error("an answer without a date changes it")
		}
	}
}

// A node that is down or sealed is passed over, for reads at once and for
// writes where nothing was sent.
func TestOtherNodesServe(t *testing.T) {
	v := vaulttest.Start(t)
	mount := v.KV(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	sealed := vaulttest.New(t, vaulttest.Options{})
	sealed.Nodes[0].Seal(t)
	for name, first := range map[string]string{"down": gone.URL, "sealed": sealed.Address()} {
		t.Run(name, func(t *testing.T) {
			s := mustStore(t, connect(t, v, first, v.Address()), Options{Mount: mount})
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			version := mustSwap(t, s, name, "", "1")
			s.client.current.Store(0)
			if name == "down" {
				version = mustSwap(t, s, name, version, "2")
				s.client.current.Store(0)
				if err := s.CreateKey(t.Context(), name, "a", []byte("x")); err != nil {
					t.Error(err)
				}
			}
			s.client.current.Store(0)
			if doc, err := s.Load(t.Context(), name); err != nil || doc.Version != version {
				t.Errorf("Load: %v", err)
			}
			if s.client.current.Load() != 1 {
				t.Error("the node that serves is not kept")
			}
		})
	}
}

// A standby that redirects is not followed: with a write nobody would know
// whether it was applied, and our token is not for strangers.
func TestRedirectIsNotFollowed(t *testing.T) {
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	t.Cleanup(stranger.Close)
	standby := httptest.NewServer(http.RedirectHandler(stranger.URL+"/v1/x", http.StatusTemporaryRedirect))
	t.Cleanup(standby.Close)
	c := mustClient(t, Config{Addresses: []string{standby.URL}, Auth: Auth{TokenFile: vaulttest.File(t, "hvs.x")}})
	wantLine(t, mustStore(t, c, Options{}).Check(t.Context()), ErrStandby, "did not forward")
}

// Answers that are hard to get from a real server, as its documentation and
// its code word them.
func TestClassify(t *testing.T) {
	for body, want := range map[string]error{
		`429 {"errors":["request path \"x\": rate limit quota exceeded"]}`: ErrThrottled,
		`472 {"errors":[]}`: ErrStandby,
		`473 {"errors":[]}`: ErrStandby,
		`412 {"errors":["required index state not present"]}`:                                 ErrStandby,
		`500 {"errors":["local node not active but active cluster node not found"]}`:          ErrStandby,
		`503 {"errors":["Vault is sealed"]}`:                                                  ErrSealed,
		`503 {"errors":["error performing token check: Vault is sealed"]}`:                    ErrSealed,
		`503 {"errors":["Vault is not initialized"]}`:                                         ErrSealed,
		`503 {"errors":["overloaded, try again later"]}`:                                      ErrThrottled,
		`403 {"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`: errBadToken,
		`500 {"errors":["1 error occurred:\n\t* context deadline exceeded\n\n"]}`:             ErrFailed,
		`502 <html>canary</html>`:                                                             ErrFailed,
		`400 {"errors":["` + strings.Repeat("long ", 1000) + `"]}`:                            ErrFailed,
		`400 {"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."]}`: ErrStandby,
	} {
		status, text, _ := strings.Cut(body, " ")
		var code int
		for _, digit := range status {
			code = code*10 + int(digit-'0')
		}
		err := classify("secret/data/x", code, []byte(text))
		wantLine(t, err, want, "secret/data/x")
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("a proxy's page is quoted: %v", err)
		}
	}
}

func TestSegments(t *testing.T) {
	seen := make(map[string]string)
	for _, name := range []string{".", "..", "...", "a", "A", "a/b", "a~2Fb", "~", "%2F", "a b", "ä", "+", "*", "a..", "..a", ".a", "~2E", "a\\b", "a?b#c", "-", "_", "λ", strings.Repeat("~", maxName)} {
		s := segment(name)
		if other, ok := seen[s]; ok {
			t.Errorf("%q and %q are both %q", name, other, s)
		}
		seen[s] = name
		if back, err := unsegment(s); err != nil || back != name {
			t.Errorf("%q became %q and that %q (%v)", name, s, back, err)
		}
		if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~") != "" || s[0] == '.' {
			t.Errorf("%q became %q", name, s)
		}
	}
	for _, foreign := range []string{"a~", "~2", "~zz", "~61", "~2e", ".a", "a/", "a b"} {
		if name, err := unsegment(foreign); err == nil {
			t.Errorf("%q, which is not ours, is %q", foreign, name)
		}
	}
}

// Odd names work on real Vault.
func TestOddNames(t *testing.T) {
	v := vaulttest.Start(t)
	s := mustStore(t, connect(t, v), Options{Mount: v.KV(t), Path: "deep/er"})
	names := []string{".", "..", "a/b", "a b", "ä~%2F", "+", "*", "a?b#c", "x&list=true", "name\"quoted\"", strings.Repeat("ü", maxName/2)}
	for _, name := range names {
		version := mustSwap(t, s, name, "", name)
		if doc, err := s.Load(t.Context(), name); err != nil || doc.Version != version || string(doc.Data) != name {
			t.Errorf("%q: %+v, %v", name, doc, err)
		}
		if err := s.CreateKey(t.Context(), name, name, []byte(name)); err != nil {
			t.Error(err)
		}
		if list, err := s.ListKeys(t.Context(), name); err != nil || len(list) != 1 || list[0].KID != name {
			t.Errorf("%q: the list is %v (%v)", name, list, err)
		}
	}
	if changed, _ := mustChanges(t, s, ""); len(changed) != len(names) {
		t.Errorf("%d of %d names are listed: %q", len(changed), len(names), changed)
	}
}

// A namespace is Vault Enterprise's, and goes along as a header.
func TestNamespace(t *testing.T) {
	var got atomic.Value
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("X-Vault-Namespace"))
		w.Write([]byte(`{"data":{}}`))
	}))
	t.Cleanup(web.Close)
	for _, want := range []string{"", "team/a"} {
		c := mustClient(t, Config{Addresses: []string{web.URL}, Namespace: want, Auth: Auth{TokenFile: vaulttest.File(t, "hvs.x")}})
		if _, err := whoami(t, c); err != nil || got.Load() != want {
			t.Errorf("the namespace is %q (%v), want %q", got.Load(), err, want)
		}
	}
}

// What a node that lost its leadership says of the past is not believed, for a
// while.
func TestFloors(t *testing.T) {
	var f floors
	for n, c := range []struct {
		version int64
		want    bool
	}{{3, true}, {3, true}, {2, false}, {5, true}, {4, false}, {5, true}} {
		if got := f.note("k", c.version); got != c.want {
			t.Errorf("step %d: version %d: %v", n, c.version, got)
		}
	}
	if !f.note("other", 1) || f.note("other", 0) || !f.note("third", 0) || len(f.seen) != 2 {
		t.Error("keysets are mixed up")
	}
	f.seen["k"] = floor{5, time.Now().Add(-2 * staleMost)}
	if !f.note("k", 1) || f.note("k", 0) {
		t.Error("after a while the lower version counts")
	}
	f.forget()
	if !f.note("k", 0) {
		t.Error("it was not forgotten")
	}
}

func TestStaleAnswer(t *testing.T) {
	v, _, s, mount := setup(t)
	mustSwap(t, direct(t, v, mount), "k", "", "1")
	_, cursor := mustChanges(t, s, "")
	s.floors.note("k", 9) // as if a newer one had been seen
	_, err := s.Load(t.Context(), "k")
	wantLine(t, err, ErrStandby, "older version")
	mustChanges(t, s, cursor)
	mustChanges(t, s, "no such place") // as after a restored backup
	if _, err := s.Load(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}
