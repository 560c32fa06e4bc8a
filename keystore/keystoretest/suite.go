package keystoretest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

type opener = func(t *testing.T) Store

func testDocument(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	if doc, err := s.Load(testContext(t), keyset); !errors.Is(err, keystore.ErrNotFound) || doc.Data != nil || doc.Version != "" {
		t.Fatalf("Load of nothing = %v, %v, want ErrNotFound", doc, err)
	}
	v1 := mustSwap(t, s, keyset, "", "one")
	wantDocument(t, s, keyset, v1, "one")
	v2 := mustSwap(t, s, keyset, v1, "two")
	wantDocument(t, s, keyset, v2, "two")
	v3 := mustSwap(t, s, keyset, v2, "two") // the same content is a new version
	wantDocument(t, s, keyset, v3, "two")
}

func testConflict(t *testing.T, open opener) {
	s, keyset, other := open(t), fresh(), fresh()
	foreign := mustSwap(t, s, other, "", "other")
	wantConflict(t, s, keyset, foreign) // nothing there, a version expected
	if _, err := s.Load(testContext(t), keyset); !errors.Is(err, keystore.ErrNotFound) {
		t.Fatalf("Load after a conflict: %v, want ErrNotFound", err)
	}
	v1 := mustSwap(t, s, keyset, "", "one")
	wantConflict(t, s, keyset, "") // there is one, none expected
	v2 := mustSwap(t, s, keyset, v1, "two")
	wantConflict(t, s, keyset, v1)
	wantConflict(t, s, keyset, "")
	wantConflict(t, s, keyset, "no such version")
	wantDocument(t, s, keyset, v2, "two")
	wantDocument(t, s, other, foreign, "other")
}

