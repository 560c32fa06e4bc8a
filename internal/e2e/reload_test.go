package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
)

// TestC04ReloadRejectedWhole reloads configurations that do not hold together.
// Nothing of them may come into force; the reason is in the log and in the
// status, until a good one is loaded.
func TestC04ReloadRejectedWhole(t *testing.T) {
	t.Parallel()
	s := calm(t.TempDir())
	s.blocks = append(s.blocks, s.blocks[0])
	s.blocks[1].name = "second"
	d := startDaemon(t, s)
	good := s.yaml()
	before := d.overview()
	kid := d.sign("default", "", "1m").KID

	for _, c := range []struct {
		name string
		text string
		says []string
	}{
		{"no YAML", good + "\n  - [", []string{d.config + ":"}},
		{"empty file", "", []string{"empty"}},
		{"misspelt key", strings.Replace(good, "clock_skew", "clock_scew", 1), []string{"clock_scew", "did you mean clock_skew?"}},
		{
			"period not above the lead",
			strings.Replace(good, "@every 720h", "@every 72s", 1),
			[]string{"keysets.default.rotate", "a lead of 1m12s"},
		},
		{
			"lead not below the period",
			strings.Replace(good, "max_staleness: 1m", "max_staleness: 720h", 1),
			[]string{"keysets.second.rotate", "max_staleness 30d"},
		},
		{
			"one good keyset and a broken one",
			replaceLast(strings.Replace(good, "token_ttl_max: 1h", "token_ttl_max: 30m", 1), "[ES256]", "[none]"),
			[]string{"keysets.second.algorithms[0]"},
		},
		{
			"another listener",
			strings.NewReplacer("token_ttl_max: 1h", "token_ttl_max: 30m", `public: {address: "127.0.0.1:0"}`, `public: {address: "127.0.0.1:1"}`).Replace(good),
			[]string{"listeners", "restart"},
		},
		{
			"another directory",
			strings.Replace(good, s.dir, s.dir+"-other", 1),
			[]string{"keystore", "restart"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			writeText(t, d.config, c.text)
			got := d.reload(t, false)
			for _, want := range c.says {
				if !strings.Contains(got, want) {
					t.Errorf("the reason lacks %q:\n%s", want, got)
				}
			}
			if text := d.cli("status"); !strings.Contains(text.out, "CONFIGURATION rejected") || !strings.Contains(text.out, c.says[0]) {
				t.Errorf("the status does not show it:\n%s%s", text.out, text.stderr)
			}
			d.unchanged(t, before)
		})
	}

	writeText(t, d.config, strings.Replace(good, "token_ttl_max: 1h", "token_ttl_max: 30m", 1))
	d.reload(t, true)
	if text := d.cli("status"); text.status != 0 || strings.Contains(text.out, "CONFIGURATION") {
		t.Errorf("the status still shows a rejected configuration:\n%s", text.out)
	}
	after := d.keyset("default")
	if want := rotation.Duration(30 * time.Minute); after.Policy.TokenTTLMax != want {
		t.Errorf("token_ttl_max is %s, want %s", after.Policy.TokenTTLMax, want)
	}
	if got := d.keyset("second").Policy.TokenTTLMax; got != rotation.Duration(time.Hour) {
		t.Errorf("token_ttl_max of the other keyset became %s", got)
	}
	if got := d.sign("default", "", "1m").KID; got != kid {
		t.Errorf("the reload changed the active key from %s to %s", kid, got)
	}
	d.stop()
}

func replaceLast(s, old, replacement string) string {
	i := strings.LastIndex(s, old)
	return s[:i] + replacement + s[i+len(old):]
}

// reload has the daemon read its file again, waits for the outcome, holds it
// to ok and returns the reason of a rejection.
func (d *daemon) reload(t *testing.T, ok bool) string {
	t.Helper()
	was := d.overview().Daemon.Config
	d.hup()
	var now *wire.Reload
	eventually(t, "the outcome of a reload", func() bool {
		now = d.overview().Daemon.Config
		return now != nil && (was == nil || now.At.After(was.At))
	})
	if now.OK != ok || ok != (now.Error == "") {
		t.Fatalf("the reload is reported as ok=%t, %q", now.OK, now.Error)
	}
	logged := "configuration rejected, the old one stays in force"
	if ok {
		logged = "configuration reloaded"
	}
	eventually(t, "the outcome in the log", func() bool { return d.log.says(logged) })
	return now.Error
}

// unchanged holds every keyset to what it was before.
func (d *daemon) unchanged(t *testing.T, before wire.Keysets) {
	t.Helper()
	for _, old := range before.Keysets {
		now := d.keyset(old.Keyset)
		if now.Generation != old.Generation || now.Policy.TokenTTLMax != old.Policy.TokenTTLMax || now.Policy.MaxStaleness != old.Policy.MaxStaleness {
			t.Errorf("keyset %s went from generation %d to %d, its policy to %+v", old.Keyset, old.Generation, now.Generation, now.Policy)
		}
	}
	if len(d.overview().Keysets) != len(before.Keysets) {
		t.Errorf("there are %d keysets, want %d", len(d.overview().Keysets), len(before.Keysets))
	}
}

// TestReloadOfRemovedFile loses the file altogether; it is rejected like any
// other that cannot be read.
func TestReloadOfRemovedFile(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, calm(t.TempDir()))
	if err := os.Remove(d.config); err != nil {
		t.Fatal(err)
	}
	if why := d.reload(t, false); !strings.Contains(why, d.config) || !strings.Contains(why, "no such file") {
		t.Errorf("the reason is %q", why)
	}
	d.sign("default", "", "1m")
	d.stop()
}
