package custody

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/vault"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

// Transit is the custody of keys that never leave Vault: each kid is a key of
// its own in the transit secrets engine, and every signature is a request.
//
// A kid is the thumbprint of a public key that Vault makes, so the key is named
// at random before it has a kid. The name stands as Handle in the state
// document. Keys that no document names are found by their names, which tell
// their keyset and their store, and known by the public half that Vault gives.
//
// It is safe for concurrent use.
type Transit struct {
	engine *vault.Transit
	tag    string
}

// NewTransit returns the custody of the keys that the state documents of one
// store name. store is what tells that store from others whose keys the same
// engine may hold, such as the mount and path of its documents: the keys of
// others are never taken for orphans.
func NewTransit(engine *vault.Transit, store string) *Transit {
	sum := sha256.Sum256([]byte(store))
	return &Transit{engine: engine, tag: encodeName(sum[:])[:tagLength]}
}

// The name of a key is jwksd-<keyset>-<tag><random>. A keyset may have hyphens,
// but the rest is of fixed length and has none.
const (
	namePrefix   = "jwksd-"
	tagLength    = 8  // 40 bits of the store's hash
	randomLength = 26 // 130 bits
)

func encodeName(b []byte) string {
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

func (c *Transit) newName(keyset string) (string, error) {
	if !jwks.ValidKeyset(keyset) {
		return "", fmt.Errorf("%q is no name of a keyset", keyset)
	}
	return namePrefix + keyset + "-" + c.tag + strings.ToLower(rand.Text()[:randomLength]), nil
}

// tagOf returns the tag of a name if it is that of a key of the keyset.
func tagOf(keyset, name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, namePrefix+keyset+"-")
	if !ok || len(rest) != tagLength+randomLength || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return "", false
	}
	return rest[:tagLength], true
}

// Create has Vault make a key, and proves that it signs before anybody
// publishes it.
func (c *Transit) Create(ctx context.Context, keyset, alg string, p rotation.Policy) (rotation.NewKey, error) {
	a, err := jwa.Lookup(alg)
	if err != nil {
		return rotation.NewKey{}, err
	}
	keyType, err := transitType(a, p.RSABits)
	if err != nil {
		return rotation.NewKey{}, err
	}
	name, err := c.newName(keyset)
	if err != nil {
		return rotation.NewKey{}, err
	}
	key, err := c.engine.Create(ctx, name, keyType)
	if err != nil {
		return rotation.NewKey{}, err // what may have been made is an orphan
	}
	made, err := c.describe(ctx, a, key, keyType)
	if err != nil {
		c.discard(ctx, name)
		return rotation.NewKey{}, err
	}
	return made, nil
}

// describe gives the public side of a key that was just made.
func (c *Transit) describe(ctx context.Context, a jwa.Algorithm, key vault.TransitKey, keyType string) (rotation.NewKey, error) {
	pub, err := key.Check(keyType)
	if err != nil {
		return rotation.NewKey{}, err
	}
	jwk, err := jwks.New(a.Name, pub)
	if err != nil {
		return rotation.NewKey{}, err
	}
	public, err := jwk.MarshalJSON()
	if err != nil {
		return rotation.NewKey{}, err
	}
	if err := signer.Prove(ctx, newTransitKey(c.engine, key.Name, a, jwk), pub); err != nil {
		return rotation.NewKey{}, fmt.Errorf("trying transit key %s: %w", key.Name, err)
	}
	return rotation.NewKey{KID: jwk.KID(), Algorithm: a.Name, Public: public, Handle: key.Name}, nil
}

// discardTimeout bounds the tidying up after a key that cannot be used.
const discardTimeout = 5 * time.Second

// discard destroys a key that nobody knows, if that is easily done. Otherwise
// it is an orphan like any other.
func (c *Transit) discard(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	_ = c.engine.Destroy(ctx, name)
}

