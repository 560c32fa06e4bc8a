package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/keystoretest"
)

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

type reopenable struct {
	*Store
	o Options
}

func (r reopenable) Reopen(t *testing.T) keystoretest.Store {
	mustClose(t, r.Store)
	return reopenable{mustOpen(t, r.o), r.o}
}

func TestConformance(t *testing.T) {
	for name, interval := range map[string]time.Duration{"default": 0, "scrub always": -1, "scrub by timer": 15 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			keystoretest.Run(t, func(t *testing.T) keystoretest.Store {
				o := Options{Dir: t.TempDir(), ScrubInterval: interval}
				return reopenable{mustOpen(t, o), o}
			})
		})
	}
}

func TestFirstOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "deep")
	s := mustOpen(t, Options{Dir: dir})
	for path, want := range map[string]os.FileMode{
		filepath.Dir(dir):                0o700 | os.ModeDir,
		dir:                              0o700 | os.ModeDir,
		filepath.Join(dir, "jwksd.db"):   0o600,
		filepath.Join(dir, identityName): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
	wantFiles(t, dir, "identity.txt", "jwksd.db")
	mustClose(t, s)
	mustClose(t, s) // again
	if _, err := s.Load(t.Context(), "a"); !errors.Is(err, errClosed) {
		t.Errorf("Load after Close: %v", err)
	}
	if err := s.CreateKey(t.Context(), "a", "k", nil); !errors.Is(err, errClosed) {
		t.Errorf("CreateKey after Close: %v", err)
	}
	if err := s.DestroyKey(t.Context(), "a", "k"); !errors.Is(err, errClosed) {
		t.Errorf("DestroyKey after Close: %v", err)
	}
	if _, _, err := s.Changes(t.Context(), ""); !errors.Is(err, errClosed) {
		t.Errorf("Changes after Close: %v", err)
	}
	if _, err := Open(Options{}); err == nil {
		t.Error("Open without a directory succeeded")
	}
}

func wantFiles(t testing.TB, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s holds %v, want %v", dir, got, want)
	}
}

func TestIdentityElsewhere(t *testing.T) {
	dir, identity := t.TempDir(), filepath.Join(t.TempDir(), "id")
	o := Options{Dir: dir, Identity: identity}
	s := mustOpen(t, o)
	if err := s.CreateKey(t.Context(), "a", "k", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	wantFiles(t, dir, "jwksd.db")
	s = mustOpen(t, o)
	if secret, err := s.ReadKey(t.Context(), "a", "k"); err != nil || string(secret) != "secret" {
		t.Fatal(secret, err)
	}
}

// An identity that was put there beforehand is used, and a crash between the
// identity and the database leaves just that.
func TestIdentityFirst(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, mustOpen(t, Options{Dir: dir}))
	before, _ := os.ReadFile(filepath.Join(dir, identityName))
	if err := os.Remove(filepath.Join(dir, DatabaseName)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, Options{Dir: dir}))
	if after, _ := os.ReadFile(filepath.Join(dir, identityName)); !bytes.Equal(before, after) {
		t.Error("the identity was replaced")
	}
}

func TestLeftOverFiles(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, mustOpen(t, Options{Dir: dir}))
	for _, name := range []string{"jwksd.db.tmp-1", "identity.txt.tmp-2"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A crash between the link and the removal of the temporary name.
	if err := os.Link(filepath.Join(dir, DatabaseName), filepath.Join(dir, "jwksd.db.tmp-3")); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, Options{Dir: dir}))
	wantFiles(t, dir, "identity.txt", "jwksd.db")
}

