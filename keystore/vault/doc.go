// Package vault keeps state documents and private keys in HashiCorp Vault: a
// KV version 2 secrets engine that any number of replicas share. Vault is the
// only place where replicas meet; it decides every race.
//
// The layout below the configured path of the mount:
//
//	state/<keyset>        the state document of a keyset
//	head                  the newest changes, see head.go
//	keys/<keyset>/<kid>   a private key
//	replicas/<id>         what a replica reports about itself
//
// What it promises:
//
//   - A state document is replaced by check-and-set only. Its versions hold a
//     nonce besides Vault's counter, so that one from before a restored backup
//     fits nothing.
//   - A private key is created once (cas=0) and destroyed with its metadata,
//     which removes every version of it. State documents are never deleted:
//     that would reset Vault's counter.
//   - Whoever follows the changes pays one request a look, however many
//     keysets there are.
//   - No write is sent twice unless Vault has certainly not looked at it. The
//     official client's own retries are switched off, and so are its
//     redirects.
//   - Every error is one line that says what is wrong and what to do about it,
//     and holds no secret.
package vault
