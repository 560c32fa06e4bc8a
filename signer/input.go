package signer

import (
	"context"
	"encoding/base64"
	"strings"
	"time"
)

// Input is one parsed JWS signing input (RFC 7515 section 5.1, step 5) that
// the caller made: its header is one the daemon could have written, its
// payload is a claims set. It is read-only and safe for concurrent use.
type Input struct {
	Alg     string // of the header, in the table of algorithms
	KID     string // of the header; whether such a key may sign is for the caller to check
	Typ     string // of the header; not yet granted
	text    string
	payload claimSet
}

// ParseSigningInput reads <header>.<payload>, both canonical base64url without
// padding. The header must have exactly the members alg, kid and typ, in any
// order, all of them non-empty strings; the payload must be a JSON object.
// Both are scanned strictly. Every error is an *InputError.
func ParseSigningInput(input string) (Input, error) {
	in := Input{text: input}
	head, body, found := strings.Cut(input, ".")
	if !found || strings.Contains(body, ".") {
		return in, bad(CodeInvalidInput, "signing_input", "signing_input must be <header>.<payload>")
	}
	header, err := decodeSegment(head, "header")
	if err != nil {
		return in, err
	}
	if err := in.parseHeader(header); err != nil {
		return in, err
	}
	payload, err := decodeSegment(body, "payload")
	if err != nil {
		return in, err
	}
	return in, in.parsePayload(payload)
}

// decodeSegment decodes canonical base64url (RFC 7515 section 2): no padding,
// no line breaks, no bits beyond the last byte.
func decodeSegment(segment, name string) ([]byte, error) {
	// The standard decoder skips line breaks even when it is strict.
	if !strings.ContainsAny(segment, "\r\n") {
		if b, err := base64.RawURLEncoding.Strict().DecodeString(segment); err == nil {
			return b, nil
		}
	}
	return nil, bad(CodeInvalidInput, "signing_input", "the "+name+" is not canonical base64url without padding")
}

func (in *Input) parseHeader(header []byte) error {
	var (
		s scanner
		m members
	)
	if err := s.begin(header, maxDepth); err != nil {
		return err
	}
	if err := s.wantObject("the header"); err != nil {
		return err
	}
	if err := s.open(&m); err != nil {
		return err
	}
	for {
		name, more, err := s.next(&m)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if err := in.headerMember(&s, name); err != nil {
			return err
		}
	}
	if err := s.finish(); err != nil {
		return err
	}
	if in.Alg == "" || in.KID == "" || in.Typ == "" {
		return bad(CodeInvalidHeader, "", "the header must have the members alg, kid and typ")
	}
	return nil
}

func (in *Input) headerMember(s *scanner, name []byte) error {
	var (
		text []byte
		err  error
	)
	switch string(name) {
	case "alg":
		in.Alg, err = s.algMember()
	case "kid":
		text, err = s.textMember(CodeInvalidHeader, "kid")
		in.KID = string(text)
	case "typ":
		in.Typ, err = s.typMember()
	default:
		err = bad(CodeHeaderNotAllowed, field(name), "remove "+excerpt(name)+" from the header: it has alg, kid and typ only")
	}
	return err
}

func (in *Input) parsePayload(payload []byte) error {
	var s scanner
	err := s.begin(payload, maxDepth)
	if err != nil {
		return err
	}
	if err := s.wantObject("the payload"); err != nil {
		return err
	}
	if in.payload, err = s.claimSet(); err != nil {
		return err
	}
	return s.finish()
}

// Check applies the claims rules of Request.Issue at the instant now to a
// payload that cannot be changed any more: what the server would insert must
// be there (iss and exp, for at+jwt all of RFC 9068 section 2.2), dates must
// be plain integers, and typ must be written the way the server would write
// it. Every error is an *InputError.
func (in *Input) Check(rules Rules, now time.Time) (Claims, error) {
	c := &in.payload
	if err := in.checkTyp(&rules); err != nil {
		return Claims{}, err
	}
	if err := c.require("nothing can be added to a signing input", claimIss, claimExp); err != nil {
		return Claims{}, err
	}
	if err := rules.checkCommon(c); err != nil {
		return Claims{}, err
	}
	if in.Typ == TypAccessToken {
		if err := c.require(whyAccessToken, claimIss, claimExp, claimAud, claimSub, claimClientID, claimIat, claimJti); err != nil {
			return Claims{}, err
		}
	}
	d, err := c.dates()
	if err != nil {
		return Claims{}, err
	}
	if err := d.checkPlain(); err != nil {
		return Claims{}, err
	}
	if err := rules.checkDates(d, now); err != nil {
		return Claims{}, err
	}
	return in.claims(d, now), nil
}

// checkTyp checks that typ is granted and in its normal form.
func (in *Input) checkTyp(rules *Rules) error {
	typ, err := rules.typ(in.Typ)
	if err != nil {
		return err
	}
	if typ != in.Typ {
		return bad(CodeInvalidTyp, "typ", "write typ as "+excerpt([]byte(typ))+" in the header")
	}
	return nil
}

// checkPlain refuses dates that the server would have to rewrite.
func (d dates) checkPlain() error {
	for _, x := range [...]struct {
		id claim
		date
	}{{claimExp, d.exp}, {claimNbf, d.nbf}, {claimIat, d.iat}} {
		if x.present && !x.plain {
			return bad(CodeInvalidDate, x.id.String(), x.id.String()+" must be a plain integer in a signing input")
		}
	}
	return nil
}

func (in *Input) claims(d dates, now time.Time) Claims {
	c := &in.payload
	out := Claims{
		Payload:   c.doc,
		Typ:       in.Typ,
		JTI:       string(c.text(claimJti)),
		Subject:   string(c.text(claimSub)),
		ExpiresAt: time.Unix(d.exp.sec, 0).UTC(),
		TTL:       time.Duration(d.exp.sec-now.Unix()) * time.Second,
	}
	if d.iat.present {
		out.IssuedAt = time.Unix(d.iat.sec, 0).UTC()
	}
	if aud := c.at[claimAud]; aud.present() {
		out.Audience = c.doc[aud.start:aud.end:aud.end]
	}
	return out
}

// Sign gives the raw JWS signature over the input. The key must be the one
// that the header names, otherwise the error is an *InputError with the code
// CodeHeaderKeyMismatch; Check must have passed before.
func (in *Input) Sign(ctx context.Context, key Signing) ([]byte, error) {
	// Names are compared exactly: EdDSA and Ed25519 sign alike, but a key has
	// one name for ever (RFC 9864 section 2.2).
	if in.KID != key.KID() || in.Alg != key.Algorithm() {
		return nil, bad(CodeHeaderKeyMismatch, "alg", "the header must name the key's kid and its algorithm, "+key.Algorithm())
	}
	return key.Sign(ctx, []byte(in.text))
}