// tamper changes the closed database behind the store's back.
func tamper(t *testing.T, dir string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, DatabaseName), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func TestTamperedEntries(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := mustOpen(t, Options{Dir: dir})
	for _, name := range []string{"a", "b"} {
		if _, err := s.Swap(ctx, name, "", []byte("document "+name)); err != nil {
			t.Fatal(err)
		}
		for _, kid := range []string{"k1", "k2"} {
			if err := s.CreateKey(ctx, name, kid, []byte("secret "+name+kid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustClose(t, s)
	tamper(t, dir, func(tx *bbolt.Tx) error {
		keys, documents := tx.Bucket(bucketKeys), tx.Bucket(bucketDocuments)
		ak1, bk1 := bytes.Clone(keys.Get([]byte("a\x00k1"))), bytes.Clone(keys.Get([]byte("b\x00k1")))
		bk2 := bytes.Clone(keys.Get([]byte("b\x00k2")))
		bk2[len(bk2)-1] ^= 1
		a := bytes.Clone(documents.Get([]byte("a")))
		b := bytes.Clone(documents.Get([]byte("b")))
		b[len(b)-1] ^= 1
		return errors.Join(
			keys.Put([]byte("a\x00k2"), ak1), // another kid
			keys.Put([]byte("a\x00k1"), bk1), // another keyset
			keys.Put([]byte("b\x00k2"), bk2), // a flipped bit
			keys.Put([]byte("c\x00k1"), []byte("short")),
			documents.Put([]byte("b"), b), // a flipped bit
			documents.Put([]byte("c"), a), // another keyset
			documents.Put([]byte("d"), []byte("short")),
		)
	})
	s = mustOpen(t, Options{Dir: dir})
	for _, k := range [][2]string{{"a", "k1"}, {"a", "k2"}, {"b", "k2"}, {"c", "k1"}} {
		if got, err := s.ReadKey(ctx, k[0], k[1]); !errors.Is(err, keystore.ErrCorrupt) || got != nil {
			t.Errorf("ReadKey(%q) = %q, %v, want ErrCorrupt", k, got, err)
		}
		if err := s.CreateKey(ctx, k[0], k[1], []byte("secret")); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("CreateKey(%q): %v, want ErrCorrupt", k, err)
		}
	}
	for _, name := range []string{"b", "c", "d"} {
		if _, err := s.Load(ctx, name); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("Load(%q): %v, want ErrCorrupt", name, err)
		}
		if _, err := s.Swap(ctx, name, "", nil); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("Swap(%q): %v, want ErrCorrupt", name, err)
		}
	}
	// The rest goes on.
	if doc, err := s.Load(ctx, "a"); err != nil || string(doc.Data) != "document a" {
		t.Error(doc, err)
	}
	if got, err := s.ReadKey(ctx, "b", "k1"); err != nil || string(got) != "secret bk1" {
		t.Error(got, err)
	}
}

// A database that a restored backup set back gives out no version twice, and
// takes no cursor from before.
func TestRestoredBackup(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	path := filepath.Join(dir, DatabaseName)
	s := mustOpen(t, Options{Dir: dir})
	v1, err := s.Swap(ctx, "a", "", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	backup, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Options{Dir: dir})
	v2, err := s.Swap(ctx, "a", v1, []byte("2"))
	if err != nil {
		t.Fatal(err)
	}
	_, cursor, _ := s.Changes(ctx, "")
	mustClose(t, s)
	if err := os.WriteFile(path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Options{Dir: dir})
	if _, err := s.Swap(ctx, "a", v2, []byte("3")); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("a swap over a version that the backup lacks: %v", err)
	}
	v2b, err := s.Swap(ctx, "a", v1, []byte("2b"))
	if err != nil || v2b == v2 {
		t.Errorf("version %q repeats (%v)", v2b, err)
	}
	if changed, _, _ := s.Changes(ctx, cursor); len(changed) != 1 {
		t.Errorf("a cursor from before the restoration is taken: %v", changed)
	}
}

func TestPlaintextNowhere(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := mustOpen(t, Options{Dir: dir})
	canary := []byte("canary-canary-canary-canary")
	if err := s.CreateKey(ctx, "a", "k", canary); err != nil {
		t.Fatal(err)
	}
	err := s.CreateKey(ctx, "a", "k", append(canary, '!'))
	if !errors.Is(err, keystore.ErrExists) || bytes.Contains([]byte(err.Error()), canary) {
		t.Error(err)
	}
	mustClose(t, s)
	for _, name := range []string{DatabaseName, identityName} {
		if content, err := os.ReadFile(filepath.Join(dir, name)); err != nil || bytes.Contains(content, canary) {
			t.Errorf("%s holds a secret in plain text (%v)", name, err)
		}
	}
}

func BenchmarkOpen10000(b *testing.B) {
	ctx, dir := b.Context(), b.TempDir()
	s := mustOpen(b, Options{Dir: dir})
	document := bytes.Repeat([]byte("d"), 2000)
	err := s.commit(func(tx *bbolt.Tx) error { // 10,000 calls would take minutes of fsync
		for i := range 10_000 {
			keyset := fmt.Sprintf("keyset-%05d", i)
			if err := tx.Bucket(bucketDocuments).Put([]byte(keyset), pack(keyset, 0, document)); err != nil {
				return err
			}
			for _, kid := range []string{"active", "standby"} {
				sealed, err := s.seal(keyset, kid, document[:300], s.now())
				if err != nil {
					return err
				}
				if err := tx.Bucket(bucketKeys).Put(keyName(keyset, kid), sealed); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	mustClose(b, s)
	b.Run("Open", func(b *testing.B) {
		for b.Loop() {
			s, err := Open(Options{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			s.Close()
		}
	})
	s, err = Open(Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.Run("Load", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Load(ctx, "keyset-05000"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ReadKey", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.ReadKey(ctx, "keyset-05000", "active"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Scrub", func(b *testing.B) {
		for b.Loop() {
			if err := s.scrub(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
