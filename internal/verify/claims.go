package verify

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// registered holds the registered claims (RFC 7519 section 4.1) that are
// checked, with the types that the RFC gives them.
type registered struct {
	issuer, subject string
	audience        []string
	exp, nbf, iat   time.Time // zero if absent
}

// readClaims reads the registered claims. Each may be absent here; none may
// have a wrong type, checked or not.
func readClaims(m members) (registered, error) {
	var r registered
	var err error
	if r.issuer, _, err = m.text("iss"); err != nil {
		return r, err
	}
	if r.subject, _, err = m.text("sub"); err != nil {
		return r, err
	}
	if r.audience, err = m.audience(); err != nil {
		return r, err
	}
	if r.exp, err = m.date("exp"); err != nil {
		return r, err
	}
	if r.nbf, err = m.date("nbf"); err != nil {
		return r, err
	}
	r.iat, err = m.date("iat")
	return r, err
}

// date reads a NumericDate (RFC 7519 section 2); the zero time if absent.
func (m members) date(name string) (time.Time, error) {
	v, ok := m[name]
	if !ok {
		return time.Time{}, nil
	}
	if v.Kind() != '0' {
		return time.Time{}, errors.New(name + " is not a number")
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || math.Abs(f) >= 1<<53 {
		return time.Time{}, errors.New(name + " is beyond any date")
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(frac*1e9)).UTC(), nil
}

// audience reads aud: a string or an array of strings (RFC 7519 section
// 4.1.3).
func (m members) audience() ([]string, error) {
	v, ok := m["aud"]
	if !ok {
		return nil, nil
	}
	wrong := errors.New("aud is neither a string nor an array of strings")
	switch v.Kind() {
	case '"':
		s, _, err := m.text("aud")
		return []string{s}, err
	case '[':
		list, err := texts(v)
		if err != nil {
			return nil, wrong
		}
		return list, nil
	}
	return nil, wrong
}

// texts reads an array of strings.
func texts(array jsontext.Value) ([]string, error) {
	var all []string
	err := elements(array, func(v jsontext.Value) error {
		if v.Kind() != '"' {
			return errors.New("not a string")
		}
		b, err := jsontext.AppendUnquote(nil, v)
		all = append(all, string(b))
		return err
	})
	return all, err
}
