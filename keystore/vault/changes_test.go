package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/keystore"
)

// setup is a fresh mount with a proxy in front, and a store that goes through
// the proxy.
func setup(t *testing.T) (*vaulttest.Vault, *proxy, *Store, string) {
	t.Helper()
	v := vaulttest.Start(t)
	mount := v.KV(t)
	p := newProxy(t, v)
	return v, p, mustStore(t, connect(t, v, p.URL), Options{Mount: mount}), mount
}

// direct is another replica's store, with no proxy in front.
func direct(t *testing.T, v *vaulttest.Vault, mount string) *Store {
	t.Helper()
	return mustStore(t, connect(t, v), Options{Mount: mount})
}

func TestRequestsAtRest(t *testing.T) {
	v, p, s, mount := setup(t)
	other := direct(t, v, mount)
	atRest := func() int64 {
		_, cursor := mustChanges(t, s, "")
		_, cursor = mustChanges(t, s, cursor) // which resolves what was under way
		p.reset()
		for range 3 {
			var changed []string
			if changed, cursor = mustChanges(t, s, cursor); len(changed) > 0 {
				t.Errorf("at rest %q changed", changed)
			}
		}
		if p.count.Load() != 3 {
			t.Errorf("three looks at rest: %q", p.requests())
		}
		return p.count.Load()
	}
	mustSwap(t, other, "k0", "", "1")
	one := atRest()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 50 {
				mustSwap(t, other, fmt.Sprintf("k%d-%d", w, n), "", "1")
			}
		})
	}
	wg.Wait()
	if many := atRest(); many != one {
		t.Errorf("three looks cost %d requests with 1 keyset and %d with 201", one, many)
	}
}

// A change costs the one who looks a reading of the head and one of the keyset.
func TestRequestsForAChange(t *testing.T) {
	v, p, s, mount := setup(t)
	other := direct(t, v, mount)
	a := mustSwap(t, other, "a", "", "1")
	mustSwap(t, other, "b", "", "1")
	_, cursor := mustChanges(t, s, "")
	p.reset()
	for range 3 {
		a = mustSwap(t, other, "a", a, "more")
	}
	changed, _ := mustChanges(t, s, cursor)
	if !slices.Equal(changed, []string{"a"}) || p.count.Load() != 2 {
		t.Errorf("changed %q, at the cost of %q", changed, p.requests())
	}
}

// A writer that died between intent and write leaves an intent that readers
// carry along, until somebody fences it, and nothing else.
func TestIntentWithoutWrite(t *testing.T) {
	v, p, s, mount := setup(t)
	writer := direct(t, v, mount)
	version := mustSwap(t, writer, "k", "", "1")
	_, cursor := mustChanges(t, s, "")
	if err := writer.announce(t.Context(), "k", 1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p.reset()
		var changed []string
		changed, cursor = mustChanges(t, s, cursor)
		if len(changed) > 0 || p.count.Load() != 2 {
			t.Errorf("changed %q, at the cost of %q", changed, p.requests())
		}
	}
	age(s, time.Hour)
	_, cursor = mustChanges(t, s, cursor) // fences
	if _, err := writer.put(t.Context(), writer.statePath("k"), 1, newStored("k", []byte("late"))); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("a write after the fence: %v", err)
	}
	changed, cursor := mustChanges(t, s, cursor)
	if !slices.Equal(changed, []string{"k"}) {
		t.Errorf("the fence is a change, but changed is %q", changed)
	}
	p.reset()
	if changed, _ = mustChanges(t, s, cursor); len(changed) > 0 || p.count.Load() != 1 {
		t.Errorf("after the fence: changed %q, at the cost of %q", changed, p.requests())
	}
	doc, err := s.Load(t.Context(), "k")
	if err != nil || string(doc.Data) != "1" || doc.Version == version {
		t.Errorf("after the fence the document is %q at %s, was at %s (%v)", doc.Data, doc.Version, version, err)
	}
	if _, err := writer.Swap(t.Context(), "k", version, []byte("2")); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("the version from before the fence still fits: %v", err)
	}
}

