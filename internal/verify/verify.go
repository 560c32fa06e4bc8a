package verify

import (
	"slices"
	"time"

	"github.com/jwksd/jwksd/jwks"
)

// Options say what a token must fulfil besides its signature and its dates.
type Options struct {
	// Now is the time to judge by. Required.
	Now time.Time
	// Leeway is allowed on exp and nbf for clocks that differ. Not negative.
	Leeway time.Duration
	// Issuer must equal iss. Empty: iss is not checked.
	Issuer string
	// Audience must be aud or one of its elements. Empty: aud is not checked.
	Audience string
	// Types lists the accepted values of the header member typ, such as "JWT"
	// or "at+jwt"; case and a leading "application/" do not matter. An empty
	// string in it accepts a token without typ. Empty list: typ is not checked.
	Types []string
}

// Verified is a token whose signature, dates and options have held.
type Verified struct {
	Algorithm string
	KID       string
	Type      string // the header member typ, empty if absent
	Key       jwks.JWK

	Header []byte // the header as JSON, as it was signed
	Claims []byte // the claims as JSON, as they were signed

	Issuer    string    // empty if absent
	Subject   string    // empty if absent
	Audience  []string  // nil if absent
	ExpiresAt time.Time // UTC, always there; leeway not included
	NotBefore time.Time // UTC, zero if absent
	IssuedAt  time.Time // UTC, zero if absent
}

// Verify checks a compact JWT against the keys of set. Its form comes first,
// then the signature, and claims only after it has held, so that no forged
// token can learn or say anything by them. The error is an *Error with a
// stable code and a hint; the result is nil with it.
//
// Verify is safe for concurrent use.
func Verify(token string, set Set, opts Options) (*Verified, error) {
	if opts.Now.IsZero() || opts.Leeway < 0 {
		return nil, refuse(CodeOptions, nil, "set Options.Now, and a Leeway of zero or more", "verification needs a time to judge by")
	}
	t, err := Parse(token)
	if err != nil {
		return nil, err
	}
	key, err := set.find(t.KID, t.Algorithm)
	if err != nil {
		return nil, err
	}
	if err := t.alg.Verify(key.Public(), []byte(t.input), t.signature); err != nil {
		return nil, refuse(CodeSignature, err,
			"the token was altered, or signed by another key than the one it names",
			"the token's signature")
	}
	r, err := readClaims(t.claims)
	if err != nil {
		return nil, refuse(CodeClaim, err, "the issuer writes a claim in a form that RFC 7519 does not allow", "the token's claims")
	}
	if err := t.checkType(opts.Types); err != nil {
		return nil, err
	}
	if err := r.checkDates(opts.Now, opts.Leeway); err != nil {
		return nil, err
	}
	if err := r.checkParties(opts.Issuer, opts.Audience); err != nil {
		return nil, err
	}
	return &Verified{
		Algorithm: t.Algorithm, KID: t.KID, Type: t.Type, Key: key,
		Header: t.Header, Claims: t.Claims,
		Issuer: r.issuer, Subject: r.subject, Audience: r.audience,
		ExpiresAt: r.exp, NotBefore: r.nbf, IssuedAt: r.iat,
	}, nil
}

// checkType applies Options.Types (RFC 8725 section 3.11).
func (t *Token) checkType(types []string) error {
	if len(types) == 0 {
		return nil
	}
	for _, want := range types {
		if want == "" && !t.hasType || want != "" && t.hasType && mediaType(want) == mediaType(t.Type) {
			return nil
		}
	}
	return refuse(CodeType, nil,
		"this is another kind of token than the one expected, for example an ID token where an access token belongs",
		"the token's typ is %q, expected one of %q", clip(t.Type), types)
}

// checkDates applies exp and nbf (RFC 7519 sections 4.1.4 and 4.1.5): a token
// is valid from nbf on and before exp.
func (r registered) checkDates(now time.Time, leeway time.Duration) error {
	if r.exp.IsZero() {
		return refuse(CodeNoExpiry, nil,
			"a token that never expires cannot be recalled; ask the issuer to set exp",
			"the token has no exp")
	}
	if !now.Before(r.exp.Add(leeway)) {
		return refuse(CodeExpired, nil, "get a fresh token; if it is fresh, compare the clocks",
			"the token expired at %s, it is %s", stamp(r.exp), stamp(now))
	}
	if !r.nbf.IsZero() && now.Before(r.nbf.Add(-leeway)) {
		return refuse(CodeNotYetValid, nil, "wait, or compare the clocks",
			"the token is valid from %s, it is %s", stamp(r.nbf), stamp(now))
	}
	return nil
}

// checkParties applies Options.Issuer and Options.Audience (RFC 8725 sections
// 3.8 and 3.9). Both are compared byte by byte.
func (r registered) checkParties(issuer, audience string) error {
	if issuer != "" && r.issuer != issuer {
		return refuse(CodeIssuer, nil, "the token is from another issuer, or the issuer is spelt in another way (compare a trailing slash)",
			"the token's iss is %q, expected %q", clip(r.issuer), issuer)
	}
	if audience != "" && !slices.Contains(r.audience, audience) {
		return refuse(CodeAudience, nil, "the token was issued for somebody else",
			"the token's aud does not contain %q", audience)
	}
	return nil
}

// stamp prints an instant as the wire does.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
