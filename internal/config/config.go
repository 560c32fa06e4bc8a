package config

import "github.com/jwksd/jwksd/rotation"

// Config is the whole configuration. Durations are written as Go's, plus d for
// 24 hours: 500ms, 90s, 15m, 1h30m, 30d.
type Config struct {
	// Keystore says where state documents and private keys are kept.
	Keystore Keystore `yaml:"keystore"`

	// SyncInterval is how often a replica looks for changes that others made.
	// A duration longer than zero and shorter than max_staleness, 500ms by
	// default.
	SyncInterval rotation.Duration `yaml:"sync_interval"`

	// MaxStaleness is the longest time a replica may act on a state that it
	// could not refresh; past it, it signs no more. A duration, 1h by default.
	// It is the longest store outage that goes unnoticed, and a part of every
	// key's lead.
	MaxStaleness rotation.Duration `yaml:"max_staleness"`

	// ClockSkew bounds how far any clock of a replica, a verifier or a caller
	// is from true time. A duration, 5s by default.
	ClockSkew rotation.Duration `yaml:"clock_skew"`

	// DataDir is where the daemon keeps small files of its own: the operator's
	// token if no callers are configured, and its addresses for the command
	// line. A path, relative to the configuration file; keystore.file.dir by
	// default.
	DataDir string `yaml:"data_dir"`

	// LastGood is a file where the daemon keeps a copy of the public state as
	// it last saw it in Vault, so that it can start, and publish, while Vault
	// is out of reach. FILE.key beside it proves that nobody else wrote it. A
	// path, relative to the configuration file; off by default. It needs
	// keystore.vault, and a file of its own for each daemon.
	LastGood string `yaml:"last_good"`

	// Role is what this daemon does: signer (signs, rotates, publishes) is the
	// default; publisher serves the sets only and needs no permission to read
	// private keys.
	Role string `yaml:"role"`

	// Replica names this daemon among those that share the store. Letters,
	// digits, dot, underscore and hyphen; the host's name by default.
	Replica string `yaml:"replica"`

	// Revision numbers the keysets of this file. A keyset that was set from a
	// higher revision is left alone. 0, the default, always applies.
	Revision int `yaml:"revision"`

	// Keysets are the sets of keys, each a block under its name, in the order
	// of the file. At least one is required.
	Keysets []Keyset `yaml:"keysets"`

	// Callers are those who may use the api listener. None by default.
	Callers []Caller `yaml:"callers"`

	// Listeners are the addresses that are served.
	Listeners Listeners `yaml:"listeners"`
}

// Keystore is the place of state documents and private keys.
type Keystore struct {
	// File keeps everything in one directory of this machine. It is the
	// default.
	File FileStore `yaml:"file"`
	// Vault keeps everything in HashiCorp Vault. Off by default.
	Vault *Vault `yaml:"vault"`
}

// FileStore is a key store in a directory.
type FileStore struct {
	// Dir is the directory, made with mode 0700 if it is missing. A path,
	// relative to the configuration file; what DefaultStateDir answers by
	// default.
	Dir string `yaml:"dir"`

	// Identity is the file of the age identity that encrypts the private keys,
	// made together with the store. A path, relative to the configuration
	// file; identity.txt in Dir by default. Keep it on another disk, and a
	// copy of Dir is worth nothing to a thief.
	Identity string `yaml:"identity"`
}

// Keyset is a named set of keys for one issuer.
type Keyset struct {
	// Name is the block's key in the file: up to 63 of a-z, 0-9, dot,
	// underscore and hyphen, the first a letter or a digit. The keyset
	// "default" is published without a name in its path.
	Name string
	// Policy is what the block says, with the defaults filled in and the
	// file's max_staleness and clock_skew copied in.
	Policy rotation.Policy
}

// Block is what stands under a keyset's name in the file.
type Block struct {
	// Issuer is the URL that stands as iss in every token, without query and
	// fragment. Required.
	Issuer string `yaml:"issuer"`

	// Algorithms are JWS names, each with its own active and standby key; the
	// first is used where a request names none. [ES256] by default.
	Algorithms []string `yaml:"algorithms"`

	// Rotate is when the standby takes over: five cron fields, in UTC unless
	// CRON_TZ=Zone stands in front, or a word such as @monthly, or "@every
	// 720h". Quote it. "0 3 1 * *" by default: 03:00 on the first of the
	// month.
	Rotate string `yaml:"rotate"`

	// TokenTTLMax is the longest life of a token. A duration of 1s or more, 1h
	// by default.
	TokenTTLMax rotation.Duration `yaml:"token_ttl_max"`

	// JWKSMaxAge is how long HTTP caches may keep the published set. A
	// duration, 5m by default.
	JWKSMaxAge rotation.Duration `yaml:"jwks_max_age"`

	// VerifierCache is how long verifiers keep a set after fetching it. A
	// duration, 15m by default: ask the slowest of them.
	VerifierCache rotation.Duration `yaml:"verifier_cache"`

	// VerifierLeeway is how long verifiers accept a token past its exp. A
	// duration, 1m by default.
	VerifierLeeway rotation.Duration `yaml:"verifier_leeway"`

	// HandoverGrace is how long a key still signs for callers that wrote its
	// kid into a header just before its successor took over. A duration, 30s
	// by default.
	HandoverGrace rotation.Duration `yaml:"handover_grace"`

	// RSABits is the size of new RSA keys in bits, a multiple of 8 from 2048
	// to 8192, 2048 by default. Other algorithms ignore it.
	RSABits int `yaml:"rsa_bits"`

	// Custody is where private keys act: local (kept in the store, sign in
	// memory) is the default; transit (never leave Vault, sign there) needs
	// keystore.vault.
	Custody string `yaml:"custody"`

	// Discovery publishes OpenID and OAuth metadata beside the set. true or
	// false, false by default.
	Discovery bool `yaml:"discovery"`
}

