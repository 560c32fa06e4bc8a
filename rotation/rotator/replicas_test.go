package rotator_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
)

// TestC60OneWinner lets three replicas found and advance at the same instant.
func TestC60OneWinner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		slowly := func(op keystoretest.Op) keystoretest.Fault {
			if op.Name == keystoretest.OpSwap {
				return keystoretest.Fault{Delay: 50 * time.Millisecond} // all have read before one writes
			}
			return keystoretest.Fault{}
		}
		var replicas []*replica
		var alarms strings.Builder
		log := slog.New(slog.NewTextHandler(&alarms, &slog.HandlerOptions{Level: slog.LevelWarn}))
		written := make([]bool, 3)
		var wg sync.WaitGroup
		for i := range 3 {
			handle := store.Share()
			handle.Fault = slowly
			r := config{store: handle, orphanAge: time.Hour, log: log}.run(t)
			replicas = append(replicas, r)
			wg.Go(func() {
				var err error
				if written[i], err = r.Ensure(t.Context(), name, shortPolicy(), "test"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(slices.DeleteFunc(written, func(w bool) bool { return !w })); n != 1 {
			t.Fatalf("%d replicas founded the keyset", n)
		}
		for range 10 {
			settle()
			s, version := stored(t, store)
			wantPrivate(t, store, s, time.Now()) // the losers' keys are destroyed
			for i, r := range replicas {
				if got := r.state(t); got.Generation != s.Generation || r.signs(t) != replicas[0].signs(t) {
					t.Fatalf("replica %d is at generation %d, the store at %d (%s)", i, got.Generation, s.Generation, version)
				}
				wantAlarm(t, r, "")
			}
			sleepUntil(standby(t, s, time.Now()).ActivateAt.Add(2 * pause))
		}
		if alarms.Len() > 0 { // losing is no reason for one
			t.Fatal(alarms.String())
		}
		if s, _ := stored(t, store); s.Sequence != 12 {
			t.Fatalf("%d keys were made for 10 rotations", s.Sequence)
		}
	})
}

// weather makes the faults of one replica's store, from its own dice.
type weather struct {
	mu     sync.Mutex
	rng    *rand.Rand
	calm   bool
	storm  time.Time // unavailable until then
	before func(kid string)
}

func (w *weather) fault(op keystoretest.Op) keystoretest.Fault {
	if op.Name == keystoretest.OpDestroyKey {
		w.before(op.KID)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm {
		return keystoretest.Fault{}
	}
	if time.Now().Before(w.storm) {
		return keystoretest.Fault{Outcome: keystoretest.Refused}
	}
	if w.rng.IntN(400) == 0 { // at times for longer than D
		w.storm = time.Now().Add(time.Duration(w.rng.Int64N(int64(4 * time.Minute))))
	}
	var f keystoretest.Fault
	if w.rng.IntN(10) == 0 {
		f.Delay = time.Duration(w.rng.Int64N(int64(3 * time.Second)))
	}
	if odds := 15; op.Write() && w.rng.IntN(odds) < 3 {
		f.Outcome = keystoretest.Outcome(1 + w.rng.IntN(3))
		f.Late = time.Duration(w.rng.Int64N(int64(90 * time.Second)))
	} else if w.rng.IntN(60) == 0 {
		f.Outcome = keystoretest.Refused
	}
	return f
}

func (w *weather) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calm = true
}

// cluster is three replicas with skewed clocks in bad weather, under
// observation.
type cluster struct {
	*observer
	weathers []*weather
	stop     func()
}

func newCluster(t *testing.T, seed uint64, strict bool) *cluster {
	c := &cluster{observer: &observer{t: t, store: keystoretest.NewMemory(), lives: map[string]time.Time{}, numbers: map[string]uint64{}, revoked: map[string]bool{}, strict: strict}}
	c.replicas = make([]*replica, 3)
	for i, skew := range []time.Duration{0, time.Second, -time.Second} {
		w := &weather{rng: rand.New(rand.NewPCG(seed, uint64(i))), calm: true, before: c.destroying}
		handle := c.store.Share()
		handle.Fault = w.fault
		c.weathers = append(c.weathers, w)
		c.replicas[i] = config{store: handle, clock: clock.New(newWall(skew).read), orphanAge: 10 * time.Minute, sync: 3 * pause}.idle()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, r := range c.replicas {
		wg.Go(func() { r.Run(ctx) })
	}
	c.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(c.stop)
	ensure(t, c.replicas[0], shortPolicy())
	time.Sleep(10 * time.Second)
	for _, w := range c.weathers {
		w.mu.Lock()
		w.calm = false
		w.mu.Unlock()
	}
	wg.Go(func() { c.watch(ctx, 7*time.Second) })
	return c
}

// agreed tells whether all have what is in the store.
func (c *cluster) agreed() bool {
	synctest.Wait()
	s, _ := stored(c.t, c.store)
	want, _ := s.Encode()
	return !slices.ContainsFunc(c.replicas, func(r *replica) bool {
		got, _ := r.state(c.t).Encode()
		return string(got) != string(want)
	})
}

// converge ends the bad weather and expects peace soon after.
func (c *cluster) converge() {
	t := c.t
	t.Helper()
	for _, w := range c.weathers {
		w.clear()
	}
	time.Sleep(2 * time.Minute) // late writes land, calls that hang end
	for tries := 0; !c.agreed(); tries++ {
		if tries == 5 { // each time something else can be due just then
			t.Fatal("the replicas do not agree")
		}
		time.Sleep(4 * pause) // a Sync and a little
	}
	for i, r := range c.replicas {
		key, err := r.view(t).Signer("", time.Now())
		if first, _ := c.replicas[0].view(t).Signer("", time.Now()); err != nil || key.KID() != first.KID() {
			t.Errorf("replica %d does not sign with the key of the first: %v", i, err)
		}
		wantAlarm(t, r, "")
	}
	c.stop()
	time.Sleep(15 * time.Minute)
	last := config{store: c.store.Share(), orphanAge: 10 * time.Minute}.run(t) // sweeps
	settle()
	wantPrivate(t, c.store, last.state(t), last.clock.Now())
}

// TestC60Weather runs 200 rotations.
func TestC60Weather(t *testing.T) {
	rotations, seeds := 200, uint64(1)
	if testing.Short() {
		rotations = 30
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, seed, true)
			for range rotations {
				if time.Sleep(10 * time.Minute); t.Failed() {
					return
				}
			}
			c.converge()
			s, _ := stored(t, c.store)
			t.Logf("%d generations, %d keys, %d signatures, %d times stale", s.Generation, s.Sequence, c.signed, c.stale)
			if s.Sequence < uint64(rotations)*9/10 || c.stale == 0 {
				t.Error("the weather was too bad, or too good, to tell anything")
			}
		})
	}
}

