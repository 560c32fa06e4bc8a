package vault

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// The head is one document that names the newest changes of all state
// documents, so that a replica that looks for changes reads one document,
// however many keysets there are.
//
// A writer that is about to replace version v of a document first adds the
// intent (keyset, v) to the head, by check-and-set, and only then writes the
// document, by check-and-set on v. In the other order a crash between the two
// would leave a change that nobody is told of.
//
// A reader takes an intent for what it is: the document may change from v. It
// reads the document. At a version above v the intent is resolved, and the
// keyset is reported as changed; otherwise it stays in the reader's cursor,
// and each further look reads that document again.
//
// Why no reader misses a change: let a write that replaced v by v+1 land. Its
// intent was in the head before. A look that reads the head after the landing
// therefore sees the intent, now or carried in its cursor, and reads the
// document after that, at v+1 or above, so that it reports the keyset. This
// holds whenever the write lands: after its writer crashed, after its reply was
// lost, long after its writer gave up. Conversely a reader that has dropped an
// intent has seen a version above v, and check-and-set keeps a write on v from
// landing from then on.
//
// An intent whose write never comes would cost its readers a request a look
// for ever. After a minute whoever may write fences it: it writes the document
// unchanged, as version v+1, which resolves the intent for all readers and
// shuts out the late write. Fencing is safe at any time: at worst a slow
// writer meets a conflict.
//
// The head holds a bounded number of intents, the newest. The oldest is dropped
// only when it is resolved, so that its write cannot land unseen by readers
// that come later. A reader whose place is not among them any more is told all
// keysets. A place is the incarnation of the head, made up when the head is,
// the sequence number, and the id of the intent of that number; the ids tell
// apart the two histories that a restored backup makes.
//
// What breaks this: deleting the head by hand makes a new incarnation, hence
// every reader lists all keysets again, but a write whose intent was in the
// old head and that lands after that listing is noticed only with the next
// change of its keyset.

const (
	// headMost is how many intents the head holds, unless the oldest are not
	// resolved.
	headMost = 256
	// headLimit is where unresolved intents are fenced for want of room.
	headLimit = 2 * headMost
	// batchMost is how many intents one write of the head adds.
	batchMost = 64
	// headVersions is how many versions of the head Vault keeps.
	headVersions = 3
	// fenceAfter is how long a write may take to land before it is shut out.
	fenceAfter = time.Minute
)

// head is the document. Recent is in the order of Seq, without gaps, and ends
// with Sequence.
type head struct {
	Format   int      `json:"format"`
	ID       string   `json:"id"` // of the incarnation
	Sequence uint64   `json:"sequence"`
	Recent   []intent `json:"recent"`
}

// intent says that version Version of a document is about to be replaced.
type intent struct {
	Seq     uint64 `json:"seq"`
	Keyset  string `json:"keyset"`
	Version int64  `json:"version"` // Vault's counter; 0: there is no document
	ID      string `json:"id"`
}

func newID() string { return rand.Text()[:13] }

// idAt returns the id that stands for a sequence number, if it is known.
func (h *head) idAt(seq uint64) (string, bool) {
	if seq == 0 {
		return h.ID, h.Sequence == 0 || len(h.Recent) > 0 && h.Recent[0].Seq == 1
	}
	if i, ok := h.find(seq); ok {
		return h.Recent[i].ID, true
	}
	return "", false
}

func (h *head) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(h.Recent, seq, func(i intent, seq uint64) int {
		switch {
		case i.Seq < seq:
			return -1
		case i.Seq > seq:
			return 1
		}
		return 0
	})
}

func (h *head) has(id string) bool {
	return slices.ContainsFunc(h.Recent, func(i intent) bool { return i.ID == id })
}

// valid tells whether the numbers are what a writer of ours leaves.
func (h *head) valid() bool {
	if h.Format != format || h.ID == "" || h.Sequence > 0 && len(h.Recent) == 0 {
		return false
	}
	for n, i := range h.Recent {
		if i.Seq != h.Sequence-uint64(len(h.Recent)-1-n) || i.Seq == 0 || i.ID == "" || i.Keyset == "" || i.Version < 0 {
			return false
		}
	}
	return true
}

// readHead returns the head and Vault's counter of it. If there is none, the
// error is keystore.ErrNotFound and the counter still holds.
func (s *Store) readHead(ctx context.Context) (head, int64, error) {
	var raw json.RawMessage
	f, err := s.get(ctx, s.headPath(), 0, &raw)
	if err != nil {
		return head{}, f.version, err
	}
	var h head
	if json.Unmarshal(raw, &h) != nil || !h.valid() {
		return head{}, f.version, fmt.Errorf("%s/%s: %w: delete it, it is made anew (vault kv metadata delete)", s.mount, s.headPath(), keystore.ErrCorrupt)
	}
	return h, f.version, nil
}

// createHead begins a new incarnation where the counter is at version.
func (s *Store) createHead(ctx context.Context, version int64) (head, int64, error) {
	if version == 0 {
		if err := s.guard(ctx, s.headPath(), headVersions); err != nil {
			return head{}, 0, err
		}
	}
	h := head{Format: format, ID: newID(), Recent: []intent{}}
	version, err := s.put(ctx, s.headPath(), version, h)
	if errors.Is(err, keystore.ErrConflict) {
		return s.readHead(ctx) // someone else made it
	}
	return h, version, err
}

