package verify

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/jwksd/jwksd/internal/strictjson"
)

// decode reads canonical base64url without padding (RFC 7515 section 2).
// Comparing with the encoded form finds what the decoder of the standard
// library lets pass: line breaks, and bits after the last byte.
func decode(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || base64.RawURLEncoding.EncodeToString(b) != s {
		return nil, errors.New("not canonical base64url without padding")
	}
	return b, nil
}

// members is a JSON object, its values unread.
type members map[string]jsontext.Value

func object(data []byte) (members, error) { return strictjson.Object(data) }

// text reads a member that must be a string if it is there.
func (m members) text(name string) (s string, present bool, err error) {
	v, ok := m[name]
	if !ok {
		return "", false, nil
	}
	if v.Kind() != '"' {
		return "", true, errors.New(name + " is not a string")
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), true, err
}

// clip shortens foreign text for an error message.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// elements calls f for each element of an array that has been read before.
func elements(array jsontext.Value, f func(jsontext.Value) error) error {
	dec := jsontext.NewDecoder(bytes.NewReader(array))
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil {
			return err
		}
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}
