package daemon

import (
	"errors"
	"sync"

	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// publisher turns the rotator's views into published sets, once for each view.
// It is safe for concurrent use.
type publisher struct {
	rotator  *rotator.Rotator
	expected func(keyset string) bool // a keyset that is about to exist
	sets     sync.Map                 // keyset to *edition
}

// edition is the set of one view.
type edition struct {
	view      *rotator.View
	published *jwks.Published
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
	if e, ok := p.sets.Load(keyset); ok && e.(*edition).view == v {
		return e.(*edition).published, jwks.Ready
	}
	published, err := publish(v)
	if err != nil {
		return nil, jwks.Pending
	}
	p.sets.Store(keyset, &edition{view: v, published: published})
	return published, jwks.Ready
}

// publish renders every key that the document names: the set is the same on
// every replica of that generation.
func publish(v *rotator.View) (*jwks.Published, error) {
	var keys []jwks.JWK
	for k := range v.Published {
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
	return jwks.NewPublished(set, v.State.Policy.JWKSMaxAge.Std()), nil
}
