package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/keystore/file"
	"github.com/jwksd/jwksd/rotation"
)

// TestBadSurroundings starts the daemon where it cannot work. It has to say
// why, end with status 1, and leave everything as it was.
func TestBadSurroundings(t *testing.T) {
	t.Parallel()
	t.Run("second daemon", secondDaemon)
	t.Run("address in use", addressInUse)
	t.Run("broken configuration", brokenConfiguration)
	t.Run("path under a file", pathUnderFile)
	t.Run("directory of another user", foreignDirectory)
	t.Run("document from the future", fromTheFuture)
	t.Run("identity lost", identityLost)
}

func secondDaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startDaemon(t, calm(dir))
	before := first.keyset("default")
	address := first.line("api.url")

	second := newDaemon(t, calm(dir))
	second.refuses(dir, "in use by another process")

	if got := first.line("api.url"); got != address {
		t.Errorf("the second daemon changed api.url from %s to %s", address, got)
	}
	first.sign("default", "", "1m")
	if after := first.keyset("default"); after.Generation != before.Generation {
		t.Errorf("the generation went from %d to %d", before.Generation, after.Generation)
	}
	first.stop()
	second.start() // the directory is free again
	second.stop()
}

func addressInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	for name, set := range map[string]func(*settings){
		"public": func(s *settings) { s.public = taken },
		"api":    func(s *settings) { s.api = taken },
		"ops":    func(s *settings) { s.ops = taken },
	} {
		fresh := calm(filepath.Join(t.TempDir(), "data"))
		set(&fresh)
		newDaemon(t, fresh).refuses("listeners."+name, taken, "in use")
		if docs, keys := stored(t, fresh.dir, "default"); docs != "" || len(keys) > 0 {
			t.Errorf("%s in use: a new store has a document (%d bytes) and the keys %v", name, len(docs), keys)
		}
	}

	old := calm(t.TempDir())
	startDaemon(t, old).stop()
	document, keys := stored(t, old.dir, "default")
	old.api = taken
	newDaemon(t, old).refuses("listeners.api", taken)
	if d, k := stored(t, old.dir, "default"); d != document || !slices.Equal(k, keys) {
		t.Errorf("the store changed though an address was in use")
	}
}

// stored returns the document and the kids of the private keys in a store that
// nobody serves.
func stored(t testing.TB, dir, keyset string) (document string, kids []string) {
	t.Helper()
	s, err := file.Open(file.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if doc, err := s.Load(t.Context(), keyset); err == nil {
		document = string(doc.Data)
	}
	list, err := s.ListKeys(t.Context(), keyset)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		kids = append(kids, k.KID)
	}
	return document, kids
}

func brokenConfiguration(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(text string) string
		line   string   // that is at fault, by a part of it; empty: not known
		says   []string // beside the file's name
	}{
		"misspelt key": {
			func(s string) string { return strings.Replace(s, "rotate:", "rotat:", 1) },
			"rotat:", []string{":5: keysets.default.rotat: "},
		},
		"wrong type": {
			func(s string) string { return strings.Replace(s, "sync_interval: 100ms", "sync_interval: [1]", 1) },
			"sync_interval", []string{"sync_interval"},
		},
		"no YAML": {
			func(s string) string { return s + "  broken: [\n" },
			"", []string{"jwksd.yaml:"},
		},
		"algorithm none": {
			func(s string) string { return strings.Replace(s, "[ES256]", "[none]", 1) },
			"[none]", []string{"keysets.default.algorithms[0]", "none"},
		},
		"period below the lead": {
			func(s string) string { return strings.Replace(s, "@every 720h", "@every 1m", 1) },
			"@every", []string{"keysets.default.rotate", "lead", "1m12s"},
		},
		"two faults": {
			func(s string) string {
				return strings.NewReplacer("[ES256]", "[HS256]", "clock_skew: 1s", "clock_skew: 1 second").Replace(s)
			},
			"[HS256]", []string{"HS256", "clock_skew"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			d := newDaemon(t, calm(dir))
			text := c.change(calm(dir).yaml())
			writeText(t, d.config, text)
			d.refuses(append(c.says, d.config+lineOf(text, c.line))...)
			if _, err := os.Lstat(dir); !os.IsNotExist(err) {
				t.Errorf("the data directory was made: %v", err)
			}
			if r := cli(t, "", nil, "check", "--config", d.config); r.status != 1 || r.out != "" {
				t.Errorf("check ends with status %d and prints %q", r.status, r.out)
			}
		})
	}
	t.Run("missing file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "none.yaml")
		r := cli(t, "", nil, "serve", "--config", path)
		if r.status != 1 || !strings.Contains(r.stderr, path) || r.out != "" {
			t.Errorf("status %d, output %q, error %q", r.status, r.out, r.stderr)
		}
	})
}

