package file

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/jwksd/jwksd/keystore"
)

// A stored document is a header and its data:
//
//	8 bytes   count, big-endian: how often it was replaced
//	12 bytes  nonce, random
//	4 bytes   CRC-32C of the keyset, count, nonce and data, big-endian
//
// Count and nonce are the version. The count alone would repeat after a backup
// was restored, and a replica that had slept could overwrite what it never saw.
// The sum finds decayed bits, and an entry under a wrong name.
const (
	sizeVersion = 8 + 12
	sizeHeader  = sizeVersion + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(keyset string, version, data []byte) uint32 {
	h := crc32.New(castagnoli)
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(keyset))))
	h.Write([]byte(keyset))
	h.Write(version)
	h.Write(data)
	return h.Sum32()
}

// pack makes the stored form of a document that follows the one numbered count.
func pack(keyset string, count uint64, data []byte) []byte {
	raw := make([]byte, sizeHeader, sizeHeader+len(data))
	binary.BigEndian.PutUint64(raw, count+1)
	rand.Read(raw[8:sizeVersion])
	binary.BigEndian.PutUint32(raw[sizeVersion:], sum(keyset, raw[:sizeVersion], data))
	return append(raw, data...)
}

// unpack checks a stored document. The result shares the memory of raw.
func (s *Store) unpack(keyset string, raw []byte) (version, data []byte, err error) {
	if len(raw) < sizeHeader {
		return nil, nil, damaged(s.path, "a document is too short")
	}
	version, data = raw[:sizeVersion], raw[sizeHeader:]
	if binary.BigEndian.Uint32(raw[sizeVersion:]) != sum(keyset, version, data) {
		return nil, nil, damaged(s.path, "a document does not match its checksum")
	}
	return version, data, nil
}

func versionOf(raw []byte) keystore.Version {
	return keystore.Version(hex.EncodeToString(raw[:sizeVersion]))
}

// Load returns the document of the keyset, or keystore.ErrNotFound.
func (s *Store) Load(ctx context.Context, keyset string) (doc keystore.Document, err error) {
	defer explained(&err, "loading the document of keyset %q", keyset)
	if err := checkName("keyset", keyset); err != nil {
		return keystore.Document{}, err
	}
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		raw := tx.Bucket(bucketDocuments).Get([]byte(keyset))
		if raw == nil {
			return keystore.ErrNotFound
		}
		version, data, err := s.unpack(keyset, raw)
		if err != nil {
			return err
		}
		doc = keystore.Document{Version: versionOf(version), Data: slices.Clone(data)}
		return nil
	})
	return doc, err
}

// Swap replaces the document if it is still at version old, where the zero
// version stands for "there is none", and returns its new version. With
// keystore.ErrConflict nothing was written.
func (s *Store) Swap(ctx context.Context, keyset string, old keystore.Version, data []byte) (_ keystore.Version, err error) {
	defer explained(&err, "replacing the document of keyset %q", keyset)
	if err := checkName("keyset", keyset); err != nil {
		return "", err
	}
	if len(data) > maxDocument {
		return "", fmt.Errorf("%d bytes are too many, the most is %d", len(data), maxDocument)
	}
	if err := s.lockWriter(ctx); err != nil {
		return "", err
	}
	defer s.unlockWriter()
	var next []byte
	err = s.commit(func(tx *bbolt.Tx) error {
		documents := tx.Bucket(bucketDocuments)
		var current keystore.Version
		var count uint64
		if raw := documents.Get([]byte(keyset)); raw != nil {
			version, _, err := s.unpack(keyset, raw)
			if err != nil {
				return err
			}
			current, count = versionOf(version), binary.BigEndian.Uint64(version)
		}
		if current != old {
			return keystore.ErrConflict
		}
		next = pack(keyset, count, data)
		return documents.Put([]byte(keyset), next)
	})
	if err != nil {
		return "", err
	}
	s.changes.record(keyset) // under writer: in the order of the commits
	return versionOf(next), nil
}
