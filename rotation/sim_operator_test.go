package rotation

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// The operator and the weather: policies, rotations by hand, revocations,
// crashes, partitions and outages, all at random instants.

var simAlgorithms = []string{"ES256", "EdDSA", "RS256"}

// drawPolicy makes a policy that holds, from tight to wide in each respect.
func (s *sim) drawPolicy() Policy {
	p := DefaultPolicy()
	p.Algorithms = slices.Clone(simAlgorithms[:pick(s, []int{1, 1, 1, 2, 2, 3})])
	p.ClockSkew = Duration(s.skew)
	p.MaxStaleness = Duration(s.span(10*time.Second, 2*time.Hour).Round(time.Millisecond))
	p.JWKSMaxAge = Duration(s.pause(time.Hour))
	p.VerifierCache = Duration(s.pause(3 * time.Hour))
	p.VerifierLeeway = Duration(s.leeway)
	p.HandoverGrace = Duration(s.pause(time.Minute))
	p.TokenTTLMax = Duration(s.span(time.Second, 24*time.Hour).Round(time.Second))
	s.drawSchedule(&p)
	return p
}

// pause draws a duration that is often zero.
func (s *sim) pause(hi time.Duration) time.Duration {
	if s.chance(0.3) {
		return 0
	}
	return s.span(time.Second, hi).Round(time.Millisecond)
}

// drawSchedule picks a period for which the policy holds: often the shortest
// one, or one that divides the retention.
func (s *sim) drawSchedule(p *Policy) {
	least := p.lead() + leadMargin
	hold := p.TokenTTLMax.Std() + p.HandoverGrace.Std() + p.retain()
	every := least
	switch s.rng.IntN(6) {
	case 0:
	case 1:
		every = max(least, hold/time.Duration(1+s.rng.IntN(6)))
	case 2:
		every = least + s.upTo(10*time.Second)
	case 3:
		every = least + s.upTo(10*least)
	case 4:
		every = max(least, s.span(time.Minute, 10*day).Round(time.Second))
	case 5:
		if least <= day && s.chance(0.1) {
			p.Rotate = pick(s, []string{"@daily", "30 3 * * *", "CRON_TZ=Asia/Tokyo 0 3 * * *", "@weekly"})
			return
		}
	}
	if most := time.Duration(pick(s, []int{2, 4, 6, 8, 12, 24})); every < hold/most {
		every = hold / most // keep most sets small, for speed
	}
	p.Rotate = "@every " + Duration(max(every, time.Second)).String()
}

// found begins the keyset and sets the world going.
func (s *sim) found() {
	s.skew = pick(s, []time.Duration{0, time.Second, 5 * time.Second, 5 * time.Second, 30 * time.Second})
	s.leeway = s.pause(5 * time.Minute)
	s.ledger = newLedger()
	s.store.applied = map[string]uint64{}
	s.now = time.Hour
	s.first = s.drawPolicy()
	for i := range 1 + s.rng.IntN(4) {
		s.addReplica(i)
	}
	r := s.replicas[0]
	algs := append(slices.Clone(s.first.Algorithms), s.first.Algorithms...)
	fresh := s.fresh(algs)
	op := s.operation("found")
	doc, err := Found("default", s.first, r.clock(), fresh, op)
	if err != nil {
		s.violate(99, "founding: %v", err)
		return
	}
	s.land(change{next: doc, op: op.ID, kind: "found", fresh: fresh})
	s.clients = newClients(s)
	s.after(s.upTo(s.period()), s.operate)
	s.after(s.upTo(s.period()), s.weather)
	s.after(0, s.traffic)
}

// weather brings the next fault.
func (s *sim) weather() {
	r, short := pick(s, s.replicas), s.span(time.Millisecond, s.period())
	switch roll := s.rng.Float64(); {
	case roll < 0.35:
		r.crash(short)
	case roll < 0.65:
		r.partition(s.span(time.Millisecond, 3*s.store.doc.Policy.MaxStaleness.Std()))
	case roll < 0.93:
		s.outage(short)
	case roll < 0.96:
		s.outage(s.upTo(4 * s.period()))
	default:
		s.blackout(s.upTo(12 * s.period()))
	}
	s.after(s.upTo(12*s.period()), s.weather)
}

