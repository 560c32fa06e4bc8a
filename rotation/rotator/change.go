package rotator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/rotation"
)

// ChangeFunc computes the next state and records op in it. If it wants fresh
// keys it returns a *rotation.NeedKeysError and is called again with them.
type ChangeFunc func(s rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, error)

// maxTries bounds how often a change is computed anew after losing a race.
const maxTries = 10

// changeTimeout bounds a change. A caller that hangs up does not shorten it:
// whoever asked for an emergency gets it.
const changeTimeout = 30 * time.Second

// Change applies fn to the keyset as one swap and returns the operation that is
// recorded in the document. It is computed anew when somebody else was first.
//
// If op.Key was used before by the same caller for the same request, nothing
// happens and the first operation is returned with replayed true; for another
// request the error is ErrKeyReused. An error that wraps ErrUnconfirmed means
// that the change may have been written; repeating it with the same op.Key is
// safe. Errors of fn are returned as they are.
func (r *Rotator) Change(ctx context.Context, name string, op rotation.Operation, fn ChangeFunc) (done rotation.Operation, replayed bool, err error) {
	ks, ok := r.lookup(name)
	switch {
	case r.opt.ReadOnly:
		return done, false, ErrReadOnly
	case !ok || ks.view.Load() == nil:
		return done, false, ErrNoKeyset
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	if err := ks.lock(ctx); err != nil {
		return done, false, err
	}
	defer ks.unlock()
	defer r.wake()
	op.ID = newID()
	for tries := range maxTries {
		if err := r.reload(ctx, ks); err != nil {
			if tries > 0 { // the conflict may have been with our own write
				err = fmt.Errorf("%w: %w", ErrUnconfirmed, err)
			}
			return done, false, err
		}
		if prior, ok := ks.view.Load().State.Operation(op.ID); ok {
			return prior, false, nil // the conflict was with our own write
		}
		why := r.frozen(ks)
		if op.Kind == rotation.KindRevoke {
			why = r.distrusted(ks) // a leak does not wait for the clock to be set
		}
		if why != nil {
			return done, false, why
		}
		done, err = r.try(ctx, ks, op, fn)
		switch {
		case errors.Is(err, errReplayed):
			return done, true, nil
		case errors.Is(err, keystore.ErrConflict):
			continue
		}
		return done, false, err
	}
	return done, false, fmt.Errorf("gave up after %d tries: %w", maxTries, keystore.ErrConflict)
}

// errReplayed: the operation was done before.
var errReplayed = errors.New("replayed")

// try computes and swaps once, from the view as it is.
func (r *Rotator) try(ctx context.Context, ks *keyset, op rotation.Operation, fn ChangeFunc) (rotation.Operation, error) {
	v := ks.view.Load()
	if prior, ok := sameKey(v.State, op); ok {
		if prior.Request != op.Request || prior.Kind != op.Kind {
			return rotation.Operation{}, ErrKeyReused
		}
		return prior, errReplayed
	}
	next, err := fn(v.State, r.opt.Clock.Now(), nil, op)
	var need *rotation.NeedKeysError
	if errors.As(err, &need) {
		var fresh []rotation.NewKey
		if fresh, err = r.make(ctx, ks, v.State.Policy, need.Algorithms); err != nil {
			return rotation.Operation{}, err
		}
		next, err = fn(v.State, r.opt.Clock.Now(), fresh, op)
	}
	if err != nil {
		return rotation.Operation{}, err
	}
	if err := r.swap(ctx, ks, v.version, next, op.ID); err != nil {
		return rotation.Operation{}, err
	}
	r.destroyRevoked(ctx, ks, v.State)
	written, _ := next.Operation(op.ID)
	return written, nil
}

// sameKey finds the operation that the caller made with that idempotency key.
func sameKey(s rotation.State, op rotation.Operation) (rotation.Operation, bool) {
	if op.Key == "" {
		return rotation.Operation{}, false
	}
	i := slices.IndexFunc(s.Operations, func(o rotation.Operation) bool { return o.Key == op.Key && o.By == op.By })
	if i < 0 {
		return rotation.Operation{}, false
	}
	return s.Operations[i], true
}

// destroyRevoked destroys the private halves of keys that were in the state
// before and are revoked now. What fails is left to the sweep that follows each
// revocation.
func (r *Rotator) destroyRevoked(ctx context.Context, ks *keyset, before rotation.State) {
	now := ks.view.Load().State
	for k := range before.Keys {
		if !now.Revoked(k.KID) {
			continue
		}
		if err := r.destroy(ctx, ks, k.KID, k.Handle); err != nil {
			r.log.Warn("destroying a revoked key failed, trying again", "keyset", ks.name, "kid", k.KID, "error", err)
		}
	}
}

// Ensure founds the keyset if it does not exist, and else puts the policy in
// force if it differs. It reports whether anything was written.
func (r *Rotator) Ensure(ctx context.Context, name string, p rotation.Policy, by string) (bool, error) {
	doc, err := r.opt.Documents.Load(ctx, name)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		if written, err := r.found(ctx, name, p, by); written || err != nil {
			return written, err
		}
	case err != nil:
		return false, fmt.Errorf("loading keyset %s: %w", name, err)
	}
	if s, err := rotation.Decode(doc.Data); err == nil {
		if err := r.checkFuture(s, r.opt.Clock.Now()); err != nil {
			return false, err
		}
	}
	if err := r.refresh(ctx, name); err != nil {
		return false, err
	}
	op := rotation.Operation{Kind: "policy", By: by}
	_, _, err = r.Change(ctx, name, op, func(s rotation.State, now time.Time, _ []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		return s.SetPolicy(p, now, op)
	})
	if errors.Is(err, rotation.ErrNothingDue) {
		return false, nil
	}
	return err == nil, err
}

// found writes the first generation of a keyset, unless another replica does so
// at the same time. It reports whether it did.
func (r *Rotator) found(ctx context.Context, name string, p rotation.Policy, by string) (bool, error) {
	ks := r.keyset(name)
	if err := ks.lock(ctx); err != nil {
		return false, err
	}
	defer ks.unlock()
	if ks.view.Load() != nil {
		if err := r.reload(ctx, ks); err == nil {
			return false, nil // somebody else was first, or it is back
		}
		return false, fmt.Errorf("the state document of keyset %s was there and is gone: restore it from a backup; a new one would orphan every token", name)
	}
	if _, err := p.Derive(r.opt.Clock.Now()); err != nil {
		return false, err
	}
	if err := r.neverWas(ctx, name); err != nil {
		return false, err
	}
	var algs []string
	for _, alg := range p.Algorithms {
		algs = append(algs, alg, alg)
	}
	fresh, err := r.make(ctx, ks, p, algs)
	if err != nil {
		return false, err
	}
	op := rotation.Operation{ID: newID(), Kind: "found", By: by}
	s, err := rotation.Found(name, p, r.opt.Clock.Now(), fresh, op)
	if err != nil {
		return false, err
	}
	err = r.swap(ctx, ks, "", s, op.ID)
	if errors.Is(err, keystore.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}

// neverWas refuses to found a keyset whose document is missing, not new: that
// is what private keys tell which are older than any founding under way. A
// store that is ours alone cannot lose one without the other.
func (r *Rotator) neverWas(ctx context.Context, name string) error {
	if r.opt.OrphanAge == 0 {
		return nil
	}
	kept, err := r.opt.Custody.List(ctx, name)
	if err != nil {
		return fmt.Errorf("looking for private keys of keyset %s: %w", name, err)
	}
	now := r.opt.Clock.Now()
	for _, k := range kept {
		if now.Sub(k.CreatedAt) > r.opt.OrphanAge {
			return fmt.Errorf("keyset %s has no state document, but private keys from %s on: restore the document from a backup; if there never was one, destroy the private keys",
				name, k.CreatedAt.Format(time.RFC3339))
		}
	}
	return nil
}

// frozen returns why the keyset must not be changed now, or nil.
func (r *Rotator) frozen(ks *keyset) error {
	if why := r.distrusted(ks); why != nil {
		return why
	}
	if msg, on := r.alarmed(alarmClock); on {
		return fmt.Errorf("%w: %s", ErrFrozen, msg)
	}
	if v := ks.view.Load(); v != nil {
		return r.checkFuture(v.State, r.opt.Clock.Now())
	}
	return nil
}

// distrusted returns why what is known of the keyset must not be built upon, or
// nil.
func (r *Rotator) distrusted(ks *keyset) error {
	if msg, on := r.alarmed(alarmDocument + ks.name); on {
		return fmt.Errorf("%w: %s", ErrFrozen, msg)
	}
	if v := ks.view.Load(); v != nil && v.adopted {
		return fmt.Errorf("%w: the store is out of reach since the start", ErrFrozen)
	}
	return nil
}

// checkFuture refuses a document from the future: the clock must be behind, or
// was ahead when the document was written.
func (r *Rotator) checkFuture(s rotation.State, now time.Time) error {
	if skew := s.Policy.ClockSkew.Std(); !s.UpdatedAt.After(now.Add(2*skew + minSkew)) {
		return nil
	}
	return fmt.Errorf("%w: the clock says %s, but keyset %s was last changed at %s: set the clock right and restart; if it is right, it was ahead then: wait until that time has come, or restore a backup from before",
		ErrFrozen, now.Format(time.RFC3339), s.Keyset, s.UpdatedAt.Format(time.RFC3339))
}

// checkClock raises an alarm while the wall clock departs from the trusted time
// by more than the smallest skew that any keyset allows.
func (r *Rotator) checkClock() {
	limit := time.Duration(-1)
	now := r.opt.Clock.Now()
	var behind error
	r.keysets.Range(func(_, v any) bool {
		if view := v.(*keyset).view.Load(); view != nil {
			if skew := view.State.Policy.ClockSkew.Std(); limit < 0 || skew < limit {
				limit = skew
			}
			behind = cmp.Or(r.checkFuture(view.State, now), behind)
		}
		return true
	})
	if behind != nil {
		r.alarm(alarmClock, "%v", behind)
		return
	}
	if limit < 0 {
		return
	}
	limit = max(limit, minSkew)
	if ahead := r.opt.Clock.Check(limit); ahead != 0 {
		r.alarm(alarmClock, "the system clock jumped by %s; keeping the time from before, changing nothing: set the clock right, or restart jwksd if it is right now", ahead.Round(time.Second))
		return
	}
	if r.opt.StoreSkew != nil {
		// The store's Date has whole seconds.
		if ahead, known := r.opt.StoreSkew(); known && ahead.Abs() > limit+time.Second {
			r.alarm(alarmClock, "the store's clock is %s ahead of ours (behind, if negative), more than clock_skew allows; changing nothing: set the wrong one of the two right", ahead.Round(time.Second))
			return
		}
	}
	r.calm(alarmClock)
}

// minSkew keeps the ordinary jitter between reading two clocks from being taken
// for a jump.
const minSkew = 100 * time.Millisecond
