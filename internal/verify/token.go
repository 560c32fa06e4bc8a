package verify

import (
	"strings"

	"github.com/jwksd/jwksd/internal/jwa"
)

// MaxTokenBytes is the longest token that is looked at.
const MaxTokenBytes = 64 << 10

// Token is a well-formed JWT whose signature has not been checked. Nothing in
// it may be trusted; Parse is for showing a token to a person and as the first
// step of Verify.
type Token struct {
	Algorithm string // a name of package jwa's table
	KID       string
	Type      string // the header member typ, empty if absent
	Header    []byte // the header as JSON, as it was sent
	Claims    []byte // the claims as JSON, as they were sent

	alg       jwa.Algorithm
	hasType   bool
	claims    members
	input     string // what is signed: the first two segments and their dot
	signature []byte
}

// Parse takes a compact JWT apart (RFC 7515 section 7.1, RFC 7519 section
// 7.2). It refuses everything that Verify refuses without a key or a clock:
// wrong form, ambiguous names, algorithms outside the table, a missing kid, crit and b64. The
// error is an *Error.
func Parse(token string) (Token, error) {
	if len(token) > MaxTokenBytes {
		return Token{}, refuse(CodeTooLarge, nil, "no honest JWT is that long", "the token has %d bytes, more than %d", len(token), MaxTokenBytes)
	}
	segments := strings.SplitN(token, ".", 4)
	if len(segments) != 3 {
		return Token{}, malformed(nil, "the token does not have three segments")
	}
	var raw [3][]byte
	for i, name := range [3]string{"header", "payload", "signature"} {
		b, err := decode(segments[i])
		if err != nil {
			return Token{}, malformed(err, "the token's %s", name)
		}
		raw[i] = b
	}
	header, err := object(raw[0])
	if err != nil {
		return Token{}, malformed(err, "the token's header")
	}
	claims, err := object(raw[1])
	if err != nil {
		return Token{}, malformed(err, "the token's claims")
	}
	if err := header.checkNames(headerNames, "header"); err != nil {
		return Token{}, err
	}
	if err := claims.checkNames(claimNames, "claims"); err != nil {
		return Token{}, err
	}
	t := Token{
		Header:    raw[0],
		Claims:    raw[1],
		claims:    claims,
		input:     token[:len(segments[0])+1+len(segments[1])],
		signature: raw[2],
	}
	if err := t.readHeader(header); err != nil {
		return Token{}, err
	}
	return t, nil
}

// readHeader checks the header members that decide how the token is verified.
// Members that point to keys (jwk, jku, x5u, x5c) are ignored: keys come from
// the set alone (RFC 8725 section 3.10).
func (t *Token) readHeader(header members) error {
	// No extension is understood here, so crit can only be wrong: with
	// names that are not understood, or empty, which RFC 7515 section 4.1.11
	// forbids. b64 changes what is signed and has no place in a JWT (RFC 7797
	// section 7).
	for _, name := range [2]string{"crit", "b64"} {
		if _, ok := header[name]; ok {
			return refuse(CodeCritical, nil,
				"the token asks for an extension of JWS; ask the issuer for a plain JWT",
				"the token's header has %s", name)
		}
	}
	alg, _, err := header.text("alg")
	if err != nil {
		return malformed(err, "the token's header")
	}
	if t.alg, err = jwa.Lookup(clip(alg)); err != nil {
		return refuse(CodeAlgorithm, err,
			"only asymmetric signatures are accepted; a token with none or a symmetric algorithm may be a forgery",
			"the token's alg")
	}
	t.Algorithm = t.alg.Name
	if t.KID, _, err = header.text("kid"); err != nil {
		return malformed(err, "the token's header")
	}
	if t.KID == "" {
		return refuse(CodeNoKID, nil, "without a kid the key would have to be guessed; ask the issuer to name it", "the token's header has no kid")
	}
	if t.Type, t.hasType, err = header.text("typ"); err != nil {
		return malformed(err, "the token's header")
	}
	return nil
}

// mediaType is the form in which typ values are compared (RFC 7515 section
// 4.1.9): without "application/" where nothing else has a slash, and without
// regard to case.
func mediaType(typ string) string {
	typ = strings.ToLower(typ)
	if rest, ok := strings.CutPrefix(typ, "application/"); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return typ
}