// The same where there is no document yet.
func TestIntentWithoutFirstWrite(t *testing.T) {
	_, _, s, _ := setup(t)
	_, cursor := mustChanges(t, s, "")
	if err := s.announce(t.Context(), "new", 0); err != nil {
		t.Fatal(err)
	}
	_, cursor = mustChanges(t, s, cursor)
	age(s, time.Hour)
	_, cursor = mustChanges(t, s, cursor)
	if _, err := s.put(t.Context(), s.statePath("new"), 0, newStored("new", []byte("late"))); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("a first write after the fence: %v", err)
	}
	changed, cursor := mustChanges(t, s, cursor)
	if len(changed) > 0 {
		t.Errorf("a fence where nothing was counts as a change of %q", changed)
	}
	if _, err := s.Load(t.Context(), "new"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a fence made a document: %v", err)
	}
	v := mustSwap(t, s, "new", "", "1")
	if changed, _ := mustChanges(t, s, cursor); !slices.Equal(changed, []string{"new"}) {
		t.Errorf("the first document after a fence: changed is %q", changed)
	}
	if doc, err := s.Load(t.Context(), "new"); err != nil || doc.Version != v || string(doc.Data) != "1" {
		t.Errorf("the document after the fence: %+v, %v", doc, err)
	}
}

// age makes a store believe that it knows the open intents for that long.
func age(s *Store, d time.Duration) {
	s.pending.mu.Lock()
	defer s.pending.mu.Unlock()
	for id, since := range s.pending.since {
		s.pending.since[id] = since.Add(-d)
	}
}

// A write that lands long after its writer gave up is noticed when it lands.
func TestLateWriteIsNoticed(t *testing.T) {
	v, p, s, mount := setup(t)
	reader := direct(t, v, mount)
	first := mustSwap(t, s, "k", "", "1")
	_, cursor := mustChanges(t, reader, "")
	p.breaking(late, 1, "PUT", "/state/k")
	if _, err := s.Swap(t.Context(), "k", first, []byte("2")); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("Swap: %v", err)
	}
	for range 3 {
		changed, next := mustChanges(t, reader, cursor)
		if cursor = next; len(changed) > 0 {
			t.Errorf("nothing landed, but %q changed", changed)
		}
	}
	(<-p.held)()
	changed, next := mustChanges(t, reader, cursor)
	if !slices.Equal(changed, []string{"k"}) {
		t.Errorf("the write landed, and changed is %q", changed)
	}
	if doc, err := reader.Load(t.Context(), "k"); err != nil || string(doc.Data) != "2" {
		t.Errorf("the document is %q (%v)", doc.Data, err)
	}
	if changed, _ := mustChanges(t, reader, next); len(changed) > 0 {
		t.Errorf("afterwards %q changed", changed)
	}
	// The writer lost nothing either, and an older cursor still works.
	if changed, _ := mustChanges(t, s, cursor); !slices.Equal(changed, []string{"k"}) {
		t.Errorf("the open intent of another's cursor: %q", changed)
	}
}

// Intents that come at a time share a write of the head.
func TestGroupCommit(t *testing.T) {
	_, p, s, _ := setup(t)
	mustSwap(t, s, "first", "", "1")
	p.reset()
	const many = 40
	var wg sync.WaitGroup
	for n := range many {
		wg.Go(func() { mustSwap(t, s, fmt.Sprint("k", n), "", "1") })
	}
	wg.Wait()
	writes := 0
	for _, r := range p.requests() {
		if r == "PUT /v1/"+s.mount+"/data/"+s.headPath() {
			writes++
		}
	}
	t.Logf("%d changes took %d writes of the head", many, writes)
	if writes >= many/2 || writes == 0 {
		t.Errorf("%d changes at a time took %d writes of the head", many, writes)
	}
}

