package rotator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

// View is one generation of a keyset with the keys that this replica can sign
// with. It is immutable.
type View struct {
	State rotation.State
	// Unusable names the keys whose private half cannot be used, with the
	// reason. They never sign here.
	Unusable map[string]error
	// Extra are keys that only the store's document names while that is not
	// trusted, as after restoring a backup: a replica that started from it may
	// sign with them.
	Extra []rotation.Key

	ks       *keyset
	adopted  bool // from a copy: it was not seen in the store in this run
	version  keystore.Version
	observed time.Time // the earliest instant known at which it was in the store
	keys     map[string]signer.Signing
	lanes    []lane
}

// lane is what signing needs to know of a rotation.Lane.
type lane struct {
	alg   string
	turns []turn
}

type turn struct {
	from, end time.Time // end is zero if none is known
	sequence  uint64
	kid       string
	key       signer.Signing // nil if unusable
}

// keyset is one keyset on this replica.
type keyset struct {
	name   string
	view   atomic.Pointer[View]
	behind atomic.Int64 // UnixNano of the last good reading, 0 while it is current
	dueAt  atomic.Int64 // UnixNano at which work waits; 0: at once
	busy   atomic.Bool
	// suspect: the document in the store cannot be used. Sync reads it again
	// each time, whether or not the store says that it changed.
	suspect atomic.Bool

	// held serialises readings and changes of this keyset on this replica. It
	// is no mutex because it is held during calls of the store: whoever waits
	// for it must be able to give up.
	held      chan struct{}
	spare     []spare         // made for a change that may still land
	destroyed map[string]bool // private halves that are gone, by kid
	sweepAt   time.Time       // when orphans are looked for
}

// spare is a key that no document names yet, as far as this replica knows.
type spare struct {
	rotation.NewKey
	made time.Time
}

// keyset returns the keyset of that name, known or not.
func (r *Rotator) keyset(name string) *keyset {
	if ks, ok := r.lookup(name); ok {
		return ks
	}
	v, _ := r.keysets.LoadOrStore(name, &keyset{name: name, held: make(chan struct{}, 1), destroyed: map[string]bool{}})
	return v.(*keyset)
}

func (ks *keyset) lock(ctx context.Context) error {
	select {
	case ks.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("keyset %s is busy: %w", ks.name, ctx.Err())
	}
}

func (ks *keyset) unlock() { <-ks.held }

func (ks *keyset) due(now time.Time) bool {
	return ks.view.Load() != nil && ks.dueAt.Load() <= now.UnixNano()
}

func (ks *keyset) wakeAt(at time.Time) { ks.dueAt.Store(at.UnixNano()) }

// refresh reads the keyset's document and installs it.
func (r *Rotator) refresh(ctx context.Context, name string) error {
	ks := r.keyset(name)
	err := ks.lock(ctx)
	if err == nil {
		defer ks.unlock()
		err = r.reload(ctx, ks)
	}
	if errors.Is(err, keystore.ErrNotFound) && ks.view.Load() == nil {
		return nil // announced, but never founded: there is nothing to take over
	}
	if err != nil {
		ks.behind.CompareAndSwap(0, max(1, r.synced.Load()))
		return err
	}
	ks.behind.Store(0)
	return nil
}

// reload reads the document and installs it if it is another than the one in
// view. The keyset is locked.
func (r *Rotator) reload(ctx context.Context, ks *keyset) error {
	doc, err := r.opt.Documents.Load(ctx, ks.name)
	if err != nil {
		if errors.Is(err, keystore.ErrNotFound) && ks.view.Load() != nil {
			r.distrust(ks, "the state document of keyset %s is gone from the store; serving the last good one, changing nothing: restore it from a backup", ks.name)
		}
		return fmt.Errorf("loading keyset %s: %w", ks.name, err)
	}
	observed := r.opt.Clock.Now()
	old := ks.view.Load()
	if old != nil && old.version == doc.Version && len(old.Unusable) == 0 {
		r.trust(ks)
		old.unite(rotation.State{})
		return nil
	}
	state, err := rotation.Decode(doc.Data)
	if err == nil && state.Keyset != ks.name {
		err = fmt.Errorf("it belongs to keyset %s", state.Keyset)
	}
	if err != nil {
		r.distrust(ks, "the state document of keyset %s cannot be used; serving the last good one, changing nothing: %v", ks.name, err)
		return fmt.Errorf("loading keyset %s: %w", ks.name, err)
	}
	if old != nil && (state.Generation < old.State.Generation || forked(old.State, state)) {
		old.unite(state)
	}
	if old != nil && state.Generation < old.State.Generation {
		r.distrust(ks, "the state document of keyset %s went back from generation %d to %d, as after restoring a backup; serving the newer one, changing nothing: restore generation %[2]d", ks.name, old.State.Generation, state.Generation)
		return fmt.Errorf("loading keyset %s: generation %d is older than %d", ks.name, state.Generation, old.State.Generation)
	}
	if old != nil && forked(old.State, state) {
		r.distrust(ks, "the state document of keyset %s, generation %d, does not continue generation %d, as after restoring a backup and changing it; serving the last good one, changing nothing: restore generation %[3]d, or restart jwksd to accept the store's", ks.name, state.Generation, old.State.Generation)
		return fmt.Errorf("loading keyset %s: generation %d does not continue generation %d", ks.name, state.Generation, old.State.Generation)
	}
	r.trust(ks)
	r.install(ctx, ks, state, doc.Version, observed)
	return nil
}

