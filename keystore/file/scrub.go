package file

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// scrubChunk bounds the memory of a copy: the bytes of one transaction.
const scrubChunk = 4 << 20

// scrubIfDue scrubs a dirty database, unless it was done so recently that the
// timer shall do it. The caller holds writer.
func (s *Store) scrubIfDue() error {
	if !s.isDirty() {
		return nil
	}
	if !s.lastScrub.IsZero() {
		if wait := s.interval - time.Since(s.lastScrub); wait > 0 {
			s.scrubLater(wait)
			return nil
		}
	}
	if err := s.scrub(); err != nil {
		s.scrubLater(s.retry())
		return fmt.Errorf("it can no longer be read, but its encrypted bytes may still be in the file: %w; this is repeated every %v", err, s.retry())
	}
	return nil
}

// scrubWanted asks for a scrub although no key was destroyed.
func (s *Store) scrubWanted() {
	s.setDirty(true)
	s.scrubLater(s.retry())
}

// retry is the time between two scrubs that fail.
func (s *Store) retry() time.Duration { return max(s.interval, time.Second) }

// scrubLater has the timer scrub, at the earliest moment it was asked for.
func (s *Store) scrubLater(wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.timer != nil {
		return
	}
	s.late.Add(1)
	s.timer = time.AfterFunc(max(wait, 10*time.Millisecond), func() {
		defer s.late.Done()
		s.scrubNow()
	})
}

// scrubNow is what the timer does.
func (s *Store) scrubNow() {
	if err := s.lockWriter(context.Background()); err != nil {
		return
	}
	defer s.unlockWriter()
	s.mu.Lock()
	s.timer = nil
	due := s.dirty && !s.ended // Close scrubs by itself
	s.mu.Unlock()
	if !due || s.broken.Load() != nil {
		return
	}
	if err := s.scrub(); err != nil {
		s.log.Warn("removing the bytes of destroyed keys failed; it will be repeated", "error", err, "in", s.retry())
		s.scrubLater(s.retry())
	}
}

func (s *Store) isDirty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dirty
}

func (s *Store) setDirty(dirty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = dirty
}

// scrub replaces the database by a copy without its free pages. The caller
// holds writer, so that nothing is written meanwhile; reading goes on until
// the copy takes over.
//
// A crash before the rename leaves the old file and a temporary one, which the
// next Open removes; after it, the new file. The new one is complete on the
// disk and locked before it gets its name, so that no other process ever finds
// the name unlocked.
func (s *Store) scrub() error {
	db, err := s.copyClean()
	if err != nil {
		return fmt.Errorf("scrubbing: %w", advise(s.path, err))
	}
	if err := os.Rename(db.file.Name(), s.path); err != nil {
		discard(db)
		return fmt.Errorf("scrubbing: %w", advise(s.path, err))
	}
	s.gate.Lock()
	old := s.db
	s.db = db
	s.gate.Unlock()
	old.Close() // nobody has it any more, and there is nothing to write
	s.setDirty(false)
	s.lastScrub = time.Now()
	if err := syncDir(s.dir); err != nil {
		// A power cut could bring the old file back, which lacks what is
		// written from now on. The next write tries again, and fails if it
		// cannot.
		s.dirUnsynced = true
		s.setDirty(true)
		return fmt.Errorf("scrubbing: %w", advise(s.dir, err))
	}
	return nil
}

// copyClean makes the copy, synced and locked, under a temporary name.
func (s *Store) copyClean() (_ *handle, err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.dir, temporary(s.path)) // 0600
	if err != nil {
		return nil, err
	}
	var db *handle
	err = s.guard(func() error {
		if db, err = mapFile(f); err != nil {
			return err
		}
		return s.fill(db)
	})
	if err != nil {
		if db != nil {
			discard(db)
		} else {
			os.Remove(f.Name())
		}
		return nil, err
	}
	return db, nil
}

// fill copies the database into an empty one, and looks the result over before
// anything may depend on it.
func (s *Store) fill(to *handle) error {
	if err := bbolt.Compact(to.DB, s.db.DB, scrubChunk); err != nil {
		return err
	}
	err := to.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete(rowDirty) })
	if err != nil {
		return err
	}
	info, err := s.db.file.Stat()
	if err != nil {
		return err
	}
	if err := sameOwner(to.file, info); err != nil {
		return err
	}
	if err := to.file.Sync(); err != nil {
		return err
	}
	return inspect(to.file)
}

// discard gives up a database that never got its name.
func discard(db *handle) {
	name := db.file.Name()
	db.Close()
	os.Remove(name)
}
