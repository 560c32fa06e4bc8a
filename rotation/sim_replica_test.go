package rotation

import (
	"errors"
	"math"
	"time"
)

// replica runs the loop that every daemon runs: load, plan, make keys, swap,
// sleep. Its memory is lost in a crash.
type replica struct {
	s    *sim
	id   int
	lag  time.Duration // longest time until a change is noticed
	bias time.Duration // constant part of the clock's error
	wave time.Duration // amplitude of its slow part
	turn time.Duration // length of a wave

	up, connected bool
	life          int // grows with each crash
	doc           *State
	observed      time.Time // by its own clock, when doc was first read
	aging         bool      // cut off since readAt, nothing read after that
	readAt        time.Duration
	busy          bool
	wakes         int
	pending       []attempt
}

// attempt is a write whose reply did not come.
type attempt struct {
	op    string
	base  uint64
	fresh []NewKey
}

func (s *sim) addReplica(id int) {
	r := &replica{s: s, id: id, up: true, connected: true}
	r.lag = s.span(2*time.Millisecond, min(s.first.MaxStaleness.Std()/2, 2*time.Second))
	switch roll := s.rng.Float64(); {
	case roll < 0.35:
		r.bias = s.skew
	case roll < 0.7:
		r.bias = -s.skew
	case roll < 0.85:
		r.bias = s.upTo(2*s.skew) - s.skew
	default:
		r.wave, r.turn = s.skew, max(200*s.skew, time.Hour)+s.upTo(s.first.MaxStaleness.Std())
	}
	s.replicas = append(s.replicas, r)
}

// offset is the error of the replica's clock at a true instant. Its slow part
// moves by less than one part in thirty.
func (r *replica) offset(now time.Duration) time.Duration {
	if r.wave == 0 {
		return r.bias
	}
	phase := 2 * math.Pi * float64(now%r.turn) / float64(r.turn)
	return r.bias + time.Duration(float64(r.wave)*math.Sin(phase))
}

func (r *replica) clock() time.Time { return date(r.s.now + r.offset(r.s.now)) }

// age notes from when on the replica has no fresh state.
func (r *replica) age() {
	if !r.aging {
		r.aging, r.readAt = true, r.s.now
	}
}

// fresh tells whether the replica may sign and is fetched from.
func (r *replica) fresh() bool {
	if !r.up || r.doc == nil {
		return false
	}
	return !r.aging || r.s.now-r.readAt <= r.doc.Policy.MaxStaleness.Std()+r.s.knobs.extraStaleness
}

// later runs something unless the replica has crashed by then.
func (r *replica) later(d time.Duration, run func()) {
	life := r.life
	r.s.after(d, func() {
		if r.life == life && r.up {
			run()
		}
	})
}

// notify has the replica read the store soon.
func (r *replica) notify() {
	if r.up && r.connected {
		r.later(time.Millisecond+r.s.upTo(r.lag), r.load)
	}
}

// load reads the document. The reading returns now.
func (r *replica) load() {
	if !r.connected || r.s.out() {
		return // whoever reconnects or ends the outage notifies again
	}
	if r.s.store.doc.Generation == 0 || r.busy {
		return
	}
	r.aging = false
	r.install(r.s.store.doc)
	r.plan()
}

// install takes over a document that is certainly in the store now.
func (r *replica) install(doc State) {
	if r.doc != nil && r.doc.Generation >= doc.Generation {
		return
	}
	r.resolve(doc)
	if r.doc != nil {
		for k := range r.doc.Keys {
			if _, still := doc.Key(k.KID); !still {
				r.s.ledger.destroy(r.s, k.KID, &doc)
			}
		}
	}
	r.doc, r.observed = &doc, r.clock()
}

