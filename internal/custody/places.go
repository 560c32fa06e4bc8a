package custody

import (
	"context"
	"fmt"

	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

// Custody is one place where private keys act: Local or Transit.
type Custody interface {
	Create(ctx context.Context, keyset, alg string, p rotation.Policy) (rotation.NewKey, error)
	Open(ctx context.Context, keyset string, k rotation.Key) (signer.Signing, error)
	Destroy(ctx context.Context, keyset, kid, handle string) error
	List(ctx context.Context, keyset string) ([]keystore.KeyInfo, error)
}

// Places is the custody of a daemon that has several: a new key goes where its
// keyset's policy says, and keys that exist are found where they are. A change
// of custody is thereby an ordinary rotation.
type Places map[rotation.Custody]Custody

// Create makes the key where the policy says.
func (p Places) Create(ctx context.Context, keyset, alg string, policy rotation.Policy) (rotation.NewKey, error) {
	place, ok := p[policy.Custody]
	if !ok {
		return rotation.NewKey{}, fmt.Errorf("custody %q is not configured on this replica", policy.Custody)
	}
	return place.Create(ctx, keyset, alg, policy)
}

// Open opens the key where its handle says.
func (p Places) Open(ctx context.Context, keyset string, k rotation.Key) (signer.Signing, error) {
	place, err := p.of(k.Handle)
	if err != nil {
		return nil, err
	}
	return place.Open(ctx, keyset, k)
}

// Destroy ends the key where its handle says.
func (p Places) Destroy(ctx context.Context, keyset, kid, handle string) error {
	place, err := p.of(handle)
	if err != nil {
		return err
	}
	return place.Destroy(ctx, keyset, kid, handle)
}

// of returns the place of a key: only those of transit have a handle.
func (p Places) of(handle string) (Custody, error) {
	kind := rotation.CustodyLocal
	if handle != "" {
		kind = rotation.CustodyTransit
	}
	place, ok := p[kind]
	if !ok {
		return nil, fmt.Errorf("custody %q is not configured on this replica", kind)
	}
	return place, nil
}

// List returns the keys of every place.
func (p Places) List(ctx context.Context, keyset string) ([]keystore.KeyInfo, error) {
	var all []keystore.KeyInfo
	for _, place := range p {
		infos, err := place.List(ctx, keyset)
		if err != nil {
			return nil, err
		}
		all = append(all, infos...)
	}
	return all, nil
}
