package rotation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Custody says where the private keys of a keyset act.
type Custody string

// Custodies.
const (
	CustodyLocal   Custody = "local"   // kept in the store, signs in memory
	CustodyTransit Custody = "transit" // non-exportable in Vault, signs there
)

// Policy is what an operator decides about a keyset. It stands in the state
// document, and every replica obeys the document. Derive tells what follows
// from it.
type Policy struct {
	// Issuer is the URL that stands as iss in every token.
	Issuer string `json:"issuer"`
	// Algorithms has one lane each; the first is the default.
	Algorithms []string `json:"algorithms"`
	// RSABits is the modulus size of new RSA keys.
	RSABits int `json:"rsa_bits,omitempty"`
	// Rotate is the schedule, as ParseSchedule reads it.
	Rotate string `json:"rotate"`
	// TokenTTLMax (T) is the longest life of a token.
	TokenTTLMax Duration `json:"token_ttl_max"`
	// JWKSMaxAge (H) is how long HTTP caches may keep the set.
	JWKSMaxAge Duration `json:"jwks_max_age"`
	// VerifierCache (C) is how long verifiers keep a set after fetching it.
	VerifierCache Duration `json:"verifier_cache"`
	// VerifierLeeway (L) is how long verifiers accept a token past its exp.
	VerifierLeeway Duration `json:"verifier_leeway"`
	// HandoverGrace is how long a key still signs, for callers that built
	// their header with it, after its successor took over.
	HandoverGrace Duration `json:"handover_grace"`
	// MaxStaleness (D) is how long a replica may act on an unrefreshed state.
	MaxStaleness Duration `json:"max_staleness"`
	// ClockSkew (S) bounds the distance of every clock from true time.
	ClockSkew Duration `json:"clock_skew"`
	// Custody of new keys.
	Custody Custody `json:"custody"`
	// Discovery switches on OpenID and OAuth metadata.
	Discovery bool `json:"discovery,omitempty"`
	// Revision numbers the file that the policy came from. A policy of a lower
	// revision than the one in force is refused; 0 takes over the one in force.
	Revision int `json:"revision,omitempty"`
}

// DefaultPolicy is the policy of a keyset that says nothing else.
func DefaultPolicy() Policy {
	return Policy{
		Issuer:         "http://127.0.0.1:8080",
		Algorithms:     []string{"ES256"},
		RSABits:        2048,
		Rotate:         "0 3 1 * *",
		TokenTTLMax:    Duration(time.Hour),
		JWKSMaxAge:     Duration(5 * time.Minute),
		VerifierCache:  Duration(15 * time.Minute),
		VerifierLeeway: Duration(time.Minute),
		HandoverGrace:  Duration(30 * time.Second),
		MaxStaleness:   Duration(time.Hour),
		ClockSkew:      Duration(5 * time.Second),
		Custody:        CustodyLocal,
	}
}

// Timing is what follows from a policy. The letters are those of the design.
type Timing struct {
	// Lead (P) is how long a key is published before it may sign:
	// D + H + C + 2S.
	Lead Duration `json:"lead"`
	// Retention (V) is how long a key stays published after the last instant
	// at which the document lets it sign: T + L + D + 4S.
	Retention Duration `json:"retention"`
	// Period is the shortest pause between two scheduled rotations (R).
	Period Duration `json:"period"`
	// Bound is the largest number of published keys in one lane, forced
	// rotations apart: 2 + ceil((V + hand-over grace) / R).
	Bound int `json:"bound"`
	// Exposure is how long caches may trust a key after it was revoked:
	// D + H + C.
	Exposure Duration `json:"exposure"`
	// DestroyAfter is how long a private key outlives its successor's
	// activation: hand-over grace + D + 2S.
	DestroyAfter Duration `json:"destroy_after"`
}

// PolicyError is an inequality or a field that does not hold. Field is the name
// in the configuration.
type PolicyError struct {
	Field string
	Msg   string
}

// Error says which field is wrong and what to do.
func (e *PolicyError) Error() string { return e.Field + ": " + e.Msg }

func policyErrorf(field, format string, args ...any) error {
	return &PolicyError{Field: field, Msg: fmt.Sprintf(format, args...)}
}

// leadMargin is how much longer than the lead a period must be: the time to
// make a key, store it, and read it back.
const leadMargin = time.Second

// maxDuration bounds every duration, so that sums cannot overflow.
const maxDuration = 10 * 365 * day

