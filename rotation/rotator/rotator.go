// Package rotator is the loop around the pure core: it loads state documents,
// asks the core what is due, makes the keys that are needed, swaps, installs
// what came of it, and sleeps.
//
// Recovery is the normal path. A private key is stored before the document that
// names it; a crash in between leaves an orphan that is collected later. A swap
// that failed, or whose reply was lost, is followed by a reading, and the next
// plan starts from what was found there. Nothing is changed in memory that was
// not seen in the store.
package rotator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

// Documents keeps the state documents. Errors are those of package keystore.
type Documents interface {
	// Load returns the current document.
	Load(ctx context.Context, keyset string) (keystore.Document, error)
	// Swap replaces the document if it is still at version old, the zero
	// version standing for absence. Any error but keystore.ErrConflict leaves
	// the outcome unknown.
	Swap(ctx context.Context, keyset string, old keystore.Version, data []byte) (keystore.Version, error)
	// Changes returns the keysets whose document changed since the cursor.
	Changes(ctx context.Context, since keystore.Cursor) ([]string, keystore.Cursor, error)
}

// Custody makes, opens and destroys private keys.
type Custody interface {
	// Create makes a key pair whose private half is kept safely when it
	// returns, and returns the public half.
	Create(ctx context.Context, keyset, alg string, p rotation.Policy) (rotation.NewKey, error)
	// Open returns a key that signs, checked against the published half. The
	// error wraps keystore.ErrNotFound, keystore.ErrCorrupt or
	// signer.ErrMismatch if the private half is lost for good.
	Open(ctx context.Context, keyset string, k rotation.Key) (signer.Signing, error)
	// Destroy ends the private half of that kid and handle for good; an absent
	// one is no error.
	Destroy(ctx context.Context, keyset, kid, handle string) error
	// List returns the private halves that are kept for the keyset.
	List(ctx context.Context, keyset string) ([]keystore.KeyInfo, error)
}

// Clock is the time that everything here goes by.
type Clock interface {
	Now() time.Time
	// Check returns by how much the wall clock departs from Now, or zero if
	// that is within the limit.
	Check(limit time.Duration) time.Duration
}

// Options of New. Documents, Custody and Clock are required.
type Options struct {
	Documents Documents
	Custody   Custody
	Clock     Clock
	Log       *slog.Logger
	// Sync is the pause between two looks at the store; zero stands for half a
	// second.
	Sync time.Duration
	// OrphanAge is how old a private key that no document names must be before
	// it is destroyed. It must exceed the time that a lost write may take to
	// land; zero is right for a store that only this process writes to.
	OrphanAge time.Duration
	// ReadOnly: this replica publishes only. It opens no private key and
	// changes nothing.
	ReadOnly bool
	// Reports is where replicas tell each other how far they are; nil if nobody
	// shares the store.
	Reports Reports
	// Replica, Role and Version are what this one says of itself.
	Replica, Role, Version string
	// StoreSkew tells by how much the store's clock is ahead of ours, if it
	// has one that was read.
	StoreSkew func() (time.Duration, bool)
	// Workers bounds how many keysets are worked on at a time.
	Workers int
}

// Errors that a caller may want to tell apart.
var (
	// ErrNoKeyset: there is no keyset of that name.
	ErrNoKeyset = errors.New("no such keyset")
	// ErrStale: the state was not refreshed for longer than max_staleness.
	ErrStale = errors.New("the state is older than max_staleness")
	// ErrFrozen: changes are refused until an alarm is dealt with.
	ErrFrozen = errors.New("changes are frozen")
	// ErrUnconfirmed: the store did not confirm a change, which may or may not
	// have been written.
	ErrUnconfirmed = errors.New("the store did not confirm the change")
	// ErrKeyReused: an idempotency key came back with another request.
	ErrKeyReused = errors.New("the idempotency key was used for another request")
	// ErrPartial: the store was read, but not every keyset could be loaded.
	ErrPartial = errors.New("not every keyset could be loaded")
	// ErrDocument: the keyset is there, but its state document cannot be used
	// and no good one is known.
	ErrDocument = errors.New("the keyset's state document cannot be used")
	// ErrReadOnly: this replica publishes only.
	ErrReadOnly = errors.New("this replica publishes only")
)

// Rotator keeps the keysets of one store turning. It is safe for concurrent
// use.
type Rotator struct {
	opt     Options
	log     *slog.Logger
	keysets sync.Map // name to *keyset
	synced  atomic.Int64
	// installs counts the documents that came into view.
	installs atomic.Uint64
	kick     chan struct{}
	slots    chan struct{}
	working  sync.WaitGroup

	// Owned by the goroutine of Run.
	cursor   keystore.Cursor
	pending  map[string]bool // changed, not loaded yet
	reported time.Time       // when the last report was written

	recent recent
	alarms alarms
}

