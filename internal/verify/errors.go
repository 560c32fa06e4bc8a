package verify

import (
	"errors"
	"fmt"
)

// Code says why a token or a set was refused. Codes are stable: programs may
// depend on them.
type Code string

// The codes.
const (
	CodeMalformed       Code = "token_malformed"     // not a compact JWS with JSON objects
	CodeAmbiguous       Code = "ambiguous_member"    // names that differ in letter case only, or a registered one in another case
	CodeTooLarge        Code = "token_too_large"     // over MaxTokenBytes
	CodeAlgorithm       Code = "alg_not_allowed"     // alg is missing or not in the table
	CodeCritical        Code = "crit_not_allowed"    // crit or b64 in the header
	CodeNoKID           Code = "kid_missing"         // the header has no kid
	CodeUnknownKID      Code = "kid_unknown"         // no key of that kid in the set
	CodeKeyUnusable     Code = "key_unusable"        // the set has that kid, on a key that was skipped
	CodeKeyMismatch     Code = "key_alg_mismatch"    // the key is for another algorithm
	CodeSignature       Code = "signature_invalid"   // the signature does not match
	CodeClaim           Code = "claim_malformed"     // a claim has the wrong type
	CodeNoExpiry        Code = "exp_missing"         // no exp
	CodeExpired         Code = "token_expired"       // exp has passed
	CodeNotYetValid     Code = "token_not_yet_valid" // nbf has not come
	CodeIssuer          Code = "issuer_mismatch"     // iss is another one
	CodeAudience        Code = "audience_mismatch"   // aud does not name us
	CodeType            Code = "type_mismatch"       // typ is another one
	CodeSetMalformed    Code = "set_malformed"       // not a JWK set
	CodeSetPrivate      Code = "set_has_private_key" // private key material in the set
	CodeSetDuplicateKID Code = "set_has_kid_twice"   // two keys of one kid
	CodeOptions         Code = "options_incomplete"  // the caller's mistake
)

// Error is the only type of error that this package returns.
type Error struct {
	Code   Code   // stable
	Detail string // what is wrong; may quote the token, never the signature
	Hint   string // what to do about it, for a person
	cause  error
}

// Error returns the detail and its cause, without the hint.
func (e *Error) Error() string {
	if e.cause == nil {
		return e.Detail
	}
	return e.Detail + ": " + e.cause.Error()
}

// Unwrap returns the cause, nil if there is none.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf returns the code of the Error in err's chain, empty if there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// refuse makes an Error. The detail is a format for args.
func refuse(code Code, cause error, hint, detail string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(detail, args...), Hint: hint, cause: cause}
}

// malformed makes an Error for a token that is not one.
func malformed(cause error, detail string, args ...any) *Error {
	return refuse(CodeMalformed, cause,
		"a JWT is three base64url parts with dots between them; copy it whole, without line breaks or quotes",
		detail, args...)
}
