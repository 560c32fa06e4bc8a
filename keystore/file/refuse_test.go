package file

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"github.com/jwksd/jwksd/keystore"
)

// snapshot is all that can be seen of the files in a directory.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		content, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		files[e.Name()] = fmt.Sprint(info.Mode(), info.ModTime(), len(content), string(content))
	}
	return files
}

func wantUnchanged(t testing.TB, dir string, before map[string]string) {
	t.Helper()
	after := snapshot(t, dir)
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("%s appeared", name)
		}
	}
	for name, was := range before {
		if is, ok := after[name]; !ok {
			t.Errorf("%s is gone", name)
		} else if is != was {
			t.Errorf("%s was changed", name)
		}
	}
}

// filled makes a store with some content and returns its directory.
func filled(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	s := mustOpen(t, Options{Dir: dir})
	for i := range 30 {
		keyset := fmt.Sprint("keyset-", i)
		if _, err := s.Swap(t.Context(), keyset, "", bytes.Repeat([]byte("d"), i*300)); err != nil {
			t.Fatal(err)
		}
		if err := s.CreateKey(t.Context(), keyset, "k", []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)
	return dir
}

// makeOld makes files old, so that any write shows in their time.
func makeOld(t testing.TB, dir string) {
	t.Helper()
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		past := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(dir, e.Name()), past, past); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadDatabase(t *testing.T) {
	good, err := os.ReadFile(filepath.Join(filled(t), DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	edit := func(fn func(b []byte)) []byte {
		b := bytes.Clone(good)
		fn(b)
		return b
	}
	m, err := readMeta(bytes.NewReader(good), uint64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	good = good[:int(m.pages)*page] // no room without meaning
	free, root := int(m.freelist)*page, int(m.root)*page
	random := make([]byte, 100_000)
	rand.Read(random)
	bad := map[string][]byte{
		"empty":              {},
		"one byte":           {0},
		"text":               []byte("hello\n"),
		"random":             random,
		"zeros":              make([]byte, 65536),
		"first page only":    good[:page],
		"half a page":        good[:page/2],
		"metas only":         good[:2*page],
		"cut in half":        good[:len(good)/2],
		"no metas":           edit(func(b []byte) { clear(b[:2*page]) }),
		"random metas":       edit(func(b []byte) { copy(b, random[:2*page]) }),
		"zeros after metas":  edit(func(b []byte) { clear(b[2*page:]) }),
		"random after metas": edit(func(b []byte) { copy(b[2*page:], random) }),
		"newer bbolt": edit(func(b []byte) {
			binary.NativeEndian.PutUint32(b[pageHeader+4:], 3)
			binary.NativeEndian.PutUint32(b[page+pageHeader+4:], 3)
		}),
		"root is free":     edit(func(b []byte) { binary.NativeEndian.PutUint64(b[free+pageHeader:], m.root) }),
		"meta is free":     edit(func(b []byte) { binary.NativeEndian.PutUint64(b[free+pageHeader:], 0) }),
		"beyond is free":   edit(func(b []byte) { binary.NativeEndian.PutUint64(b[free+pageHeader:], m.pages) }),
		"endless free":     edit(func(b []byte) { binary.NativeEndian.PutUint16(b[free+10:], 0xfffe) }),
		"key without name": edit(func(b []byte) { binary.NativeEndian.PutUint32(b[root+pageHeader+8:], 0) }),
		"entry in header":  edit(func(b []byte) { binary.NativeEndian.PutUint32(b[root+pageHeader+4:], 0) }),
		"out of order":     edit(func(b []byte) { b[root+pageHeader+int(binary.NativeEndian.Uint32(b[root+pageHeader+4:]))] = 'z' }),
		"other magic":      edit(func(b []byte) { b[pageHeader] ^= 1; b[page+pageHeader] ^= 1 }),
	}
	if err := inspectBytes(t, good); err != nil {
		t.Fatal(err)
	}
	for name, content := range bad {
		if err := inspectBytes(t, content); !errors.Is(err, errStructure) {
			t.Errorf("%s: inspect says %v", name, err)
		}
		for _, identity := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", identity ", identity), func(t *testing.T) {
				dir := t.TempDir()
				if identity {
					if _, err := createIdentity(filepath.Join(dir, identityName), time.Now()); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(dir, DatabaseName), content, 0o600); err != nil {
					t.Fatal(err)
				}
				wantCorrupt(t, dir)
			})
		}
	}
}

func inspectBytes(t *testing.T, content []byte) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return inspect(f)
}

