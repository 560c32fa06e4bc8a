package signer

import (
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// Rules are what a keyset allows its issuers. They are read-only and may be
// shared.
type Rules struct {
	Issuer    string        // the value of iss in every token
	MaxTTL    time.Duration // the longest lifetime, counted from now; at least a second
	ClockSkew time.Duration // how far a supplied iat may be from now, in either direction
	Types     []string      // typ values granted beyond JWT and at+jwt
}

// Claims is a checked payload, ready to be signed, and what a grant condition
// or an audit record wants to know about it. It shares no memory with the
// body the request was parsed from.
type Claims struct {
	Payload   []byte        // the exact bytes to sign, a JSON object
	Typ       string        // the normalised typ of the header
	JTI       string        // the value of jti, empty if there is none
	Subject   string        // the value of sub, empty if there is none
	Audience  []byte        // aud as JSON (a string or an array), nil if absent; part of Payload
	IssuedAt  time.Time     // iat in UTC, zero if absent
	ExpiresAt time.Time     // exp in UTC
	TTL       time.Duration // from now, in whole seconds, to exp
}

// Issue checks the request against the rules at the instant now and builds the
// payload. Members that are missing are inserted: iss, iat, exp, jti. The
// value of iat becomes now, and a date that is not written as a plain integer
// becomes the integer it is floored to. Everything else is taken over byte for
// byte (RFC 7519 section 4.1; for at+jwt RFC 9068 section 2.2).
//
// Every error is an *InputError. It is Forbidden for an iss that is not the
// keyset's and for a typ that is not granted.
func (r *Request) Issue(rules Rules, now time.Time) (Claims, error) {
	typ, err := rules.typ(r.Typ)
	if err != nil {
		return Claims{}, err
	}
	if err := rules.checkCommon(&r.claims); err != nil {
		return Claims{}, err
	}
	d, err := r.claims.dates()
	if err != nil {
		return Claims{}, err
	}
	if typ == TypAccessToken {
		if err := r.claims.require(whyAccessToken, claimAud, claimSub, claimClientID); err != nil {
			return Claims{}, err
		}
	}
	if !d.exp.present {
		if d.exp.sec, err = rules.expiry(r.TTL, now); err != nil {
			return Claims{}, err
		}
	} else if r.TTL != 0 {
		return Claims{}, bad(CodeTTLAndExp, "ttl", "give either ttl or the claim exp, not both")
	}
	if err := rules.checkDates(d, now); err != nil {
		return Claims{}, err
	}
	return r.build(typ, d, rules.Issuer, now), nil
}

const whyAccessToken = "an at+jwt needs it (RFC 9068 section 2.2)"

// typ normalises the typ asked for and checks that it is granted. Media types
// are compared without regard to case, and a bare "application/" prefix is
// dropped (RFC 7515 section 4.1.9).
func (r *Rules) typ(asked string) (string, error) {
	switch asked {
	case "", TypJWT:
		return TypJWT, nil
	case TypAccessToken:
		return TypAccessToken, nil
	}
	name := shortType(asked)
	if strings.EqualFold(name, TypJWT) {
		return TypJWT, nil
	}
	if strings.EqualFold(name, TypAccessToken) {
		return TypAccessToken, nil
	}
	for _, t := range r.Types {
		if t = shortType(t); strings.EqualFold(name, t) {
			return t, nil
		}
	}
	return "", forbidden(CodeTypNotGranted, "typ", "typ "+excerpt([]byte(asked))+" is not granted: use JWT or at+jwt, or ask for a grant")
}

func shortType(t string) string {
	const prefix = "application/"
	if len(t) > len(prefix) && strings.EqualFold(t[:len(prefix)], prefix) && !strings.Contains(t[len(prefix):], "/") {
		return t[len(prefix):]
	}
	return t
}

// checkCommon applies the rules that do not depend on time.
func (r *Rules) checkCommon(c *claimSet) error {
	if v := c.at[claimIss]; v.present() {
		if v.kind != kindString {
			return bad(CodeInvalidClaim, "iss", "iss must be a string; leave it out and the server adds it")
		}
		if string(v.text(c.doc)) != r.Issuer {
			return forbidden(CodeForeignIssuer, "iss", "iss is not this keyset's issuer; leave it out and the server adds it")
		}
	}
	return c.checkShapes()
}

// expiry is exp for the lifetime asked for; 0 asks for the longest.
func (r *Rules) expiry(ttl time.Duration, now time.Time) (int64, error) {
	switch {
	case ttl == 0:
		ttl = r.MaxTTL
	case ttl > r.MaxTTL:
		return 0, bad(CodeTTLTooLong, "ttl", "ttl is longer than the keyset's maximum of "+r.MaxTTL.String())
	case ttl < time.Second:
		return 0, bad(CodeInvalidTTL, "ttl", "ttl must be at least one second")
	}
	return now.Unix() + int64(ttl/time.Second), nil
}

// checkDates applies the rules about instants. exp must be present. Whole
// seconds are compared, so that a bound never depends on rounding.
func (r *Rules) checkDates(d dates, now time.Time) error {
	latest := now.Add(r.MaxTTL).Unix()
	switch {
	case d.exp.sec <= now.Unix():
		return bad(CodeExpired, "exp", "exp is not after the server's now, "+strconv.FormatInt(now.Unix(), 10))
	case d.exp.sec > latest:
		return bad(CodeExpTooFar, "exp", "exp is beyond "+strconv.FormatInt(latest, 10)+", the server's now plus the keyset's maximum of "+r.MaxTTL.String())
	case d.nbf.present && d.nbf.sec >= d.exp.sec:
		return bad(CodeNotBefore, "nbf", "nbf must be before exp")
	}
	if d.iat.present && (d.iat.sec < now.Add(-r.ClockSkew).Unix() || d.iat.sec > now.Add(r.ClockSkew).Unix()) {
		return bad(CodeIssuedAt, "iat", "iat is further than "+r.ClockSkew.String()+" from the server's now, "+
			strconv.FormatInt(now.Unix(), 10)+"; leave it out and the server adds it")
	}
	return nil
}

// edit replaces the text of a date.
type edit struct {
	value
	sec int64
}

// edits lists, in the order of the text, the dates that must be rewritten.
func (c *claimSet) edits(list []edit, d dates, now int64) []edit {
	add := func(id claim, sec int64) {
		list = append(list, edit{c.at[id], sec})
		for i := len(list) - 1; i > 0 && list[i].start < list[i-1].start; i-- {
			list[i], list[i-1] = list[i-1], list[i]
		}
	}
	if d.exp.present && !d.exp.plain {
		add(claimExp, d.exp.sec)
	}
	if d.nbf.present && !d.nbf.plain {
		add(claimNbf, d.nbf.sec)
	}
	if d.iat.present {
		add(claimIat, now)
	}
	return list
}

// insertRoom is what the inserted members take, without the issuer: names,
// punctuation, two dates of at most 20 bytes, a jti.
const insertRoom = 128

// build writes the payload. Everything was checked before.
func (r *Request) build(typ string, d dates, issuer string, now time.Time) Claims {
	c, iat := &r.claims, now.Unix()
	out := Claims{
		Typ:       typ,
		Subject:   string(c.text(claimSub)),
		JTI:       string(c.text(claimJti)),
		IssuedAt:  time.Unix(iat, 0).UTC(),
		ExpiresAt: time.Unix(d.exp.sec, 0).UTC(),
		TTL:       time.Duration(d.exp.sec-iat) * time.Second,
	}
	var room [3]edit
	b := make([]byte, 0, c.end-c.start+len(issuer)+insertRoom)
	from, aud := c.start, c.at[claimAud]
	audAt := aud.start - c.start
	for _, e := range c.edits(room[:0], d, iat) {
		b = append(b, c.doc[from:e.start]...)
		b = strconv.AppendInt(b, e.sec, 10)
		if from = e.end; e.end <= aud.start {
			audAt = len(b) + aud.start - from
		}
	}
	b = append(b, c.doc[from:c.end-1]...) // without the closing brace

	comma := !c.empty
	member := func(name string) {
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(b, name...)
	}
	if !c.at[claimIss].present() {
		member(`"iss":`)
		b = appendString(b, issuer)
	}
	if !d.iat.present {
		member(`"iat":`)
		b = strconv.AppendInt(b, iat, 10)
	}
	if !d.exp.present {
		member(`"exp":`)
		b = strconv.AppendInt(b, d.exp.sec, 10)
	}
	if !c.at[claimJti].present() {
		out.JTI = newJTI()
		member(`"jti":"`)
		b = append(append(b, out.JTI...), '"')
	}
	out.Payload = append(b, '}')
	if aud.present() {
		out.Audience = out.Payload[audAt : audAt+aud.end-aud.start : audAt+aud.end-aud.start]
	}
	return out
}

// newJTI gives 128 random bits, base64url-encoded (RFC 7519 section 4.1.7).
func newJTI() string {
	var raw [16]byte
	rand.Read(raw[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(raw[:])
}
