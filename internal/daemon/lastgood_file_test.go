package daemon

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// someState is a document as it might stand in a store.
func someState(t *testing.T, keyset string) rotation.State {
	t.Helper()
	var fresh []rotation.NewKey
	for _, kid := range []string{"a", "b"} {
		fresh = append(fresh, rotation.NewKey{KID: keyset + kid, Algorithm: "ES256", Public: []byte(`{}`)})
	}
	s, err := rotation.Found(keyset, rotation.DefaultPolicy(), time.Now(), fresh, rotation.Operation{ID: "1", Kind: "found"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func twoKeysets(t *testing.T) []rotator.Kept {
	at := time.Now().UTC().Truncate(time.Second)
	return []rotator.Kept{{State: someState(t, "one"), FreshAt: at}, {State: someState(t, "two"), FreshAt: at.Add(-time.Hour)}}
}

func mustWriteCopy(t *testing.T, path string, list []rotator.Kept) (copied, key []byte) {
	t.Helper()
	if err := writeCopy(path, list); err != nil {
		t.Fatal(err)
	}
	return mustRead(t, path), mustRead(t, path+".key")
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCopyComesBackAsItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	if _, err := readCopy(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading none: %v", err)
	}
	list := twoKeysets(t)
	for range 3 {
		mustWriteCopy(t, path, list)
		got, err := readCopy(path)
		if err != nil || len(got) != 2 {
			t.Fatalf("%d keysets, %v", len(got), err)
		}
		for i := range got {
			want, _ := list[i].State.Encode()
			have, _ := got[i].State.Encode()
			if !bytes.Equal(want, have) || !got[i].FreshAt.Equal(list[i].FreshAt) {
				t.Errorf("keyset %d came back as %s of %s", i, have, got[i].FreshAt)
			}
		}
	}
	for _, name := range []string{path, path + ".key"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 2 {
		t.Errorf("files %v", left)
	}
}

// Whenever a write is cut short, there is a copy with its key.
func TestCopySurvivesACutAtEachStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	list := twoKeysets(t)
	old, oldKey := mustWriteCopy(t, path, list[:1])
	latest, key := mustWriteCopy(t, path, list)
	both := append(bytes.Clone(oldKey), key...)
	for _, cut := range []struct {
		copied, key []byte
		keysets     int
	}{{old, oldKey, 1}, {old, both, 1}, {latest, both, 2}, {latest, key, 2}} {
		put(t, path, cut.copied)
		put(t, path+".key", cut.key)
		got, err := readCopy(path)
		if err != nil || len(got) != cut.keysets {
			t.Fatalf("%d keysets, want %d: %v", len(got), cut.keysets, err)
		}
		for range 3 { // the write that follows, and failures of it, change nothing about that
			if err := writeCopyKeys(path, copyKeys(path)); err != nil {
				t.Fatal(err)
			}
		}
		mustWriteCopy(t, path, list)
		if got, err := readCopy(path); err != nil || len(got) != 2 {
			t.Fatalf("after the next write: %d keysets, %v", len(got), err)
		}
	}
}

func TestCopyThatIsNotOursIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	list := twoKeysets(t)
	old, _ := mustWriteCopy(t, path, list[:1])
	good, key := mustWriteCopy(t, path, list)
	foreign, foreignKey := mustWriteCopy(t, filepath.Join(t.TempDir(), "other"), list)
	lines := bytes.SplitAfter(good, []byte("\n"))
	for name, bad := range map[string]struct{ copied, key []byte }{
		"empty":              {nil, key},
		"older":              {old, key},
		"of another machine": {foreign, key},
		"with a foreign key": {good, foreignKey},
		"with no key":        {good, []byte("\n")},
		"with half a key":    {good, key[:32]},
		"changed":            {bytes.Replace(good, []byte("max_staleness"), []byte("max_stalenesS"), 1), key},
		"without a line":     {bytes.Join([][]byte{lines[0], lines[2], lines[3]}, nil), key},
		"without its end":    {bytes.Join(lines[:3], nil), key},
		"with more":          {append(bytes.Clone(good), lines[1]...), key},
	} {
		put(t, path, bad.copied)
		put(t, path+".key", bad.key)
		if _, err := readCopy(path); err == nil || !strings.Contains(err.Error(), "is refused: it does not fit") || strings.Contains(err.Error(), "\n") {
			t.Errorf("a copy %s: %v", name, err)
		}
	}
	for n := 0; n < len(good); n += 61 {
		put(t, path, good[:n])
		put(t, path+".key", key)
		if _, err := readCopy(path); err == nil {
			t.Fatalf("a copy cut off after %d of %d bytes is taken", n, len(good))
		}
	}
	put(t, path, good)
	if err := os.Chmod(path+".key", 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := readCopy(path); err == nil || !strings.Contains(err.Error(), "others may read") {
		t.Errorf("a key that others know: %v", err)
	}
	if err := os.Remove(path + ".key"); err != nil {
		t.Fatal(err)
	}
	if _, err := readCopy(path); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("a key that is gone: %v", err)
	}
}