// wantCorrupt opens a bad database, twice, and sees that nothing is touched.
func wantCorrupt(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "jwksd.db.tmp-left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	makeOld(t, dir)
	before := snapshot(t, dir)
	for range 2 {
		s, err := Open(Options{Dir: dir})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, keystore.ErrCorrupt) {
			t.Fatalf("Open: %v, want ErrCorrupt", err)
		}
		if !strings.Contains(err.Error(), filepath.Join(dir, DatabaseName)) || !strings.Contains(err.Error(), "put back a good copy") {
			t.Errorf("the error does not help: %v", err)
		}
		wantUnchanged(t, dir, before)
	}
}

func TestForeignDatabase(t *testing.T) {
	put := func(row, value []byte) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(row, value) }
	}
	for name, change := range map[string]func(tx *bbolt.Tx) error{
		"another program's": func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte("theirs"))
			return errors.Join(err, tx.DeleteBucket(bucketMeta))
		},
		"newer format":   put(rowFormat, []byte{0, 0, 0, 2}),
		"older format":   put(rowFormat, []byte{0, 0, 0, 0}),
		"odd format":     put(rowFormat, []byte{1}),
		"no documents":   func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketDocuments) },
		"no keys":        func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketKeys) },
		"nothing at all": func(tx *bbolt.Tx) error { return errors.Join(tx.DeleteBucket(bucketMeta), tx.DeleteBucket(bucketKeys)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t)
			tamper(t, dir, change)
			wantCorrupt(t, dir)
		})
	}
	t.Run("symbolic link", func(t *testing.T) {
		dir := filled(t)
		path := filepath.Join(dir, DatabaseName)
		if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)); err != nil {
			t.Fatal(err)
		}
		wantCorrupt(t, dir)
	})
	t.Run("directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, DatabaseName), 0o700); err != nil {
			t.Fatal(err)
		}
		wantCorrupt(t, dir)
	})
}

func TestDirIsFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"file", "file/below"} {
		if _, err := Open(Options{Dir: filepath.Join(dir, d)}); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("Open in %s: %v", d, err)
		}
	}
}

// TestDamage changes a good database at random. Either it is refused, or bbolt
// can use it: nothing in between may pass the inspection.
func TestDamage(t *testing.T) {
	good, err := os.ReadFile(filepath.Join(filled(t), DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "db")
	m, err := readMeta(bytes.NewReader(good), uint64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	page := int(m.pageSize)
	good = good[:int(m.pages)*page] // no room without meaning
	rounds := 1500
	if testing.Short() {
		rounds = 150
	}
	r := mrand.New(mrand.NewPCG(1, 2))
	refused := 0
	for range rounds {
		b := bytes.Clone(good)
		for range 1 + r.IntN(4) {
			// Mostly at the start of a page, where the structure is.
			at := r.IntN(len(b)/page)*page + r.IntN(64)
			if r.IntN(4) == 0 {
				at = r.IntN(len(b))
			}
			b[at] ^= 1 << r.IntN(8)
		}
		if tryDamaged(t, path, b) {
			refused++
		}
	}
	t.Logf("%d of %d refused", refused, rounds)
	if refused < rounds/4 {
		t.Error("hardly any damage was noticed")
	}
}

// tryDamaged says whether a database is refused. If not, it uses all of it.
func tryDamaged(t testing.TB, path string, content []byte) bool {
	t.Helper()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := inspect(f); err != nil {
		if !errors.Is(err, errStructure) {
			t.Fatalf("inspect: %v", err)
		}
		return true
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true, NoGrowSync: true})
	if err != nil {
		t.Fatalf("it passed the inspection, and bbolt says: %v", err)
	}
	defer db.Close()
	use := func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if v != nil && tx.Writable() {
					return b.Put(bytes.Clone(k), bytes.Clone(v))
				}
				return nil
			})
		})
	}
	if err := errors.Join(db.View(use), db.Update(use)); err != nil {
		t.Fatalf("it passed the inspection, and using it says: %v", err)
	}
	return false
}

