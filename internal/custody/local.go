// Package custody joins what makes and uses private keys to where they are
// kept, so that the rotator need not know either.
package custody

import (
	"context"
	"crypto"
	"fmt"

	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

// PrivateKeys keeps secrets by keyset and kid. Errors are those of package
// keystore.
type PrivateKeys interface {
	// CreateKey stores a secret once. The same call repeated succeeds.
	CreateKey(ctx context.Context, keyset, kid string, secret []byte) error
	ReadKey(ctx context.Context, keyset, kid string) ([]byte, error)
	// DestroyKey ends a secret for good; an absent one is no error.
	DestroyKey(ctx context.Context, keyset, kid string) error
	ListKeys(ctx context.Context, keyset string) ([]keystore.KeyInfo, error)
}

// Local is the custody of keys that are kept in a store and sign in memory. It
// is safe for concurrent use if its store is.
type Local struct {
	Keys PrivateKeys
}

// Create makes a key pair and stores the private half before it returns.
func (c Local) Create(ctx context.Context, keyset, alg string, p rotation.Policy) (rotation.NewKey, error) {
	priv, jwk, err := generate(alg, p.RSABits)
	if err != nil {
		return rotation.NewKey{}, err
	}
	public, err := jwk.MarshalJSON()
	if err != nil {
		return rotation.NewKey{}, err
	}
	secret, err := signer.MarshalPrivate(priv)
	if err != nil {
		return rotation.NewKey{}, err
	}
	defer clear(secret)
	if err := c.Keys.CreateKey(ctx, keyset, jwk.KID(), secret); err != nil {
		return rotation.NewKey{}, fmt.Errorf("storing the private half of %s: %w", jwk.KID(), err)
	}
	return rotation.NewKey{KID: jwk.KID(), Algorithm: alg, Public: public}, nil
}

// generate makes a key pair whose kid does not begin with a hyphen. One kid in
// 64 would, and on a command line it would be taken for a flag, in an emergency
// of all times.
func generate(alg string, rsaBits int) (crypto.Signer, jwks.JWK, error) {
	for {
		priv, err := signer.Generate(alg, rsaBits)
		if err != nil {
			return nil, jwks.JWK{}, err
		}
		jwk, err := jwks.New(alg, priv.Public())
		if err != nil || jwk.KID()[0] != '-' {
			return priv, jwk, err
		}
	}
}

// Open reads the private half and proves that it belongs to the published one.
// The error wraps signer.ErrMismatch if it does not, keystore.ErrNotFound if
// there is none, and keystore.ErrCorrupt if what is there can never sign.
func (c Local) Open(ctx context.Context, keyset string, k rotation.Key) (signer.Signing, error) {
	if _, err := jwa.Lookup(k.Algorithm); err != nil {
		return nil, err // a newer version's key: nothing is wrong with it
	}
	jwk, err := jwks.Parse(k.Public)
	if err != nil {
		return nil, fmt.Errorf("published half: %w: %w", keystore.ErrCorrupt, err)
	}
	if jwk.KID() != k.KID || jwk.Algorithm() != k.Algorithm {
		return nil, fmt.Errorf("published half is of key %s for %s: %w", jwk.KID(), jwk.Algorithm(), keystore.ErrCorrupt)
	}
	secret, err := c.Keys.ReadKey(ctx, keyset, k.KID)
	if err != nil {
		return nil, fmt.Errorf("reading the private half: %w", err)
	}
	defer clear(secret)
	priv, err := signer.ParsePrivate(secret)
	if err != nil {
		return nil, fmt.Errorf("reading the private half: %w: %w", keystore.ErrCorrupt, err)
	}
	key, err := signer.NewKey(k.Algorithm, k.KID, priv, jwk.Public())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
	}
	return key, nil
}

// Destroy ends the private half for good.
func (c Local) Destroy(ctx context.Context, keyset, kid, _ string) error {
	return c.Keys.DestroyKey(ctx, keyset, kid)
}

// List returns the private halves that are kept for the keyset.
func (c Local) List(ctx context.Context, keyset string) ([]keystore.KeyInfo, error) {
	return c.Keys.ListKeys(ctx, keyset)
}
