package rotator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

// named signs nothing; it knows its name.
type named struct{ kid, alg string }

func (n named) KID() string                                  { return n.kid }
func (n named) Algorithm() string                            { return n.alg }
func (n named) Header(string) string                         { return "" }
func (n named) Sign(context.Context, []byte) ([]byte, error) { return nil, nil }

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// randomState makes lanes whose instants lie close together, so that they tie.
func randomState(rng *rand.Rand) rotation.State {
	s := rotation.State{Policy: rotation.DefaultPolicy()}
	at := func(often int) time.Time {
		if rng.IntN(10) >= often {
			return time.Time{}
		}
		return epoch.Add(time.Duration(rng.IntN(6)) * time.Second)
	}
	s.Policy.Algorithms = []string{"A", "B"}
	for _, alg := range []string{"A", "B", "C"}[:1+rng.IntN(3)] {
		l := rotation.Lane{Algorithm: alg}
		for range rng.IntN(6) {
			s.Sequence++
			l.Keys = append(l.Keys, rotation.Key{
				KID: fmt.Sprint("k", s.Sequence), Algorithm: alg, Sequence: s.Sequence, Public: json.RawMessage("{}"),
				ActivateAt: at(8), EndAt: at(3), SignsUntil: at(2),
			})
		}
		s.Lanes = append(s.Lanes, l)
	}
	return s
}

// TestSignerAgreesWithTheCore compares the boiled down lanes with what they
// were made of.
func TestSignerAgreesWithTheCore(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		s := randomState(rng)
		v := &View{State: s, keys: map[string]signer.Signing{}}
		for k := range s.Keys {
			if rng.IntN(8) > 0 {
				v.keys[k.KID] = named{k.KID, k.Algorithm}
			}
		}
		v = v.compiled()
		for step := range 7 {
			for _, shift := range []time.Duration{-1, 0, 1} {
				now := epoch.Add(time.Duration(step)*time.Second + shift)
				compare(t, v, now)
			}
		}
	}
}

func compare(t *testing.T, v *View, now time.Time) {
	t.Helper()
	for _, alg := range []string{"", "A", "B", "C"} {
		var want rotation.Key
		var ok bool
		if alg == "" {
			want, ok = v.State.Default(now)
		} else if l, there := v.State.Lane(alg); there {
			want, ok = l.Active(now)
		}
		key, err := v.Signer(alg, now)
		switch {
		case !ok:
			if !errors.Is(err, ErrNoLane) {
				t.Fatalf("Signer(%q) = %v, %v; there is no active key", alg, key, err)
			}
		case v.keys[want.KID] == nil:
			if !errors.Is(err, ErrUnusable) {
				t.Fatalf("Signer(%q) = %v, %v; want %s, which is unusable", alg, key, err, want.KID)
			}
		case err != nil || key.KID() != want.KID:
			t.Fatalf("Signer(%q) = %v, %v; want %s", alg, key, err, want.KID)
		}
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	store := keystoretest.NewMemory()
	r := New(Options{Documents: store, Custody: custody.Local{Keys: store}, Clock: clock.New(clock.Portable())})
	names := []string{"default", "another"}
	for _, name := range names {
		if _, err := r.Ensure(t.Context(), name, rotation.DefaultPolicy(), "test"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	i := 0
	n := testing.AllocsPerRun(1000, func() {
		i++
		v, err := r.View(names[i%2])
		if err != nil {
			t.Fatal(err)
		}
		now := r.opt.Clock.Now()
		if err := r.Fresh(v, now); err != nil {
			t.Fatal(err)
		}
		for _, alg := range []string{"", "ES256"} {
			if _, err := v.Signer(alg, now); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
