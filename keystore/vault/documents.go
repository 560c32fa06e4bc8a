package vault

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/jwksd/jwksd/keystore"
)

const (
	format = 1
	// stateVersions is how many versions of a state document Vault keeps: for
	// people, and so that a writer finds its own after others wrote again.
	stateVersions = 10
	// maxDocument stays below what Vault's raft storage takes as one entry,
	// 1 MiB by default, with what JSON adds.
	maxDocument = 512 << 10
)

// stored is a state document as KV keeps it. Text is the document where that
// is UTF-8, so that people can read it in Vault; otherwise Bytes is.
type stored struct {
	Format int    `json:"format"`
	Keyset string `json:"keyset"`
	Nonce  string `json:"nonce"`
	// Void: there is no document. It stands where one was announced and never
	// written, so that it cannot be written late; see fence.
	Void  bool    `json:"void,omitempty"`
	Text  *string `json:"document,omitempty"`
	Bytes []byte  `json:"document_base64,omitempty"`
}

func newStored(keyset string, data []byte) stored {
	d := stored{Format: format, Keyset: keyset, Nonce: rand.Text()}
	if utf8.Valid(data) {
		text := string(data)
		d.Text = &text
	} else {
		d.Bytes = data
	}
	return d
}

func (d stored) data() []byte {
	if d.Text != nil {
		return []byte(*d.Text)
	}
	return d.Bytes
}

// parse refuses what this package did not write under this name.
func parse(keyset string, raw json.RawMessage) (stored, error) {
	var d stored
	why := ""
	switch err := json.Unmarshal(raw, &d); {
	case err != nil || d.Format == 0:
		why = "it was not written by jwksd"
	case d.Format > format:
		why = fmt.Sprintf("it has format %d, written by a newer jwksd: run that one", d.Format)
	case d.Keyset != keyset:
		why = fmt.Sprintf("it belongs to keyset %q", d.Keyset)
	case d.Nonce == "" || !d.Void && d.Text == nil && d.Bytes == nil:
		why = "a part is missing"
	default:
		return d, nil
	}
	return stored{}, fmt.Errorf("%w: %s: bring back a good version (vault kv rollback)", keystore.ErrCorrupt, why)
}

// A Version is Vault's counter and the nonce of the document. The counter alone
// would repeat after a backup was restored, and a replica that had slept could
// overwrite what it never saw.
func makeVersion(n int64, nonce string) keystore.Version {
	return keystore.Version(strconv.FormatInt(n, 10) + "-" + nonce)
}

// at reads the document where it stands, which is not always a document.
func (s *Store) at(ctx context.Context, keyset string) (found, stored, error) {
	var raw json.RawMessage
	f, err := s.get(ctx, s.statePath(keyset), 0, &raw)
	if err != nil {
		return f, stored{}, err
	}
	d, err := parse(keyset, raw)
	return f, d, err
}

// Load returns the document of the keyset, or keystore.ErrNotFound. One that
// was deleted in Vault, by hand, counts as missing.
func (s *Store) Load(ctx context.Context, keyset string) (doc keystore.Document, err error) {
	defer explained(&err, "loading the document of keyset %q", keyset)
	if err := checkName("keyset", keyset); err != nil {
		return keystore.Document{}, err
	}
	if err := s.ready(ctx); err != nil {
		return keystore.Document{}, err
	}
	f, d, err := s.newest(ctx, keyset)
	switch {
	case f.deleted:
		return keystore.Document{}, fmt.Errorf("%w: version %d was deleted in Vault: bring it back (vault kv undelete)", keystore.ErrNotFound, f.version)
	case err != nil:
		return keystore.Document{}, err
	case d.Void:
		return keystore.Document{}, keystore.ErrNotFound
	}
	return keystore.Document{Version: makeVersion(f.version, d.Nonce), Data: d.data()}, nil
}