// A reader whose place left the head is told all keysets; what leaves is
// resolved.
func TestHeadIsBounded(t *testing.T) {
	t.Parallel()
	v, _, s, mount := setup(t)
	reader := direct(t, v, mount)
	mustSwap(t, s, "quiet", "", "1")
	_, old := mustChanges(t, reader, "")
	var version keystore.Version
	for n := range headMost + 10 {
		version = mustSwap(t, s, "busy", version, fmt.Sprint(n))
	}
	h, _, err := s.readHead(t.Context())
	if err != nil || len(h.Recent) != headMost || h.Recent[0].Seq == 1 {
		t.Fatalf("the head holds %d intents from %d on (%v)", len(h.Recent), h.Recent[0].Seq, err)
	}
	changed, cursor := mustChanges(t, reader, old)
	if slices.Sort(changed); !slices.Equal(changed, []string{"busy", "quiet"}) {
		t.Errorf("a place that is gone gives %q", changed)
	}
	// An unresolved intent at the end is kept, and at the limit fenced.
	stuck := direct(t, v, mount)
	if err := stuck.announce(t.Context(), "quiet", 1); err != nil {
		t.Fatal(err)
	}
	_, cursor = mustChanges(t, reader, cursor)
	s.appender.known = nil
	for n := range headMost + 5 {
		version = mustSwap(t, s, "busy", version, fmt.Sprint(n))
	}
	if h, _, _ = s.readHead(t.Context()); h.Recent[0].Keyset != "quiet" || len(h.Recent) <= headMost {
		t.Fatalf("the unresolved intent was dropped: the oldest of %d is %+v", len(h.Recent), h.Recent[0])
	}
	if changed, cursor = mustChanges(t, reader, cursor); !slices.Equal(changed, []string{"busy"}) {
		t.Errorf("with an old open intent %q changed", changed)
	}
	for n := range headMost {
		version = mustSwap(t, s, "busy", version, fmt.Sprint(n))
	}
	if h, _, _ = s.readHead(t.Context()); h.Recent[0].Keyset == "quiet" || len(h.Recent) != headMost {
		t.Errorf("the limit did not drop the unresolved intent: the oldest of %d is %+v", len(h.Recent), h.Recent[0])
	}
	if changed, _ = mustChanges(t, reader, cursor); !slices.Contains(changed, "quiet") {
		t.Errorf("the fenced keyset is not among %q", changed)
	}
	if _, err := stuck.put(t.Context(), stuck.statePath("quiet"), 1, newStored("quiet", []byte("late"))); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("a write whose intent was dropped lands: %v", err)
	}
}

// Three processes write at a time, two readers follow, and the proxy breaks
// one write in five. Nobody ends with an old document.
func TestNothingIsMissedUnderFaults(t *testing.T) {
	t.Parallel()
	v, p, s, mount := setup(t)
	var n int
	var mu sync.Mutex
	_, cursor := mustChanges(t, s, "")
	p.mu.Lock()
	p.pick = pickSome(&mu, &n)
	p.mu.Unlock()
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	for w := range 3 {
		writer := mustStore(t, connect(t, v, p.URL), Options{Mount: mount})
		wg.Go(func() { increment(ctx, t, writer, fmt.Sprint("k", w%2), 12) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	reader := direct(t, v, mount)
	known := make(map[string]string)
	follow := func() {
		changed, next := mustChanges(t, reader, cursor)
		cursor = next
		for _, keyset := range changed {
			if doc, err := reader.Load(ctx, keyset); err == nil {
				known[keyset] = string(doc.Data)
			}
		}
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		follow()
	}
	for len(p.held) > 0 { // what was late lands now, or conflicts
		(<-p.held)()
	}
	follow()
	for _, keyset := range []string{"k0", "k1"} {
		doc, err := direct(t, v, mount).Load(ctx, keyset)
		if err != nil || known[keyset] != string(doc.Data) {
			t.Errorf("%s is %q (%v), and the reader knows %q", keyset, doc.Data, err, known[keyset])
		}
	}
}

// increment adds to the number in a document, reading it again after whatever
// goes wrong.
func increment(ctx context.Context, t *testing.T, s *Store, keyset string, times int) {
	for done := 0; done < times && ctx.Err() == nil; {
		doc, err := s.Load(ctx, keyset)
		if err != nil && !errors.Is(err, keystore.ErrNotFound) {
			continue
		}
		if _, err := s.Swap(ctx, keyset, doc.Version, []byte(string(doc.Data)+"x")); err == nil {
			done++
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("an error of several lines: %q", err)
		}
	}
}
