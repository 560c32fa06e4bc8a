package signer

import (
	"strconv"
	"strings"
	"time"

	"github.com/jwksd/jwksd/internal/jwa"
)

// Request is one parsed request to sign. It refers to the body it was parsed
// from, so the body must not change before Issue has returned. A Request is
// read-only and safe for concurrent use.
type Request struct {
	Alg    string        // the lane the caller asks for, empty for the keyset's default
	Typ    string        // the typ as it was asked for, empty for the default; not yet granted
	TTL    time.Duration // the lifetime asked for, 0 if none was
	claims claimSet
}

// bodyDepth and batchDepth are the limits at which the claims in a request,
// and in a batch of them, may nest maxDepth deep.
const (
	bodyDepth  = maxDepth + 1
	batchDepth = maxDepth + 3
)

// ParseRequest reads the body of a request to sign:
//
//	{"claims":{…},"ttl":"5m","typ":"JWT","alg":"ES256"}
//
// Only claims is required. The body is scanned once, strictly. Any other
// member is refused, and one that looks like a header parameter with its own
// code: the caller never writes the header (RFC 8725 section 3.1). Every error
// is an *InputError.
func ParseRequest(body []byte) (Request, error) {
	var s scanner
	if err := s.begin(body, bodyDepth); err != nil {
		return Request{}, err
	}
	r, err := s.request()
	if err != nil {
		return Request{}, err
	}
	return r, s.finish()
}

// request scans one envelope.
func (s *scanner) request() (Request, error) {
	var (
		r Request
		m members
	)
	if err := s.wantObject("the request"); err != nil {
		return r, err
	}
	if err := s.open(&m); err != nil {
		return r, err
	}
	for {
		name, more, err := s.next(&m)
		if err != nil {
			return r, err
		}
		if !more {
			break
		}
		if err := s.requestMember(&r, name); err != nil {
			return r, err
		}
	}
	if r.claims.end == 0 {
		return r, bad(CodeClaimsMissing, "claims", "give the claims to sign in the member claims")
	}
	return r, nil
}

func (s *scanner) requestMember(r *Request, name []byte) error {
	var err error
	switch string(name) {
	case "claims":
		if err = s.wantObject("claims"); err == nil {
			r.claims, err = s.claimSet()
		}
	case "ttl":
		var text []byte
		if text, err = s.textMember(CodeInvalidTTL, "ttl"); err == nil {
			r.TTL, err = parseTTL(text)
		}
	case "typ":
		r.Typ, err = s.typMember()
	case "alg":
		r.Alg, err = s.algMember()
	default:
		err = unknownMember(name)
	}
	return err
}

// wantObject checks that an object comes next.
func (s *scanner) wantObject(what string) error {
	switch c := s.peek(); {
	case c == '{':
		return nil
	case s.pos >= len(s.data):
		return s.unexpected("a JSON object")
	}
	// Text that is no JSON at all is said to be that.
	if _, err := s.value(); err != nil {
		return err
	}
	return s.fail(CodeNotAnObject, what+" must be a JSON object")
}

// textMember scans a member that must be a non-empty string.
func (s *scanner) textMember(code, name string) ([]byte, error) {
	v, err := s.value()
	if err != nil {
		return nil, err
	}
	if v.kind != kindString || v.end-v.start == 2 {
		return nil, bad(code, name, name+" must be a non-empty string")
	}
	return v.text(s.data), nil
}

func (s *scanner) typMember() (string, error) {
	text, err := s.textMember(CodeInvalidTyp, "typ")
	switch string(text) {
	case TypJWT:
		return TypJWT, err
	case TypAccessToken:
		return TypAccessToken, err
	}
	return string(text), err
}

// algMember scans the choice of a lane: an algorithm of the table.
func (s *scanner) algMember() (string, error) {
	text, err := s.textMember(CodeInvalidAlg, "alg")
	if err != nil {
		return "", err
	}
	a, err := jwa.Lookup(string(text))
	if err != nil {
		return "", bad(CodeInvalidAlg, "alg", "alg "+excerpt(text)+" is not supported: choose one of "+strings.Join(jwa.Names(), ", "))
	}
	return a.Name, nil
}