// Swap replaces the document if it is at version old, the zero version standing
// for absence. After any error but keystore.ErrConflict it may be written all
// the same, now or later: read it to know.
//
// The order is: announce in head, then write. See head.go for why.
func (s *Store) Swap(ctx context.Context, keyset string, old keystore.Version, data []byte) (_ keystore.Version, err error) {
	defer explained(&err, "replacing the document of keyset %q", keyset)
	if err := checkName("keyset", keyset); err != nil {
		return "", err
	}
	if len(data) > maxDocument {
		return "", fmt.Errorf("%d bytes are too many, the most is %d", len(data), maxDocument)
	}
	if err := s.ready(ctx); err != nil {
		return "", err
	}
	cas, err := s.expect(ctx, keyset, old)
	if err != nil {
		return "", err
	}
	if err := s.announce(ctx, keyset, cas); err != nil {
		return "", fmt.Errorf("announcing the change: %w", err)
	}
	if cas == 0 {
		if err := s.guard(ctx, s.statePath(keyset), stateVersions); err != nil {
			return "", err
		}
	}
	d := newStored(keyset, data)
	n, err := s.put(ctx, s.statePath(keyset), cas, d)
	if errors.Is(err, keystore.ErrConflict) && s.isOurs(ctx, keyset, cas+1, d.Nonce) {
		n, err = cas+1, nil
	}
	if err != nil {
		return "", err
	}
	s.floors.note(keyset, n)
	return makeVersion(n, d.Nonce), nil
}

// expect returns Vault's counter of the version that is to be replaced, or
// keystore.ErrConflict. It reads the document, since a counter may repeat.
func (s *Store) expect(ctx context.Context, keyset string, old keystore.Version) (int64, error) {
	f, d, err := s.at(ctx, keyset)
	if f.deleted || err != nil && !errors.Is(err, keystore.ErrNotFound) {
		if f.deleted { // nobody bootstraps over it
			return 0, fmt.Errorf("%w: version %d was deleted in Vault: bring it back (vault kv undelete)", keystore.ErrConflict, f.version)
		}
		return 0, err
	}
	current := keystore.Version("")
	if err == nil && !d.Void {
		current = makeVersion(f.version, d.Nonce)
	}
	if current != old {
		return 0, keystore.ErrConflict
	}
	return f.version, nil
}

// isOurs tells whether a version of the document is the one that this call
// wrote. A node between us and the active one may have sent the write twice,
// and the second then conflicts with the first.
func (s *Store) isOurs(ctx context.Context, keyset string, version int64, nonce string) bool {
	var raw json.RawMessage
	if _, err := s.get(ctx, s.statePath(keyset), version, &raw); err != nil {
		return false
	}
	d, err := parse(keyset, raw)
	return err == nil && d.Nonce == nonce
}

// states returns the names of all keysets.
func (s *Store) states(ctx context.Context) ([]string, error) {
	return s.list(ctx, s.path+"/state")
}

// counter returns Vault's counter of a state document, whatever stands there.
func (s *Store) counter(ctx context.Context, keyset string) (found, json.RawMessage, error) {
	var raw json.RawMessage
	f, err := s.get(ctx, s.statePath(keyset), 0, &raw)
	if errors.Is(err, keystore.ErrNotFound) {
		err = nil
	}
	return f, raw, err
}

// newest is at, asked again while the answer is older than an earlier one.
func (s *Store) newest(ctx context.Context, keyset string) (found, stored, error) {
	for n := 1; ; n++ {
		f, d, err := s.at(ctx, keyset)
		absent := f.version == 0 && errors.Is(err, keystore.ErrNotFound)
		if err != nil && !absent || s.floors.note(keyset, f.version) {
			return f, d, err
		}
		if n == attempts || sleep(ctx, jitter(firstWait)) != nil {
			return f, d, outdated()
		}
	}
}

// outdated is an answer from before another one.
func outdated() error {
	return &Error{kinds: []error{ErrStandby}, text: "Vault answers with an older version than before: a node that lost its leadership, which passes by itself, or the document was put back by hand, which is believed after some seconds"}
}

// errReset: the counter of a document is lower than it was, as after its
// metadata was deleted by hand.
var errReset = errors.New("the version counter was reset")

// fence makes sure that nobody can replace version n of the document any more,
// without changing what it says: the same is written as version n+1, and where
// there was nothing, a mark that says so.
func (s *Store) fence(ctx context.Context, keyset string, n int64) error {
	f, raw, err := s.counter(ctx, keyset)
	switch {
	case err != nil:
		return err
	case f.version < n:
		return errReset
	case f.version > n || f.deleted:
		return nil
	}
	var content any = raw
	if n == 0 {
		if err := s.guard(ctx, s.statePath(keyset), stateVersions); err != nil {
			return err
		}
		content = stored{Format: format, Keyset: keyset, Nonce: rand.Text(), Void: true}
	}
	_, err = s.put(ctx, s.statePath(keyset), n, content)
	if errors.Is(err, keystore.ErrConflict) {
		return nil // it is past n by itself
	}
	return err
}
