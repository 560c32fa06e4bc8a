package vault

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// place is what a cursor holds: where in the head the reader is, and which
// intents before that are not resolved for it.
type place struct {
	incarnation string
	seq         uint64
	id          string // of the intent numbered seq
	open        []uint64
}

// cursor writes a place as text that ends with a checksum.
func (p place) cursor() keystore.Cursor {
	parts := []string{p.incarnation, strconv.FormatUint(p.seq, 10), p.id}
	for _, seq := range p.open {
		parts = append(parts, strconv.FormatUint(seq, 10))
	}
	text := strings.Join(parts, ".")
	return keystore.Cursor(text + "." + checksum(text))
}

func checksum(text string) string {
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text)))
}

func parseCursor(c keystore.Cursor) (place, bool) {
	end := strings.LastIndexByte(string(c), '.')
	if end < 0 || checksum(string(c[:end])) != string(c[end+1:]) {
		return place{}, false
	}
	parts := strings.Split(string(c[:end]), ".")
	if len(parts) < 3 {
		return place{}, false
	}
	p := place{incarnation: parts[0], id: parts[2]}
	var err error
	if p.seq, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return place{}, false
	}
	for _, part := range parts[3:] {
		seq, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			return place{}, false
		}
		p.open = append(p.open, seq)
	}
	return p, true
}

// after returns the intents that a reader at that cursor must look at, or false
// if the head does not know the place.
func (h *head) after(c keystore.Cursor) ([]intent, bool) {
	p, ok := parseCursor(c)
	if !ok || p.incarnation != h.ID {
		return nil, false
	}
	if id, ok := h.idAt(p.seq); !ok || id != p.id {
		return nil, false
	}
	var look []intent
	for _, seq := range p.open {
		i, ok := h.find(seq)
		if !ok {
			return nil, false
		}
		look = append(look, h.Recent[i])
	}
	from := slices.IndexFunc(h.Recent, func(i intent) bool { return i.Seq > p.seq })
	if from >= 0 {
		look = append(look, h.Recent[from:]...)
	}
	return look, true
}

// Changes returns the keysets whose document changed since the cursor, each
// once, and the cursor for the next call. The zero cursor, and one that the
// head does not know any more, returns all keysets. At rest it is one request;
// otherwise one more for each keyset that changed or is about to.
func (s *Store) Changes(ctx context.Context, since keystore.Cursor) (_ []string, _ keystore.Cursor, err error) {
	defer explained(&err, "looking for changes")
	if err := s.ready(ctx); err != nil {
		return nil, since, err
	}
	h, version, err := s.readHead(ctx)
	if errors.Is(err, keystore.ErrNotFound) {
		if s.readOnly {
			all, err := s.states(ctx)
			return all, keystore.Cursor("none"), err
		}
		h, _, err = s.createHead(ctx, version)
	}
	if err != nil {
		return nil, since, err
	}
	look, known := h.after(since)
	if !known {
		look = h.Recent
		s.floors.forget()
	}
	changed, open, err := s.resolve(ctx, look)
	if err != nil {
		return nil, since, err
	}
	if !known {
		// Listed after the head was read: what is written from then on is
		// announced later than the place of the cursor, or open in it.
		all, err := s.states(ctx)
		if err != nil {
			return nil, since, err
		}
		changed = all
	}
	next := place{incarnation: h.ID, seq: h.Sequence}
	next.id, _ = h.idAt(h.Sequence)
	for _, i := range open {
		next.open = append(next.open, i.Seq)
	}
	return changed, next.cursor(), nil
}

// resolve parts intents into keysets that changed and intents that are open
// still. Those that stay open for long are fenced, for the next look to see.
func (s *Store) resolve(ctx context.Context, look []intent) (changed []string, open []intent, err error) {
	unresolved, void, err := s.unresolved(ctx, look)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range look {
		if unresolved[i.ID] {
			open = append(open, i)
		} else if !void[i.Keyset] { // there never was anything to load
			changed = append(changed, i.Keyset)
		}
	}
	for _, i := range s.pending.due(open, time.Now()) {
		switch err := s.shutOut(ctx, i); {
		case errors.Is(err, errReset):
			changed = append(changed, i.Keyset)
			open = slices.DeleteFunc(open, func(o intent) bool { return o.ID == i.ID })
		case err != nil && ctx.Err() == nil:
			s.log.Warn("a change was announced and never came; shutting it out failed, and will be tried again", "keyset", i.Keyset, "error", err)
		}
	}
	slices.Sort(changed)
	return slices.Compact(changed), open, nil
}

// shutOut fences an intent, and leaves that to others where this replica may
// not write.
func (s *Store) shutOut(ctx context.Context, i intent) error {
	if !s.readOnly {
		return s.fence(ctx, i.Keyset, i.Version)
	}
	f, _, err := s.counter(ctx, i.Keyset)
	if err == nil && f.version < i.Version {
		err = errReset
	}
	return err
}

// due notes the open intents, and returns those that were open for a minute,
// each once a minute. It forgets all others.
func (p *sightings) due(open []intent, now time.Time) (due []intent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := make(map[string]time.Time, len(open))
	for _, i := range open {
		first, ok := p.since[i.ID]
		if !ok {
			first = now
		}
		if now.Sub(first) >= fenceAfter {
			due, first = append(due, i), now
		}
		since[i.ID] = first
	}
	p.since = since
	return due
}

// jitter spreads a pause over half to one and a half of it.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }
