package rotator

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

// retry is the pause after work that failed.
const retry = time.Second

// sweepEvery is the pause between two searches for orphaned private keys.
const sweepEvery = 6 * time.Hour

// self is who the daemon's own changes are by.
const self = "jwksd"

// work does what is due in a keyset.
func (r *Rotator) work(ctx context.Context, ks *keyset) {
	if ctx.Err() != nil {
		return
	}
	// A key that cannot be made holds up nothing but what needs it.
	unmade := r.prepare(ctx, ks)
	limited, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := ks.lock(limited); err != nil {
		return // still due
	}
	defer ks.unlock()
	now := r.opt.Clock.Now()
	if why := r.frozen(ks); why != nil {
		ks.wakeAt(now.Add(retry))
		return
	}
	err := r.workLocked(limited, ks)
	if err == nil {
		err = unmade
	}
	switch {
	case err == nil:
		r.calm(alarmWork + ks.name)
		ks.wakeAt(r.nextWork(ks, r.opt.Clock.Now()))
	case ctx.Err() != nil:
	case errors.Is(err, keystore.ErrConflict): // somebody else was first; the next plan starts from theirs
		ks.wakeAt(now)
		r.wake()
	default:
		r.alarm(alarmWork+ks.name, "keyset %s cannot be brought up to date, trying again: %v", ks.name, err)
		ks.wakeAt(now.Add(retry))
	}
}

