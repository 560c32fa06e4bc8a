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
	if err := r.prepare(ctx, ks); err != nil && ctx.Err() == nil {
		r.alarm(alarmWork+ks.name, "%v", err)
		ks.wakeAt(r.opt.Clock.Now().Add(retry))
		return
	}
	ks.mu.Lock()
	defer ks.mu.Unlock()
	now := r.opt.Clock.Now()
	if why := r.frozen(ks); why != nil {
		ks.wakeAt(now.Add(retry))
		return
	}
	err := r.workLocked(ctx, ks)
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

// prepare makes the keys that the next change will need before the keyset is
// locked: an RSA key takes longer than an emergency may wait.
func (r *Rotator) prepare(ctx context.Context, ks *keyset) error {
	v := ks.view.Load()
	plan := v.State.Plan(rotation.Instant{Observed: v.observed, Now: r.opt.Clock.Now()})
	for _, alg := range plan.Needs {
		ks.mu.Lock()
		ready := slices.ContainsFunc(ks.spare, func(k rotation.NewKey) bool { return k.Algorithm == alg })
		why := r.frozen(ks)
		ks.mu.Unlock()
		if ready || why != nil {
			continue
		}
		k, err := r.opt.Custody.Create(ctx, ks.name, alg, v.State.Policy.RSABits)
		if err != nil {
			return fmt.Errorf("making a key for %s in keyset %s: %w", alg, ks.name, err)
		}
		ks.mu.Lock()
		ks.spare = append(ks.spare, k)
		ks.mu.Unlock()
	}
	return nil
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
	next := ks.sweepAt
	if wake := v.State.Plan(rotation.Instant{Observed: v.observed, Now: now}).Wake; !wake.IsZero() && wake.Before(next) {
		next = wake
	}
	if len(v.Unusable) > 0 && now.Add(retry).Before(next) {
		next = now.Add(retry)
	}
	return next
}

// advance brings the document up to now by one swap, if that changes it.
func (r *Rotator) advance(ctx context.Context, ks *keyset) (bool, error) {
	v := ks.view.Load()
	plan := v.State.Plan(rotation.Instant{Observed: v.observed, Now: r.opt.Clock.Now()})
	if !plan.Due {
		return false, nil
	}
	fresh, err := r.make(ctx, ks, v.State.Policy, plan.Needs)
	if err != nil {
		return false, err
	}
	t := rotation.Instant{Observed: v.observed, Now: r.opt.Clock.Now()}
	next, err := v.State.Advance(t, fresh, rotation.Operation{ID: newID(), Kind: "advance", By: self})
	if errors.Is(err, rotation.ErrNothingDue) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("advancing: %w", err)
	}
	return true, r.swap(ctx, ks, v.version, next)
}

// make returns a key for each of the algorithms, the private halves stored. It
// uses up keys that were made for a change which did not come about.
func (r *Rotator) make(ctx context.Context, ks *keyset, p rotation.Policy, algs []string) ([]rotation.NewKey, error) {
	var fresh []rotation.NewKey
	for _, alg := range algs {
		used := func(k rotation.NewKey) bool {
			return slices.ContainsFunc(fresh, func(f rotation.NewKey) bool { return f.KID == k.KID })
		}
		i := slices.IndexFunc(ks.spare, func(k rotation.NewKey) bool { return k.Algorithm == alg && !used(k) })
		if i < 0 {
			k, err := r.opt.Custody.Create(ctx, ks.name, alg, p.RSABits)
			if err != nil {
				return nil, fmt.Errorf("making a key for %s: %w", alg, err)
			}
			ks.spare = append(ks.spare, k)
			i = len(ks.spare) - 1
		}
		fresh = append(fresh, ks.spare[i])
	}
	return fresh, nil
}

// swap writes the next state and installs what then stands in the store. An
// error other than keystore.ErrConflict that is not settled by reading again
// leaves the outcome unknown and wraps ErrUnconfirmed.
func (r *Rotator) swap(ctx context.Context, ks *keyset, old keystore.Version, next rotation.State) error {
	data, err := next.Encode()
	if err != nil {
		return err
	}
	version, err := r.opt.Documents.Swap(ctx, ks.name, old, data)
	if err == nil {
		r.install(ctx, ks, next, version, r.opt.Clock.Now())
		return nil
	}
	// The write may have been applied though its reply was lost, and a conflict
	// may be with ourselves: a repeated write meets its own first try. Only the
	// document tells.
	op := next.Operations[len(next.Operations)-1].ID
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
	spare := ks.spare
	ks.spare = nil
	for _, k := range spare {
		if _, named := s.Key(k.KID); named {
			continue
		}
		if err := r.opt.Custody.Destroy(ctx, ks.name, k.KID); err != nil {
			ks.spare = append(ks.spare, k) // use it next time instead
		}
	}
}

// destroyDue destroys the private halves that no replica can sign with any
// more, and those of revoked keys.
func (r *Rotator) destroyDue(ctx context.Context, ks *keyset) error {
	now := r.opt.Clock.Now()
	s := ks.view.Load().State
	for k := range s.Keys {
		if !k.DestroyAt.IsZero() && !k.DestroyAt.After(now) {
			if err := r.destroy(ctx, ks, k.KID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Rotator) destroy(ctx context.Context, ks *keyset, kid string) error {
	if ks.destroyed[kid] {
		return nil
	}
	if err := r.opt.Custody.Destroy(ctx, ks.name, kid); err != nil {
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
	s := ks.view.Load().State
	for _, info := range kept {
		k, named := s.Key(info.KID)
		spare := slices.ContainsFunc(ks.spare, func(sp rotation.NewKey) bool { return sp.KID == info.KID })
		young := now.Sub(info.CreatedAt) < r.opt.OrphanAge && !s.Revoked(info.KID)
		switch {
		case named && (k.DestroyAt.IsZero() || k.DestroyAt.After(now)), spare, !named && young:
			continue
		}
		if err := r.destroy(ctx, ks, info.KID); err != nil {
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
	v := ks.view.Load()
	for kid, why := range v.Unusable {
		if !lost(why) {
			continue
		}
		next, err := v.State.Discard(kid, r.opt.Clock.Now(), rotation.Operation{ID: newID(), Kind: "discard", By: self, Reason: why.Error()})
		if errors.Is(err, rotation.ErrNotWaiting) {
			continue // it signs or did; an operator must revoke it
		}
		if err != nil {
			return err
		}
		return r.swap(ctx, ks, v.version, next)
	}
	return nil
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
