package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// now is when every test reads its file.
func now() time.Time { return time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC) }

func parseOK(t *testing.T, text string) Config {
	t.Helper()
	c, err := Parse("/etc/jwksd/jwksd.yaml", []byte(text), now())
	if err != nil {
		t.Fatalf("%s\nin\n%s", err, text)
	}
	return c
}

func TestSample(t *testing.T) {
	text, err := os.ReadFile("testdata/sample.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := parseOK(t, string(text))
	first := rotation.DefaultPolicy()
	first.Issuer = "https://auth.example.com"
	second := rotation.DefaultPolicy()
	second.Issuer = "https://partners.example.com/eu"
	second.Algorithms = []string{"RS256", "EdDSA"}
	second.RSABits = 3072
	second.Rotate = "@every 7d"
	second.TokenTTLMax = rotation.Duration(30 * 24 * time.Hour)
	second.HandoverGrace = rotation.Duration(time.Minute)
	want := Config{
		Role:         RoleSigner,
		Keystore:     Keystore{File: FileStore{Dir: "/etc/jwksd/state", Identity: "/etc/jwksd/identity.txt"}},
		SyncInterval: rotation.Duration(500 * time.Millisecond),
		MaxStaleness: rotation.Duration(time.Hour),
		ClockSkew:    rotation.Duration(5 * time.Second),
		Keysets:      []Keyset{{"default", first}, {"partners.eu", second}},
		Callers: []Caller{{
			Name:     "auth-server",
			Identity: Identity{TokenSHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
			Grants: []Grant{{
				Keysets: []string{"default"},
				Actions: []Action{ActionSign, ActionSignInput, ActionRead},
				Types:   []string{"logout+jwt"},
			}},
		}, {
			Name:     "operators",
			Identity: Identity{TokenSHA256: "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"},
			Grants: []Grant{{
				Keysets: []string{"*"},
				Actions: []Action{ActionRead, ActionRotate, ActionRevoke, ActionRevokeAll},
			}},
		}},
		Listeners: Listeners{
			Public: PublicListener{Address: ":8080", ContentType: ContentTypeJSON},
			API:    APIListener{Address: "0.0.0.0:8081", TLS: &TLS{Cert: "/etc/jwksd/tls.crt", Key: "/etc/jwksd/tls.key"}},
			Ops:    OpsListener{Address: "127.0.0.1:9090"},
		},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestMinimalHasTheDefaults(t *testing.T) {
	c := parseOK(t, minimal)
	want := Default("")
	want.Keysets[0].Policy.Issuer = "https://auth.example.com"
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if _, err := Check(Default("/var/lib/jwksd"), now()); err != nil {
		t.Errorf("the default does not hold: %v", err)
	}
}

func TestTopLevelTimingReachesEveryKeyset(t *testing.T) {
	c := parseOK(t, "keysets: {a: {issuer: https://a.example}, b: {issuer: https://b.example}}\nmax_staleness: 10m\nclock_skew: 2s\n")
	for _, k := range c.Keysets {
		if k.Policy.MaxStaleness.String() != "10m" || k.Policy.ClockSkew.String() != "2s" {
			t.Errorf("%s: D %s, S %s", k.Name, k.Policy.MaxStaleness, k.Policy.ClockSkew)
		}
	}
}

func TestKeysetsKeepTheOrderOfTheFile(t *testing.T) {
	c := parseOK(t, "keysets:\n  z: {issuer: https://z.example}\n  a: {issuer: https://a.example}\n  \"10\": {issuer: https://t.example}\n  2: {issuer: https://two.example}\n")
	var names []string
	for _, k := range c.Keysets {
		names = append(names, k.Name)
	}
	if got := strings.Join(names, " "); got != "z a 10 2" {
		t.Errorf("got %s", got)
	}
}

func TestStyleOfWritingDoesNotMatter(t *testing.T) {
	want := parseOK(t, minimal)
	for name, text := range map[string]string{
		"flow":           `{keysets: {default: {issuer: "https://auth.example.com"}}}`,
		"carriage":       strings.ReplaceAll(minimal, "\n", "\r\n"),
		"byte order":     "\ufeff" + minimal,
		"header and end": "---\n" + minimal + "...\n# end\n",
		"single quotes":  "'keysets':\n  'default':\n    'issuer': 'https://auth.example.com'\n",
	} {
		if got := parseOK(t, text); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", "/state")
	path := filepath.Join(dir, "jwksd.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("jwksd.yaml", minimal)
	c, err := Load(path, now())
	if err != nil || c.Keystore.File.Dir != "/state/jwksd" {
		t.Errorf("dir %q, error %v", c.Keystore.File.Dir, err)
	}
	write("tls.crt", "")
	write("jwksd.yaml", minimal+"\nlisteners:\n  api:\n    address: :0\n    tls:\n      cert: tls.crt\n      key: tls.key\n")
	_, err = Load(path, now())
	if want := path + ":10:12: listeners.api.tls.key: there is no file " + filepath.Join(dir, "tls.key"); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	write("tls.key", "")
	if c, err = Load(path, now()); err != nil || c.Listeners.API.TLS.Key != filepath.Join(dir, "tls.key") {
		t.Errorf("%+v, error %v", c.Listeners.API, err)
	}
	for name, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): "there is no such file",
		dir:                             "this is a directory",
	} {
		if _, err := Load(name, now()); err == nil || !strings.HasPrefix(err.Error(), name+": "+want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestDefaultStateDir(t *testing.T) {
	for _, tt := range []struct{ service, xdg, home, want string }{
		{"/var/lib/jwksd", "/x", "/home/u", "/var/lib/jwksd"},
		{"/var/lib/jwksd:/var/lib/other", "", "/home/u", "/var/lib/jwksd"},
		{"", "/x", "/home/u", "/x/jwksd"},
		{"", "relative", "/home/u", "/home/u/.local/state/jwksd"},
		{"", "", "/root", "/root/.local/state/jwksd"},
		{"", "", "", ""},
	} {
		env := map[string]string{"STATE_DIRECTORY": tt.service, "XDG_STATE_HOME": tt.xdg}
		got, err := stateDir(func(k string) string { return env[k] }, func() (string, error) { return tt.home, nil })
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%+v: got %q, %v", tt, got, err)
		}
	}
}

func TestDeployedConfigurationHolds(t *testing.T) {
	if _, err := Load("../../deploy/jwksd.yaml", time.Now()); err != nil {
		t.Fatal(err)
	}
}
