package file

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"github.com/jwksd/jwksd/keystore"
)

// DatabaseName is the name of the database in the directory of a store.
const DatabaseName = "jwksd.db"

const (
	identityName = "identity.txt"
	defaultScrub = 10 * time.Second
)

// The layout of the database. A change that an older jwksd would misread
// raises the format number.
var (
	bucketMeta      = []byte("jwksd")     // the rows below
	bucketDocuments = []byte("documents") // keyset: see documents.go
	bucketKeys      = []byte("keys")      // keyset, NUL, kid: see keys.go

	rowFormat    = []byte("format")    // 4 bytes, big-endian
	rowRecipient = []byte("recipient") // of the identity that encrypts the keys
	rowDirty     = []byte("dirty")     // present while a scrub is due
)

const format = 1

// Options says where the store is and how it behaves.
type Options struct {
	// Dir holds the database, jwksd.db. It is created, with its parents, if it
	// is missing. Required.
	Dir string

	// Identity is the file of the age identity that encrypts the private keys,
	// by default identity.txt in Dir. It is generated together with the
	// database, never for a database that exists.
	Identity string

	// ScrubInterval is the shortest time between two scrubs, 10 s by default.
	// The bytes of a destroyed key are gone after at most that long, and at
	// once if it is negative.
	ScrubInterval time.Duration

	// Now is the clock for the creation time of keys, by default time.Now.
	Now func() time.Time

	// Logger hears what goes wrong when no caller is there to be told: a scrub
	// that failed and will be repeated. By default nobody does.
	Logger *slog.Logger
}

// Open opens the store, and creates it if there is none. The errors that a
// caller may want to tell apart wrap [keystore.ErrLocked] and
// [keystore.ErrCorrupt]; every error names the file and says what to do.
func Open(o Options) (_ *Store, err error) {
	defer explained(&err, "opening the file store")
	s, err := newStore(o)
	if err != nil {
		return nil, err
	}
	if err := prepareDir(s.dir); err != nil {
		return nil, err
	}
	f, err := s.openOrCreate()
	if err != nil {
		return nil, err
	}
	if err := s.start(f); err != nil {
		if s.db != nil {
			s.db.Close()
		}
		f.Close()
		return nil, err
	}
	return s, nil
}