// Derive checks the policy and returns what follows from it. Errors are
// PolicyErrors, joined. The schedule is checked over the five years after now.
// Names of algorithms are taken as they are; whoever makes keys checks them.
func (p Policy) Derive(now time.Time) (Timing, error) {
	if err := errors.Join(p.checkNames(), p.checkDurations()); err != nil {
		return Timing{}, err
	}
	schedule, err := ParseSchedule(p.Rotate, now)
	if err != nil {
		return Timing{}, &PolicyError{Field: "rotate", Msg: err.Error()}
	}
	shortest, longest := schedule.Gaps(now)
	if longest >= maxGap {
		return Timing{}, policyErrorf("rotate", "%q leaves five years or more between two rotations: choose a shorter gap", p.Rotate)
	}
	if need := p.lead() + leadMargin; shortest < need {
		return Timing{}, policyErrorf("rotate",
			"%q rotates every %s at times, but a new key needs a lead of %s (max_staleness %s + jwks_max_age %s + verifier_cache %s + 2 x clock_skew %s) and %s to be made: rotate less often or lower one of these",
			p.Rotate, Duration(shortest), Duration(p.lead()), p.MaxStaleness, p.JWKSMaxAge, p.VerifierCache, p.ClockSkew, Duration(leadMargin))
	}
	return p.timing(shortest), nil
}

func (p Policy) timing(period time.Duration) Timing {
	v := p.TokenTTLMax.Std() + p.retain()
	return Timing{
		Lead:         Duration(p.lead()),
		Retention:    Duration(v),
		Period:       Duration(period),
		Bound:        2 + ceilDiv(v+p.HandoverGrace.Std(), period),
		Exposure:     p.MaxStaleness + p.JWKSMaxAge + p.VerifierCache,
		DestroyAfter: p.HandoverGrace + p.MaxStaleness + 2*p.ClockSkew,
	}
}

// lead is P.
func (p Policy) lead() time.Duration {
	return (p.MaxStaleness + p.JWKSMaxAge + p.VerifierCache + 2*p.ClockSkew).Std()
}

// retain is V without T.
func (p Policy) retain() time.Duration {
	return (p.VerifierLeeway + p.MaxStaleness + 4*p.ClockSkew).Std()
}

func ceilDiv(a, b time.Duration) int { return int((a + b - 1) / b) }

func (p Policy) checkNames() error {
	var errs []error
	switch {
	case p.Issuer == "":
		errs = append(errs, policyErrorf("issuer", "missing: give the issuer's URL, as in https://auth.example.com"))
	case !isIssuer(p.Issuer):
		errs = append(errs, policyErrorf("issuer", "%q is not a URL with scheme and host and without query or fragment, as in https://auth.example.com", p.Issuer))
	}
	if len(p.Algorithms) == 0 {
		errs = append(errs, policyErrorf("algorithms", "empty: give at least one, as in [ES256]"))
	}
	for i, alg := range p.Algorithms {
		if slices.Contains(p.Algorithms[:i], alg) {
			errs = append(errs, policyErrorf("algorithms", "%s is listed twice", alg))
		}
	}
	if p.Custody != CustodyLocal && p.Custody != CustodyTransit {
		errs = append(errs, policyErrorf("custody", "%q: choose local or transit", p.Custody))
	}
	return errors.Join(errs...)
}

// isIssuer holds an issuer to OpenID Connect Discovery section 3: a scheme, a
// host, perhaps a port and a path, no query and no fragment.
func isIssuer(s string) bool {
	rest, ok := strings.CutPrefix(s, "https://")
	if !ok {
		rest, ok = strings.CutPrefix(s, "http://")
	}
	host, _, _ := strings.Cut(rest, "/")
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("?#@\\\"<>`{|}^", r) }
	return ok && len(s) <= 2048 && strings.Trim(host, ":") != "" && !strings.ContainsFunc(rest, odd)
}

func (p Policy) checkDurations() error {
	var errs []error
	for _, d := range []struct {
		field    string
		value    Duration
		positive bool
	}{
		{"token_ttl_max", p.TokenTTLMax, true},
		{"jwks_max_age", p.JWKSMaxAge, false},
		{"verifier_cache", p.VerifierCache, false},
		{"verifier_leeway", p.VerifierLeeway, false},
		{"handover_grace", p.HandoverGrace, false},
		{"max_staleness", p.MaxStaleness, true},
		{"clock_skew", p.ClockSkew, false},
	} {
		switch {
		case d.value < 0:
			errs = append(errs, policyErrorf(d.field, "%s: must not be negative", d.value))
		case d.positive && d.value == 0:
			errs = append(errs, policyErrorf(d.field, "must be longer than zero"))
		case d.value.Std() > maxDuration:
			errs = append(errs, policyErrorf(d.field, "%s: must be at most ten years", d.value))
		}
	}
	if p.TokenTTLMax > 0 && p.TokenTTLMax < Duration(time.Second) {
		errs = append(errs, policyErrorf("token_ttl_max", "%s: tokens count in whole seconds, give at least 1s", p.TokenTTLMax))
	}
	return errors.Join(errs...)
}

// Timing returns what follows from the policy in force.
func (s State) Timing() Timing { return s.Policy.timing(s.Period.Std()) }
