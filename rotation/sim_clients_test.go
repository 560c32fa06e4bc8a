package rotation

import (
	"reflect"
	"time"
)

// Issuers, HTTP caches and verifiers that do at random what the ledger assumes
// at its worst.

// clients hold what was fetched and signed.
type clients struct {
	caches    []setCopy
	verifiers []verifier
	tokens    []token
}

// setCopy is a published set on its way, with the last instant of its use.
type setCopy struct {
	doc     State
	fetched time.Duration
	until   time.Duration
}

type verifier struct {
	bias time.Duration
	set  setCopy
}

type token struct {
	kid     string
	expires time.Time
}

func newClients(s *sim) clients {
	c := clients{caches: make([]setCopy, 2)}
	for _, bias := range []time.Duration{-s.skew, s.skew, 0, s.upTo(2*s.skew) - s.skew} {
		c.verifiers = append(c.verifiers, verifier{bias: bias})
	}
	return c
}

// traffic signs and verifies a little.
func (s *sim) traffic() {
	s.after(s.upTo(s.period()), s.traffic)
	s.sign(pick(s, s.replicas))
	v := &s.clients.verifiers[s.rng.IntN(len(s.clients.verifiers))]
	for range 2 {
		if n := len(s.clients.tokens); n > 0 {
			s.verify(v, s.clients.tokens[s.rng.IntN(n)])
		}
	}
	if n := len(s.clients.tokens); n > 0 {
		s.verify(v, s.clients.tokens[n-1])
	}
}

// sign makes a token with the longest life at a replica that still may.
func (s *sim) sign(r *replica) {
	if !r.fresh() {
		return
	}
	now := r.clock()
	l := pick(s, r.doc.Lanes)
	k, ok := l.Active(now)
	if !ok {
		return
	}
	if held := pick(s, l.Keys); held.KID != k.KID && l.MaySign(held, now) {
		k = held // a caller built its header before the switch
		s.stats.GraceTokens++
	}
	if rec := s.ledger.keys[k.KID]; rec.destroyed && !rec.revoked {
		s.violate(6, "r%d signs with %s, whose private half was destroyed", r.id, k.KID)
	}
	s.stats.Tokens++
	t := token{k.KID, now.Add(r.doc.Policy.TokenTTLMax.Std())}
	if list := &s.clients.tokens; len(*list) < 24 {
		*list = append(*list, t)
	} else {
		(*list)[s.rng.IntN(len(*list))] = t
	}
}

// verify checks a token as a library does that keeps the set for C and fetches
// a new one only then.
func (s *sim) verify(v *verifier, t token) {
	if !date(s.now + v.bias).Before(t.expires.Add(s.leeway + s.knobs.extraLeeway)) {
		return
	}
	if v.set.doc.Generation == 0 || s.now > s.usable(v.set) {
		set, ok := s.get()
		if !ok {
			return
		}
		v.set = set
		v.set.fetched = s.now
	}
	s.stats.Verified++
	if _, known := v.set.doc.Key(t.kid); known {
		return
	}
	rec := s.ledger.keys[t.kid]
	switch {
	case rec.revoked:
	case rec.unready:
		s.stats.UnknownMet++
	case rec.removed:
		s.violate(2, "a verifier holds generation %d without %s, and the token is valid until %v", v.set.doc.Generation, t.kid, since(t.expires))
	default:
		s.violate(1, "a verifier holds generation %d, fetched at %v, without %s", v.set.doc.Generation, v.set.fetched, t.kid)
	}
}

// usable returns until when a verifier uses a set that it fetched.
func (s *sim) usable(set setCopy) time.Duration {
	g := &s.ledger
	span := 0
	for i, c := range g.cuts {
		if c.from <= set.fetched {
			span = i
		}
	}
	return g.keeps(span, set.fetched)
}

// get fetches the set, from a replica or through a cache.
func (s *sim) get() (setCopy, bool) {
	s.stats.Fetches++
	if s.chance(0.5) {
		return s.origin()
	}
	c := &s.clients.caches[s.rng.IntN(len(s.clients.caches))]
	if c.doc.Generation == 0 || s.now > c.until {
		set, ok := s.origin()
		if !ok {
			return setCopy{}, false
		}
		*c = set
	}
	return *c, true
}

// origin asks a replica that a balancer would choose, the stalest if it can.
func (s *sim) origin() (setCopy, bool) {
	var from *replica
	for _, r := range s.replicas {
		if r.fresh() && (from == nil || r.doc.Generation < from.doc.Generation || s.chance(0.3)) {
			from = r
		}
	}
	if from == nil {
		return setCopy{}, false
	}
	until := s.now + from.doc.Policy.JWKSMaxAge.Std() + s.knobs.extraMaxAge
	return setCopy{doc: *from.doc, fetched: s.now, until: until}, true
}

// roundTrip holds the document's text against the document.
func (s *sim) roundTrip(doc State) {
	s.stats.RoundTrips++
	data, err := doc.Encode()
	if err != nil {
		s.violate(7, "generation %d: %v", doc.Generation, err)
		return
	}
	back, err := Decode(data)
	if err != nil || !reflect.DeepEqual(back.Lanes, doc.Lanes) || back.Policy.Rotate != doc.Policy.Rotate {
		s.violate(7, "generation %d does not survive its own text: %v", doc.Generation, err)
	}
}
