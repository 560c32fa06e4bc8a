package chaos

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
)

// watcher looks at every daemon's view all the time, and keeps what is known
// of each key.
type watcher struct {
	t       *testing.T
	story   *story
	working sync.WaitGroup

	mu    sync.Mutex
	keys  map[string]map[string]wire.Key // as seen last, by keyset and kid
	fresh map[string]time.Time           // of the view that says so
	views int
	most  map[string]int // largest number of keys in one view of a lane
	bound map[string]int
}

func watch(ctx context.Context, t *testing.T, s *story, daemons []*daemon) *watcher {
	w := &watcher{t: t, story: s, keys: map[string]map[string]wire.Key{}, fresh: map[string]time.Time{}, most: map[string]int{}, bound: map[string]int{}}
	for _, d := range daemons {
		w.working.Go(func() {
			last := map[string]uint64{}
			for ctx.Err() == nil {
				for _, name := range []string{"local", "transit"} {
					if k, err := d.keyset(ctx, name); err == nil {
						w.look(d, k, last)
					}
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	return w
}

// look holds one view to what must always be true.
func (w *watcher) look(d *daemon, k wire.Keyset, last map[string]uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.views++
	if k.Generation < last[k.Keyset] {
		w.t.Errorf("daemon %s, keyset %s, %s: generation %d after %d", d.name, k.Keyset, w.story.phase(), k.Generation, last[k.Keyset])
	}
	last[k.Keyset] = k.Generation
	for _, l := range k.Lanes {
		active := 0
		for _, key := range l.Keys {
			if key.Phase == rotation.PhaseActive {
				active++
			}
			w.learn(k, key)
		}
		if active != 1 {
			w.t.Errorf("daemon %s, keyset %s, %s, generation %d: %d active keys of %s", d.name, k.Keyset, w.story.phase(), k.Generation, active, l.Alg)
		}
		if len(l.Keys) > l.Bound {
			w.t.Errorf("daemon %s, keyset %s, %s: %d keys of %s, the bound is %d", d.name, k.Keyset, w.story.phase(), len(l.Keys), l.Alg, l.Bound)
		}
		name := k.Keyset + " " + l.Alg
		w.most[name], w.bound[name] = max(w.most[name], len(l.Keys)), l.Bound
	}
}

// learn keeps what the newest document says of a key.
func (w *watcher) learn(k wire.Keyset, key wire.Key) {
	if w.keys[k.Keyset] == nil {
		w.keys[k.Keyset] = map[string]wire.Key{}
	}
	id := k.Keyset + " " + key.KID
	if k.UpdatedAt.Before(w.fresh[id]) {
		return
	}
	w.fresh[id] = k.UpdatedAt
	w.keys[k.Keyset][key.KID] = key
}

// turns holds every token to the turn of its key: a daemon signs with the key
// that is active by the document, and with no other, however long it was
// paused or cut off.
func (w *watcher) turns(tokens []issued) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	wrong := 0
	for _, token := range tokens {
		key, ok := w.keys[token.keyset][token.KID]
		if !ok || key.ActivateAt.IsZero() {
			w.t.Errorf("%s signed with key %s, of which no document says that it may", token.daemon, token.KID)
			continue
		}
		early := token.received.Before(key.ActivateAt.Add(-skew))
		end, ended := w.successor(token.keyset, key)
		late := ended && token.sent.After(end.Add(skew))
		if (early || late) && wrong < 10 {
			wrong++
			w.t.Errorf("daemon %s signed between %s and %s with key %s of %s, whose turn was from %s to %s",
				token.daemon, stamp(token.sent), stamp(token.received), token.KID, token.keyset, stamp(key.ActivateAt), stamp(end))
		}
	}
}

// successor is when the key's turn ended.
func (w *watcher) successor(keyset string, key wire.Key) (end time.Time, ended bool) {
	for _, k := range w.keys[keyset] {
		if k.Alg == key.Alg && k.ActivateAt.After(key.ActivateAt) && (!ended || k.ActivateAt.Before(end)) {
			end, ended = k.ActivateAt, true
		}
	}
	return end, ended
}

// signers counts the keys that had their turn in a lane.
func (w *watcher) signers(l lane, now time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, k := range w.keys[l.keyset] {
		if k.Alg == l.alg && !k.ActivateAt.IsZero() && k.ActivateAt.Before(now) {
			n++
		}
	}
	return n
}

// published tells whether the key of that kid was in a set once.
func (w *watcher) published(keyset, kid string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.keys[keyset][kid]
	return ok
}