// unite puts a view in place of v that also publishes the keys of a document
// which is not trusted. What was revoked stays revoked. The keyset is locked.
func (v *View) unite(other rotation.State) {
	next := *v
	next.Extra = nil
	for k := range other.Keys {
		if _, known := v.State.Key(k.KID); !known && !v.State.Revoked(k.KID) {
			next.Extra = append(next.Extra, k)
		}
	}
	same := func(a, b rotation.Key) bool { return a.KID == b.KID }
	if !slices.EqualFunc(v.Extra, next.Extra, same) {
		v.ks.view.Store(&next)
	}
}

// Published yields every key to publish, in the order of the set.
func (v *View) Published(yield func(rotation.Key) bool) {
	for k := range v.State.Keys {
		if !yield(k) {
			return
		}
	}
	for _, k := range v.Extra {
		if !yield(k) {
			return
		}
	}
}

// forked tells whether the next state cannot have come of the old one: another
// change made the same generation, or a revocation is forgotten.
func forked(old, next rotation.State) bool {
	if next.Generation == old.Generation && lastOperation(next).ID != lastOperation(old).ID {
		return true
	}
	return slices.ContainsFunc(old.Tombstones, func(t rotation.Tombstone) bool { return !next.Revoked(t.KID) })
}

// distrust raises the alarm about the keyset's document, which freezes it.
func (r *Rotator) distrust(ks *keyset, format string, args ...any) {
	ks.suspect.Store(true)
	r.alarm(alarmDocument+ks.name, format, args...)
}

// trust ends it.
func (r *Rotator) trust(ks *keyset) {
	ks.suspect.Store(false)
	r.calm(alarmDocument + ks.name)
}

// install puts a state that was seen in the store into view, with every private
// key that may sign under it. The keyset is locked.
func (r *Rotator) install(ctx context.Context, ks *keyset, s rotation.State, version keystore.Version, observed time.Time) {
	old := ks.view.Load()
	if old != nil && old.version == version && old.observed.Before(observed) {
		observed = old.observed
	}
	now := r.opt.Clock.Now()
	v := &View{State: s, ks: ks, version: version, observed: observed, keys: map[string]signer.Signing{}, Unusable: map[string]error{}}
	missing := v.takeOver(old, now)
	if r.opt.ReadOnly {
		missing = nil
	}
	if old != nil && revokes(old.State, s) {
		// What was revoked must stop signing before anything slow happens, and
		// whoever revoked it may not have lived to destroy it.
		ks.sweepAt = time.Time{}
		if len(missing) > 0 {
			ks.view.Store(v.compiled())
		}
	}
	for _, k := range missing {
		r.open(ctx, v, k)
	}
	v = v.compiled()
	ks.view.Store(v)
	ks.wakeAt(now)
	if old != nil {
		r.calmKeys(old, v)
	}
	if old == nil || old.version != version {
		r.installs.Add(1)
		r.calm(alarmWrite + ks.name) // somebody could write
		r.dropSpares(ctx, ks, s)
	}
	if old == nil || old.State.Generation != s.Generation {
		r.recent.touch(ks.name)
		r.log.Info("installed", "keyset", ks.name, "generation", s.Generation, "change", lastOperation(s).Kind)
	}
}

// revokes tells whether a key of the old state is revoked in the next.
func revokes(old, next rotation.State) bool {
	for k := range old.Keys {
		if next.Revoked(k.KID) {
			return true
		}
	}
	return false
}

