// Package strictjson reads JSON whose meaning must not depend on the reader.
package strictjson

import (
	"bytes"
	"errors"
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Object reads a JSON object and nothing after it. Duplicate names and invalid
// UTF-8 at any depth are errors: another reader could understand such an
// object in another way (RFC 8725 section 2.4, RFC 7515 section 4).
func Object(data []byte) (map[string]jsontext.Value, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(data))
	if dec.PeekKind() != '{' {
		return nil, errors.New("not a JSON object")
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	m := map[string]jsontext.Value{}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		m[key] = value.Clone()
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		return nil, errors.New("more data after the JSON object")
	}
	return m, nil
}

// FoldRune gives the least of the runes that differ by simple case folding
// only, in lower case if it is an ASCII letter: 's' for 'S' and U+017F, 'k'
// for 'K' and U+212A.
func FoldRune(r rune) rune {
	for r >= utf8.RuneSelf {
		next := unicode.SimpleFold(r)
		if next == r {
			return r
		}
		if next < r { // the orbit begins again
			r = next
			break
		}
		r = next
	}
	if 'A' <= r && r <= 'Z' {
		r += 'a' - 'A'
	}
	return r
}
