// Package file is the embedded store: one bbolt database in one directory, and
// one age identity that encrypts every private key in it. It needs no server
// and belongs to one process at a time.
//
// What it promises:
//
//   - A write that returned nil is on the disk (fsync) and stays there through
//     a crash. A write is one transaction: it happened whole or not at all.
//   - A private key is stored encrypted (age, X25519), bound to its keyset and
//     kid, and can be read only with the identity file. Who has one of the two
//     files has nothing; a backup should keep them apart.
//   - A destroyed key leaves the database file: see "Destruction" below.
//   - A file that this package did not write, or not completely, is refused
//     with an error that wraps [keystore.ErrCorrupt], and stays as it is. The
//     whole structure of the database is checked before bbolt maps it, since
//     bbolt trusts what it maps. That reads each page in use once: about a
//     tenth of a second for 100 MB in the page cache.
//   - A second process is refused with [keystore.ErrLocked].
//
// # Destruction
//
// bbolt never overwrites; the bytes of a deleted entry stay behind in free
// pages. After [Store.DestroyKey] the database is therefore copied, without
// its free pages, into a fresh file that takes the place of the old one. This
// scrub costs the size of the database, so that a burst of destroyed keys
// shares one: the first is scrubbed at once, those after it at the end of
// [Options.ScrubInterval], or by Close. That a scrub is due is itself stored,
// in the transaction that deletes the key, and a crash only moves the scrub to
// the next Open.
//
// The limits of the promise: the old file's blocks go back to the filesystem,
// which reuses them when it likes; an SSD may keep remapped copies; snapshots
// and backups keep what they saw. All of these hold ciphertext only. To
// destroy that too, replace the identity.
//
// # Failing disks
//
// A full disk fails the write and nothing else; once there is room, writes
// succeed again. If the disk fails the fsync that decides whether a
// transaction counts, nobody can know what a power cut would leave, so that
// the store refuses everything from then on until it is opened again.
package file
