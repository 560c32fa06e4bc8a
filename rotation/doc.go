// Package rotation decides when JWT signing keys are made, sign, retire and
// leave. It is a pure core: time is passed in, nothing is read or written, and
// every function returns a new State instead of changing the one it was given.
//
// The life of a key, with the instants that stand on it in the state document:
//
//	created     published        ready     activate        superseded  signs_until    remove
//	   |            |              |           |                |           |            |
//	   +-- pending -+-- standby ---+-----------+---- active ----+-- grace --+- retiring -+
//	                |<---- P ----->|                                        |<--- V ---->|
//
// These rules carry the proof.
//
// An instant counts from when a document was certainly in the store, never
// from when somebody meant to write it. A write can be delayed for any time and
// still land, so the document that first names a key does not start its lead:
// the key stays unscheduled until somebody has read that document back, and the
// instant of that reading is its PublishedAt. In the same way the end of a
// superseded key is stamped by whoever first sees, in the store, that it was
// superseded. Instant.Observed carries that knowledge in.
//
// A switch needs no write. The active key of a lane is a function of the
// document and the time, so every replica switches by the instant that is
// written there, whether or not the store can be reached at that moment.
//
// The clock of a document never goes back. A planner or writer whose clock lags
// behind the last change takes that change's instant for now, so that it cannot
// undo what a faster clock saw, such as the turn of a key whose predecessor has
// ended; and whatever must hold at once is put at an instant that is past on
// every clock. Each view therefore has a key to sign with, through every switch.
//
// The published set is a function of the document alone: a key is in the set
// as long as the document names it. Two replicas at the same generation
// therefore serve the same bytes whatever their clocks say.
//
// All functions are safe for concurrent use as long as nobody changes a State
// after sharing it; the package itself never does.
package rotation
