package file

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
)

// traces says whether any 32 bytes of what was stored are in the file.
func traces(t *testing.T, dir string, stored []byte) bool {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(dir, DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	windows := make(map[[32]byte]bool)
	for i := 0; i+32 <= len(file); i++ {
		windows[[32]byte(file[i:i+32])] = true
	}
	// The age header that all files begin with is no trace.
	body := stored[sizeCreated+len("age-encryption.org/v1\n-> X25519 "):]
	for i := 0; i+32 <= len(body); i++ {
		if windows[[32]byte(body[i:i+32])] {
			return true
		}
	}
	return false
}

// create stores a key and returns its stored form.
func create(t *testing.T, s *Store, kid string) (stored []byte) {
	t.Helper()
	if err := s.CreateKey(t.Context(), "a", kid, bytes.Repeat([]byte(kid), 40)); err != nil {
		t.Fatal(err)
	}
	if err := s.view(t.Context(), func(tx *bbolt.Tx) error {
		stored = slices.Clone(tx.Bucket(bucketKeys).Get(keyName("a", kid)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return stored
}

func destroy(t *testing.T, s *Store, kid string) {
	t.Helper()
	if err := s.DestroyKey(t.Context(), "a", kid); err != nil {
		t.Fatal(err)
	}
}

func TestScrubAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Options{Dir: dir, ScrubInterval: time.Hour})
	kept, gone := create(t, s, "kept"), create(t, s, "gone")
	for i := range 50 { // rewrite the pages, so that copies lie about
		create(t, s, fmt.Sprint("other", i))
	}
	if !traces(t, dir, gone) || !traces(t, dir, kept) {
		t.Fatal("the search does not find what is there")
	}
	destroy(t, s, "gone")
	if traces(t, dir, gone) {
		t.Error("the first destroyed key left traces")
	}
	if !traces(t, dir, kept) {
		t.Error("the other key is gone")
	}
	if secret, err := s.ReadKey(t.Context(), "a", "kept"); err != nil || string(secret[:4]) != "kept" {
		t.Error(secret, err)
	}
	if err := s.view(t.Context(), func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketMeta).Get(rowDirty) != nil {
			t.Error("the database says that a scrub is due still")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	wantFiles(t, dir, "identity.txt", "jwksd.db")
}

func TestScrubDeferred(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Options{Dir: dir, ScrubInterval: time.Hour})
	first, second := create(t, s, "first"), create(t, s, "second")
	destroy(t, s, "first")
	destroy(t, s, "second")
	if traces(t, dir, first) || !traces(t, dir, second) {
		t.Fatal("the second scrub was not deferred: this tests nothing")
	}
	mustClose(t, s)
	if traces(t, dir, second) {
		t.Error("Close left traces")
	}
}

func TestScrubByTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, Options{Dir: dir, ScrubInterval: time.Hour})
		first, second, third := create(t, s, "first"), create(t, s, "second"), create(t, s, "third")
		destroy(t, s, "first")
		time.Sleep(time.Minute)
		destroy(t, s, "second")
		destroy(t, s, "third")
		time.Sleep(58 * time.Minute)
		if traces(t, dir, first) || !s.isDirty() {
			t.Fatal("the first scrub did not come, or the second too early")
		}
		time.Sleep(2 * time.Minute)
		s.writer <- struct{}{} // wait for it to end
		<-s.writer
		if s.isDirty() || traces(t, dir, second) || traces(t, dir, third) {
			t.Error("the timer left traces")
		}
		again := create(t, s, "again")
		destroy(t, s, "again")
		if !s.isDirty() {
			t.Fatal("the third scrub came too early")
		}
		time.Sleep(time.Hour)
		s.writer <- struct{}{}
		<-s.writer
		if s.isDirty() || traces(t, dir, again) {
			t.Error("the timer does it only once")
		}
		time.Sleep(3 * time.Hour)
		fourth := create(t, s, "fourth")
		destroy(t, s, "fourth")
		if traces(t, dir, fourth) {
			t.Error("after a long time it is not done at once")
		}
	})
}

func TestScrubAtOpen(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir, ScrubInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "first")
	second := create(t, s, "second")
	destroy(t, s, "first")
	destroy(t, s, "second")
	// A crash: nobody closes, the lock goes with the process.
	s.timer.Stop()
	s.db.DB.Close()
	if !traces(t, dir, second) {
		t.Fatal("this tests nothing")
	}
	mustOpen(t, Options{Dir: dir})
	if traces(t, dir, second) {
		t.Error("Open left traces")
	}
	wantFiles(t, dir, "identity.txt", "jwksd.db")
}

func TestScrubNoLeak(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		s, err := Open(Options{Dir: t.TempDir(), ScrubInterval: 12 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		create(t, s, "first")
		create(t, s, "second")
		destroy(t, s, "first")
		destroy(t, s, "second")
		time.Sleep(time.Millisecond)
		mustClose(t, s)
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, before were %d", runtime.NumGoroutine(), before)
}

// Reading and writing go on while the file is replaced again and again.
func TestScrubUnderLoad(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Options{Dir: dir, ScrubInterval: -1})
	ctx := t.Context()
	create(t, s, "kept")
	v, err := s.Swap(ctx, "a", "", []byte("0"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.ReadKey(ctx, "a", "kept"); err != nil {
					t.Error(err)
				}
				if _, err := s.Load(ctx, "a"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 30 {
			next, err := s.Swap(ctx, "a", v, fmt.Append(nil, i))
			if err != nil {
				t.Error(err)
				return
			}
			v = next
		}
	})
	for i := range 20 {
		kid := fmt.Sprint(i)
		stored := create(t, s, kid)
		destroy(t, s, kid)
		if traces(t, dir, stored) {
			t.Errorf("key %s left traces", kid)
		}
	}
	close(stop)
	wg.Wait()
	if doc, err := s.Load(ctx, "a"); err != nil || doc.Version != v {
		t.Errorf("the last write is %v, %v", doc, err)
	}
}
