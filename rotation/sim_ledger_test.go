package rotation

import (
	"math"
	"time"
)

// The ledger knows the whole truth and holds every change against the worst
// world that the promises allow: the fastest clock signs first, the slowest
// and stalest replica signs last, every cache was filled at the last moment.

const never = time.Duration(math.MinInt64)

// keyRecord is what is true about one key.
type keyRecord struct {
	kid    string
	named  time.Duration // when a document first named it
	lacked time.Duration // last instant at which a set without it can be fetched
	turns  []turnRecord
	began  bool // some replica may have signed with it
	// accepted is the last instant at which a token made under a document that
	// is no longer in the store can be valid; signs the last at which such a
	// document lets a replica sign.
	accepted, signs  time.Duration
	unready          bool // said to sign without its lead
	revoked, removed bool
	destroyed        bool
}

// turnRecord is one ActivateAt that a document gave to a key.
type turnRecord struct {
	at    time.Time
	doc   State         // the latest with that turn
	until time.Duration // replicas may act on such a document until then
}

// cut is an instant from which verifiers keep what they fetch for another time.
type cut struct {
	from  time.Duration
	cache time.Duration
}

// era is a policy's part of the bound, from when on it was in the store.
type era struct {
	from                       time.Duration
	ttl, grace, retain, period time.Duration
}

type ledger struct {
	keys     map[string]*keyRecord
	landedAt time.Duration
	fetch    time.Duration // last fetch of any set that is no longer in the store
	act      time.Duration // last use of any document that is no longer in the store
	cuts     []cut
	eras     []era
	offGrid  map[string][]time.Duration // rotations besides the schedule, by lane
	waiting  map[string]time.Duration   // since when a lane waits for a key to turn so
	started  map[string]bool            // lanes that every clock saw signing
	graves   int
}

func newLedger() ledger {
	return ledger{
		keys: map[string]*keyRecord{}, fetch: never, act: never,
		offGrid: map[string][]time.Duration{}, waiting: map[string]time.Duration{}, started: map[string]bool{},
	}
}

func (g *ledger) made(kid string) {
	g.keys[kid] = &keyRecord{kid: kid, lacked: never, accepted: never, signs: never}
}

// drop destroys keys that no document can ever name.
func (g *ledger) drop(fresh []NewKey) {
	for _, k := range fresh {
		g.keys[k.KID].destroyed = true
	}
}

// landed checks a change of the document and notes what follows from it.
func (g *ledger) landed(s *sim, old State, c change) {
	next := c.next
	if old.Generation != 0 {
		g.superseded(s, old)
	}
	g.landedAt = s.now
	g.policyChanged(s, old, next)
	g.noteChange(s, c)
	g.checkGone(s, old, next)
	for _, l := range next.Lanes {
		for _, k := range l.Keys {
			g.noteKey(s, next, l, k)
		}
	}
	g.checkBound(s, next)
	g.checkViews(s, next, s.now)
	for _, alg := range next.Policy.Algorithms {
		l, _ := next.Lane(alg)
		_, slow := l.Active(date(s.now - s.skew))
		_, fast := l.Active(date(s.now + s.skew))
		if slow && fast {
			g.started[alg] = true
		}
	}
	if next.Generation%61 == 0 {
		s.roundTrip(next)
	} else if err := next.Check(); err != nil {
		s.violate(7, "generation %d cannot be: %v", next.Generation, err)
	}
}

// superseded notes what replicas can still do with a document that has just
// been replaced.
func (g *ledger) superseded(s *sim, doc State) {
	p := doc.Policy
	use := s.now + p.MaxStaleness.Std() + s.knobs.extraStaleness
	g.act = max(g.act, use)
	g.fetch = max(g.fetch, use+p.JWKSMaxAge.Std()+s.knobs.extraMaxAge)
	for _, l := range doc.Lanes {
		for _, k := range l.Keys {
			rec := g.keys[k.KID]
			for i := range rec.turns {
				if t := &rec.turns[i]; t.at.Equal(k.ActivateAt) {
					t.until = max(t.until, use)
				}
			}
			g.noteSigning(s, rec, doc, l, k, use)
		}
	}
	g.checkViews(s, doc, use)
}

// noteSigning notes the last signature that a replica can make with the key
// under the document, and how long a verifier can accept it.
func (g *ledger) noteSigning(s *sim, rec *keyRecord, doc State, l Lane, k Key, use time.Duration) {
	if k.ActivateAt.IsZero() || (!k.EndAt.IsZero() && !k.ActivateAt.Before(k.EndAt)) {
		return
	}
	reading, signs := use+s.skew, use
	if until, ok := l.Until(k); ok {
		reading, signs = min(reading, since(until)), min(signs, since(until)+s.skew)
		if since(until)+s.skew < g.landedAt {
			return // over on every clock when the document came
		}
	}
	if reading <= since(k.ActivateAt) {
		return
	}
	expires := reading + doc.Policy.TokenTTLMax.Std()
	rec.signs = max(rec.signs, signs)
	rec.accepted = max(rec.accepted, expires+s.leeway+s.knobs.extraLeeway+s.skew)
}