// lineOf writes the number of the line that contains part, as errors do.
func lineOf(text, part string) string {
	before, _, found := strings.Cut(text, part)
	if part == "" || !found {
		return ""
	}
	return fmt.Sprintf(":%d:", 1+strings.Count(before, "\n"))
}

func pathUnderFile(t *testing.T) {
	t.Parallel()
	notDir := filepath.Join(t.TempDir(), "file")
	writeText(t, notDir, "something else")
	newDaemon(t, calm(filepath.Join(notDir, "data"))).refuses(notDir, "not a directory")
	newDaemon(t, calm(notDir)).refuses(notDir, "not a directory")
	if data, err := os.ReadFile(notDir); err != nil || string(data) != "something else" {
		t.Errorf("the file was touched: %q, %v", data, err)
	}
}

// foreignDirectory has a directory in which the daemon's user may not write.
func foreignDirectory(t *testing.T) {
	t.Parallel()
	parent := openTempDir(t)
	if err := os.Chmod(parent, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(parent, 0o755) })
	d := newDaemon(t, calm(parent))
	openUp(t, filepath.Dir(d.config))
	d.wrap = asOrdinaryUser
	d.refuses(parent, "permission denied", "chown")
	if entries, _ := os.ReadDir(parent); len(entries) > 0 {
		t.Errorf("there is something in the directory: %v", entries)
	}
}

// openTempDir is a directory that any user may enter.
func openTempDir(t *testing.T) string {
	dir := t.TempDir()
	openUp(t, dir)
	return dir
}

// openUp lets every user enter a directory below the temporary one.
func openUp(t *testing.T, dir string) {
	t.Helper()
	for ; len(dir) > len(filepath.Clean(os.TempDir())); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// asOrdinaryUser drops what root may do, since permissions do not bind it.
func asOrdinaryUser(c *exec.Cmd) {
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

// fromTheFuture has a document that was written by a clock an hour ahead.
func fromTheFuture(t *testing.T) {
	t.Parallel()
	s := calm(t.TempDir())
	startDaemon(t, s).stop()
	ahead(t, s.dir, time.Hour)
	document, keys := stored(t, s.dir, "default")

	s.blocks[0].ttl = "2h" // another policy is not put in force
	d := startDaemon(t, s)
	if got := d.keyset("default"); len(kids(got)) != 2 {
		t.Errorf("the set is not served: %v", kids(got))
	}
	if list := d.overview(); len(list.Daemon.Alarms) != 1 || !strings.Contains(list.Daemon.Alarms[0].Message, "set the clock right") {
		t.Errorf("alarms %+v", list.Daemon.Alarms)
	}
	if _, err := d.client.Sign(t.Context(), "default", signRequest("", "1m")); !transient(err) {
		t.Errorf("signing by a clock that is behind: %v", err)
	}
	if _, err := d.client.Rotate(t.Context(), "default", wire.RotateRequest{Force: true}, ""); !transient(err) {
		t.Errorf("rotating by a clock that is behind: %v", err)
	}
	d.stop()
	if d, k := stored(t, s.dir, "default"); d != document || !slices.Equal(k, keys) {
		t.Error("the store changed")
	}
}

// ahead writes the document as a clock would that is ahead.
func ahead(t testing.TB, dir string, by time.Duration) {
	t.Helper()
	store, err := file.Open(file.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	doc, err := store.Load(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	state, err := rotation.Decode(doc.Data)
	if err != nil {
		t.Fatal(err)
	}
	state.UpdatedAt = state.UpdatedAt.Add(by)
	state.Generation++
	data, err := state.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Swap(t.Context(), "default", doc.Version, data); err != nil {
		t.Fatal(err)
	}
}

// identityLost has a store without the file that decrypts its keys.
func identityLost(t *testing.T) {
	t.Parallel()
	s := calm(t.TempDir())
	startDaemon(t, s).stop()
	identity := filepath.Join(s.dir, "identity.txt")
	if err := os.Rename(identity, identity+".away"); err != nil {
		t.Fatal(err)
	}
	newDaemon(t, s).refuses(identity, "missing", "backup")
	if _, err := os.Lstat(identity); !os.IsNotExist(err) {
		t.Errorf("another identity was made: %v", err)
	}
	if err := os.Rename(identity+".away", identity); err != nil {
		t.Fatal(err)
	}
	startDaemon(t, s).stop()
}
