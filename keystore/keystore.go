// Package keystore holds the words that every store shares: versions, cursors
// and the errors that a caller must tell apart. The stores themselves live in
// the folders below; each passes the suite of keystore/keystoretest.
//
// A store keeps two things a keyset. The state document is public data, one a
// keyset, replaced only by compare-and-swap. Private keys are stored one by
// one, created once and never overwritten, and destroyed for good. A store
// knows the meaning of neither.
package keystore

import (
	"errors"
	"time"
)

// Version names one stored state of one document. It is opaque: compare it
// only for equality. The zero Version stands for "no document yet".
type Version string

// Document is a state document as it was read, with its version.
type Document struct {
	Version Version
	Data    []byte
}

// Cursor is a position in the stream of changes of a store. It is opaque. The
// zero Cursor stands for the beginning, where every keyset counts as changed.
type Cursor string

// KeyInfo describes a stored private key without its secret.
type KeyInfo struct {
	KID       string
	Handle    string    // what the custody finds it by; empty if the kid is enough
	CreatedAt time.Time // by the store's clock
}

// Errors of every store. Each is wrapped with what was being done; test with
// errors.Is. Any other error of a write leaves its outcome unknown: it may
// have been applied.
var (
	// ErrNotFound: there is no such document or private key.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the document was not at the expected version; nothing was
	// written by this call.
	ErrConflict = errors.New("changed by someone else")
	// ErrExists: a private key of that kid is stored already, with other
	// content; nothing was written by this call.
	ErrExists = errors.New("exists already")
	// ErrLocked: another process uses the store.
	ErrLocked = errors.New("in use by another process")
	// ErrNotWritten: nothing was written, and trying again without a change
	// elsewhere is in vain, as on a full disk.
	ErrNotWritten = errors.New("nothing was written")
	// ErrCorrupt: the store holds something that it did not write. Nothing was
	// changed.
	ErrCorrupt = errors.New("damaged or foreign data")
)