// prepare makes the keys that the next change will need while the keyset is not
// locked: an RSA key takes longer than an emergency may wait.
func (r *Rotator) prepare(ctx context.Context, ks *keyset) error {
	v := ks.view.Load()
	var failed error
	for _, alg := range r.plan(v).Needs {
		if err := r.prepareOne(ctx, ks, v, alg); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func (r *Rotator) plan(v *View) rotation.Plan {
	return v.State.Plan(rotation.Instant{Observed: v.observed, Now: r.opt.Clock.Now()})
}

func (r *Rotator) prepareOne(ctx context.Context, ks *keyset, v *View, alg string) error {
	if err := ks.lock(ctx); err != nil {
		return err
	}
	ready := len(r.ready(ks, []string{alg})) > 0
	why := r.frozen(ks)
	ks.unlock()
	if ready || why != nil {
		return nil
	}
	made := r.opt.Clock.Now()
	k, err := r.opt.Custody.Create(ctx, ks.name, alg, v.State.Policy)
	if err != nil {
		return fmt.Errorf("making a key for %s: %w", alg, err)
	}
	if err := ks.lock(ctx); err != nil {
		return err // nobody knows the key: the sweep collects it
	}
	defer ks.unlock()
	if v := ks.view.Load(); !slices.Contains(r.plan(v).Needs, alg) {
		// Somebody else was faster. No write names the key, so it can go.
		return r.destroy(ctx, ks, k.KID, k.Handle)
	}
	ks.spare = append(ks.spare, spare{k, made})
	return nil
}

// ready picks one spare key for each of the algorithms, as far as there are any
// that no other replica takes for an orphan.
func (r *Rotator) ready(ks *keyset, algs []string) []rotation.NewKey {
	var picked []rotation.NewKey
	for _, alg := range algs {
		i := slices.IndexFunc(ks.spare, func(sp spare) bool {
			return sp.Algorithm == alg && r.young(sp) &&
				!slices.ContainsFunc(picked, func(p rotation.NewKey) bool { return p.KID == sp.KID })
		})
		if i >= 0 {
			picked = append(picked, ks.spare[i].NewKey)
		}
	}
	return picked
}

// young tells whether a write that names the key will land before any replica
// takes the key for an orphan.
func (r *Rotator) young(sp spare) bool {
	return r.opt.OrphanAge == 0 || r.opt.Clock.Now().Sub(sp.made) < r.opt.OrphanAge/2
}

func (r *Rotator) workLocked(ctx context.Context, ks *keyset) error {
	if len(ks.view.Load().Unusable) > 0 {
		if err := r.repair(ctx, ks); err != nil {
			return err
		}
	}
	for {
		advanced, err := r.advance(ctx, ks)
		if err != nil {
			return err
		}
		if !advanced {
			break
		}
	}
	if err := r.destroyDue(ctx, ks); err != nil {
		return err
	}
	return r.sweep(ctx, ks)
}

// nextWork is when something is due again.
func (r *Rotator) nextWork(ks *keyset, now time.Time) time.Time {
	v := ks.view.Load()
	plan := v.State.Plan(rotation.Instant{Observed: v.observed, Now: now})
	if plan.Due { // for want of keys that were not foreseen
		return now
	}
	next := ks.sweepAt
	if !plan.Wake.IsZero() && plan.Wake.Before(next) {
		next = plan.Wake
	}
	if len(v.Unusable) > 0 && now.Add(retry).Before(next) {
		next = now.Add(retry)
	}
	return next
}

// advance brings the document up to now by one swap, if that changes it. It
// makes no key, since the keyset is locked: it takes those that are ready.
func (r *Rotator) advance(ctx context.Context, ks *keyset) (bool, error) {
	v := ks.view.Load()
	t := rotation.Instant{Observed: v.observed, Now: r.opt.Clock.Now()}
	plan := v.State.Plan(t)
	if !plan.Due {
		return false, nil
	}
	op := rotation.Operation{ID: newID(), Kind: "advance", By: self}
	next, err := v.State.Advance(t, r.ready(ks, plan.Needs), op)
	if errors.Is(err, rotation.ErrNothingDue) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("advancing: %w", err)
	}
	return true, r.swap(ctx, ks, v.version, next, op.ID)
}

// make returns a key for each of the algorithms, the private halves stored. It
// uses up keys that were made for a change which did not come about.
func (r *Rotator) make(ctx context.Context, ks *keyset, p rotation.Policy, algs []string) ([]rotation.NewKey, error) {
	fresh := r.ready(ks, algs)
	for _, alg := range without(algs, fresh) {
		made := r.opt.Clock.Now()
		k, err := r.opt.Custody.Create(ctx, ks.name, alg, p)
		if err != nil {
			return nil, fmt.Errorf("making a key for %s: %w", alg, err)
		}
		ks.spare = append(ks.spare, spare{k, made})
		fresh = append(fresh, k)
	}
	return fresh, nil
}

// without returns the algorithms that none of the keys is for, one key standing
// for one mention.
func without(algs []string, keys []rotation.NewKey) []string {
	rest := slices.Clone(algs)
	for _, k := range keys {
		if i := slices.Index(rest, k.Algorithm); i >= 0 {
			rest = slices.Delete(rest, i, i+1)
		}
	}
	return rest
}

// swap writes the next state, made by the operation op, and installs what then
// stands in the store. An error other than keystore.ErrConflict that is not
// settled by reading again leaves the outcome unknown and wraps ErrUnconfirmed.
func (r *Rotator) swap(ctx context.Context, ks *keyset, old keystore.Version, next rotation.State, op string) error {
	data, err := next.Encode()
	if err != nil {
		return err
	}
	version, err := r.opt.Documents.Swap(ctx, ks.name, old, data)
	if err == nil {
		r.install(ctx, ks, next, version, r.opt.Clock.Now())
		return nil
	}
	if !errors.Is(err, keystore.ErrConflict) {
		r.alarm(alarmWrite+ks.name, "the latest change of keyset %s could not be written: %v", ks.name, err)
	}
	if errors.Is(err, keystore.ErrNotWritten) {
		return err
	}
	// The write may have been applied though its reply was lost, and a conflict
	// may be with ourselves: a repeated write meets its own first try. Only the
	// document tells.
	if readErr := r.reload(ctx, ks); readErr != nil {
		if errors.Is(err, keystore.ErrConflict) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	v := ks.view.Load()
	if v != nil {
		if _, ours := v.State.Operation(op); ours {
			return nil
		}
		if v.version != old {
			return keystore.ErrConflict
		}
	}
	if errors.Is(err, keystore.ErrConflict) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnconfirmed, err)
}

// dropSpares destroys keys that were made for a change which cannot come about
// any more, since another one was written in its place.
func (r *Rotator) dropSpares(ctx context.Context, ks *keyset, s rotation.State) {
	spares := ks.spare
	ks.spare = nil
	for _, k := range spares {
		if _, named := s.Key(k.KID); named {
			continue
		}
		if err := r.opt.Custody.Destroy(ctx, ks.name, k.KID, k.Handle); err != nil {
			// It may be destroyed all the same, so nothing may use it.
			r.log.Warn("destroying a key that is not needed failed, leaving it to the sweep", "keyset", ks.name, "kid", k.KID, "error", err)
		}
	}
}

// destroyDue destroys the private halves that no replica can sign with any
// more, and those of revoked keys.
func (r *Rotator) destroyDue(ctx context.Context, ks *keyset) error {
	now := r.opt.Clock.Now()
	v := ks.view.Load()
	var gone []string
	for k := range v.State.Keys {
		if !k.DestroyAt.IsZero() && !k.DestroyAt.After(now) {
			if err := r.destroy(ctx, ks, k.KID, k.Handle); err != nil {
				return err
			}
			if v.keys[k.KID] != nil {
				gone = append(gone, k.KID)
			}
		}
	}
	if gone != nil {
		ks.forget(gone)
	}
	return nil
}

func (r *Rotator) destroy(ctx context.Context, ks *keyset, kid, handle string) error {
	if ks.destroyed[kid] {
		return nil
	}
	if err := r.opt.Custody.Destroy(ctx, ks.name, kid, handle); err != nil {
		return fmt.Errorf("destroying the private half of %s: %w", kid, err)
	}
	ks.destroyed[kid] = true
	r.log.Info("private half destroyed", "keyset", ks.name, "kid", kid)
	return nil
}

// sweep destroys private halves that no document needs: of keys that were
// revoked, removed, or never named because a writer died in between.
func (r *Rotator) sweep(ctx context.Context, ks *keyset) error {
	now := r.opt.Clock.Now()
	if now.Before(ks.sweepAt) {
		return nil
	}
	kept, err := r.opt.Custody.List(ctx, ks.name)
	if err != nil {
		return fmt.Errorf("looking for orphaned private keys: %w", err)
	}
	// What was stored before the list was made is named by the document that is
	// read now, if at all. The one in view may be older.
	if err := r.reload(ctx, ks); err != nil {
		return err
	}
	s := ks.view.Load().State
	for _, info := range kept {
		k, named := s.Key(info.KID)
		spare := slices.ContainsFunc(ks.spare, func(sp spare) bool { return sp.KID == info.KID && r.young(sp) })
		young := now.Sub(info.CreatedAt) < r.opt.OrphanAge && !s.Revoked(info.KID)
		switch {
		case named && (k.DestroyAt.IsZero() || k.DestroyAt.After(now)), spare, !named && young:
			continue
		}
		delete(ks.destroyed, info.KID) // it is there, whatever was answered before
		if err := r.destroy(ctx, ks, info.KID, info.Handle); err != nil {
			return err
		}
	}
	maps.DeleteFunc(ks.destroyed, func(kid string, _ bool) bool { _, named := s.Key(kid); return !named })
	ks.sweepAt = now.Add(sweepEvery)
	return nil
}

// repair tries unusable keys again, and replaces those that are lost for good
// before their turn comes.
func (r *Rotator) repair(ctx context.Context, ks *keyset) error {
	if err := r.reload(ctx, ks); err != nil {
		return err
	}
	v, now := ks.view.Load(), r.opt.Clock.Now()
	for kid, why := range v.Unusable {
		if !lost(why) || discarded(v.State, kid, now) {
			continue
		}
		op := rotation.Operation{ID: newID(), Kind: "discard", By: self, Reason: why.Error()}
		next, err := v.State.Discard(kid, now, op)
		if errors.Is(err, rotation.ErrNotWaiting) {
			continue // it signs or did; an operator must revoke it
		}
		if err != nil {
			return err
		}
		return r.swap(ctx, ks, v.version, next, op.ID)
	}
	return nil
}

// discarded tells whether a key of the same lane was discarded so lately that
// its replacement cannot have its lead. If that is unusable too, the fault lies
// elsewhere, perhaps with this replica alone, and more keys would only fill the
// set.
func discarded(s rotation.State, kid string, now time.Time) bool {
	k, _ := s.Key(kid)
	l, _ := s.Lane(k.Algorithm)
	return slices.ContainsFunc(l.Keys, func(k rotation.Key) bool {
		return !k.EndAt.IsZero() && k.EndAt.Add(s.Timing().Lead.Std()).After(now)
	})
}

// lost tells whether a private half will never be usable again.
func lost(err error) bool {
	return errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrCorrupt) || errors.Is(err, signer.ErrMismatch)
}

// newID returns 128 random bits: an operation id nobody else will draw.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
