package vault

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// maxSecret is far more than any private key.
const maxSecret = 256 << 10

// secretKey is a private key as KV keeps it. Keyset and kid are repeated, so
// that none passes for another.
type secretKey struct {
	Format int    `json:"format"`
	Keyset string `json:"keyset"`
	KID    string `json:"kid"`
	Secret []byte `json:"secret"`
}

func checkKey(keyset, kid string) error {
	if err := checkName("keyset", keyset); err != nil {
		return err
	}
	return checkName("kid", kid)
}

// CreateKey stores a private key. If it is stored already with the same
// secret, that is a success; with another, keystore.ErrExists.
//
// A policy need not allow overwriting: then Vault forbids what otherwise
// conflicts, and both are followed by a reading.
func (s *Store) CreateKey(ctx context.Context, keyset, kid string, secret []byte) (err error) {
	defer explained(&err, "storing private key %q of keyset %q", kid, keyset)
	if err := checkKey(keyset, kid); err != nil {
		return err
	}
	if len(secret) > maxSecret {
		return fmt.Errorf("%d bytes are too many, the most is %d", len(secret), maxSecret)
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	_, err = s.put(ctx, s.keyPath(keyset, kid), 0, secretKey{format, keyset, kid, secret})
	if !errors.Is(err, keystore.ErrConflict) && !errors.Is(err, ErrForbidden) {
		return err
	}
	there, present, readErr := s.readKey(ctx, keyset, kid)
	defer clear(present)
	switch {
	case readErr == nil && subtle.ConstantTimeCompare(present, secret) == 1:
		return nil
	case readErr == nil:
		return keystore.ErrExists
	case there.deleted:
		return fmt.Errorf("%w: it was deleted in Vault without its metadata: destroy it first", keystore.ErrExists)
	case errors.Is(readErr, keystore.ErrNotFound):
		return err // forbidden, or destroyed between the two requests
	default:
		return readErr
	}
}

// ReadKey returns a private key, or keystore.ErrNotFound. The memory belongs to
// the caller, who should clear it after use.
func (s *Store) ReadKey(ctx context.Context, keyset, kid string) (_ []byte, err error) {
	defer explained(&err, "reading private key %q of keyset %q", kid, keyset)
	if err := checkKey(keyset, kid); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	_, secret, err := s.readKey(ctx, keyset, kid)
	return secret, err
}

func (s *Store) readKey(ctx context.Context, keyset, kid string) (found, []byte, error) {
	var raw json.RawMessage
	f, err := s.get(ctx, s.keyPath(keyset, kid), 0, &raw)
	defer clear(raw)
	if err != nil {
		return f, nil, err
	}
	var k secretKey
	if json.Unmarshal(raw, &k) != nil || k.Format != format || k.Keyset != keyset || k.KID != kid {
		clear(k.Secret)
		return f, nil, fmt.Errorf("%w: it was not written by jwksd under this name", keystore.ErrCorrupt)
	}
	if k.Secret == nil {
		k.Secret = []byte{}
	}
	return f, k.Secret, nil
}

// DestroyKey destroys a private key: all versions and the metadata, since KV's
// own delete only marks a version. That there is none is a success.
//
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#delete-metadata-and-all-versions
func (s *Store) DestroyKey(ctx context.Context, keyset, kid string) (err error) {
	defer explained(&err, "destroying private key %q of keyset %q", kid, keyset)
	if err := checkKey(keyset, kid); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	err = s.client.Delete(ctx, s.mount+"/metadata/"+s.keyPath(keyset, kid))
	if errors.Is(err, keystore.ErrNotFound) {
		return nil
	}
	return err
}

// ListKeys returns the private keys of a keyset by their kids, those too that
// someone deleted without their metadata: their bytes are still there. The
// time is that of Vault's clock.
func (s *Store) ListKeys(ctx context.Context, keyset string) (_ []keystore.KeyInfo, err error) {
	defer explained(&err, "listing the private keys of keyset %q", keyset)
	if err := checkName("keyset", keyset); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	kids, err := s.list(ctx, s.keysPath(keyset))
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	created := make(map[string]time.Time, len(kids))
	err = each(ctx, kids, func(ctx context.Context, kid string) error {
		var meta struct {
			CreatedTime time.Time `json:"created_time"`
		}
		err := s.client.Read(ctx, s.mount+"/metadata/"+s.keyPath(keyset, kid), nil, &meta)
		if errors.Is(err, keystore.ErrNotFound) {
			return nil // destroyed since
		}
		mu.Lock()
		defer mu.Unlock()
		created[kid] = meta.CreatedTime
		return err
	})
	if err != nil {
		return nil, err
	}
	list := make([]keystore.KeyInfo, 0, len(kids))
	for _, kid := range kids {
		if at, ok := created[kid]; ok {
			list = append(list, keystore.KeyInfo{KID: kid, CreatedAt: at.UTC()})
		}
	}
	return list, nil
}
