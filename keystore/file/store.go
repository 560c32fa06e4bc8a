package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"github.com/jwksd/jwksd/keystore"
)

// Bounds of what is stored. They are far above any honest use.
const (
	maxName     = 255      // bytes of the name of a keyset or key
	maxDocument = 16 << 20 // bytes of a document
	maxSecret   = 1 << 20  // bytes of a private key
)

// Store is an open database. Its methods may be called from any goroutine.
type Store struct {
	dir          string
	path         string // of the database
	identityPath string
	identity     *age.X25519Identity
	now          func() time.Time
	interval     time.Duration // between two scrubs
	log          *slog.Logger

	changes *changes

	// writer holds one token: whoever puts it in may write. It is a channel,
	// not a mutex, so that waiting for it ends with the caller's context.
	writer chan struct{}

	// gate guards the handle, not the data: transactions hold it shared, and
	// replacing or closing the database holds it alone.
	gate sync.RWMutex
	db   *handle // nil once closed

	// broken is set for good when the database can no longer be trusted.
	broken atomic.Pointer[error]

	// Owned by the holder of writer.
	lastScrub   time.Time
	dirUnsynced bool // the directory entry of the database may not be on the disk

	mu    sync.Mutex // guards what follows, and is held for moments only
	dirty bool       // the file may hold bytes of destroyed keys
	timer *time.Timer
	ended bool // Close was called
	late  sync.WaitGroup
}

// handle is a database together with its file, which bbolt keeps to itself.
type handle struct {
	*bbolt.DB
	file *os.File
}

var errClosed = errors.New("the store is closed")

// lockWriter waits for the right to write. The caller must call unlockWriter
// if it returns nil.
func (s *Store) lockWriter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.writer <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) unlockWriter() { <-s.writer }

// view runs fn in a read transaction. Nothing that fn got from the
// transaction may be used after it returned.
func (s *Store) view(ctx context.Context, fn func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	return s.guard(func() error { return s.db.View(fn) })
}

// update runs fn in one durable transaction. An error of fn undoes it.
func (s *Store) update(ctx context.Context, fn func(*bbolt.Tx) error) error {
	if err := s.lockWriter(ctx); err != nil {
		return err
	}
	defer s.unlockWriter()
	return s.commit(fn)
}

// commit is update for those who hold writer already.
func (s *Store) commit(fn func(*bbolt.Tx) error) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	if s.dirUnsynced { // otherwise a power cut could bring the replaced file back
		if err := syncDir(s.dir); err != nil {
			return unwritten(s.dir, err)
		}
		s.dirUnsynced = false
	}
	return s.guard(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return unwritten(s.path, err)
		}
		defer tx.Rollback() // does nothing after Commit
		id := tx.ID()
		if err := fn(tx); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return s.commitFailed(id, err)
		}
		return nil
	})
}

// commitFailed says what a failed commit left. If the transaction is not to be
// seen, it did not happen: nothing refers to the pages it wrote. If it is, then
// its last fsync failed, and what the disk has is anybody's guess.
func (s *Store) commitFailed(id int, cause error) error {
	seen := id
	_ = s.db.View(func(tx *bbolt.Tx) error { seen = tx.ID(); return nil })
	if seen < id {
		return unwritten(s.path, cause)
	}
	return s.fail(fmt.Errorf("%s: the last write may or may not survive: %w; check the disk, then restart jwksd", s.path, cause))
}

// usable must be called with gate held.
func (s *Store) usable() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	if s.db == nil {
		return errClosed
	}
	return nil
}

// fail makes err the answer to every later call.
func (s *Store) fail(err error) error {
	s.broken.CompareAndSwap(nil, &err)
	return err
}

// guard turns a panic of bbolt, and a fault in the memory it has mapped, into
// an error. Both mean that the file changed under our feet. bbolt's locks may
// be left taken, and so the store must not be used any further.
func (s *Store) guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = s.fail(damaged(s.path, fmt.Sprint(r)))
		}
	}()
	return do()
}

// Close scrubs the database if that is due, and releases it. Calls after the
// first do nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.ended = true
	if s.timer != nil && s.timer.Stop() {
		s.late.Done()
	}
	dirty := s.dirty
	s.mu.Unlock()

	s.writer <- struct{}{}
	var err error
	if dirty && s.broken.Load() == nil {
		err = s.scrub() // if it fails, the next Open does it
	}
	s.gate.Lock()
	db := s.db
	s.db = nil
	s.gate.Unlock()
	if s.broken.Load() != nil {
		err = errors.Join(err, db.file.Close()) // bbolt may hang on locks left taken
	} else {
		err = errors.Join(err, db.Close())
	}
	s.unlockWriter()
	s.late.Wait()
	if err != nil {
		return fmt.Errorf("closing %s: %w", s.path, err)
	}
	return nil
}

// checkName refuses the names that the database could not keep apart, and
// those that could only be a mistake.
func checkName(what, name string) error {
	if name == "" {
		return fmt.Errorf("%s: the name is empty", what)
	}
	if len(name) > maxName {
		return fmt.Errorf("%s: the name has %d bytes, more than %d", what, len(name), maxName)
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("%s %q: the name is not valid UTF-8", what, name)
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("%s %q: the name has a control character", what, name)
		}
	}
	return nil
}

// explained adds to every error of an operation what was being done.
func explained(err *error, format string, args ...any) {
	if *err != nil {
		*err = fmt.Errorf(format+": %w", append(args, *err)...)
	}
}

var _ interface {
	Load(ctx context.Context, keyset string) (keystore.Document, error)
	Swap(ctx context.Context, keyset string, old keystore.Version, data []byte) (keystore.Version, error)
	Changes(ctx context.Context, since keystore.Cursor) ([]string, keystore.Cursor, error)
	CreateKey(ctx context.Context, keyset, kid string, secret []byte) error
	ReadKey(ctx context.Context, keyset, kid string) ([]byte, error)
	DestroyKey(ctx context.Context, keyset, kid string) error
	ListKeys(ctx context.Context, keyset string) ([]keystore.KeyInfo, error)
} = (*Store)(nil)