// blackout stops every replica over several ticks.
func (s *sim) blackout(d time.Duration) {
	s.stats.Blackouts++
	s.stats.MissedTicks += int(d / s.period())
	for _, r := range s.replicas {
		r.crash(d + s.upTo(time.Minute))
	}
}

// operate has the operator do something now and then. Several things in a row
// are common.
func (s *sim) operate() {
	pause := s.upTo(10 * s.period())
	if s.chance(0.25) {
		pause = s.span(time.Millisecond, s.period()/4+time.Millisecond)
	}
	s.after(pause, s.operate)
	r := pick(s, s.replicas)
	if !r.up || !r.connected || s.out() || r.busy || r.doc == nil {
		return
	}
	r.load()
	if r.busy || s.broken != 0 {
		return
	}
	s.act(r)
}

func (s *sim) act(r *replica) {
	var c change
	var err error
	switch roll := s.rng.Float64(); {
	case roll < 0.30:
		c, err = s.promote(r, false)
	case roll < 0.40:
		c, err = s.promote(r, true)
	case roll < 0.62:
		c, err = s.revoke(r)
	case roll < 0.64:
		c, err = s.revokeAll(r)
	case roll < 0.67:
		c, err = s.discard(r)
	default:
		c, err = s.changePolicy(r)
	}
	if err == nil {
		r.swap(c, func(o outcome) {
			if o == written && s.chance(0.15) {
				s.act(r) // at once, before the next standby is made
			}
		})
		return
	}
	var early *NotReadyError
	if errors.As(err, &early) && s.chance(0.7) {
		s.stats.Refused++
		r.later(early.Earliest.Sub(r.clock()), func() { s.again(r) })
	}
}

// again repeats a refused rotation at the very instant that was named.
func (s *sim) again(r *replica) {
	if r.busy || r.doc == nil || s.out() || !r.connected {
		return
	}
	if c, err := s.promote(r, false); err == nil {
		r.swap(c, nil)
	}
}

func unready(promoted []Promotion) (kids []string) {
	for _, p := range promoted {
		if !p.FullLead {
			kids = append(kids, p.To)
		}
	}
	return kids
}

func lanesOf(promoted []Promotion) (algs []string) {
	for _, p := range promoted {
		algs = append(algs, p.Algorithm)
	}
	return algs
}

func (s *sim) promote(r *replica, force bool) (change, error) {
	op := s.operation("rotate")
	var algs []string
	if s.chance(0.3) {
		algs = []string{pick(s, r.doc.Policy.Algorithms)}
	}
	next, done, err := r.doc.Promote(algs, force, r.clock(), op)
	if err != nil {
		return change{}, err
	}
	s.stats.Promoted++
	s.stats.Forced += btoi(len(unready(done)) > 0)
	return change{next: next, op: op.ID, kind: "rotate", unready: unready(done), offGrid: lanesOf(done)}, nil
}

func (s *sim) revoke(r *replica) (change, error) {
	now := r.clock()
	l := pick(s, r.doc.Lanes)
	if len(l.Keys) == 0 {
		return change{}, ErrUnknownKey
	}
	k := pick(s, l.Keys)
	if a, ok := l.Active(now); ok && s.chance(0.3) {
		k = a
	}
	op := s.operation("revoke")
	var fresh []NewKey
	next, out, err := r.doc.Revoke(k.KID, now, nil, op)
	var need *NeedKeysError
	if errors.As(err, &need) {
		s.stats.NeedKeys++
		fresh = s.fresh(need.Algorithms)
		next, out, err = r.doc.Revoke(k.KID, now, fresh, op)
	}
	if err != nil {
		return change{}, err
	}
	switch l.Phase(k, now) {
	case PhaseActive:
		s.stats.RevokedActive++
	case PhaseStandby:
		s.stats.RevokedStandby++
	case PhaseRetiring:
		s.stats.RevokedRetiring++
	}
	s.stats.Flushes += btoi(!out.FlushAt.IsZero())
	off := append(lanesOf(out.Promoted), l.Algorithm)
	return change{next: next, op: op.ID, kind: "revoke " + k.KID, fresh: fresh, unready: unready(out.Promoted), offGrid: off, revoked: []string{k.KID}}, nil
}

