// Package verify checks JWTs for our own command line and Go client, strictly:
// what RFC 7515, RFC 7519 and RFC 8725 let a verifier refuse, it refuses.
//
// A token has one spelling. Three segments of canonical base64url, JSON
// without duplicate members and without top-level members that differ in
// letter case only, an algorithm from the table of package jwa, a kid that
// names a key of the set, and that key's own algorithm: nothing else reaches a
// signature check, and the value of no claim is looked at before the signature
// has held. Tokens without an expiry are refused.
//
// The one freedom left is ECDSA's: for a signature (r, s) the pair (r, n-s)
// verifies too. JWS allows both (RFC 7518 section 3.4), so a token is no
// unique identifier; use its jti.
//
// The package keeps no state and reads no clock; the time is an argument.
package verify