func newStore(o Options) (*Store, error) {
	if o.Dir == "" {
		return nil, errors.New("no directory is given")
	}
	dir, err := filepath.Abs(o.Dir) // the working directory may change later
	if err != nil {
		return nil, err
	}
	if o.Identity == "" {
		o.Identity = filepath.Join(dir, identityName)
	}
	if o.Identity, err = filepath.Abs(o.Identity); err != nil {
		return nil, err
	}
	s := &Store{
		dir:          dir,
		path:         filepath.Join(dir, DatabaseName),
		identityPath: o.Identity,
		now:          o.Now,
		interval:     o.ScrubInterval,
		log:          o.Logger,
		writer:       make(chan struct{}, 1),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.interval == 0 {
		s.interval = defaultScrub
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// prepareDir makes sure that dir is a directory in which files can be created
// and replaced, by us and by nobody else: who can write there, or rename it,
// could plant links to other people's files and have us write to them.
func prepareDir(dir string) error {
	if err := makeDir(dir); err != nil {
		return advise(dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return advise(dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if err := checkOwn(dir, info); err != nil {
		return err
	}
	if err := mayWrite(dir); err != nil {
		return advise(dir, err)
	}
	return nil
}

// checkOwn refuses a directory that others may write to or that belongs to
// somebody else, and one that just anybody could move out of the way.
func checkOwn(dir string, info fs.FileInfo) error {
	if uid, other := OwnedByOther(info); other {
		return fmt.Errorf("%s belongs to user %d, who could plant files there; this jwksd runs as user %d: run it as user %d, or change the owner (`chown -R %d %s`)", dir, uid, os.Geteuid(), uid, os.Geteuid(), dir)
	}
	if mode := info.Mode(); writableByOthers(mode) {
		return fmt.Errorf("%s can be written to by group or others (mode %04o), who could plant files there: run `chmod go-w %s` and look for files that are not yours, or choose a new directory below it", dir, mode.Perm(), dir)
	}
	if link, err := os.Lstat(dir); err != nil {
		return advise(dir, err)
	} else if uid, other := OwnedByOther(link); other {
		return fmt.Errorf("%s is a symbolic link of user %d, who could point it elsewhere: name the directory itself, or make the link yours (`chown -h %d %s`)", dir, uid, os.Geteuid(), dir)
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return advise(dir, err)
	}
	parent := filepath.Dir(resolved)
	above, err := os.Stat(parent)
	if err != nil {
		return advise(parent, err)
	}
	if mode := above.Mode(); mode.Perm()&0o002 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("anybody could replace %s, since everyone may write to %s (mode %04o, no sticky bit): run `chmod o-w %s`, or choose another directory", dir, parent, mode.Perm(), parent)
	}
	return nil
}

// makeDir is os.MkdirAll, except that what it makes is durable.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDir(filepath.Dir(dir)); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// openOrCreate returns the locked file of the database.
func (s *Store) openOrCreate() (*os.File, error) {
	if info, err := os.Lstat(s.path); err == nil && !info.Mode().IsRegular() {
		return nil, damaged(s.path, "it is not a regular file (a scrub could not replace a symbolic link: let the directory be the link)")
	}
	f, err := openLocked(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.create(); err != nil {
			return nil, err
		}
		f, err = openLocked(s.path)
	}
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, keystore.ErrLocked):
		return nil, fmt.Errorf("the directory %s is %w: stop the other jwksd, or give this one a directory of its own", s.dir, err)
	default:
		return nil, advise(s.path, err)
	}
}

// create makes a new database, identity first: a crash between the two leaves
// an identity that nothing depends on, and that the next try takes up. The
// database appears under its name only when it is complete.
func (s *Store) create() error {
	identity, err := createIdentity(s.identityPath, s.now())
	if err != nil {
		return err
	}
	err = createFile(s.path, func(f *os.File) error {
		// bbolt closes the file it is given, but the caller needs it after.
		twin, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		db, err := mapFile(twin)
		if err != nil {
			return err
		}
		defer db.Close()
		return db.Update(func(tx *bbolt.Tx) error { return layOut(tx, identity) })
	})
	if _, there := os.Lstat(s.path); err != nil && there != nil {
		return fmt.Errorf("creating the database: %w", advise(s.path, err))
	}
	return nil // made, by us or by another process
}

// layOut fills an empty database.
func layOut(tx *bbolt.Tx, identity *age.X25519Identity) error {
	for _, name := range [][]byte{bucketMeta, bucketDocuments, bucketKeys} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	if err := meta.Put(rowFormat, binary.BigEndian.AppendUint32(nil, format)); err != nil {
		return err
	}
	return meta.Put(rowRecipient, []byte(identity.Recipient().String()))
}

// mapFile gives an open, locked file to bbolt. An empty file becomes an empty
// database; any other must have passed inspect. The file is closed if there is
// an error.
func mapFile(f *os.File) (*handle, error) {
	db, err := bbolt.Open(f.Name(), 0o600, &bbolt.Options{
		Timeout:      time.Second, // the lock is ours already
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
		OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	return &handle{DB: db, file: f}, nil
}

// start takes the locked file into use. Until the database and the identity
// are known to be good, nothing is written and nothing removed.
func (s *Store) start(f *os.File) error {
	if err := inspect(f); err != nil {
		if errors.Is(err, errStructure) {
			return damaged(s.path, err.Error())
		}
		return advise(s.path, err)
	}
	err := s.guard(func() error {
		var err error
		if s.db, err = mapFile(f); err != nil {
			return err
		}
		return s.db.View(s.adopt)
	})
	if err != nil {
		return err
	}
	for _, path := range []string{s.path, s.identityPath} {
		if err := removeTemporary(path); err != nil && path == s.path {
			return advise(s.dir, err)
		}
	}
	if !s.dirty {
		return nil
	}
	if err := s.lockWriter(context.Background()); err != nil {
		return err
	}
	defer s.unlockWriter()
	if err := s.scrub(); err != nil { // no reason not to serve
		s.log.Warn("removing the bytes of destroyed keys failed; it will be repeated", "error", err)
		s.scrubLater(s.retry())
	}
	return nil
}

// adopt reads what must be known of a database before it is used, and refuses
// the one that is not ours or not readable with our identity.
func (s *Store) adopt(tx *bbolt.Tx) error {
	meta, documents, keys := tx.Bucket(bucketMeta), tx.Bucket(bucketDocuments), tx.Bucket(bucketKeys)
	if meta == nil {
		return damaged(s.path, "it is a bbolt database, but not of jwksd")
	}
	number := meta.Get(rowFormat)
	if len(number) != 4 {
		return damaged(s.path, "it has no format number")
	}
	if n := binary.BigEndian.Uint32(number); n > format {
		return damaged(s.path, fmt.Sprintf("it has format %d, written by a newer jwksd (this one knows %d): run that one", n, format))
	} else if n < format {
		return damaged(s.path, fmt.Sprintf("format %d is unknown", n))
	}
	if documents == nil || keys == nil {
		return damaged(s.path, "a part is missing")
	}
	if err := s.adoptIdentity(string(meta.Get(rowRecipient)), keys); err != nil {
		return err
	}
	s.dirty = meta.Get(rowDirty) != nil
	s.changes = newChanges(rand.Text())
	return documents.ForEach(func(k, _ []byte) error {
		s.changes.record(string(k))
		return nil
	})
}

func (s *Store) adoptIdentity(recipient string, keys *bbolt.Bucket) error {
	identity, err := readIdentity(s.identityPath)
	if errors.Is(err, fs.ErrNotExist) {
		stored := 0
		_ = keys.ForEach(func(_, _ []byte) error { stored++; return nil })
		return fmt.Errorf("the identity file %s is missing; the private keys in %s (%d of them) cannot be read without it; restore it from a backup, or, to give these keys up and begin afresh, move the database away", s.identityPath, s.path, stored)
	}
	if err != nil {
		return err
	}
	if got := identity.Recipient().String(); got != recipient {
		return fmt.Errorf("the identity file %s (public key %s) does not belong to the database %s, which is encrypted to %s; bring the two that belong together", s.identityPath, got, s.path, recipient)
	}
	s.identity = identity
	return nil
}
