// Package api is the authenticated HTTP interface for issuers and operators: it
// finds out who calls, what they may do, and then asks the rotator or the
// signer. Answers are JSON, errors are application/problem+json with a stable
// code (RFC 9457), and every answer is no-store.
//
// Everything is denied unless a grant allows it. A caller without a grant for a
// keyset gets the same answer whether or not the keyset exists.
package api