// takeOver takes the keys that are open already from the old view, and returns
// those that must still be opened.
func (v *View) takeOver(old *View, now time.Time) (missing []rotation.Key) {
	for k := range v.State.Keys {
		switch {
		case !k.DestroyAt.IsZero() && !k.DestroyAt.After(now):
		case old != nil && old.keys[k.KID] != nil:
			v.keys[k.KID] = old.keys[k.KID]
		default:
			missing = append(missing, k)
		}
	}
	return missing
}

// calmKeys ends the alarms about keys that are usable now, or gone.
func (r *Rotator) calmKeys(old, v *View) {
	for kid := range old.Unusable {
		if _, still := v.Unusable[kid]; !still {
			r.calm(alarmKey + kid)
		}
	}
}

func lastOperation(s rotation.State) rotation.Operation {
	if n := len(s.Operations); n > 0 {
		return s.Operations[n-1]
	}
	return rotation.Operation{}
}

// open makes a key ready to sign.
func (r *Rotator) open(ctx context.Context, v *View, k rotation.Key) {
	key, err := r.opt.Custody.Open(ctx, v.ks.name, k)
	if err != nil {
		v.Unusable[k.KID] = err
		r.alarm(alarmKey+k.KID, "the private half of key %s in keyset %s cannot be used: %v", k.KID, v.ks.name, err)
		return
	}
	v.keys[k.KID] = key
}

// compiled returns a copy of the view whose lanes are boiled down to what
// signing needs, with the keys that are open now.
func (v *View) compiled() *View {
	c := *v
	c.keys = maps.Clone(v.keys)
	c.Unusable = maps.Clone(v.Unusable)
	c.lanes = nil
	for _, l := range v.State.Lanes {
		out := lane{alg: l.Algorithm}
		for _, k := range l.Keys {
			if k.ActivateAt.IsZero() {
				continue
			}
			end := k.EndAt
			if end.IsZero() || (!k.SignsUntil.IsZero() && k.SignsUntil.Before(end)) {
				end = k.SignsUntil
			}
			out.turns = append(out.turns, turn{from: k.ActivateAt, end: end, sequence: k.Sequence, kid: k.KID, key: c.keys[k.KID]})
		}
		c.lanes = append(c.lanes, out)
	}
	return &c
}

// forget drops keys whose private half was destroyed from memory. The keyset
// is locked.
func (ks *keyset) forget(kids []string) {
	v := *ks.view.Load()
	v.keys = maps.Clone(v.keys)
	for _, kid := range kids {
		delete(v.keys, kid)
	}
	ks.view.Store(v.compiled())
}

// active returns the turn of the lane's active key: the same answer as
// rotation.Lane.Active, without copying keys.
func (l lane) active(now time.Time) *turn {
	var best *turn
	for i := range l.turns {
		t := &l.turns[i]
		if t.from.After(now) || (!t.end.IsZero() && !now.Before(t.end)) {
			continue
		}
		if best == nil || t.from.After(best.from) || (t.from.Equal(best.from) && t.sequence > best.sequence) {
			best = t
		}
	}
	return best
}

// Errors of Signer.
var (
	// ErrNoLane: the keyset has no key of that algorithm that signs now.
	ErrNoLane = errors.New("the keyset has no active key for this algorithm")
	// ErrUnusable: the active key's private half cannot be used here.
	ErrUnusable = errors.New("the active key cannot be used on this replica")
)

// Signer returns the active key of the algorithm's lane, or of the default lane
// if alg is empty.
func (v *View) Signer(alg string, now time.Time) (signer.Signing, error) {
	for _, l := range v.lanes {
		if alg != "" && l.alg != alg {
			continue
		}
		t := l.active(now)
		switch {
		case t == nil && alg == "":
			continue
		case t == nil:
			return nil, ErrNoLane
		case t.key == nil:
			return nil, fmt.Errorf("key %s: %w", t.kid, ErrUnusable)
		}
		return t.key, nil
	}
	return nil, ErrNoLane
}

// SignerOf returns the key of that kid if it may sign now, its hand-over grace
// included.
func (v *View) SignerOf(kid string, now time.Time) (signer.Signing, bool) {
	for _, l := range v.State.Lanes {
		for _, k := range l.Keys {
			if k.KID == kid && l.MaySign(k, now) && v.keys[kid] != nil {
				return v.keys[kid], true
			}
		}
	}
	return nil, false
}
