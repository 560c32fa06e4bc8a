package rotator

import (
	"cmp"
	"slices"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// Kept is the state of a keyset, and the instant at which it was last known to
// be the store's.
type Kept struct {
	State   rotation.State
	FreshAt time.Time
}

// Installs counts how often another document came into view from the store, in
// this run. Whoever keeps copies of Snapshot compares it to know whether there is
// news. It is safe for concurrent use.
func (r *Rotator) Installs() uint64 { return r.installs.Load() }

// Snapshot returns the state of every keyset that is in view, by name. Those
// that are gone are among them: their names must not be used again. It is safe
// for concurrent use.
func (r *Rotator) Snapshot() []Kept {
	var list []Kept
	r.keysets.Range(func(_, v any) bool {
		if view := v.(*keyset).view.Load(); view != nil {
			list = append(list, Kept{view.State, r.FreshAt(view)})
		}
		return true
	})
	slices.SortFunc(list, func(a, b Kept) int { return cmp.Compare(a.State.Keyset, b.State.Keyset) })
	return list
}

// Adopt puts states into view that were kept from an earlier run, for keysets
// that could not be loaded since the store is out of reach. Their sets can be
// published; nothing signs, since no private key is opened, and nothing changes.
// They count as stale from FreshAt on. Each ends with the first good reading of
// its document, which must not be of an older generation. Call it before Run.
func (r *Rotator) Adopt(list []Kept) {
	now := r.opt.Clock.Now()
	for _, kept := range list {
		ks := r.keyset(kept.State.Keyset)
		if ks.view.Load() != nil {
			continue
		}
		at := max(1, kept.FreshAt.UnixNano())
		if kept.FreshAt.After(now) {
			at = 1 // one of the two clocks was wrong: nobody knows how old it is
		}
		ks.behind.Store(at)
		// The store may never have told of this keyset, so that Sync must ask.
		ks.suspect.Store(true)
		v := &View{State: kept.State, ks: ks, adopted: true, observed: now}
		ks.view.Store(v.compiled())
	}
	r.alarm(alarmCopy, "the store is out of reach since the start; publishing the last good copy, signing and changing nothing")
}

// Adopted tells whether a keyset is still as Adopt left it. It is safe for
// concurrent use.
func (r *Rotator) Adopted() bool {
	_, on := r.alarmed(alarmCopy)
	return on
}

// calmCopy ends the alarm when no keyset is as Adopt left it any more.
func (r *Rotator) calmCopy() {
	if !r.Adopted() {
		return
	}
	left := false
	r.keysets.Range(func(_, v any) bool {
		view := v.(*keyset).view.Load()
		left = view != nil && view.adopted
		return !left
	})
	if !left {
		r.calm(alarmCopy)
	}
}
