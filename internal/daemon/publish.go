package daemon

import (
	"errors"
	"sync"

	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// publisher turns the rotator's views into published sets, once a generation.
// It is safe for concurrent use.
type publisher struct {
	rotator  *rotator.Rotator
	expected func(keyset string) bool // a keyset that is about to exist
	sets     sync.Map                 // keyset to *edition
}

// edition is the set of one generation. The view is compared by identity: a
// generation is never two views with different keys.
type edition struct {
	generation uint64
	published  *jwks.Published
}

// Lookup implements jwks.Source.
func (p *publisher) Lookup(keyset string) (*jwks.Published, jwks.Status) {
	v, err := p.rotator.View(keyset)
	if err != nil {
		if p.expected(keyset) || errors.Is(err, rotator.ErrDocument) {
			return nil, jwks.Pending
		}
		return nil, jwks.Unknown
	}
	if e, ok := p.sets.Load(keyset); ok && e.(*edition).generation == v.State.Generation {
		return e.(*edition).published, jwks.Ready
	}
	published, err := publish(v.State)
	if err != nil {
		return nil, jwks.Pending
	}
	p.sets.Store(keyset, &edition{generation: v.State.Generation, published: published})
	return published, jwks.Ready
}

// publish renders every key that the document names, and nothing else: the set
// is the same on every replica of that generation.
func publish(s rotation.State) (*jwks.Published, error) {
	var keys []jwks.JWK
	for k := range s.Keys {
		jwk, err := jwks.Parse(k.Public)
		if err != nil {
			return nil, err
		}
		keys = append(keys, jwk)
	}
	set, err := jwks.NewSet(keys)
	if err != nil {
		return nil, err
	}
	return jwks.NewPublished(set, s.Policy.JWKSMaxAge.Std()), nil
}