// unknownMember refuses a member of the envelope, saying why if it is one
// that would reach for the header.
func unknownMember(name []byte) error {
	switch string(name) {
	case "header", "headers", "protected", "unprotected",
		"kid", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64", "zip", "enc", "cty":
		return bad(CodeHeaderNotAllowed, field(name),
			"remove "+excerpt(name)+": the server writes the header; only typ and alg can be asked for")
	}
	return bad(CodeUnknownMember, field(name),
		"remove "+excerpt(name)+": a request has the members claims, ttl, typ, alg")
}

// maxTTLText bounds the text of a ttl in bytes.
const maxTTLText = 64

// parseTTL reads a positive duration: Go's syntax, with days in front ("5m",
// "1d12h", "0.5d"). A day has 24 hours.
func parseTTL(text []byte) (time.Duration, error) {
	refuse := func() (time.Duration, error) {
		return 0, bad(CodeInvalidTTL, "ttl", "ttl "+excerpt(text)+` is not a positive duration such as "5m" or "1d12h"`)
	}
	if len(text) > maxTTLText {
		return refuse()
	}
	s, days := string(text), time.Duration(0)
	if before, after, found := strings.Cut(s, "d"); found {
		d, err := strconv.ParseFloat(before, 64)
		if err != nil || strings.Trim(before, "0123456789.") != "" || d > 1e5 {
			return refuse()
		}
		if days, s = time.Duration(d*float64(24*time.Hour)), after; s == "" {
			s = "0"
		}
	}
	rest, err := time.ParseDuration(s)
	if err != nil || s[0] == '-' || s[0] == '+' || rest+days <= 0 {
		return refuse()
	}
	return rest + days, nil
}

// BatchItem is one request of a batch, or why it was refused.
type BatchItem struct {
	Request Request
	Err     error // nil, or an *InputError about this item only
}

// ParseBatch reads the body of a batch, {"requests":[…]}, of at most limit
// requests. Text that is not strict JSON refuses the whole batch; an item that
// is, but is not a valid request, is refused alone. The items stand in the
// order of the body and refer to it as a Request does.
func ParseBatch(body []byte, limit int) ([]BatchItem, error) {
	var (
		s scanner
		m members
	)
	if err := s.begin(body, batchDepth); err != nil {
		return nil, err
	}
	if err := s.wantObject("the batch"); err != nil {
		return nil, err
	}
	if err := s.open(&m); err != nil {
		return nil, err
	}
	var items []BatchItem
	for {
		name, more, err := s.next(&m)
		switch {
		case err != nil:
			return nil, err
		case !more && items == nil:
			return nil, bad(CodeInvalidBatch, "requests", "give at least one request in the member requests")
		case !more:
			return items, s.finish()
		case string(name) != "requests":
			return nil, bad(CodeUnknownMember, field(name), "remove "+excerpt(name)+": a batch has the member requests only")
		}
		if items, err = s.requests(limit); err != nil {
			return nil, err
		}
	}
}

// requests scans the array of a batch.
func (s *scanner) requests(limit int) ([]BatchItem, error) {
	if s.peek() != '[' {
		if _, err := s.value(); err != nil {
			return nil, err
		}
		return nil, bad(CodeInvalidBatch, "requests", "requests must be an array")
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	var items []BatchItem
	if s.peek() == ']' {
		s.pos++
		s.depth--
		return items, nil
	}
	for {
		if len(items) == limit {
			return nil, bad(CodeTooManyRequests, "requests", "send at most "+strconv.Itoa(limit)+" requests in a batch")
		}
		item, err := s.batchItem()
		if err != nil {
			return nil, err
		}
		items = append(items, item)
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			s.depth--
			return items, nil
		default:
			return nil, s.unexpected("',' or ']'")
		}
	}
}

// batchItem scans one request. If it is refused, the scan goes back and walks
// over the item as plain JSON, so that the next one is found.
func (s *scanner) batchItem() (BatchItem, error) {
	pos, depth, names := s.pos, s.depth, len(s.names)
	r, err := s.request()
	if err == nil {
		return BatchItem{Request: r}, nil
	}
	s.pos, s.depth, s.names = pos, depth, s.names[:names]
	if _, err := s.value(); err != nil {
		return BatchItem{}, err
	}
	return BatchItem{Err: err}, nil
}
