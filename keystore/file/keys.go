package file

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"github.com/jwksd/jwksd/keystore"
)

// A stored private key is 8 bytes of creation time (Unix nanoseconds,
// big-endian) and an age file. Its plaintext repeats keyset and kid, so that
// no entry passes for another:
//
//	"jwksd private key 1", NUL
//	keyset and kid, each after its length (4 bytes, big-endian)
//	the secret
const plainMagic = "jwksd private key 1\x00"

const sizeCreated = 8

// keyName is the name of an entry. checkName keeps NUL out of both parts.
func keyName(keyset, kid string) []byte {
	return []byte(keyset + "\x00" + kid)
}

func plainHeader(keyset, kid string) []byte {
	b := []byte(plainMagic)
	for _, name := range []string{keyset, kid} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
		b = append(b, name...)
	}
	return b
}

// seal makes the stored form of a private key.
func (s *Store) seal(keyset, kid string, secret []byte, created time.Time) ([]byte, error) {
	var raw bytes.Buffer
	raw.Write(binary.BigEndian.AppendUint64(nil, uint64(created.UnixNano())))
	w, err := age.Encrypt(&raw, s.identity.Recipient())
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plainHeader(keyset, kid)); err != nil {
		return nil, err
	}
	if _, err := w.Write(secret); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return raw.Bytes(), nil
}

// unseal returns the secret of a stored private key, in memory of its own. No
// error contains a part of it.
func (s *Store) unseal(keyset, kid string, raw []byte) ([]byte, error) {
	if len(raw) < sizeCreated {
		return nil, damaged(s.path, "a private key is too short")
	}
	r, err := age.Decrypt(bytes.NewReader(raw[sizeCreated:]), s.identity)
	if err != nil {
		return nil, damaged(s.path, "a private key cannot be decrypted")
	}
	plain := make([]byte, len(raw)) // the plaintext is shorter: no copies by growing
	n, err := io.ReadFull(r, plain)
	if err != io.ErrUnexpectedEOF {
		return nil, damaged(s.path, "a private key cannot be decrypted")
	}
	header := plainHeader(keyset, kid)
	if !bytes.HasPrefix(plain[:n], header) {
		clear(plain)
		return nil, damaged(s.path, "a private key stands under the name of another")
	}
	return plain[len(header):n:n], nil
}

func checkKey(keyset, kid string) error {
	if err := checkName("keyset", keyset); err != nil {
		return err
	}
	return checkName("kid", kid)
}

// errPresent carries the entry that CreateKey found in its place.
type errPresent struct{ raw []byte }

func (errPresent) Error() string { return "present" }

// CreateKey stores a private key. If it is stored already with the same
// secret, that is a success; with another, keystore.ErrExists.
func (s *Store) CreateKey(ctx context.Context, keyset, kid string, secret []byte) (err error) {
	defer explained(&err, "storing private key %q of keyset %q", kid, keyset)
	if err := checkKey(keyset, kid); err != nil {
		return err
	}
	if len(secret) > maxSecret {
		return fmt.Errorf("%d bytes are too many, the most is %d", len(secret), maxSecret)
	}
	sealed, err := s.seal(keyset, kid, secret, s.now())
	if err != nil {
		return err
	}
	var written bool
	err = s.update(ctx, func(tx *bbolt.Tx) error {
		keys, name := tx.Bucket(bucketKeys), keyName(keyset, kid)
		if raw := keys.Get(name); raw != nil {
			return errPresent{slices.Clone(raw)}
		}
		written = true
		return keys.Put(name, sealed)
	})
	var present errPresent
	if !errors.As(err, &present) {
		if err != nil && written {
			s.scrubWanted() // a page of the failed transaction may hold the key
		}
		return err
	}
	stored, err := s.unseal(keyset, kid, present.raw)
	if err != nil {
		return err
	}
	defer clear(stored)
	if subtle.ConstantTimeCompare(stored, secret) != 1 {
		return keystore.ErrExists
	}
	return nil
}

// ReadKey returns a private key, or keystore.ErrNotFound. The memory belongs
// to the caller, who should clear it after use.
func (s *Store) ReadKey(ctx context.Context, keyset, kid string) (_ []byte, err error) {
	defer explained(&err, "reading private key %q of keyset %q", kid, keyset)
	if err := checkKey(keyset, kid); err != nil {
		return nil, err
	}
	var raw []byte
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		if raw = slices.Clone(tx.Bucket(bucketKeys).Get(keyName(keyset, kid))); raw == nil {
			return keystore.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.unseal(keyset, kid, raw)
}

// DestroyKey deletes a private key for good; that there is none is a success.
// When it returns, the key cannot be read any more. Its encrypted bytes leave
// the file with the next scrub, which the package comment describes. An error
// may mean that only the scrub failed; it is repeated until it succeeds.
func (s *Store) DestroyKey(ctx context.Context, keyset, kid string) (err error) {
	defer explained(&err, "destroying private key %q of keyset %q", kid, keyset)
	if err := checkKey(keyset, kid); err != nil {
		return err
	}
	if err := s.lockWriter(ctx); err != nil {
		return err
	}
	defer s.unlockWriter()
	err = s.commit(func(tx *bbolt.Tx) error {
		keys, name := tx.Bucket(bucketKeys), keyName(keyset, kid)
		if keys.Get(name) == nil {
			return keystore.ErrNotFound
		}
		if err := keys.Delete(name); err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(rowDirty, []byte{1})
	})
	if errors.Is(err, keystore.ErrNotFound) {
		return s.scrubIfDue()
	}
	if err != nil {
		return err
	}
	s.setDirty(true)
	return s.scrubIfDue()
}

// ListKeys returns the private keys of a keyset in the order of their kids.
func (s *Store) ListKeys(ctx context.Context, keyset string) (list []keystore.KeyInfo, err error) {
	defer explained(&err, "listing the private keys of keyset %q", keyset)
	if err := checkName("keyset", keyset); err != nil {
		return nil, err
	}
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		prefix := keyName(keyset, "")
		c := tx.Bucket(bucketKeys).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if len(v) < sizeCreated {
				return damaged(s.path, "a private key is too short")
			}
			list = append(list, keystore.KeyInfo{
				KID:       string(k[len(prefix):]),
				CreatedAt: time.Unix(0, int64(binary.BigEndian.Uint64(v))).UTC(),
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}