// resolve finds out about writes without a reply.
func (r *replica) resolve(doc State) {
	for _, a := range r.pending {
		_, found := doc.Operation(a.op)
		gen, applied := r.s.store.applied[a.op]
		switch {
		case found != applied && doc.Generation < gen+maxOperations:
			r.s.violate(7, "write %s: applied %v, recognised %v", a.op, applied, found)
		case found:
			r.s.stats.LostSeen++
		case doc.Generation == a.base:
			return // it can still land
		default:
			r.s.ledger.drop(a.fresh)
		}
	}
	r.pending = r.pending[:0]
}

// plan does what is due, or sleeps until something is.
func (r *replica) plan() {
	if r.busy || r.doc == nil || r.s.broken != 0 {
		return
	}
	r.wakes++
	now := r.clock()
	for k := range r.doc.Keys {
		if !k.DestroyAt.IsZero() && !k.DestroyAt.After(now) {
			r.s.ledger.destroy(r.s, k.KID, r.doc)
		}
	}
	p := r.doc.Plan(Instant{Observed: r.observed, Now: now})
	switch {
	case p.Due:
		r.busy = true
		delay := time.Duration(0)
		if len(p.Needs) > 0 {
			delay = r.s.upTo(300 * time.Millisecond)
		}
		r.later(delay, func() { r.advance(p.Needs) })
	case !p.Wake.IsZero():
		wakes := r.wakes
		pause := max(p.Wake.Sub(now), 0)
		if r.wave != 0 {
			pause = max(pause-pause/20, time.Millisecond)
		}
		r.later(pause, func() {
			if r.wakes == wakes {
				r.plan()
			}
		})
	}
}

// advance makes the keys, brings the document up to now, and swaps it.
func (r *replica) advance(needs []string) {
	at := Instant{Observed: r.observed, Now: r.clock()}
	fresh := r.s.fresh(needs)
	op := r.s.operation("advance")
	next, err := r.doc.Advance(at, fresh, op)
	if err != nil {
		r.busy = false
		r.s.ledger.drop(fresh)
		if !errors.Is(err, ErrNothingDue) {
			r.s.logf("r%d: advance: %v", r.id, err)
		}
		r.later(time.Millisecond, r.plan)
		return
	}
	if r.s.knobs.stampAtPlan {
		next = next.clone()
		next.settle(Instant{Observed: at.Now, Now: at.Now})
	}
	r.swap(change{next: next, op: op.ID, kind: "advance", fresh: fresh}, nil)
}

// swap writes a change and goes on with whatever the reply says.
func (r *replica) swap(c change, done func(outcome)) {
	r.busy = true
	r.s.write(r, c, func(o outcome) {
		r.busy = false
		switch o {
		case written:
			r.install(c.next)
		case conflict:
			r.s.ledger.drop(c.fresh)
		case unknown:
			r.pending = append(r.pending, attempt{op: c.op, base: c.next.Generation - 1, fresh: c.fresh})
		}
		if done != nil {
			done(o)
		}
		if r.busy {
			return
		}
		pause := time.Millisecond + r.s.upTo(50*time.Millisecond)
		if r.s.out() || !r.connected {
			pause += r.s.upTo(r.s.period())
		}
		r.later(pause, func() { r.load(); r.plan() })
	})
}

// crash loses the replica's memory.
func (r *replica) crash(d time.Duration) {
	if !r.up {
		return
	}
	r.s.stats.Crashes++
	r.s.logf("r%d: crashed for %v", r.id, d)
	r.up, r.doc, r.busy, r.pending = false, nil, false, nil
	r.life++
	life := r.life
	r.s.after(d, func() {
		if r.life == life {
			r.up, r.aging = true, false
			r.notify()
		}
	})
}

// partition cuts the replica off from the store.
func (r *replica) partition(d time.Duration) {
	if !r.connected {
		return
	}
	r.s.stats.Partitions++
	r.s.logf("r%d: cut off for %v", r.id, d)
	r.age()
	r.connected = false
	r.s.after(d, func() {
		r.connected = true
		r.notify()
	})
}
