package rotation

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// The simulated world: true time, one store, replicas with clocks that are off,
// faults, an operator, caches and verifiers. Everything happens in events on a
// queue, in an order that follows from the seed alone.

// epoch is true time zero.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// date turns true time into a reading of a clock without error.
func date(d time.Duration) time.Time { return epoch.Add(d) }

// since turns an instant of a document into time on the true axis, as if the
// clock that made it had no error.
func since(t time.Time) time.Duration { return t.Sub(epoch) }

// knobs make the world break a promise, or the harness sabotage the core, so
// that the checks can show that they notice.
type knobs struct {
	extraMaxAge    time.Duration // HTTP caches keep sets longer than max-age
	extraLeeway    time.Duration // verifiers allow more than their leeway
	extraStaleness time.Duration // replicas act on an old state for longer than D
	stampAtPlan    bool          // instants count from the plan, not from the reading
	noFloor        bool          // a lowered policy forgets what it promised
}

type event struct {
	at    time.Duration
	order int
	run   func()
}

// eventQueue is a binary heap by (at, order).
type eventQueue struct {
	heap  []event
	count int
}

func (q *eventQueue) less(i, j int) bool {
	a, b := &q.heap[i], &q.heap[j]
	return a.at < b.at || a.at == b.at && a.order < b.order
}

func (q *eventQueue) push(at time.Duration, run func()) {
	q.count++
	q.heap = append(q.heap, event{at, q.count, run})
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.less(i, up) {
			return
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

func (q *eventQueue) pop() event {
	top, last := q.heap[0], len(q.heap)-1
	q.heap[0] = q.heap[last]
	q.heap[last] = event{}
	q.heap = q.heap[:last]
	for i := 0; ; {
		low := 2*i + 1
		if low >= last {
			return top
		}
		if low+1 < last && q.less(low+1, low) {
			low++
		}
		if !q.less(low, i) {
			return top
		}
		q.heap[i], q.heap[low] = q.heap[low], q.heap[i]
		i = low
	}
}

// sim is one run of one seed.
type sim struct {
	seed  uint64
	rng   *rand.Rand
	knobs knobs
	goal  int // rotations

	now   time.Duration
	queue eventQueue
	store struct {
		doc      State
		outUntil time.Duration // the store answers nobody before
		applied  map[string]uint64
	}
	skew, leeway time.Duration // of the world
	first        Policy
	replicas     []*replica
	ledger       ledger
	clients      clients
	stats        stats
	kids         int
	ops          int
	trace        [64]traceLine
	traced       int
	broken       int // number of the invariant that failed, or 0
	failure      string
}

type traceLine struct {
	at     time.Duration
	format string
	args   []any
}

// stats count what happened, so that a run shows what it covered.
type stats struct {
	Rotations, Writes, Conflicts, Failed, Lost, LostSeen, Late, LateLanded int
	Outages, Partitions, Crashes, Blackouts, MissedTicks                   int
	Promoted, Forced, Refused, RevokedActive, RevokedStandby               int
	RevokedRetiring, RevokedAll, NeedKeys, Policies, Floors, LanesAdded    int
	LanesDropped, LanesBack, RaisedT, LoweredT, Flushes, Discarded         int
	Excepted, UnknownMet, Tokens, GraceTokens, Verified, Fetches           int
	Destroyed, Removed, StaleSigners, RoundTrips                           int
	MaxKeys, MaxSpare                                                      int
}

func (s *sim) logf(format string, args ...any) {
	s.trace[s.traced%len(s.trace)] = traceLine{s.now, format, args}
	s.traced++
}

// violate records the first broken invariant and ends the run.
func (s *sim) violate(invariant int, format string, args ...any) {
	if s.broken != 0 {
		return
	}
	s.broken = invariant
	s.failure = fmt.Sprintf("invariant %d at %v: ", invariant, s.now) + fmt.Sprintf(format, args...)
}

// report tells all that is needed to look into a failure.
func (s *sim) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nseed %d; rerun with: go test ./rotation -run TestSimulation -seed %d\n", s.failure, s.seed, s.seed)
	fmt.Fprintf(&b, "first policy: %+v\npolicy now: %+v\nskew %v, knobs %+v\n", s.first, s.store.doc.Policy, s.skew, s.knobs)
	for i := max(0, s.traced-len(s.trace)); i < s.traced; i++ {
		l := s.trace[i%len(s.trace)]
		fmt.Fprintf(&b, "%14v  %s\n", l.at, fmt.Sprintf(l.format, l.args...))
	}
	return b.String()
}

func (s *sim) after(d time.Duration, run func()) { s.queue.push(s.now+max(d, 0), run) }

func (s *sim) chance(p float64) bool { return s.rng.Float64() < p }

// upTo draws a duration, uniformly.
func (s *sim) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(s.rng.Int64N(int64(d) + 1))
}

// span draws a pause whose logarithm is uniform between lo and hi.
func (s *sim) span(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	d := float64(lo)
	for ratio := float64(hi) / float64(lo); ; {
		if ratio <= 2 {
			return time.Duration(d * (1 + s.rng.Float64()*(ratio-1)))
		}
		// halve the number of doublings left at random
		if s.chance(0.5 / (1 + 0.1*ratio)) {
			return time.Duration(d * (1 + s.rng.Float64()))
		}
		d, ratio = d*2, ratio/2
	}
}

