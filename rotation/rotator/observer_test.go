package rotator_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// observer watches replicas and holds them, all the time, to what every issuer
// and verifier relies on.
type observer struct {
	t        *testing.T
	store    *keystoretest.Memory
	replicas []*replica

	mu      sync.Mutex
	lives   map[string]time.Time // by kid, until when a token signed with it is verified
	numbers map[string]uint64    // the keys' sequence
	served  []served             // the sets that caches may still hold
	revoked map[string]bool
	strict  bool // no revocation: nobody meets an unknown kid
	signed  int
	stale   int
}

// served is the set of a replica that was ready at that time.
type served struct {
	at  time.Time
	set map[string]bool
}

func (o *observer) errorf(format string, args ...any) {
	o.t.Helper()
	o.t.Errorf("at %s: "+format, append([]any{time.Now().UTC().Format(time.TimeOnly)}, args...)...)
}

// watch looks again and again until ctx ends.
func (o *observer) watch(ctx context.Context, every time.Duration) {
	for ctx.Err() == nil && !o.t.Failed() {
		for i := range o.replicas {
			o.look(i)
		}
		o.verify()
		time.Sleep(every)
	}
}

// look signs with a replica and notes what it publishes.
func (o *observer) look(i int) {
	r := o.replicas[i]
	v, err := r.View(name)
	if err != nil {
		return // not there yet
	}
	now := r.clock.Now()
	for _, l := range v.State.Lanes {
		active, ok := l.Active(now)
		if !ok {
			o.errorf("replica %d has no active key", i)
		} else if n := o.actives(l, now); n != 1 {
			o.errorf("replica %d has %d active keys", i, n)
		} else if phase := l.Phase(active, now); phase != rotation.PhaseActive {
			o.errorf("replica %d: the active key is %s", i, phase)
		}
		if n, bound := len(l.Keys), v.State.Bound(l); n > bound {
			o.errorf("replica %d publishes %d keys, %d are the bound", i, n, bound)
		}
	}
	o.mu.Lock()
	for _, tomb := range v.State.Tombstones {
		o.revoked[tomb.KID] = true
		delete(o.lives, tomb.KID)
	}
	o.mu.Unlock()
	fresh := r.Fresh(v, now)
	if late := now.Sub(r.FreshAt(v)) > v.State.Policy.MaxStaleness.Std(); late != errors.Is(fresh, rotator.ErrStale) {
		o.errorf("replica %d: Fresh = %v, last fresh at %s", i, fresh, r.FreshAt(v))
	}
	if fresh != nil {
		o.stale++
		return
	}
	o.serve(v.State)
	o.sign(i, v, now)
}

func (o *observer) actives(l rotation.Lane, now time.Time) int {
	n := 0
	for _, k := range l.Keys {
		if l.Phase(k, now) == rotation.PhaseActive {
			n++
		}
	}
	return n
}

func (o *observer) serve(s rotation.State) {
	set := map[string]bool{}
	for k := range s.Keys {
		set[k.KID] = true
	}
	o.served = append(o.served, served{time.Now(), set})
	held := (s.Policy.JWKSMaxAge + s.Policy.VerifierCache).Std()
	o.served = slices.DeleteFunc(o.served, func(s served) bool { return time.Since(s.at) > held })
}

func (o *observer) sign(i int, v *rotator.View, now time.Time) {
	key, err := v.Signer("", now)
	if err != nil {
		if o.strict {
			o.errorf("replica %d cannot sign: %v", i, err)
		}
		return
	}
	if _, ok := v.SignerOf(key.KID(), now); !ok {
		o.errorf("replica %d: SignerOf does not know the key that signs", i)
	}
	if o.signed++; o.signed%50 == 0 {
		verify(o.t, v.State, key)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.revoked[key.KID()] {
		until := now.Add((v.State.Policy.TokenTTLMax + v.State.Policy.VerifierLeeway).Std())
		if until.After(o.lives[key.KID()]) {
			o.lives[key.KID()] = until
			k, _ := v.State.Key(key.KID())
			o.numbers[key.KID()] = k.Sequence
		}
	}
	for _, s := range o.served {
		if o.strict && !s.set[key.KID()] {
			o.errorf("replica %d signs with %s, which a set served at %s lacks", i, key.KID(), s.at.UTC().Format(time.TimeOnly))
		}
	}
}

// verify holds what ready replicas publish to the tokens that live, and the
// store to the keys that sign.
func (o *observer) verify() {
	kids := private(o.t, o.store)
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, r := range o.replicas {
		v, err := r.View(name)
		if err != nil || r.Fresh(v, r.clock.Now()) != nil {
			continue
		}
		for kid, until := range o.lives {
			if !o.strict && o.numbers[kid] > v.State.Sequence {
				continue // made in an emergency that the replica has not heard of
			}
			if _, there := v.State.Key(kid); !there && time.Now().Before(until) && !v.State.Revoked(kid) {
				o.errorf("replica %d lacks %s, whose tokens live until %s", i, kid, until.Format(time.TimeOnly))
			}
		}
		if key, err := v.Signer("", r.clock.Now()); err == nil && !slices.Contains(kids, key.KID()) && !o.revoked[key.KID()] && !o.revokedInStore(key.KID()) {
			o.errorf("replica %d signs with %s, whose private half is gone", i, key.KID())
		}
	}
}

func (o *observer) revokedInStore(kid string) bool {
	s, _ := stored(o.t, o.store)
	return s.Revoked(kid)
}

// destroying is called before a private half goes, by the replica that does it.
func (o *observer) destroying(kid string) {
	for i, r := range o.replicas {
		if r == nil || r.Rotator == nil {
			continue
		}
		v, err := r.View(name)
		if err != nil || v.State.Revoked(kid) || r.Fresh(v, r.clock.Now()) != nil {
			continue
		}
		if _, ok := v.SignerOf(kid, r.clock.Now()); ok && !o.revokedInStore(kid) {
			o.errorf("the private half of %s is destroyed while replica %d may sign with it", kid, i)
		}
	}
}