func testOneWinner(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	var current keystore.Version
	for round := range 40 {
		const rivals = 2
		var wg sync.WaitGroup
		versions, errs := make([]keystore.Version, rivals), make([]error, rivals)
		start := make(chan struct{})
		for i := range rivals {
			wg.Go(func() {
				<-start
				versions[i], errs[i] = s.Swap(testContext(t), keyset, current, []byte(fmt.Sprint(round, i)))
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("round %d: both won", round)
			case !errors.Is(err, keystore.ErrConflict):
				t.Fatalf("round %d: %v, want ErrConflict", round, err)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody won", round)
		}
		current = versions[winner]
		wantDocument(t, s, keyset, current, fmt.Sprint(round, winner))
	}
}

func testNoLostUpdate(t *testing.T, open opener) {
	const workers, each = 4, 10
	s, keyset := open(t), fresh()
	mustSwap(t, s, keyset, "", "0")
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				ctx := testContext(t)
				doc, err := s.Load(ctx, keyset)
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(doc.Data))
				_, err = s.Swap(ctx, keyset, doc.Version, []byte(strconv.Itoa(n+1)))
				if err == nil {
					done++
				} else if !errors.Is(err, keystore.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	doc, err := s.Load(testContext(t), keyset)
	if err != nil || string(doc.Data) != strconv.Itoa(workers*each) {
		t.Fatalf("after %d increments the document says %q (%v)", workers*each, doc.Data, err)
	}
}

func testVersions(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	seen := make(map[keystore.Version]bool)
	var v keystore.Version
	for range 20 {
		v = mustSwap(t, s, keyset, v, "the same")
		if seen[v] {
			t.Fatalf("version %q came twice", v)
		}
		seen[v] = true
	}
}

func testChanges(t *testing.T, open opener) {
	s, a, b := open(t), fresh(), fresh()
	_, start := mustChanges(t, s, "")
	va := mustSwap(t, s, a, "", "1")
	vb := mustSwap(t, s, b, "", "1")
	changed, first := mustChanges(t, s, start)
	if changed[a] != 1 || changed[b] != 1 {
		t.Fatalf("two new documents are not among the changes %v", changed)
	}
	if changed, _ := mustChanges(t, s, first); changed[a]+changed[b] != 0 {
		t.Fatalf("nothing changed, but the changes are %v", changed)
	}
	mustSwap(t, s, b, vb, "2")
	changed, second := mustChanges(t, s, first)
	if changed[a] != 0 || changed[b] != 1 {
		t.Fatalf("one document changed, but the changes are %v", changed)
	}
	wantConflict(t, s, a, vb)
	mustCreate(t, s, a, "k", "secret")
	if changed, _ := mustChanges(t, s, second); changed[a]+changed[b] != 0 {
		t.Fatalf("a conflict or a key counts as a change: %v", changed)
	}
	mustSwap(t, s, a, va, "2")
	if changed, _ := mustChanges(t, s, first); changed[a] != 1 || changed[b] != 1 {
		t.Fatalf("an older cursor used again misses changes: %v", changed)
	}
	if changed, _ := mustChanges(t, s, ""); changed[a] != 1 || changed[b] != 1 {
		t.Fatalf("the zero cursor misses a keyset: %v", changed)
	}
}

func testChangesCoalesce(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	_, cursor := mustChanges(t, s, "")
	var v keystore.Version
	for i := range 5 {
		v = mustSwap(t, s, keyset, v, strconv.Itoa(i))
	}
	if changed, _ := mustChanges(t, s, cursor); changed[keyset] != 1 {
		t.Fatalf("a keyset that changed 5 times comes %d times", changed[keyset])
	}
	if changed, _ := mustChanges(t, s, ""); changed[keyset] != 1 {
		t.Fatalf("the zero cursor gives a keyset %d times", changed[keyset])
	}
}

func testChangesUnknown(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	mustSwap(t, s, keyset, "", "1")
	_, mine := mustChanges(t, s, "")
	unknown := []keystore.Cursor{"x", ".", "0", "-1", "not a cursor", mine + "9", mine[:len(mine)-1] + "x", keystore.Cursor(strings.Repeat("z", 5000)), "\x00"}
	for _, cursor := range unknown {
		if changed, _ := mustChanges(t, s, cursor); changed[keyset] != 1 {
			t.Errorf("the unknown cursor %.20q does not give all keysets", cursor)
		}
	}
}

// testChangesConcurrent follows the changes while they are made. Whoever loads
// each reported document must end with the newest of each.
func testChangesConcurrent(t *testing.T, open opener) {
	const writers, swaps = 3, 15
	s := open(t)
	_, cursor := mustChanges(t, s, "")
	keysets, final := make([]string, writers), make([]keystore.Version, writers)
	var wg sync.WaitGroup
	for i := range writers {
		keysets[i] = fresh()
		wg.Go(func() {
			for n := range swaps {
				v, err := s.Swap(testContext(t), keysets[i], final[i], []byte(strconv.Itoa(n)))
				if err != nil {
					t.Error(err)
					return
				}
				final[i] = v
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	known := make(map[string]keystore.Version)
	follow := func() {
		changed, next := mustChanges(t, s, cursor)
		cursor = next
		for _, keyset := range keysets {
			if changed[keyset] > 0 {
				doc, err := s.Load(testContext(t), keyset)
				if err != nil {
					t.Fatal(err)
				}
				known[keyset] = doc.Version
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
	for i, keyset := range keysets {
		if known[keyset] != final[i] {
			t.Errorf("the last change of %s was missed: known %q, is %q", keyset, known[keyset], final[i])
		}
	}
}

func testKey(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	wantNoKey(t, s, keyset, "k")
	wantList(t, s, keyset)
	mustCreate(t, s, keyset, "k", "secret")
	wantKey(t, s, keyset, "k", "secret")
	if _, err := s.Load(testContext(t), keyset); !errors.Is(err, keystore.ErrNotFound) {
		t.Fatalf("a key made a document: %v", err)
	}
	v := mustSwap(t, s, keyset, "", "document")
	wantKey(t, s, keyset, "k", "secret")
	wantDocument(t, s, keyset, v, "document")
}

func testKeyCreateOnly(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	mustCreate(t, s, keyset, "k", "secret")
	mustCreate(t, s, keyset, "k", "secret") // the reply was lost, say
	for _, other := range []string{"secreT", "secret ", "secre", ""} {
		if err := s.CreateKey(testContext(t), keyset, "k", []byte(other)); !errors.Is(err, keystore.ErrExists) {
			t.Fatalf("CreateKey with other content %q: %v, want ErrExists", other, err)
		}
	}
	wantKey(t, s, keyset, "k", "secret")
	wantList(t, s, keyset, "k")
}

func testKeyCreateRace(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	for round := range 20 {
		kid := "k" + strconv.Itoa(round)
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = s.CreateKey(testContext(t), keyset, kid, []byte{byte(i)}) })
		}
		wg.Wait()
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		if errs[winner] != nil || !errors.Is(errs[1-winner], keystore.ErrExists) {
			t.Fatalf("two creates of one kid: %v", errs)
		}
		wantKey(t, s, keyset, kid, string([]byte{byte(winner)}))
	}
}

func testKeyDestroy(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	ctx := testContext(t)
	mustCreate(t, s, keyset, "a", "secret a")
	mustCreate(t, s, keyset, "b", "secret b")
	for range 2 { // the second time there is nothing
		if err := s.DestroyKey(ctx, keyset, "a"); err != nil {
			t.Fatal(err)
		}
		wantNoKey(t, s, keyset, "a")
		wantList(t, s, keyset, "b")
	}
	wantKey(t, s, keyset, "b", "secret b")
	if err := s.DestroyKey(ctx, fresh(), "never there"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		mustCreate(t, s, keyset, "c", "secret c")
		if err := s.DestroyKey(ctx, keyset, "c"); err != nil {
			t.Fatal(err)
		}
	}
	wantNoKey(t, s, keyset, "c")
	wantKey(t, s, keyset, "b", "secret b")
}

func testKeysApart(t *testing.T, open opener) {
	s, base := open(t), fresh()
	// Names of which a careless store would make one: the same kid in two
	// keysets, a keyset that begins with another, parts that join alike.
	names := []struct{ keyset, kid string }{
		{base, "k"}, {base + "a", "k"}, {base, "ak"}, {base + "-k", "k"}, {base, "k-k"}, {base + ".k", "k"}, {base, "k.k"},
	}
	for i, n := range names {
		mustCreate(t, s, n.keyset, n.kid, "secret "+strconv.Itoa(i))
	}
	for i, n := range names {
		wantKey(t, s, n.keyset, n.kid, "secret "+strconv.Itoa(i))
	}
	wantList(t, s, base, "k", "ak", "k-k", "k.k")
	wantList(t, s, base+"a", "k")
	if err := s.DestroyKey(testContext(t), base, "k"); err != nil {
		t.Fatal(err)
	}
	wantNoKey(t, s, base, "k")
	wantKey(t, s, base+"a", "k", "secret 1")
	wantList(t, s, base+"a", "k")
}

func testKeyList(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	var kids []string
	for i := range 12 {
		kids = append(kids, fmt.Sprintf("kid-%02d", i))
		mustCreate(t, s, keyset, kids[i], "secret")
	}
	for _, info := range wantList(t, s, keyset, kids...) {
		// The clock is the store's, which may be another machine's.
		if age := time.Since(info.CreatedAt); age < -time.Hour || age > time.Hour {
			t.Errorf("key %s was created at %v", info.KID, info.CreatedAt)
		}
	}
	before := wantList(t, s, keyset, kids...)
	mustCreate(t, s, keyset, kids[0], "secret")
	after := wantList(t, s, keyset, kids...)
	for i := range before {
		if before[i].KID != after[i].KID || !before[i].CreatedAt.Equal(after[i].CreatedAt) {
			t.Errorf("a repeated create changed the list: %v, then %v", before[i], after[i])
		}
	}
}

func testContents(t *testing.T, open opener) {
	s := open(t)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	large := strings.Repeat(string(all), 64<<10/256)
	contents := map[string]string{"empty": "", "NUL": "\x00", "newlines": "\n\r\n", "all bytes": string(all), "64 KiB": large, "JSON": `{"a":"é\u0000"}`}
	for name, content := range contents {
		t.Log(name)
		keyset := fresh()
		v := mustSwap(t, s, keyset, "", "first")
		v = mustSwap(t, s, keyset, v, content)
		wantDocument(t, s, keyset, v, content)
		mustCreate(t, s, keyset, "k", content)
		mustCreate(t, s, keyset, "k", content)
		wantKey(t, s, keyset, "k", content)
	}
}

// testMemory: neither side keeps or changes the other's memory.
func testMemory(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	ctx := testContext(t)
	// Large, since a store may well keep small contents in another way.
	wantDoc, wantSecret := strings.Repeat("document", 2000), strings.Repeat("secret", 2000)
	document, secret := []byte(wantDoc), []byte(wantSecret)
	v, err := s.Swap(ctx, keyset, "", document)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CreateKey(ctx, keyset, "k", secret); err != nil {
		t.Fatal(err)
	}
	if string(document) != wantDoc || string(secret) != wantSecret {
		t.Fatal("the store changed what it was given")
	}
	clear(document)
	clear(secret)
	for range 2 {
		wantDocument(t, s, keyset, v, wantDoc)
		wantKey(t, s, keyset, "k", wantSecret)
		doc, err := s.Load(ctx, keyset)
		if err != nil {
			t.Fatal(err)
		}
		clear(doc.Data)
		key, err := s.ReadKey(ctx, keyset, "k")
		if err != nil {
			t.Fatal(err)
		}
		clear(key)
	}
}

func testNames(t *testing.T, open opener) {
	s, base := open(t), fresh()
	kids := []string{"a.b-c_1", "-", "_", "a", "A", "0", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "..a", "a..", strings.Repeat("k", 128)}
	for _, suffix := range []string{"a.b-c_1", "_", "A", "a", "-x", ".x", strings.Repeat("n", 40)} {
		keyset := base + suffix
		v := mustSwap(t, s, keyset, "", "document of "+suffix)
		wantDocument(t, s, keyset, v, "document of "+suffix)
		if changed, _ := mustChanges(t, s, ""); changed[keyset] != 1 {
			t.Errorf("keyset %q is not among the changes", keyset)
		}
	}
	for _, kid := range kids {
		mustCreate(t, s, base, kid, "secret of "+kid)
	}
	wantList(t, s, base, kids...)
	for _, kid := range kids {
		wantKey(t, s, base, kid, "secret of "+kid)
	}
}

// testBadNames: no store can keep these apart from others, so that all refuse
// them, and nothing comes of it.
func testBadNames(t *testing.T, open opener) {
	s, good := open(t), fresh()
	ctx := testContext(t)
	for _, bad := range []string{"", good + "\x00", good + "\x00k", good + "\n", strings.Repeat("x", 5000)} {
		if _, err := s.Swap(ctx, bad, "", []byte("x")); err == nil || errors.Is(err, keystore.ErrConflict) {
			t.Errorf("Swap of keyset %.20q: %v, want a refusal", bad, err)
		}
		if _, err := s.Load(ctx, bad); err == nil {
			t.Errorf("Load of keyset %.20q succeeded", bad)
		}
		for _, n := range []struct{ keyset, kid string }{{bad, "k"}, {good, bad}} {
			if err := s.CreateKey(ctx, n.keyset, n.kid, []byte("x")); err == nil {
				t.Errorf("CreateKey(%.20q, %.20q) succeeded", n.keyset, n.kid)
			}
			if _, err := s.ReadKey(ctx, n.keyset, n.kid); err == nil {
				t.Errorf("ReadKey(%.20q, %.20q) succeeded", n.keyset, n.kid)
			}
			if err := s.DestroyKey(ctx, n.keyset, n.kid); err == nil {
				t.Errorf("DestroyKey(%.20q, %.20q) succeeded", n.keyset, n.kid)
			}
		}
	}
	wantList(t, s, good)
}

func testCancelled(t *testing.T, open opener) {
	s, keyset := open(t), fresh()
	v := mustSwap(t, s, keyset, "", "document")
	mustCreate(t, s, keyset, "k", "secret")
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	calls := map[string]func() error{
		"Load":       func() error { _, err := s.Load(ctx, keyset); return err },
		"Swap":       func() error { _, err := s.Swap(ctx, keyset, v, []byte("x")); return err },
		"Changes":    func() error { _, _, err := s.Changes(ctx, ""); return err },
		"CreateKey":  func() error { return s.CreateKey(ctx, keyset, "new", []byte("x")) },
		"ReadKey":    func() error { _, err := s.ReadKey(ctx, keyset, "k"); return err },
		"DestroyKey": func() error { return s.DestroyKey(ctx, keyset, "k") },
		"ListKeys":   func() error { _, err := s.ListKeys(ctx, keyset); return err },
	}
	for name, call := range calls {
		start := time.Now()
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context: %v, want context.Canceled", name, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s with an ended context took %v", name, took)
		}
	}
	wantDocument(t, s, keyset, v, "document")
	wantKey(t, s, keyset, "k", "secret")
	wantList(t, s, keyset, "k")
}

func testReopen(t *testing.T, open opener) {
	first, ok := open(t).(Reopener)
	if !ok {
		t.Skip("this store cannot be opened again")
	}
	a, b := fresh(), fresh()
	va := mustSwap(t, first, a, "", "a1")
	vb := mustSwap(t, first, b, "", "b1")
	va = mustSwap(t, first, a, va, "a2")
	mustCreate(t, first, a, "kept", "secret")
	mustCreate(t, first, a, "gone", "secret")
	if err := first.DestroyKey(testContext(t), a, "gone"); err != nil {
		t.Fatal(err)
	}
	list := wantList(t, first, a, "kept")
	_, cursor := mustChanges(t, first, "")

	s := first.Reopen(t)
	wantDocument(t, s, a, va, "a2")
	wantDocument(t, s, b, vb, "b1")
	wantKey(t, s, a, "kept", "secret")
	wantNoKey(t, s, a, "gone")
	if again := wantList(t, s, a, "kept"); !again[0].CreatedAt.Equal(list[0].CreatedAt) {
		t.Errorf("the key is from %v, and was from %v", again[0].CreatedAt, list[0].CreatedAt)
	}
	wantConflict(t, s, a, "")
	vb2 := mustSwap(t, s, b, vb, "b2")
	if vb2 == vb || vb2 == va {
		t.Errorf("version %q repeats", vb2)
	}
	if changed, _ := mustChanges(t, s, cursor); changed[b] != 1 {
		t.Errorf("a cursor from before misses a change: %v", changed)
	}
	if changed, _ := mustChanges(t, s, ""); changed[a] != 1 || changed[b] != 1 {
		t.Errorf("the zero cursor misses a keyset: %v", changed)
	}
}
