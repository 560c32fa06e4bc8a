package signer

import (
	"strconv"
	"unicode/utf8"
)

// The stable codes of InputError. They are names on the wire: add to them, but
// do not rename one.
const (
	// What a body, header or payload must be before its meaning is looked at.
	CodeInvalidJSON      = "invalid_json"
	CodeByteOrderMark    = "byte_order_mark"
	CodeInvalidUTF8      = "invalid_utf8"
	CodeLoneSurrogate    = "lone_surrogate"
	CodeControlCharacter = "control_character"
	CodeDuplicateMember  = "duplicate_member"
	CodeTooDeep          = "too_deep"
	CodeNumberRange      = "number_out_of_range"
	CodeTrailingData     = "trailing_data"
	CodeNotAnObject      = "not_an_object"

	// The envelope of a request.
	CodeHeaderNotAllowed  = "header_not_allowed"
	CodeUnknownMember     = "unknown_member"
	CodeClaimsMissing     = "claims_missing"
	CodeInvalidTTL        = "invalid_ttl"
	CodeTTLTooLong        = "ttl_too_long"
	CodeTTLAndExp         = "ttl_and_exp"
	CodeInvalidTyp        = "invalid_typ"
	CodeTypNotGranted     = "typ_not_granted" // forbidden
	CodeInvalidAlg        = "invalid_alg"
	CodeTooManyRequests   = "batch_too_large"
	CodeInvalidBatch      = "invalid_batch"
	CodeInvalidInput      = "invalid_signing_input"
	CodeInvalidHeader     = "invalid_header"
	CodeHeaderKeyMismatch = "header_key_mismatch"

	// The claims.
	CodeInvalidDate     = "invalid_date"
	CodeExpired         = "exp_in_past"
	CodeExpTooFar       = "exp_too_far"
	CodeNotBefore       = "nbf_not_before_exp"
	CodeIssuedAt        = "iat_out_of_bounds"
	CodeInvalidClaim    = "invalid_claim"
	CodeAmbiguousMember = "ambiguous_member" // equal to another claim, or to a registered one, but for letter case
	CodeForeignIssuer   = "foreign_issuer"   // forbidden
	CodeClaimMissing    = "claim_missing"
)

// InputError says why a request was refused. It carries nothing secret: the
// input is quoted only as a short excerpt.
type InputError struct {
	Code      string // stable, snake_case, for programs
	Detail    string // what is wrong and what to do, for people
	Field     string // the member or claim concerned, empty where there is none
	Forbidden bool   // true where the caller lacks a grant (403), false for bad input (400)
}

// Error gives the code and the detail in one line.
func (e *InputError) Error() string { return e.Code + ": " + e.Detail }

// bad makes the error for input that is wrong for every caller.
func bad(code, field, detail string) error {
	return &InputError{Code: code, Field: field, Detail: detail}
}

// forbidden makes the error for input that another grant could allow.
func forbidden(code, field, detail string) error {
	return &InputError{Code: code, Field: field, Detail: detail, Forbidden: true}
}

// maxExcerpt bounds, in bytes, how much of the input an error repeats.
const maxExcerpt = 32

// excerpt quotes the beginning of b for an error.
func excerpt(b []byte) string {
	if len(b) <= maxExcerpt {
		return strconv.Quote(string(b))
	}
	cut := maxExcerpt
	for cut > maxExcerpt-utf8.UTFMax && !utf8.RuneStart(b[cut]) {
		cut--
	}
	return strconv.Quote(string(b[:cut])) + "…"
}
