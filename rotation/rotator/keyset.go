package rotator

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

	ks       *keyset
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

	// mu serialises readings and changes of this keyset on this replica.
	mu        sync.Mutex
	spare     []rotation.NewKey // made for a change that may still land
	destroyed map[string]bool   // private halves that are gone, by kid
	sweepAt   time.Time         // when orphans are looked for
}

func (ks *keyset) due(now time.Time) bool {
	return ks.view.Load() != nil && ks.dueAt.Load() <= now.UnixNano()
}

func (ks *keyset) wakeAt(at time.Time) { ks.dueAt.Store(at.UnixNano()) }

// refresh reads the keyset's document and installs it. The reading began at
// start or later.
func (r *Rotator) refresh(ctx context.Context, name string, start time.Time) error {
	v, _ := r.keysets.LoadOrStore(name, &keyset{name: name, destroyed: map[string]bool{}})
	ks := v.(*keyset)
	ks.mu.Lock()
	defer ks.mu.Unlock()
	if err := r.reload(ctx, ks); err != nil {
		ks.behind.CompareAndSwap(0, max(1, r.synced.Load()))
		return err
	}
	ks.behind.Store(0)
	return nil
}

// reload reads the document and installs it if it is another than the one in
// view. ks.mu is held.
func (r *Rotator) reload(ctx context.Context, ks *keyset) error {
	doc, err := r.opt.Documents.Load(ctx, ks.name)
	if err != nil {
		if errors.Is(err, keystore.ErrNotFound) && ks.view.Load() != nil {
			r.alarm(alarmDocument+ks.name, "the state document of keyset %s is gone from the store; serving the last good one, changing nothing: restore it from a backup", ks.name)
		}
		return fmt.Errorf("loading keyset %s: %w", ks.name, err)
	}
	observed := r.opt.Clock.Now()
	old := ks.view.Load()
	if old != nil && old.version == doc.Version && len(old.Unusable) == 0 {
		r.calm(alarmDocument + ks.name)
		return nil
	}
	state, err := rotation.Decode(doc.Data)
	if err == nil && state.Keyset != ks.name {
		err = fmt.Errorf("it belongs to keyset %s", state.Keyset)
	}
	if err != nil {
		r.alarm(alarmDocument+ks.name, "the state document of keyset %s cannot be used; serving the last good one, changing nothing: %v", ks.name, err)
		return fmt.Errorf("loading keyset %s: %w", ks.name, err)
	}
	if old != nil && state.Generation < old.State.Generation {
		r.alarm(alarmDocument+ks.name, "the state document of keyset %s went back from generation %d to %d, as after restoring a backup; serving the newer one, changing nothing: restore generation %[2]d", ks.name, old.State.Generation, state.Generation)
		return fmt.Errorf("loading keyset %s: generation %d is older than %d", ks.name, state.Generation, old.State.Generation)
	}
	r.calm(alarmDocument + ks.name)
	r.install(ctx, ks, state, doc.Version, observed)
	return nil
}

// install puts a state that was seen in the store into view, with every private
// key that may sign under it. ks.mu is held.
func (r *Rotator) install(ctx context.Context, ks *keyset, s rotation.State, version keystore.Version, observed time.Time) {
	old := ks.view.Load()
	if old != nil && old.version == version && old.observed.Before(observed) {
		observed = old.observed
	}
	v := &View{State: s, ks: ks, version: version, observed: observed, keys: map[string]signer.Signing{}, Unusable: map[string]error{}}
	now := r.opt.Clock.Now()
	for _, l := range s.Lanes {
		for _, k := range l.Keys {
			if k.DestroyAt.IsZero() || k.DestroyAt.After(now) {
				r.open(ctx, v, old, k)
			}
		}
		v.lanes = append(v.lanes, v.compile(l, now))
	}
	ks.view.Store(v)
	ks.wakeAt(now)
	if old != nil {
		r.calmKeys(old, v)
	}
	if old == nil || old.version != version {
		r.dropSpares(ctx, ks, s)
	}
	if old == nil || old.State.Generation != s.Generation {
		r.log.Info("installed", "keyset", ks.name, "generation", s.Generation, "change", lastKind(s))
	}
}

// calmKeys ends the alarms about keys that are usable now, or gone.
func (r *Rotator) calmKeys(old, v *View) {
	for kid := range old.Unusable {
		if _, still := v.Unusable[kid]; !still {
			r.calm(alarmKey + kid)
		}
	}
}

func lastKind(s rotation.State) string {
	if n := len(s.Operations); n > 0 {
		return s.Operations[n-1].Kind
	}
	return ""
}

// open makes a key ready to sign, taking it over from the old view if it is
// there.
func (r *Rotator) open(ctx context.Context, v, old *View, k rotation.Key) {
	if old != nil && old.keys[k.KID] != nil {
		v.keys[k.KID] = old.keys[k.KID]
		return
	}
	key, err := r.opt.Custody.Open(ctx, v.ks.name, k)
	if err != nil {
		v.Unusable[k.KID] = err
		r.alarm(alarmKey+k.KID, "the private half of key %s in keyset %s cannot be used: %v", k.KID, v.ks.name, err)
		return
	}
	v.keys[k.KID] = key
}

// compile boils a lane down to what signing needs.
func (v *View) compile(l rotation.Lane, now time.Time) lane {
	out := lane{alg: l.Algorithm}
	for _, k := range l.Keys {
		if !k.SignsUntil.IsZero() || k.ActivateAt.IsZero() || (!k.EndAt.IsZero() && !k.EndAt.After(now)) {
			continue
		}
		out.turns = append(out.turns, turn{from: k.ActivateAt, end: k.EndAt, sequence: k.Sequence, kid: k.KID, key: v.keys[k.KID]})
	}
	return out
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