// Open checks that the key in Vault is as Create made it and that its public
// half is the published one, and proves it by a signature. What it returns also
// signs many inputs at a time:
//
//	SignBatch(ctx context.Context, inputs [][]byte) (sigs [][]byte, errs []error)
func (c *Transit) Open(ctx context.Context, keyset string, k rotation.Key) (signer.Signing, error) {
	if k.Handle == "" {
		return nil, errors.New("the key has no name in Vault's transit engine: it is in another custody")
	}
	// Whatever is wrong with it, its day of destruction will come.
	a, err := jwa.Lookup(k.Algorithm)
	if err != nil {
		return nil, err // a newer version's key: nothing is wrong with it
	}
	jwk, err := jwks.Parse(k.Public)
	if err != nil {
		return nil, fmt.Errorf("published half: %w: %w", keystore.ErrCorrupt, err)
	}
	if jwk.KID() != k.KID || jwk.Algorithm() != k.Algorithm {
		return nil, fmt.Errorf("published half is of key %s for %s: %w", jwk.KID(), jwk.Algorithm(), keystore.ErrCorrupt)
	}
	keyType, err := transitType(a, bits(jwk.Public()))
	if err != nil {
		return nil, fmt.Errorf("published half: %w: %w", keystore.ErrCorrupt, err)
	}
	key, err := c.engine.Read(ctx, k.Handle)
	if err != nil {
		return nil, err
	}
	pub, err := key.Check(keyType)
	if err != nil {
		return nil, err
	}
	if !equal(pub, jwk.Public()) {
		return nil, fmt.Errorf("transit key %s: %w", k.Handle, signer.ErrMismatch)
	}
	opened := newTransitKey(c.engine, k.Handle, a, jwk)
	if err := signer.Prove(ctx, opened, pub); err != nil {
		return nil, fmt.Errorf("trying transit key %s: %w", k.Handle, err)
	}
	return opened, nil
}

// equal compares public keys as the standard library does.
func equal(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Destroy ends the key in Vault for good.
func (c *Transit) Destroy(ctx context.Context, keyset, kid, handle string) error {
	name, err := c.find(ctx, keyset, kid, handle)
	if err == nil {
		err = c.engine.Destroy(ctx, name)
	}
	if err != nil && !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	return nil
}

// find returns the name of the key with that kid, by what Vault says of it now.
// The error wraps keystore.ErrNotFound if there is none.
func (c *Transit) find(ctx context.Context, keyset, kid, handle string) (string, error) {
	if _, ours := tagOf(keyset, handle); ours {
		key, err := c.engine.Read(ctx, handle)
		switch {
		case err == nil && hasKID(key, kid):
			return key.Name, nil
		case err != nil && !errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrCorrupt):
			return "", err
		}
		// The document may name the wrong key, or the key is gone.
	}
	names, err := c.engine.Names(ctx)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		// The tag does not matter: the kid tells the key for certain, even if
		// the store was moved.
		if _, ours := tagOf(keyset, name); !ours {
			continue
		}
		key, err := c.engine.Read(ctx, name)
		if errors.Is(err, keystore.ErrNotFound) {
			continue
		}
		if err != nil {
			return "", err
		}
		if hasKID(key, kid) {
			return name, nil
		}
	}
	return "", fmt.Errorf("transit key of %s: %w", kid, keystore.ErrNotFound)
}

// hasKID tells whether a version of the key has that thumbprint. One that was
// rotated by other hands is still the one that the kid means.
func hasKID(key vault.TransitKey, kid string) bool {
	for _, v := range key.Versions {
		if got, err := jwks.Thumbprint(v.Public); err == nil && got == kid {
			return true
		}
	}
	return false
}

// List returns the keys that Vault holds for the keyset, whether or not a
// document names them. A key of a type that is never made here is passed over,
// even if it has such a name: it is somebody else's.
func (c *Transit) List(ctx context.Context, keyset string) ([]keystore.KeyInfo, error) {
	names, err := c.engine.Names(ctx)
	if err != nil {
		return nil, err
	}
	var list []keystore.KeyInfo
	for _, name := range names {
		if tag, ours := tagOf(keyset, name); !ours || tag != c.tag {
			continue
		}
		key, err := c.engine.Read(ctx, name)
		if errors.Is(err, keystore.ErrNotFound) {
			continue // destroyed since the names were listed
		}
		if err != nil {
			return nil, err
		}
		if len(key.Versions) == 0 {
			continue
		}
		first := key.Versions[slices.Min(slices.Collect(maps.Keys(key.Versions)))]
		kid, err := jwks.Thumbprint(first.Public)
		if err != nil {
			return nil, fmt.Errorf("transit key %s: %w: %w", name, keystore.ErrCorrupt, err)
		}
		list = append(list, keystore.KeyInfo{KID: kid, Handle: name, CreatedAt: first.CreatedAt})
	}
	slices.SortFunc(list, func(a, b keystore.KeyInfo) int { return strings.Compare(a.KID, b.KID) })
	return list, nil
}
