package vault

import (
	"sync"
	"time"
)

// floors remembers for a while the highest counter that was seen of each state
// document. A node that lost its leadership, and has not noticed yet, answers
// from the past; who has been told of a change must not be given what was
// before it, since nobody would tell him again. After staleMost a lower counter
// is believed: the document was put back by hand.
type floors struct {
	mu   sync.Mutex
	seen map[string]floor
}

type floor struct {
	version int64
	at      time.Time
}

// staleMost is more than such a node takes to notice, which is a few seconds.
const staleMost = 15 * time.Second

// note remembers a version, and tells whether it is believable.
func (f *floors) note(keyset string, version int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, ok := f.seen[keyset]
	if !ok && version == 0 {
		return true
	}
	if ok && version < last.version && time.Since(last.at) < staleMost {
		return false
	}
	if !ok || version != last.version {
		if f.seen == nil {
			f.seen = make(map[string]floor)
		}
		f.seen[keyset] = floor{version, time.Now()}
	}
	return true
}

// forget is for when the head shows that a backup was restored.
func (f *floors) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = nil
}