func (s *sim) revokeAll(r *replica) (change, error) {
	op := s.operation("revoke")
	fresh := s.fresh(r.doc.Policy.Algorithms)
	next, out, err := r.doc.RevokeAll(r.clock(), fresh, op)
	if err != nil {
		s.ledger.drop(fresh)
		return change{}, err
	}
	s.stats.RevokedAll++
	c := change{next: next, op: op.ID, kind: "revoke all", fresh: fresh, unready: unready(out.Promoted), offGrid: lanesOf(out.Promoted)}
	for _, t := range out.Revoked {
		c.revoked = append(c.revoked, t.KID)
	}
	return c, nil
}

func (s *sim) discard(r *replica) (change, error) {
	k, ok := pick(s, r.doc.Lanes).Standby(r.clock())
	if !ok {
		return change{}, ErrNotWaiting
	}
	op := s.operation("discard")
	next, err := r.doc.Discard(k.KID, r.clock(), op)
	if err != nil {
		return change{}, err
	}
	s.stats.Discarded++
	return change{next: next, op: op.ID, kind: "discard " + k.KID, offGrid: []string{k.Algorithm}}, nil
}

// changePolicy turns one or several of the knobs.
func (s *sim) changePolicy(r *replica) (change, error) {
	old := r.doc.Policy
	p := old
	p.Algorithms = slices.Clone(old.Algorithms)
	for range 1 + s.rng.IntN(2) {
		s.turnKnob(&p)
	}
	if _, err := p.Derive(epoch); err != nil || s.chance(0.2) {
		s.drawSchedule(&p)
	}
	op := s.operation("policy")
	next, err := r.doc.SetPolicy(p, r.clock(), op)
	if err != nil {
		return change{}, err
	}
	if s.knobs.noFloor {
		next.Floor = nil
	}
	s.stats.Policies++
	s.stats.Floors += btoi(next.Floor != nil)
	s.stats.RaisedT += btoi(p.TokenTTLMax > old.TokenTTLMax)
	s.stats.LoweredT += btoi(p.TokenTTLMax < old.TokenTTLMax)
	c := change{next: next, op: op.ID, kind: fmt.Sprintf("policy %s D%v H%v C%v T%v G%v %v", p.Rotate, p.MaxStaleness, p.JWKSMaxAge, p.VerifierCache, p.TokenTTLMax, p.HandoverGrace, p.Algorithms)}
	for _, alg := range p.Algorithms {
		if !slices.Contains(old.Algorithms, alg) {
			c.offGrid = append(c.offGrid, alg)
			_, back := r.doc.Lane(alg)
			s.stats.LanesAdded, s.stats.LanesBack = s.stats.LanesAdded+1, s.stats.LanesBack+btoi(back)
		}
	}
	for _, alg := range old.Algorithms {
		if !slices.Contains(p.Algorithms, alg) {
			c.offGrid = append(c.offGrid, alg) // its standby never has its turn
			s.stats.LanesDropped++
		}
	}
	return c, nil
}

func (s *sim) turnKnob(p *Policy) {
	scale := func(d Duration, hi time.Duration) Duration {
		if s.chance(0.2) {
			return Duration(s.pause(hi))
		}
		f := 0.2 + 1.4*s.rng.Float64()
		return Duration(min(time.Duration(float64(d)*f), hi).Round(time.Millisecond))
	}
	switch s.rng.IntN(7) {
	case 0:
		p.JWKSMaxAge = scale(p.JWKSMaxAge, time.Hour)
	case 1:
		p.VerifierCache = scale(p.VerifierCache, 3*time.Hour)
	case 2:
		p.MaxStaleness = max(scale(p.MaxStaleness, 2*time.Hour), Duration(10*time.Second))
	case 3:
		p.TokenTTLMax = max(scale(p.TokenTTLMax, day), Duration(time.Second))
	case 4:
		p.HandoverGrace = scale(p.HandoverGrace, time.Minute)
	default:
		s.turnAlgorithms(p)
	}
}

// turnAlgorithms adds a lane, drops one, or puts another in front.
func (s *sim) turnAlgorithms(p *Policy) {
	alg := pick(s, simAlgorithms)
	switch i := slices.Index(p.Algorithms, alg); {
	case i < 0 && s.chance(0.5):
		p.Algorithms = append(p.Algorithms, alg)
	case i < 0:
		p.Algorithms = append([]string{alg}, p.Algorithms[:len(p.Algorithms)-1]...)
	case len(p.Algorithms) > 1:
		p.Algorithms = slices.Delete(p.Algorithms, i, i+1)
	}
}
