package rotation

import (
	"flag"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run TestSimulation with this seed only")
	simSeeds = flag.Int("seeds", 200, "number of seeds of TestSimulation")
	simGoal  = flag.Int("rotations", 1000, "rotations of one seed of TestSimulation")
)

func newSim(seed uint64, goal int, k knobs) *sim {
	return &sim{seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), goal: goal, knobs: k}
}

// TestSimulation plays many worlds and holds every change of the document
// against the invariants of the design.
func TestSimulation(t *testing.T) {
	var mu sync.Mutex
	var total stats
	began := time.Now()
	if *simSeed != 0 {
		s := newSim(*simSeed, *simGoal, knobs{})
		if s.run(); s.broken != 0 {
			t.Fatal(s.report())
		}
		t.Logf("%+v", s.stats)
		return
	}
	if testing.Short() {
		*simSeeds = min(*simSeeds, 20)
	}
	t.Run("seeds", func(t *testing.T) {
		const parts = 8
		for part := range parts {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for seed := part + 1; seed <= *simSeeds; seed += parts {
					s := newSim(uint64(seed), *simGoal, knobs{})
					if s.run(); s.broken != 0 {
						t.Fatal(s.report())
					}
					mu.Lock()
					total.add(s.stats)
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d seeds in %v: %+v", *simSeeds, time.Since(began).Round(time.Millisecond), total)
	if !t.Failed() && *simSeeds >= 100 {
		total.checkCovered(t)
	}
}

// add sums the counters; those that are named Max keep the largest.
func (s *stats) add(other stats) {
	sum, more := reflect.ValueOf(s).Elem(), reflect.ValueOf(other)
	for i := range sum.NumField() {
		f, n := sum.Field(i), more.Field(i).Int()
		if strings.HasPrefix(sum.Type().Field(i).Name, "Max") {
			f.SetInt(max(f.Int(), n))
		} else {
			f.SetInt(f.Int() + n)
		}
	}
}

// checkCovered fails if a kind of event never happened: a simulation that
// skips one proves nothing about it.
func (s *stats) checkCovered(t *testing.T) {
	v := reflect.ValueOf(*s)
	for i := range v.NumField() {
		if v.Field(i).Int() == 0 {
			t.Errorf("%s never happened", v.Type().Field(i).Name)
		}
	}
}

// findsViolation runs seeds of a broken world until one breaks the invariant.
func findsViolation(t *testing.T, invariant int, k knobs) {
	t.Helper()
	t.Parallel()
	for seed := range uint64(200) {
		s := newSim(seed+1, 300, k)
		if s.run(); s.broken == 0 {
			continue
		}
		if s.broken != invariant {
			t.Fatalf("want invariant %d to break first:\n%s", invariant, s.report())
		}
		t.Logf("seed %d after %d rotations: %s", s.seed, s.stats.Rotations, s.failure)
		return
	}
	t.Errorf("the simulation did not notice %+v", k)
}

// The negative controls: each breaks one promise by little, and the checks must
// notice.
func TestSimulationNoticesShortLead(t *testing.T) {
	findsViolation(t, 1, knobs{extraMaxAge: time.Second})
}

func TestSimulationNoticesShortRetention(t *testing.T) {
	findsViolation(t, 2, knobs{extraLeeway: time.Second})
}

func TestSimulationNoticesStampingAtPlan(t *testing.T) {
	findsViolation(t, 1, knobs{stampAtPlan: true})
}

func TestSimulationNoticesForgottenFloor(t *testing.T) {
	findsViolation(t, 1, knobs{noFloor: true})
}

func TestSimulationNoticesStaleReplicas(t *testing.T) {
	findsViolation(t, 1, knobs{extraStaleness: time.Second})
}
