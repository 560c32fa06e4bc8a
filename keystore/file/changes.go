package file

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jwksd/jwksd/keystore"
)

// changes remembers in which order the documents changed last: one entry a
// keyset, so that it does not grow with time. It lives in memory only, and is
// made anew by each Open with a name of its own. A cursor from before, when
// the file may have been another one, is thereby recognised as unknown.
type changes struct {
	name string

	mu     sync.Mutex
	seq    uint64 // of the newest change
	order  *list.List
	latest map[string]*list.Element
}

type change struct {
	keyset string
	seq    uint64
}

func newChanges(name string) *changes {
	return &changes{name: name, order: list.New(), latest: make(map[string]*list.Element)}
}

func (c *changes) record(keyset string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	if e, ok := c.latest[keyset]; ok {
		c.order.Remove(e)
	}
	c.latest[keyset] = c.order.PushBack(change{keyset, c.seq})
}

// since walks back from the newest change, so that its cost is the number of
// keysets it returns. Those that changed first come first.
func (c *changes) since(cursor keystore.Cursor) ([]string, keystore.Cursor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var changed []string
	from := c.parse(cursor)
	for e := c.order.Back(); e != nil; e = e.Prev() {
		ch := e.Value.(change)
		if ch.seq <= from {
			break
		}
		changed = append(changed, ch.keyset)
	}
	slices.Reverse(changed)
	return changed, keystore.Cursor(c.name + "." + strconv.FormatUint(c.seq, 10))
}

// parse returns zero, the beginning, for a cursor that is not from here.
func (c *changes) parse(cursor keystore.Cursor) uint64 {
	name, number, _ := strings.Cut(string(cursor), ".")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || name != c.name || seq > c.seq {
		return 0
	}
	return seq
}

// Changes returns the keysets whose document changed since the cursor, each
// once, and the cursor for the next call. The zero cursor, and one from
// another store or from before this Open, returns all keysets. The cost is
// that of the changed keysets alone; the disk is not read.
func (s *Store) Changes(ctx context.Context, since keystore.Cursor) ([]string, keystore.Cursor, error) {
	err := ctx.Err()
	if err == nil {
		s.gate.RLock()
		err = s.usable()
		s.gate.RUnlock()
	}
	if err != nil {
		return nil, since, fmt.Errorf("looking for changes: %w", err)
	}
	changed, next := s.changes.since(since)
	return changed, next, nil
}