// noteKey notes a key as it stands in a new document.
func (g *ledger) noteKey(s *sim, doc State, l Lane, k Key) {
	rec := g.keys[k.KID]
	switch {
	case rec.revoked || rec.removed:
		s.violate(5, "key %s returned (revoked %v)", k.KID, rec.revoked)
	case rec.named == 0:
		rec.named, rec.lacked = max(s.now, 1), g.fetch
		if rec.destroyed {
			s.violate(6, "key %s is named, but its private half was destroyed", k.KID)
		}
	}
	if k.ActivateAt.IsZero() {
		return
	}
	for i := range rec.turns {
		if t := &rec.turns[i]; t.at.Equal(k.ActivateAt) {
			t.doc = doc
			if !rec.began && since(k.ActivateAt)-s.skew <= s.now {
				g.checkTurn(s, rec, l.Algorithm, k.ActivateAt)
			}
			return
		}
	}
	rec.turns = append(rec.turns, turnRecord{at: k.ActivateAt, doc: doc, until: never})
	if rec.began {
		return
	}
	at, alg := k.ActivateAt, l.Algorithm
	s.after(since(at)-s.skew-s.now, func() { g.checkTurn(s, rec, alg, at) })
}

// checkTurn is invariant 1: at the first instant at which the fastest clock
// lets a replica sign with the key, no set without it is in use.
func (g *ledger) checkTurn(s *sim, rec *keyRecord, alg string, at time.Time) {
	if rec.began || rec.revoked {
		return
	}
	for _, t := range rec.turns {
		if !t.at.Equal(at) {
			continue
		}
		if k, ok := s.store.doc.Key(rec.kid); (!ok || !k.ActivateAt.Equal(at)) && t.until < s.now {
			return // nobody acts on that any more
		}
		l, _ := t.doc.Lane(alg)
		k, _ := t.doc.Key(rec.kid)
		if !l.MaySign(k, date(s.now+s.skew)) && !l.MaySign(k, date(s.now-s.skew)) {
			return
		}
	}
	rec.began = true
	if from, ok := g.waiting[alg]; ok && rec.named > from {
		delete(g.waiting, alg)
		g.offGrid[alg] = append(g.offGrid[alg], s.now)
	}
	s.stats.Rotations++
	s.stats.StaleSigners += btoi(s.out())
	danger := g.inUse(rec.lacked)
	switch {
	case danger <= s.now:
	case rec.unready:
		s.stats.Excepted++
	default:
		s.violate(1, "%s signs from %v on, but a set without it (fetched at %v at the latest) is in use until %v, %v too long",
			rec.kid, s.now, rec.lacked, danger, danger-s.now)
	}
}

// inUse returns until when a verifier may use a set that was fetched at that
// instant or before.
func (g *ledger) inUse(fetched time.Duration) time.Duration {
	last := never
	for i, c := range g.cuts {
		if c.from > fetched && i > 0 {
			break
		}
		at := fetched
		if i+1 < len(g.cuts) {
			at = min(at, g.cuts[i+1].from-1)
		}
		if at != never {
			last = max(last, g.keeps(i, at))
		}
	}
	return last
}

// keeps returns until when a set is used that was fetched in a span between two
// cuts. A lower C leaves sets alone that were fetched before; a higher one
// reaches those that are still in use.
func (g *ledger) keeps(span int, at time.Duration) time.Duration {
	until := at + g.cuts[span].cache
	for _, c := range g.cuts[span+1:] {
		if until > c.from {
			until = max(until, at+c.cache)
		}
	}
	return until
}

// policyChanged moves the verifiers. When C is lowered, the operator lowered it
// everywhere at that moment; when it is raised, verifiers follow once every
// replica acts on the new policy.
func (g *ledger) policyChanged(s *sim, old, next State) {
	p := next.Policy
	e := era{ttl: p.TokenTTLMax.Std(), grace: p.HandoverGrace.Std(), retain: p.retain(), period: next.Period.Std()}
	if n := len(g.eras); n > 0 {
		e.from = g.eras[n-1].from
	}
	if n := len(g.eras); n == 0 || g.eras[n-1] != e {
		e.from = s.now
		g.eras = append(g.eras, e)
	}
	c := p.VerifierCache.Std()
	if old.Generation != 0 && old.Policy.VerifierCache == p.VerifierCache {
		return
	}
	for len(g.cuts) > 1 && g.cuts[len(g.cuts)-1].from > s.now && g.cuts[len(g.cuts)-1].cache > c {
		g.cuts = g.cuts[:len(g.cuts)-1]
	}
	from := s.now
	if n := len(g.cuts); n > 0 && c > g.cuts[n-1].cache {
		from = max(from, g.act, g.cuts[n-1].from)
	}
	g.cuts = append(g.cuts, cut{from, c})
	if len(g.cuts) > 24 {
		g.cuts = g.cuts[8:]
	}
}

