package vault

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/jwksd/jwksd/keystore"
)

// pickSome breaks one write in five, in each way.
func pickSome(mu *sync.Mutex, n *int) func(*http.Request) fault {
	return func(r *http.Request) fault {
		if r.Method != "PUT" || !strings.Contains(r.URL.Path, "/data/") {
			return pass
		}
		mu.Lock()
		defer mu.Unlock()
		*n++
		if *n%5 != 0 {
			return pass
		}
		return []fault{drop, loseReply, late}[*n/5%3]
	}
}

func writes(p *proxy, part string) (n int) {
	for _, r := range p.requests() {
		if strings.HasPrefix(r, "PUT") && strings.Contains(r, part) {
			n++
		}
	}
	return n
}

// A swap whose reply was lost fails, is sent once, and is found by reading; one
// that did not arrive fails in the same way, and is not found.
func TestC61LostReplyOfSwap(t *testing.T) {
	for what, applied := range map[fault]bool{drop: false, loseReply: true} {
		_, p, s, _ := setup(t)
		first := mustSwap(t, s, "k", "", "1")
		_, cursor := mustChanges(t, s, "")
		p.reset()
		p.breaking(what, 1, "PUT", "/state/k")
		_, err := s.Swap(t.Context(), "k", first, []byte("2"))
		wantLine(t, err, ErrUnreachable)
		if errors.Is(err, keystore.ErrConflict) {
			t.Error("it says that nothing was written")
		}
		if n := writes(p, "/state/k"); n != 1 {
			t.Errorf("the write was sent %d times", n)
		}
		doc, err := s.Load(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		if got := string(doc.Data) == "2"; got != applied {
			t.Errorf("fault %d: applied is %v, want %v", what, got, applied)
		}
		if changed, _ := mustChanges(t, s, cursor); (len(changed) == 1) != applied {
			t.Errorf("fault %d: changed is %q", what, changed)
		}
		mustSwap(t, s, "k", doc.Version, "3")
	}
}

// The head is repaired by the writer itself: an intent is there once.
func TestC61LostReplyOfIntent(t *testing.T) {
	for _, what := range []fault{drop, loseReply, late} {
		_, p, s, _ := setup(t)
		first := mustSwap(t, s, "k", "", "1")
		p.breaking(what, 1, "PUT", "/head")
		mustSwap(t, s, "k", first, "2")
		for len(p.held) > 0 {
			(<-p.held)()
		}
		h, _, err := s.readHead(t.Context())
		if err != nil || len(h.Recent) != 2 || h.Sequence != 2 {
			t.Errorf("fault %d: the head is %+v (%v)", what, h, err)
		}
	}
}

// A node that sends a write twice makes it conflict with itself.
func TestC61WriteSentTwice(t *testing.T) {
	v, p, s, mount := setup(t)
	first := mustSwap(t, s, "k", "", "1")
	p.mu.Lock()
	done := false
	p.pick = func(r *http.Request) fault {
		if r.Method == "PUT" && strings.Contains(r.URL.Path, "/state/k") && !done {
			done = true
			return twice
		}
		return pass
	}
	p.mu.Unlock()
	second := mustSwap(t, s, "k", first, "2")
	if doc, err := direct(t, v, mount).Load(t.Context(), "k"); err != nil || doc.Version != second || string(doc.Data) != "2" {
		t.Errorf("the document is %+v (%v), want version %s", doc, err, second)
	}
}

func TestC61LostReplyOfKey(t *testing.T) {
	for what, applied := range map[fault]bool{drop: false, loseReply: true} {
		_, p, s, _ := setup(t)
		mustSwap(t, s, "k", "", "1")
		p.breaking(what, 1, "PUT", "/keys/")
		wantLine(t, s.CreateKey(t.Context(), "k", "a", []byte("secret")), ErrUnreachable)
		if n := writes(p, "/keys/"); n != 1 {
			t.Errorf("the write was sent %d times", n)
		}
		list, err := s.ListKeys(t.Context(), "k")
		if err != nil || (len(list) == 1) != applied {
			t.Errorf("fault %d: the list is %v (%v)", what, list, err)
		}
		if err := s.CreateKey(t.Context(), "k", "a", []byte("secret")); err != nil {
			t.Errorf("fault %d: repeating it: %v", what, err)
		}
		p.breaking(what, 1, "DELETE", "/keys/")
		wantLine(t, s.DestroyKey(t.Context(), "k", "a"), ErrUnreachable)
		if err := s.DestroyKey(t.Context(), "k", "a"); err != nil {
			t.Errorf("fault %d: destroying it again: %v", what, err)
		}
		if list, err := s.ListKeys(t.Context(), "k"); err != nil || len(list) != 0 {
			t.Errorf("fault %d: destroyed, the list is %v (%v)", what, list, err)
		}
	}
}

// Reads are repeated, whatever breaks them.
func TestReadsAreRepeated(t *testing.T) {
	_, p, s, _ := setup(t)
	v := mustSwap(t, s, "k", "", "1")
	for _, what := range []fault{drop, loseReply} {
		p.breaking(what, 2, "GET", "/state/k")
		if doc, err := s.Load(t.Context(), "k"); err != nil || doc.Version != v {
			t.Errorf("Load: %v", err)
		}
	}
}