// TestC60Emergencies adds operators who rotate, revoke and change their mind.
func TestC60Emergencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 7, false)
		rng := rand.New(rand.NewPCG(7, 7))
		for range 60 {
			if time.Sleep(time.Duration(rng.Int64N(int64(15 * time.Minute)))); t.Failed() {
				return
			}
			r := c.replicas[rng.IntN(3)]
			s := r.state(t)
			keys := s.Lanes[0].Keys
			switch rng.IntN(5) {
			case 0:
				r.Change(t.Context(), name, operation("revoke", ""), revoke(keys[rng.IntN(len(keys))].KID))
			case 1:
				r.Change(t.Context(), name, operation("revoke", ""), revokeAll)
			case 2:
				r.Change(t.Context(), name, operation("rotate", ""), rotate(true))
			case 3:
				r.Change(t.Context(), name, operation("rotate", ""), rotate(false))
			case 4:
				p := shortPolicy()
				p.TokenTTLMax += rotation.Duration(rng.Int64N(int64(time.Minute)))
				p.MaxStaleness -= rotation.Duration(rng.Int64N(int64(time.Minute)))
				r.Change(t.Context(), name, operation("policy", ""), setPolicy(p))
			}
		}
		time.Sleep(20 * time.Minute)
		c.converge()
		s, _ := stored(t, c.store)
		t.Logf("%d generations, %d keys, %d revoked, %d signatures, %d times stale", s.Generation, s.Sequence, len(s.Tombstones), c.signed, c.stale)
	})
}

// TestReplicasWithDifferentFilesDoNotFight: each file is applied once, when its
// replica starts; from then on every replica obeys the document.
func TestReplicasWithDifferentFilesDoNotFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		one, other := shortPolicy(), shortPolicy()
		one.Revision, other.Revision = 1, 2
		other.TokenTTLMax *= 2
		a := config{store: store}.founded(t, one)
		b := config{store: store.Share()}.run(t)
		settle()
		ensure(t, b, other)
		time.Sleep(10 * time.Minute)
		settle()
		policies := func() int {
			n := 0
			for _, op := range a.state(t).Operations {
				if op.Kind == "policy" {
					n++
				}
			}
			return n
		}
		if got := a.state(t).Policy.TokenTTLMax; policies() != 1 || got != other.TokenTTLMax {
			t.Fatalf("%d changes of policy, token_ttl_max %s", policies(), got)
		}
		// The older file loses when its replica starts again.
		if _, err := a.Ensure(t.Context(), name, one, "test"); !errors.Is(err, rotation.ErrOlderRevision) {
			t.Fatalf("the older file: %v", err)
		}
		if got := b.state(t).Policy.TokenTTLMax; got != other.TokenTTLMax {
			t.Fatalf("token_ttl_max is %s", got)
		}
	})
}