// noteChange notes what the writer said about its change.
func (g *ledger) noteChange(s *sim, c change) {
	for _, kid := range c.unready {
		g.keys[kid].unready = true
	}
	for _, alg := range c.offGrid {
		g.offGrid[alg] = append(g.offGrid[alg], s.now)
		g.waiting[alg] = s.now // a new lane, or a revoked key to flush
	}
	for _, kid := range c.revoked {
		g.keys[kid].revoked = true
	}
}

// checkGone is invariant 2 for the keys that left the document, and that
// tombstones stay.
func (g *ledger) checkGone(s *sim, old, next State) {
	for k := range old.Keys {
		if _, still := next.Key(k.KID); still {
			continue
		}
		rec := g.keys[k.KID]
		rec.removed = true
		switch {
		case rec.revoked:
		case rec.accepted > s.now:
			s.violate(2, "%s left, but a token that it signed can be valid until %v, %v longer", k.KID, rec.accepted, rec.accepted-s.now)
		default:
			s.stats.Removed++
		}
	}
	for _, t := range next.Tombstones[min(g.graves, len(next.Tombstones)):] {
		if !g.keys[t.KID].revoked {
			s.violate(5, "%s has a tombstone, but nobody revoked it", t.KID)
		}
	}
	if len(next.Tombstones) < g.graves {
		s.violate(5, "%d tombstones are gone", g.graves-len(next.Tombstones))
	}
	g.graves = len(next.Tombstones)
	for alg := range g.started {
		if l, ok := next.Lane(alg); !ok || next.Winding(l) {
			delete(g.started, alg)
		}
	}
}

// checkViews is invariant 3: whoever acts on the document at that true instant,
// with whatever clock, finds one key to sign with in each lane that has begun.
func (g *ledger) checkViews(s *sim, doc State, at time.Duration) {
	for _, clock := range []time.Time{date(at - s.skew), date(at), date(at + s.skew)} {
		if _, ok := doc.Default(clock); !ok {
			s.violate(3, "generation %d has no key to sign with on a clock that shows %v", doc.Generation, since(clock))
		}
		for _, l := range doc.Lanes {
			k, ok := l.Active(clock)
			if !ok && g.started[l.Algorithm] && !doc.Winding(l) {
				s.violate(3, "generation %d: lane %s has no active key on a clock that shows %v", doc.Generation, l.Algorithm, since(clock))
			}
			if ok && (k.Algorithm != l.Algorithm || l.Phase(k, clock) != PhaseActive || !l.MaySign(k, clock)) {
				s.violate(3, "generation %d: active key %s of lane %s may not sign", doc.Generation, k.KID, l.Algorithm)
			}
		}
	}
}

// checkBound is invariant 4, by the document's own number and by a count of
// what the policies in force and the rotations since the oldest key allow.
func (g *ledger) checkBound(s *sim, doc State) {
	for _, l := range doc.Lanes {
		if len(l.Keys) == 0 {
			continue
		}
		oldest := g.keys[l.Keys[0].KID].named
		most := era{period: math.MaxInt64}
		for i, e := range g.eras {
			if i+1 == len(g.eras) || g.eras[i+1].from > oldest {
				most.ttl, most.grace = max(most.ttl, e.ttl), max(most.grace, e.grace)
				most.retain, most.period = max(most.retain, e.retain), min(most.period, e.period)
			}
		}
		off, all := 0, g.offGrid[l.Algorithm]
		for i := len(all) - 1; i >= 0 && all[i] >= oldest; i-- {
			off++
		}
		hold := most.ttl + most.grace + most.retain
		bound := 2 + int((hold+most.period-1)/most.period) + off
		if len(l.Keys) > bound {
			s.violate(4, "lane %s has %d keys, the bound is %d (hold %v, period %v, off schedule %d)", l.Algorithm, len(l.Keys), bound, hold, most.period, off)
		}
		if own := doc.Bound(l); len(l.Keys) > own {
			s.violate(4, "lane %s has %d keys, its own bound is %d", l.Algorithm, len(l.Keys), own)
		}
		s.stats.MaxKeys = max(s.stats.MaxKeys, len(l.Keys))
		s.stats.MaxSpare = max(s.stats.MaxSpare, bound-len(l.Keys))
	}
	for len(g.eras) > 64 {
		g.eras = g.eras[1:]
	}
}

// destroy is invariant 6: a private key goes only when no replica may sign.
func (g *ledger) destroy(s *sim, kid string, seen *State) {
	rec := g.keys[kid]
	if rec.destroyed {
		return
	}
	rec.destroyed = true
	s.stats.Destroyed++
	if rec.revoked {
		return
	}
	last := rec.signs
	for _, l := range s.store.doc.Lanes {
		for _, k := range l.Keys {
			if k.KID != kid {
				continue
			}
			until, ok := l.Until(k)
			if !ok {
				s.violate(6, "%s was destroyed, but nothing ends it", kid)
			}
			last = max(last, min(since(until)+s.skew, math.MaxInt64))
		}
	}
	if last > s.now {
		s.violate(6, "%s was destroyed, but a replica may sign with it until %v, %v longer (seen in generation %d)", kid, last, last-s.now, seen.Generation)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