// Caller is an issuer or an operator, and what it may do.
type Caller struct {
	// Name stands in the audit log. Unique, up to 128 characters without
	// spaces. Required.
	Name string `yaml:"name"`
	// Identity is how the caller is recognised. Required, and unlike that of
	// every other caller.
	Identity Identity `yaml:"identity"`
	// Grants are what the caller may do: what any of them allows. At least one
	// is required.
	Grants []Grant `yaml:"grants"`
}

// Identity is how a caller is recognised.
type Identity struct {
	// TokenSHA256 is the SHA-256 of the caller's bearer token, in 64
	// hexadecimal digits (lower case once parsed):
	//
	//	printf %s "$TOKEN" | sha256sum
	TokenSHA256 string `yaml:"token_sha256"`
}

// Grant allows actions on keysets.
type Grant struct {
	// Keysets are names, or "*" for all. At least one is required.
	Keysets []string `yaml:"keysets"`
	// Actions are what may be done. At least one is required.
	Actions []Action `yaml:"actions"`
	// Types are the typ values that may be asked for beside JWT and at+jwt,
	// as in logout+jwt. None by default.
	Types []string `yaml:"types"`
}

// Action is something a caller may be granted.
type Action string

// The actions.
const (
	ActionSign      Action = "sign"       // turn claims into a token
	ActionSignInput Action = "sign-input" // sign a header and payload the caller made
	ActionRead      Action = "read"       // see keysets, keys and instants
	ActionRotate    Action = "rotate"     // promote the standby
	ActionRevoke    Action = "revoke"     // take back one key
	ActionRevokeAll Action = "revoke-all" // take back every key of a keyset
	ActionApply     Action = "apply"      // found a keyset, or change its policy
	ActionDelete    Action = "delete"     // wind a keyset down for good
)

// Actions lists what may be granted.
func Actions() []Action {
	return []Action{ActionSign, ActionSignInput, ActionRead, ActionRotate, ActionRevoke, ActionRevokeAll, ActionApply, ActionDelete}
}

// Listeners are the addresses that are served, each host:port. An empty host
// means all interfaces, port 0 any free port.
type Listeners struct {
	// Public publishes the sets, to anyone.
	Public PublicListener `yaml:"public"`
	// API serves callers.
	API APIListener `yaml:"api"`
	// Ops serves metrics, health and profiles.
	Ops OpsListener `yaml:"ops"`
}

// PublicListener publishes the sets.
type PublicListener struct {
	// Address is host:port, 127.0.0.1:8080 by default.
	Address string `yaml:"address"`
	// ContentType of the set: application/jwk-set+json by default, or
	// application/json for verifiers that insist on it.
	ContentType string `yaml:"content_type"`
}

// APIListener serves callers.
type APIListener struct {
	// Address is host:port, 127.0.0.1:8081 by default. Off the loopback it
	// needs TLS, since callers send tokens.
	Address string `yaml:"address"`
	// TLS encrypts the listener. Off by default.
	TLS *TLS `yaml:"tls"`
}

// TLS is a certificate and its key.
type TLS struct {
	// Cert is a PEM file, the certificate first and its chain behind. A path,
	// relative to the configuration file. Required.
	Cert string `yaml:"cert"`
	// Key is the PEM file of the private key. A path, relative to the
	// configuration file. Required.
	Key string `yaml:"key"`
}

// OpsListener serves metrics, health and profiles.
type OpsListener struct {
	// Address is host:port. Off by default. Nobody is asked who they are:
	// keep it on the loopback or behind a firewall.
	Address string `yaml:"address"`
}

// The roles of a daemon.
const (
	RoleSigner    = "signer"
	RolePublisher = "publisher"
)

// The media types that a set may be published as.
const (
	ContentTypeJWKSet = "application/jwk-set+json"
	ContentTypeJSON   = "application/json"
)