// New returns a rotator that knows no keyset yet; call Sync or Run.
func New(opt Options) *Rotator {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Sync <= 0 {
		opt.Sync = 500 * time.Millisecond
	}
	return &Rotator{
		opt:     opt,
		log:     opt.Log,
		kick:    make(chan struct{}, 1),
		slots:   make(chan struct{}, max(1, opt.Workers)),
		pending: map[string]bool{},
	}
}

// Run syncs with the store and does what is due until ctx ends; it returns when
// all work has stopped.
func (r *Rotator) Run(ctx context.Context) {
	defer r.leave(ctx)
	defer r.working.Wait()
	tick := time.NewTicker(r.opt.Sync)
	defer tick.Stop()
	for {
		r.Sync(ctx)
		r.dispatch(ctx)
		r.report(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.kick:
		}
	}
}

// Sync takes over what changed in the store since the last time. Call it once
// before serving; Run calls it from then on.
func (r *Rotator) Sync(ctx context.Context) error {
	// What is read now was current at this moment at the earliest, so the
	// staleness of this replica counts from here.
	start := r.opt.Clock.Now()
	r.checkClock()
	r.calmWrites()
	changed, cursor, err := r.opt.Documents.Changes(ctx, r.cursor)
	if err != nil {
		if ctx.Err() == nil {
			r.alarm(alarmStore, "the store cannot be reached: %v", err)
		}
		return err
	}
	for _, name := range changed {
		r.pending[name] = true
	}
	r.keysets.Range(func(name, v any) bool {
		if v.(*keyset).suspect.Load() {
			r.pending[name.(string)] = true
		}
		return true
	})
	failed := r.loadPending(ctx)
	r.cursor = cursor
	r.synced.Store(start.UnixNano())
	if failed != nil {
		r.alarm(alarmStore, "%v", failed)
		return fmt.Errorf("%w: %w", ErrPartial, failed)
	}
	r.calm(alarmStore)
	r.calmCopy()
	return nil
}

// loadTimeout bounds the loading of one keyset, so that one that hangs does not
// make all others stale.
const loadTimeout = 10 * time.Second

// loadPending loads the changed keysets side by side. Those that fail stay
// pending, and their staleness goes on counting from their last good reading.
func (r *Rotator) loadPending(ctx context.Context) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	names := make([]string, 0, len(r.pending))
	for name := range r.pending {
		names = append(names, name)
	}
	limit := make(chan struct{}, cap(r.slots))
	for _, name := range names {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			ctx, cancel := context.WithTimeout(ctx, loadTimeout)
			defer cancel()
			err := r.refresh(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				delete(r.pending, name)
			} else if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	return first
}

// dispatch starts the work on every keyset where something is due.
func (r *Rotator) dispatch(ctx context.Context) {
	if r.opt.ReadOnly {
		return
	}
	now := r.opt.Clock.Now()
	r.keysets.Range(func(_, v any) bool {
		if ks := v.(*keyset); ks.due(now) && ks.busy.CompareAndSwap(false, true) {
			r.working.Go(func() {
				defer ks.busy.Store(false)
				r.slots <- struct{}{}
				defer func() { <-r.slots }()
				r.work(ctx, ks)
			})
		}
		return ctx.Err() == nil
	})
}

// wake makes Run look for due work at once.
func (r *Rotator) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// View returns the keyset's current view, or ErrNoKeyset. The view is immutable;
// taking one is a lookup and an atomic load.
func (r *Rotator) View(name string) (*View, error) {
	if ks, ok := r.lookup(name); ok {
		switch v := ks.view.Load(); {
		case v != nil && !v.State.Gone():
			return v, nil
		case v == nil && ks.suspect.Load():
			return nil, ErrDocument
		}
	}
	return nil, ErrNoKeyset
}

// Names lists the keysets in no order.
func (r *Rotator) Names() []string {
	var names []string
	r.keysets.Range(func(k, v any) bool {
		if view := v.(*keyset).view.Load(); view != nil && !view.State.Gone() {
			names = append(names, k.(string))
		}
		return true
	})
	return names
}

func (r *Rotator) lookup(name string) (*keyset, bool) {
	v, ok := r.keysets.Load(name)
	if !ok {
		return nil, false
	}
	return v.(*keyset), true
}

// FreshAt returns the instant at which the keyset's view was last known to be
// the store's.
func (r *Rotator) FreshAt(v *View) time.Time {
	if at := v.ks.behind.Load(); at != 0 {
		return time.Unix(0, at).UTC()
	}
	return time.Unix(0, r.synced.Load()).UTC()
}

// Fresh returns an error if this replica must not sign by the view: ErrStale if
// it was not refreshed in time, ErrFrozen if the clock is behind the document.
func (r *Rotator) Fresh(v *View, now time.Time) error {
	if now.Sub(r.FreshAt(v)) > v.State.Policy.MaxStaleness.Std() {
		return ErrStale
	}
	return r.checkFuture(v.State, now)
}
