package signer

import (
	"encoding/base64"
	"unicode/utf8"
)

// The typ values that every keyset may issue (RFC 7519 section 5.1, RFC 9068
// section 2.1).
const (
	TypJWT         = "JWT"
	TypAccessToken = "at+jwt"
)

// Headers holds the protected headers of one key. The headers of the common
// typ values are encoded once, when it is made. It is immutable and safe for
// concurrent use; keys in another custody embed it to write the same headers
// as a local Key.
type Headers struct {
	alg, kid         string
	jwt, accessToken string
}

// NewHeaders prepares the headers of the key kid that signs with alg.
func NewHeaders(alg, kid string) Headers {
	return Headers{
		alg:         alg,
		kid:         kid,
		jwt:         encodeHeader(alg, kid, TypJWT),
		accessToken: encodeHeader(alg, kid, TypAccessToken),
	}
}

// KID is the key's identifier as it stands in the header.
func (h Headers) KID() string { return h.kid }

// Algorithm is the name of the key's one algorithm.
func (h Headers) Algorithm() string { return h.alg }

// Header gives the protected header for typ, base64url-encoded without
// padding: exactly the members alg, kid, typ in that order, without white
// space (RFC 7515 section 4.1).
func (h Headers) Header(typ string) string {
	switch typ {
	case TypJWT:
		return h.jwt
	case TypAccessToken:
		return h.accessToken
	}
	return encodeHeader(h.alg, h.kid, typ)
}

func encodeHeader(alg, kid, typ string) string {
	b := make([]byte, 0, len(alg)+len(kid)+len(typ)+32)
	b = append(b, `{"alg":`...)
	b = appendString(b, alg)
	b = append(b, `,"kid":`...)
	b = appendString(b, kid)
	b = append(b, `,"typ":`...)
	b = appendString(b, typ)
	b = append(b, '}')
	return base64.RawURLEncoding.EncodeToString(b)
}

// appendString appends s as a JSON string (RFC 8259 section 7), escaping only
// what must be. Invalid UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}
