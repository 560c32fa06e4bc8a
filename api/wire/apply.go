package wire

import (
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// ApplyRequest is the body of PUT /v1/keysets/{keyset}: a keyset's block of the
// configuration. What is nil takes the block's default, whatever is in force;
// the issuer is required.
type ApplyRequest struct {
	Issuer         string             `json:"issuer"`
	Algorithms     []string           `json:"algorithms,omitempty"`
	RSABits        *int               `json:"rsa_bits,omitempty"`
	Rotate         *string            `json:"rotate,omitempty"`
	TokenTTLMax    *rotation.Duration `json:"token_ttl_max,omitempty"`
	JWKSMaxAge     *rotation.Duration `json:"jwks_max_age,omitempty"`
	VerifierCache  *rotation.Duration `json:"verifier_cache,omitempty"`
	VerifierLeeway *rotation.Duration `json:"verifier_leeway,omitempty"`
	HandoverGrace  *rotation.Duration `json:"handover_grace,omitempty"`
	Custody        *rotation.Custody  `json:"custody,omitempty"`
	Discovery      *bool              `json:"discovery,omitempty"`
	// Revision, if not 0, makes the request lose against a policy of a higher
	// one.
	Revision int  `json:"revision,omitempty"`
	DryRun   bool `json:"dry_run,omitempty"`
}

// Applied answers PUT /v1/keysets/{keyset}. Nothing was changed if Diff is
// empty.
type Applied struct {
	Keyset     string `json:"keyset"`
	Generation uint64 `json:"generation"`
	Created    bool   `json:"created"`
	// At is when the policy came into force, or would; absent if it is in force
	// already.
	At   time.Time              `json:"at,omitzero"`
	Diff []rotation.FieldChange `json:"diff"`
	// Timing follows from the policy.
	Timing rotation.Timing `json:"timing"`
	// Events are what happens to keys until the change has settled, at most
	// 200 of them.
	Events []rotation.Event `json:"events"`
	DryRun bool             `json:"dry_run,omitempty"`
	// Warnings say in words what the change means to others.
	Warnings []string `json:"warnings,omitempty"`
}

// Deleted answers DELETE /v1/keysets/{keyset}. A repeated request changes
// nothing and is answered alike.
type Deleted struct {
	Keyset     string `json:"keyset"`
	Generation uint64 `json:"generation"`
	// At is when the keyset was deleted. It signs no more from then on.
	At time.Time `json:"at"`
	// PublishedUntil is when its last key leaves the set, and the set with it.
	PublishedUntil time.Time        `json:"published_until,omitzero"`
	Events         []rotation.Event `json:"events"`
	DryRun         bool             `json:"dry_run,omitempty"`
	Warnings       []string         `json:"warnings,omitempty"`
}
