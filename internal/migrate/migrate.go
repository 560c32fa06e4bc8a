// Package migrate moves keysets from one store to another while no daemon runs
// on the first: private keys, then the state document, unchanged. Since the set
// that is published follows from the document alone, no verifier notices.
//
// It can be repeated after a crash at any step, and goes on where it was. The
// source is never changed.
package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

// Source is the store that is left. Errors are those of package keystore.
type Source interface {
	Load(ctx context.Context, keyset string) (keystore.Document, error)
	// Changes returns every keyset for the zero cursor.
	Changes(ctx context.Context, since keystore.Cursor) ([]string, keystore.Cursor, error)
	custody.PrivateKeys
}

// Target is the store that is moved to. Errors are those of package keystore.
type Target interface {
	Load(ctx context.Context, keyset string) (keystore.Document, error)
	Swap(ctx context.Context, keyset string, old keystore.Version, data []byte) (keystore.Version, error)
	custody.PrivateKeys
}

// Options of Run.
type Options struct {
	Source Source
	Target Target
	// Now is the clock that tells which private keys are still needed.
	Now func() time.Time
	// DryRun looks, and writes nothing.
	DryRun bool
	// Progress hears of each step; nil if nobody listens.
	Progress func(format string, args ...any)
}

// Keyset is what became of a keyset, or with DryRun would.
type Keyset struct {
	Keyset     string `json:"keyset"`
	Generation uint64 `json:"generation"`
	// Keys are the private keys that are in the target now.
	Keys int `json:"keys"`
	// Lost are the keys whose private half was unusable before already. They
	// stay published as before, and jwksd replaces them as it would have done.
	Lost []string `json:"lost,omitempty"`
	// Done before: the document was in the target when Run began.
	Done bool `json:"done_before"`
}

// ErrDiffers: the target has another document for a keyset, so that the two
// stores went different ways. Nothing was written.
var ErrDiffers = errors.New("the target has another document")

// Run copies every keyset, in the order of their names. It looks at all of them
// before it writes anything, so that a target that does not fit is left as it
// was. After any other error it can be repeated.
func Run(ctx context.Context, opt Options) ([]Keyset, error) {
	if opt.Progress == nil {
		opt.Progress = func(string, ...any) {}
	}
	names, _, err := opt.Source.Changes(ctx, "")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var moves []*move
	for _, name := range names {
		m, err := opt.plan(ctx, name)
		if err != nil {
			return nil, err
		}
		moves = append(moves, m)
	}
	var done []Keyset
	for _, m := range moves {
		if opt.DryRun {
			done = append(done, m.Keyset)
			continue
		}
		if err := opt.move(ctx, m); err != nil {
			return done, fmt.Errorf("keyset %s: %w", m.Keyset.Keyset, err)
		}
		done = append(done, m.Keyset)
	}
	return done, nil
}

// move is one keyset on its way.
type move struct {
	Keyset
	data []byte
	keys []rotation.Key // those whose private half is needed, and usable
}

// plan reads what must be moved, and refuses what cannot be.
func (opt Options) plan(ctx context.Context, name string) (*move, error) {
	doc, err := opt.Source.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	s, err := rotation.Decode(doc.Data)
	if err == nil && s.Keyset != name {
		err = fmt.Errorf("it belongs to keyset %s", s.Keyset)
	}
	if err != nil {
		return nil, fmt.Errorf("the document of keyset %s: %w", name, err)
	}
	m := &move{Keyset: Keyset{Keyset: name, Generation: s.Generation}, data: doc.Data}
	if m.Done, err = opt.arrived(ctx, m); err != nil {
		return nil, err
	}
	now := opt.Now()
	for k := range s.Keys {
		if !k.DestroyAt.IsZero() && !k.DestroyAt.After(now) {
			continue
		}
		_, err := custody.Local{Keys: opt.Source}.Open(ctx, name, k)
		switch {
		case err == nil:
			m.keys = append(m.keys, k)
		case lost(err):
			m.Lost = append(m.Lost, k.KID)
			opt.Progress("keyset %s: the private half of key %s is lost already: %v", name, k.KID, err)
		default:
			return nil, fmt.Errorf("keyset %s: key %s: %w", name, k.KID, err)
		}
	}
	m.Keys = len(m.keys)
	opt.Progress("keyset %s: generation %d, private keys to copy: %d", name, m.Generation, m.Keys)
	return m, nil
}

// lost tells whether a private half can never be used again, wherever it is.
func lost(err error) bool {
	return errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrCorrupt) || errors.Is(err, signer.ErrMismatch)
}

// arrived tells whether the target has the document already. Another one than
// ours is an error that wraps ErrDiffers.
func (opt Options) arrived(ctx context.Context, m *move) (bool, error) {
	there, err := opt.Target.Load(ctx, m.Keyset.Keyset)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case bytes.Equal(there.Data, m.data):
		return true, nil
	}
	which := "one that cannot be read"
	if s, err := rotation.Decode(there.Data); err == nil {
		which = fmt.Sprintf("generation %d of %s", s.Generation, s.UpdatedAt.Format(time.RFC3339))
	}
	return false, fmt.Errorf("keyset %s: %w: %s there, generation %d here: if a daemon runs on the target since an earlier migration, that one is right; otherwise choose another path", m.Keyset.Keyset, ErrDiffers, which, m.Generation)
}

// move copies a keyset. The private keys come first: a document in the target
// always finds the keys it names, whenever this is cut short. Keys that are
// there without a document also keep a daemon on the target from founding the
// keyset anew once they are old enough to be no founding under way.
func (opt Options) move(ctx context.Context, m *move) error {
	for _, k := range m.keys {
		if err := opt.copyKey(ctx, m.Keyset.Keyset, k); err != nil {
			return err
		}
	}
	if !m.Done {
		_, err := opt.Target.Swap(ctx, m.Keyset.Keyset, "", m.data)
		// A reply can be lost: only the document tells.
		arrived, readErr := opt.arrived(ctx, m)
		switch {
		case readErr != nil:
			return errors.Join(err, readErr)
		case !arrived && err != nil:
			return err
		case !arrived:
			return errors.New("the document was written and is not there")
		}
	}
	opt.Progress("keyset %s: moved and checked", m.Keyset.Keyset)
	return nil
}

// copyKey copies a private key unless it is there, and proves what is there then
// by a signature.
func (opt Options) copyKey(ctx context.Context, keyset string, k rotation.Key) error {
	secret, err := opt.Source.ReadKey(ctx, keyset, k.KID)
	if err != nil {
		return err
	}
	defer clear(secret)
	if err := opt.Target.CreateKey(ctx, keyset, k.KID, secret); err != nil {
		return err
	}
	if _, err := (custody.Local{Keys: opt.Target}).Open(ctx, keyset, k); err != nil {
		return fmt.Errorf("checking key %s in the target: %w", k.KID, err)
	}
	opt.Progress("keyset %s: private key %s copied and checked", keyset, k.KID)
	return nil
}
