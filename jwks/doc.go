// Package jwks turns public keys into what verifiers fetch: a JWK (RFC 7517),
// a set of them as immutable bytes with an ETag, and the HTTP answers around
// those bytes.
//
// What it promises:
//
//   - A private key cannot be published. JWK has no field that could hold a
//     private member, New takes public keys only, and Parse refuses a JWK that
//     has a private member.
//   - The same keys in the same order give the same bytes and the same ETag,
//     in every process and on every replica.
//   - Everything handed out is immutable and may be used by any number of
//     goroutines at once.
//
// The package keeps no state of its own, reads no clock and opens nothing. It
// does not know where keys come from or when they sign.
package jwks