// appender adds intents to the head. Those that come while one write of the
// head is under way share the next one.
type appender struct {
	mu      sync.Mutex
	queue   []*waiter
	running bool

	// Owned by the goroutine that runs: the head as it was last seen.
	known   *head
	version int64
}

type waiter struct {
	intent
	done chan error
}

// announce adds an intent to the head, and returns when it is there.
func (s *Store) announce(ctx context.Context, keyset string, version int64) error {
	w := &waiter{intent{Keyset: keyset, Version: version, ID: newID()}, make(chan error, 1)}
	a := &s.appender
	a.mu.Lock()
	if s.stopped.Err() != nil {
		a.mu.Unlock()
		return errors.New("the store is closed")
	}
	a.queue = append(a.queue, w)
	if !a.running {
		a.running = true
		s.working.Go(s.appendAll)
	}
	a.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err() // an intent that stays behind does no harm
	}
}

// appendAll empties the queue, batch by batch. It serves callers whose contexts
// end at different times, so that it has one of its own.
func (s *Store) appendAll() {
	a := &s.appender
	for {
		a.mu.Lock()
		n := min(len(a.queue), batchMost)
		batch := slices.Clone(a.queue[:n])
		a.queue = slices.Delete(a.queue, 0, n)
		a.running = n > 0
		a.mu.Unlock()
		if n == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(s.stopped, 4*s.client.timeout)
		err := s.appendBatch(ctx, batch)
		cancel()
		for _, w := range batch {
			w.done <- err
		}
	}
}

// appendBatch writes the head until the batch is in it. A failed write may have
// been applied: the intents are recognised by their ids when it is read again,
// so that none is added twice, and repeating is safe.
func (s *Store) appendBatch(ctx context.Context, batch []*waiter) error {
	a := &s.appender
	wait, failures := 5*time.Millisecond, 0
	for {
		err := s.appendOnce(ctx, batch)
		if err == nil {
			return nil
		}
		a.known = nil
		if conflict := errors.Is(err, keystore.ErrConflict); !conflict {
			if failures++; failures >= attempts || !again(err) {
				return err
			}
		}
		if sleep(ctx, jitter(wait)) != nil {
			return err
		}
		wait = min(2*wait, time.Second)
	}
}

func (s *Store) appendOnce(ctx context.Context, batch []*waiter) error {
	a := &s.appender
	if a.known == nil {
		h, version, err := s.readHead(ctx)
		if errors.Is(err, keystore.ErrNotFound) {
			h, version, err = s.createHead(ctx, version)
		}
		if err != nil {
			return err
		}
		a.known, a.version = &h, version
	}
	next := *a.known
	next.Recent = slices.Clone(next.Recent)
	var add []intent
	for _, w := range batch {
		if !next.has(w.ID) {
			add = append(add, w.intent)
		}
	}
	if len(add) == 0 {
		return nil
	}
	if err := s.makeRoom(ctx, &next, len(add)); err != nil {
		return err
	}
	for _, i := range add {
		next.Sequence++
		i.Seq = next.Sequence
		next.Recent = append(next.Recent, i)
	}
	version, err := s.put(ctx, s.headPath(), a.version, next)
	if err != nil {
		return err
	}
	a.known, a.version = &next, version
	return nil
}

// makeRoom drops the oldest intents as far as they are resolved. Beyond
// headLimit it fences them.
func (s *Store) makeRoom(ctx context.Context, h *head, count int) error {
	surplus := len(h.Recent) + count - headMost
	if surplus <= 0 {
		return nil
	}
	oldest := h.Recent[:min(surplus, len(h.Recent))]
	open, _, err := s.unresolved(ctx, oldest)
	if err != nil {
		return err
	}
	for n, i := range oldest {
		if !open[i.ID] {
			continue
		}
		if len(h.Recent)+count-n <= headLimit {
			oldest = oldest[:n]
			break
		}
		if err := s.fence(ctx, i.Keyset, i.Version); err != nil && !errors.Is(err, errReset) {
			return fmt.Errorf("the head is full of changes that never came, and one of keyset %q cannot be fenced: %w", i.Keyset, err)
		}
	}
	h.Recent = slices.Delete(h.Recent, 0, len(oldest))
	return nil
}

// unresolved returns the ids of those intents whose document is not past the
// version that they name, and the keysets that have no document but the mark of
// a fence. It reads each document once. A document that was deleted by hand is
// past everything.
func (s *Store) unresolved(ctx context.Context, intents []intent) (open, void map[string]bool, err error) {
	byKeyset := make(map[string][]intent)
	var keysets []string
	for _, i := range intents {
		if byKeyset[i.Keyset] == nil {
			keysets = append(keysets, i.Keyset)
		}
		byKeyset[i.Keyset] = append(byKeyset[i.Keyset], i)
	}
	var mu sync.Mutex
	open, void = make(map[string]bool), make(map[string]bool)
	err = each(ctx, keysets, func(ctx context.Context, keyset string) error {
		f, raw, err := s.counter(ctx, keyset)
		if err != nil {
			return fmt.Errorf("keyset %q: %w", keyset, err)
		}
		s.floors.note(keyset, f.version)
		d, err := parse(keyset, raw)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && d.Void {
			void[keyset] = true
		}
		for _, i := range byKeyset[keyset] {
			if f.version <= i.Version && !f.deleted {
				open[i.ID] = true
			}
		}
		return nil
	})
	return open, void, err
}