func pick[T any](s *sim, list []T) T { return list[s.rng.IntN(len(list))] }

// period is R of the policy in the store.
func (s *sim) period() time.Duration { return s.store.doc.Period.Std() }

// run plays the world until enough rotations happened or something broke.
func (s *sim) run() {
	s.found()
	limit := 60 * s.goal * 20000
	for s.broken == 0 && s.stats.Rotations < s.goal && len(s.queue.heap) > 0 {
		e := s.queue.pop()
		s.now = e.at
		e.run()
		if limit--; limit == 0 {
			s.violate(99, "too many events for %d rotations", s.stats.Rotations)
		}
	}
}

// fresh makes key pairs for the algorithms.
func (s *sim) fresh(algs []string) []NewKey {
	keys := make([]NewKey, len(algs))
	for i, alg := range algs {
		s.kids++
		keys[i] = NewKey{KID: fmt.Sprintf("k%d", s.kids), Algorithm: alg, Public: publicStub}
		s.ledger.made(keys[i].KID)
	}
	return keys
}

var publicStub = []byte(`{"kty":"EC"}`)

func (s *sim) operation(kind string) Operation {
	s.ops++
	return Operation{ID: fmt.Sprintf("op%d", s.ops), Kind: kind}
}

// change is a document on its way to the store.
type change struct {
	next    State
	op      string
	kind    string
	fresh   []NewKey
	unready []string // kids that were said to sign without their lead
	offGrid []string // algorithms of lanes that turn besides the schedule
	revoked []string
}

type outcome int

const (
	written outcome = iota
	conflict
	unknown // an error, whether or not the write was applied or ever will be
)

// write sends a change to the store. The reply comes to done unless the sender
// has crashed by then; the change may land long after the reply, or without one.
func (s *sim) write(r *replica, c change, done func(outcome)) {
	life := r.life
	reply := func(o outcome) {
		s.after(time.Millisecond+s.upTo(5*time.Millisecond), func() {
			if r.life == life {
				done(o)
			}
		})
	}
	s.stats.Writes++
	s.after(time.Millisecond+s.upTo(10*time.Millisecond), func() {
		roll := s.rng.Float64()
		switch {
		case s.out() || !r.connected:
			s.stats.Failed++
			if roll < 0.2 && s.out() {
				s.landLater(c, s.store.outUntil-s.now)
			}
			reply(unknown)
		case roll < 0.03:
			s.stats.Failed++
			s.logf("r%d: write %s failed", r.id, c.op)
			reply(unknown)
		case roll < 0.06:
			s.stats.Lost++
			s.logf("r%d: write %s loses its reply", r.id, c.op)
			s.apply(c)
			reply(unknown)
		case roll < 0.10:
			delay := s.span(10*time.Millisecond, 2*s.period())
			if s.chance(0.6) {
				s.outage(delay)
			}
			s.landLater(c, delay)
			reply(unknown)
		case s.apply(c):
			reply(written)
		default:
			s.stats.Conflicts++
			reply(conflict)
		}
	})
}

func (s *sim) landLater(c change, delay time.Duration) {
	s.stats.Late++
	s.logf("write %s (%s) will land in %v", c.op, c.kind, delay)
	s.after(delay, func() {
		if s.apply(c) {
			s.stats.LateLanded++
			s.logf("late write %s (%s) landed", c.op, c.kind)
		}
	})
}

// apply is the store's compare-and-swap.
func (s *sim) apply(c change) bool {
	if c.next.Generation != s.store.doc.Generation+1 {
		return false
	}
	s.land(c)
	return true
}

// land puts a document into the store and tells everybody who listens.
func (s *sim) land(c change) {
	old := s.store.doc
	s.store.doc = c.next
	s.store.applied[c.op] = c.next.Generation
	s.logf("generation %d: %s %s %s", c.next.Generation, c.kind, c.op, docText(c.next))
	s.ledger.landed(s, old, c)
	for _, r := range s.replicas {
		r.notify()
	}
}

// docText shows the keys with their turns and ends, for the trace.
type docText State

// String is called only when a trace is printed.
func (doc docText) String() string {
	var b strings.Builder
	for _, l := range doc.Lanes {
		fmt.Fprintf(&b, " %s[", l.Algorithm)
		for _, k := range l.Keys {
			fmt.Fprintf(&b, " %s", k.KID)
			for _, m := range []struct {
				mark string
				at   time.Time
			}{{"p", k.PublishedAt}, {"a", k.ActivateAt}, {"e", k.EndAt}, {"u", k.SignsUntil}, {"x", k.RemoveAt}} {
				if !m.at.IsZero() {
					fmt.Fprintf(&b, " %s%v", m.mark, since(m.at))
				}
			}
		}
		b.WriteString(" ]")
	}
	return b.String()
}

func (s *sim) out() bool { return s.now < s.store.outUntil }

// outage takes the store away from everybody. Replicas age from now on.
func (s *sim) outage(d time.Duration) {
	s.stats.Outages++
	s.logf("store out for %v", d)
	for _, r := range s.replicas {
		r.age()
	}
	s.store.outUntil = max(s.store.outUntil, s.now+d)
	s.after(d, func() {
		if !s.out() {
			for _, r := range s.replicas {
				r.notify()
			}
		}
	})
}
