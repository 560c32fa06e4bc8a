// Package signer turns claims, or a finished signing input, into a signature
// with a pinned key.
//
// The work is cut in two so that a grant condition can be evaluated in
// between. First the claims are checked and the payload is built, without any
// key:
//
//	req, err := signer.ParseRequest(body)        // one strict scan
//	claims, err := req.Issue(rules, now)         // the payload, its typ, exp, jti
//
// then the payload is signed:
//
//	token, err := signer.SignToken(ctx, key, claims.Typ, claims.Payload)
//
// The package promises:
//
//   - A token never carries a header that the caller chose: alg and kid come
//     from the pinned key, typ from a closed list (RFC 8725 section 3.11).
//   - Every claim the server does not have to touch passes byte for byte.
//   - What is signed is unambiguous JSON: no duplicate member, no two
//     claims that differ in letter case only, no invalid UTF-8, no number that
//     a verifier could read as infinite.
//   - No request takes more than time linear in its length.
//   - Every refusal is an *InputError with a stable code and a hint.
//
// The instant is always an argument; the package reads no clock, does no I/O
// and holds no mutable state. Random bits come from crypto/rand.
package signer