func FuzzInspect(f *testing.F) {
	good, err := os.ReadFile(filepath.Join(filled(f), DatabaseName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, uint32(0))
	f.Add([]byte{0xff}, uint32(4096*2+10))
	path := filepath.Join(f.TempDir(), "db")
	f.Fuzz(func(t *testing.T, patch []byte, at uint32) {
		b := bytes.Clone(good)
		copy(b[int(at)%len(b):], patch)
		if len(patch) == 0 {
			b = b[:int(at)%len(b)]
		}
		tryDamaged(t, path, b)
	})
}

func TestIdentityRefused(t *testing.T) {
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string, mode os.FileMode) func(path string) error {
		return func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode))
		}
	}
	for _, tt := range []struct {
		name   string
		spoil  func(path string) error
		saying string
	}{
		{"group can read", func(p string) error { return os.Chmod(p, 0o640) }, "chmod 600 "},
		{"others can read", func(p string) error { return os.Chmod(p, 0o604) }, "chmod 600 "},
		{"missing", os.Remove, "cannot be read without it; restore it from a backup"},
		{"empty", write("", 0o600), "malformed"},
		{"cut", write(mine.String()[:50], 0o600), "malformed"},
		{"text", write("hello", 0o600), "malformed"},
		{"public key", write(mine.Recipient().String(), 0o600), "malformed"},
		{"two", write(mine.String()+"\n"+mine.String(), 0o600), "malformed"},
		{"binary", write("\x00\xff\xfe", 0o600), "malformed"},
		{"another", write(mine.String(), 0o600), "does not belong to the database"},
		{"a directory", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, "not a regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filled(t)
			identity := filepath.Join(dir, identityName)
			saved, err := os.ReadFile(identity)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(identity); err != nil {
				t.Fatal(err)
			}
			makeOld(t, dir)
			before := snapshot(t, dir)
			_, err = Open(Options{Dir: dir})
			if err == nil {
				t.Fatal("Open succeeded")
			}
			for _, want := range []string{identity, tt.saying} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error %q does not say %q", err, want)
				}
			}
			if tt.name == "another" && !strings.Contains(err.Error(), filepath.Join(dir, DatabaseName)) {
				t.Errorf("the error %q does not name the database", err)
			}
			if strings.Contains(err.Error(), mine.String()[len("AGE-SECRET-KEY-1"):30]) {
				t.Errorf("the error holds a secret: %q", err)
			}
			wantUnchanged(t, dir, before)

			// Put back, all is well: also that the lock was released.
			if err := errors.Join(os.RemoveAll(identity), os.WriteFile(identity, saved, 0o600)); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, Options{Dir: dir})
			if secret, err := s.ReadKey(t.Context(), "keyset-3", "k"); err != nil || string(secret) != "secret" {
				t.Error(secret, err)
			}
		})
	}
}

func TestBadIdentityCreatesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, identityName), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "malformed") {
		t.Errorf("Open: %v", err)
	}
	wantUnchanged(t, dir, before)
	if _, err := Open(Options{Dir: t.TempDir(), Identity: filepath.Join(dir, "no", "such")}); err == nil || !strings.Contains(err.Error(), "identity") {
		t.Errorf("Open with an identity in no directory: %v", err)
	}
}

func TestElements(t *testing.T) {
	leaf := func(edit func(b []byte)) []byte {
		b := make([]byte, 128)
		for n, key := range []string{"aa", "bb"} {
			at := pageHeader + n*elementSize
			binary.NativeEndian.PutUint32(b[at+4:], uint32(64+n*16-at))
			binary.NativeEndian.PutUint32(b[at+8:], 2)
			binary.NativeEndian.PutUint32(b[at+12:], 10)
			copy(b[64+n*16:], key)
		}
		edit(b)
		return b
	}
	first := func(field int, value uint32) func(b []byte) {
		return func(b []byte) { binary.NativeEndian.PutUint32(b[pageHeader+field:], value) }
	}
	if list, err := elements(flagLeaf, 2, leaf(func([]byte) {})); err != nil || string(list[1].key) != "bb" || len(list[1].value) != 10 {
		t.Fatal(list, err)
	}
	for name, edit := range map[string]func(b []byte){
		"no key":           first(8, 0),
		"in the elements":  first(4, 20),
		"long key":         first(8, 200),
		"long value":       first(12, 200),
		"far":              first(4, 1<<32-1),
		"larger than next": func(b []byte) { b[64] = 'z' },
		"same as next":     func(b []byte) { copy(b[64:], "bb") },
	} {
		if _, err := elements(flagLeaf, 2, leaf(edit)); !errors.Is(err, errStructure) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := elements(flagLeaf, 8, leaf(func([]byte) {})); !errors.Is(err, errStructure) {
		t.Errorf("more elements than room: %v", err)
	}
	if _, err := elements(flagBranch, 0, make([]byte, 128)); !errors.Is(err, errStructure) {
		t.Errorf("an empty branch: %v", err)
	}
	if _, err := elements(flagFreelist, 0, make([]byte, 128)); !errors.Is(err, errStructure) {
		t.Errorf("a page of another type: %v", err)
	}
}
