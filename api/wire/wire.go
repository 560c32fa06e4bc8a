// Package wire holds the JSON types of the API, shared by the daemon, the Go
// client and the command line. It has no behaviour.
package wire

import (
	"encoding/json"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// Token answers POST /v1/keysets/{keyset}/sign.
type Token struct {
	Token     string    `json:"token"`
	KID       string    `json:"kid"`
	Alg       string    `json:"alg"`
	ExpiresAt time.Time `json:"expires_at"`
}

// SignRequest asks for a token. All but Claims is optional.
type SignRequest struct {
	Claims json.RawMessage `json:"claims"`
	TTL    string          `json:"ttl,omitempty"`
	Typ    string          `json:"typ,omitempty"`
	Alg    string          `json:"alg,omitempty"`
}

// SigningKey answers GET /v1/keysets/{keyset}/signing-key.
type SigningKey struct {
	KID string          `json:"kid"`
	Alg string          `json:"alg"`
	JWK json.RawMessage `json:"jwk"`
	// SignsUntil is the last instant at which the key may sign, hand-over grace
	// included; absent while no successor has its turn.
	SignsUntil time.Time `json:"signs_until,omitzero"`
	Next       *NextKey  `json:"next,omitempty"`
}

// NextKey is the key that waits for its turn.
type NextKey struct {
	KID        string          `json:"kid"`
	JWK        json.RawMessage `json:"jwk"`
	ReadyAt    time.Time       `json:"ready_at,omitzero"`
	ActivateAt time.Time       `json:"activate_at,omitzero"`
}

// Keysets answers GET /v1/keysets.
type Keysets struct {
	Keysets []Keyset `json:"keysets"`
	Daemon  Daemon   `json:"daemon"`
}

// Daemon tells how the replica that answers is doing.
type Daemon struct {
	Version string    `json:"version"`
	Now     time.Time `json:"now"`
	Alarms  []Alarm   `json:"alarms"`
	// Config tells about the latest attempt to reload the configuration.
	Config *Reload `json:"config,omitempty"`
	// Replicas are the daemons that share the store, this one among them.
	Replicas []Replica `json:"replicas"`
	// ReplicasProblem says why Replicas may lack some.
	ReplicasProblem string `json:"replicas_problem,omitempty"`
}

// Replica is what a daemon said of itself last.
type Replica struct {
	Replica string    `json:"replica"`
	Role    string    `json:"role"` // signer or publisher
	Version string    `json:"version"`
	SeenAt  time.Time `json:"seen_at"` // when it said so, by its own clock
	Live    bool      `json:"live"`    // that is not long ago
	// SyncedAt is an instant from which on it knows everything that was in the
	// store before.
	SyncedAt time.Time `json:"synced_at"`
	// Generations are those of the keysets that changed last there.
	Generations map[string]uint64 `json:"generations"`
}

// Alarm is a condition that a person should look at.
type Alarm struct {
	Name    string    `json:"name"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// Reload tells how the latest reload of the configuration ended.
type Reload struct {
	At    time.Time `json:"at"`
	OK    bool      `json:"ok"`
	Error string    `json:"error,omitempty"`
}

// Keyset answers GET /v1/keysets/{keyset}.
type Keyset struct {
	Keyset     string          `json:"keyset"`
	Issuer     string          `json:"issuer"`
	Generation uint64          `json:"generation"`
	UpdatedAt  time.Time       `json:"updated_at"`
	FreshAt    time.Time       `json:"fresh_at"` // when the state was last known to be the store's
	Stale      bool            `json:"stale"`    // too old to act on: signing is refused
	Policy     rotation.Policy `json:"policy"`
	Timing     rotation.Timing `json:"timing"`
	Lanes      []Lane          `json:"lanes"`
	Revoked    []Revoked       `json:"revoked"`
	// Deleted is set while a deleted keyset winds down.
	Deleted *rotation.Closing `json:"deleted,omitempty"`
	// Drift lists where the configuration of the replica that answers differs
	// from the policy in force: From is in force, To configured.
	Drift []rotation.FieldChange `json:"drift,omitempty"`
}

// Lane is one algorithm of a keyset.
type Lane struct {
	Alg     string `json:"alg"`
	Default bool   `json:"default"` // used where a request names no algorithm
	Winding bool   `json:"winding"` // left the policy; ends when its last token has
	Overdue bool   `json:"overdue"` // the active key outlived its planned end
	Bound   int    `json:"bound"`   // largest number of published keys
	Keys    []Key  `json:"keys"`
}

// Key is a published key with its instants.
type Key struct {
	KID         string            `json:"kid"`
	Alg         string            `json:"alg"`
	Phase       rotation.Phase    `json:"phase"`
	CreatedAt   time.Time         `json:"created_at"`
	PublishedAt time.Time         `json:"published_at,omitzero"`
	ReadyAt     time.Time         `json:"ready_at,omitzero"`
	ActivateAt  time.Time         `json:"activate_at,omitzero"`
	SignsUntil  time.Time         `json:"signs_until,omitzero"`
	DestroyAt   time.Time         `json:"destroy_at,omitzero"`
	RemoveAt    time.Time         `json:"remove_at,omitzero"`
	TokenTTLMax rotation.Duration `json:"token_ttl_max"`
	// Problem says why this replica cannot sign with the key.
	Problem string          `json:"problem,omitempty"`
	JWK     json.RawMessage `json:"jwk"`
}

// Revoked is a key that was revoked.
type Revoked struct {
	KID       string    `json:"kid"`
	Alg       string    `json:"alg"`
	RevokedAt time.Time `json:"revoked_at"`
	Reason    string    `json:"reason,omitempty"`
	By        string    `json:"by,omitempty"`
}

// Plan answers GET /v1/keysets/{keyset}/plan: what will happen until the
// horizon if nobody intervenes.
type Plan struct {
	Keyset  string           `json:"keyset"`
	Now     time.Time        `json:"now"`
	Horizon time.Time        `json:"horizon"`
	Keys    []rotation.Span  `json:"keys"`
	Events  []rotation.Event `json:"events"`
}

// RotateRequest is the body of POST /v1/keysets/{keyset}/rotate.
type RotateRequest struct {
	Reason string `json:"reason,omitempty"`
	// Alg limits the rotation to one lane.
	Alg string `json:"alg,omitempty"`
	// Force promotes a standby that lacks its lead.
	Force bool `json:"force,omitempty"`
	// Wait is how long the answer may wait for the replicas to confirm, up to
	// a minute. A repeated request may ask for another one.
	Wait rotation.Duration `json:"wait,omitzero"`
}

// RevokeRequest is the body of POST /v1/keysets/{keyset}/revoke: one kid, or
// all.
type RevokeRequest struct {
	KID    string `json:"kid,omitempty"`
	All    bool   `json:"all,omitempty"`
	Reason string `json:"reason"`
	DryRun bool   `json:"dry_run,omitempty"`
	// Wait is as for RotateRequest.
	Wait rotation.Duration `json:"wait,omitzero"`
}

// Change answers rotate and revoke.
type Change struct {
	Keyset     string `json:"keyset"`
	Generation uint64 `json:"generation"`
	Operation  string `json:"operation,omitempty"`
	// At is when the change was made.
	At time.Time `json:"at"`
	// EverywhereBy is when the last replica acts on it, or has stopped.
	EverywhereBy time.Time            `json:"everywhere_by"`
	Promoted     []rotation.Promotion `json:"promoted,omitempty"`
	Revoked      []Revoked            `json:"revoked,omitempty"`
	// TrustedUntil is how long caches may trust what was revoked.
	TrustedUntil time.Time `json:"trusted_until,omitzero"`
	// FlushAt is when the key made after the revocation begins to sign, about,
	// so that verifiers which never expire a set fetch it again.
	FlushAt time.Time `json:"flush_at,omitzero"`
	// Warnings say in words what may fail, and for how long.
	Warnings []string `json:"warnings,omitempty"`
	// Replayed: the change was made by an earlier request with this
	// Idempotency-Key; this is its answer.
	Replayed bool `json:"replayed,omitempty"`
	DryRun   bool `json:"dry_run,omitempty"`
	// Everywhere: no live replica is missing. Only a request with wait learns
	// so.
	Everywhere bool          `json:"everywhere,omitempty"`
	Replicas   *Confirmation `json:"replicas,omitempty"`
}

// Confirmation tells which replicas run a change, by name.
type Confirmation struct {
	Confirmed []string `json:"confirmed"`
	// Missing are alive and did not confirm in time.
	Missing []string `json:"missing"`
	// Silent did not report lately. If they run all the same, cut off from the
	// store, they act on what they know until Change.EverywhereBy.
	Silent []string `json:"silent,omitempty"`
}

// Problem is an error answer (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"` // stable, for programs
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"` // what to do
	Field  string `json:"field,omitempty"`
	// Earliest is when the request may succeed.
	Earliest time.Time `json:"earliest,omitzero"`
}
