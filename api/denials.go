package api

import (
	"sync"
	"time"
)

// denialEvery is the shortest time between two log lines about the same kind of
// denial.
const denialEvery = 5 * time.Second

// maxDenials bounds the kinds that are told apart. There are only as many as
// callers, and some codes, but callers come and go with the configuration.
const maxDenials = 1024

// denial is a kind of denial: what the answer was, and to whom. The caller is
// empty if nobody was identified.
type denial struct{ code, caller string }

// denials thins out the log lines about denials. The zero value is ready to use,
// by many goroutines.
type denials struct {
	mu    sync.Mutex
	kinds map[denial]*denialCount
}

// denialCount is about one kind.
type denialCount struct {
	told     time.Time // of the latest line
	unlogged int       // since then
}

// note counts a denial and tells whether the log should hear of it, and of how
// many before it that it did not.
func (d *denials) note(kind denial, now time.Time) (tell bool, unlogged int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.kinds[kind]
	if !ok && len(d.kinds) >= maxDenials {
		kind = denial{code: "any"} // one kind for all that do not fit
		c, ok = d.kinds[kind]
	}
	if !ok {
		if d.kinds == nil {
			d.kinds = map[denial]*denialCount{}
		}
		d.kinds[kind] = &denialCount{told: now}
		return true, 0
	}
	// A clock that was set back must not silence the log.
	if since := now.Sub(c.told); since >= 0 && since < denialEvery {
		c.unlogged++
		return false, 0
	}
	unlogged = c.unlogged
	c.told, c.unlogged = now, 0
	return true, unlogged
}
