// Package keystoretest holds the one suite of tests that every store passes,
// and a store in memory whose faults are made to order. It is for tests only.
package keystoretest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// Store is what the suite tests. Its users declare the parts they need.
type Store interface {
	Load(ctx context.Context, keyset string) (keystore.Document, error)
	Swap(ctx context.Context, keyset string, old keystore.Version, data []byte) (keystore.Version, error)
	Changes(ctx context.Context, since keystore.Cursor) (changed []string, next keystore.Cursor, err error)
	CreateKey(ctx context.Context, keyset, kid string, secret []byte) error
	ReadKey(ctx context.Context, keyset, kid string) ([]byte, error)
	DestroyKey(ctx context.Context, keyset, kid string) error
	ListKeys(ctx context.Context, keyset string) ([]keystore.KeyInfo, error)
}

// Reopener is a store that can be closed and opened again on the same data, by
// a call of Reopen. The store itself is not used after it.
type Reopener interface {
	Store
	Reopen(t *testing.T) Store
}

// Run tests a store. Each test calls open once or twice. The stores it returns
// may share their data with each other and with strangers: the tests use names
// that nobody else has, and expect nothing of others.
func Run(t *testing.T, open func(t *testing.T) Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, open func(t *testing.T) Store)
	}{
		{"Document", testDocument},
		{"Conflict", testConflict},
		{"OneWinner", testOneWinner},
		{"NoLostUpdate", testNoLostUpdate},
		{"VersionsNeverRepeat", testVersions},
		{"Changes", testChanges},
		{"ChangesCoalesce", testChangesCoalesce},
		{"ChangesUnknownCursor", testChangesUnknown},
		{"ChangesMissNothing", testChangesConcurrent},
		{"Key", testKey},
		{"KeyCreateOnly", testKeyCreateOnly},
		{"KeyCreateRace", testKeyCreateRace},
		{"KeyDestroy", testKeyDestroy},
		{"KeysApart", testKeysApart},
		{"KeyList", testKeyList},
		{"Contents", testContents},
		{"Memory", testMemory},
		{"Names", testNames},
		{"BadNames", testBadNames},
		{"Cancelled", testCancelled},
		{"Reopen", testReopen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open) })
	}
}

// fresh returns a name that nobody used before.
func fresh() string {
	return "t-" + strings.ToLower(rand.Text()[:16])
}

// testContext ends the calls of a test that hangs, with time to say so.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func mustSwap(t *testing.T, s Store, keyset string, old keystore.Version, data string) keystore.Version {
	t.Helper()
	v, err := s.Swap(testContext(t), keyset, old, []byte(data))
	if err != nil {
		t.Fatalf("Swap(%q): %v", keyset, err)
	}
	if v == "" || v == old {
		t.Fatalf("Swap(%q) returned version %q after %q", keyset, v, old)
	}
	return v
}

func wantDocument(t *testing.T, s Store, keyset string, v keystore.Version, data string) {
	t.Helper()
	doc, err := s.Load(testContext(t), keyset)
	if err != nil {
		t.Fatalf("Load(%q): %v", keyset, err)
	}
	if doc.Version != v || string(doc.Data) != data {
		t.Fatalf("Load(%q) = %q at %q, want %q at %q", keyset, short(doc.Data), doc.Version, short([]byte(data)), v)
	}
}

func mustCreate(t *testing.T, s Store, keyset, kid, secret string) {
	t.Helper()
	if err := s.CreateKey(testContext(t), keyset, kid, []byte(secret)); err != nil {
		t.Fatalf("CreateKey(%q, %q): %v", keyset, kid, err)
	}
}

func wantKey(t *testing.T, s Store, keyset, kid, secret string) {
	t.Helper()
	got, err := s.ReadKey(testContext(t), keyset, kid)
	if err != nil {
		t.Fatalf("ReadKey(%q, %q): %v", keyset, kid, err)
	}
	if !bytes.Equal(got, []byte(secret)) {
		t.Fatalf("ReadKey(%q, %q) = %q, want %q", keyset, kid, short(got), short([]byte(secret)))
	}
}

func wantNoKey(t *testing.T, s Store, keyset, kid string) {
	t.Helper()
	if got, err := s.ReadKey(testContext(t), keyset, kid); !errors.Is(err, keystore.ErrNotFound) || got != nil {
		t.Fatalf("ReadKey(%q, %q) = %q, %v, want ErrNotFound", keyset, kid, short(got), err)
	}
}

func wantList(t *testing.T, s Store, keyset string, kids ...string) []keystore.KeyInfo {
	t.Helper()
	list, err := s.ListKeys(testContext(t), keyset)
	if err != nil {
		t.Fatalf("ListKeys(%q): %v", keyset, err)
	}
	got := make(map[string]bool)
	for _, info := range list {
		if got[info.KID] {
			t.Fatalf("ListKeys(%q) names %q twice", keyset, info.KID)
		}
		got[info.KID] = true
	}
	ok := len(got) == len(kids)
	for _, kid := range kids {
		ok = ok && got[kid]
	}
	if !ok {
		t.Fatalf("ListKeys(%q) = %v, want %q", keyset, list, kids)
	}
	return list
}

func mustChanges(t *testing.T, s Store, since keystore.Cursor) (map[string]int, keystore.Cursor) {
	t.Helper()
	changed, next, err := s.Changes(testContext(t), since)
	if err != nil {
		t.Fatalf("Changes(%q): %v", since, err)
	}
	if next == "" {
		t.Fatalf("Changes(%q) returned the zero cursor", since)
	}
	count := make(map[string]int)
	for _, keyset := range changed {
		count[keyset]++
	}
	return count, next
}

func wantConflict(t *testing.T, s Store, keyset string, old keystore.Version) {
	t.Helper()
	if v, err := s.Swap(testContext(t), keyset, old, []byte("must not be written")); !errors.Is(err, keystore.ErrConflict) || v != "" {
		t.Fatalf("Swap(%q, %q) = %q, %v, want ErrConflict", keyset, old, v, err)
	}
}

func short(b []byte) string {
	if len(b) > 40 {
		return fmt.Sprintf("%s… (%d bytes)", b[:40], len(b))
	}
	return string(b)
}
