package signer

// claim numbers the registered claims that have rules (RFC 7519 section 4.1,
// RFC 9068 section 2.2).
type claim int

const (
	claimIss claim = iota
	claimSub
	claimAud
	claimExp
	claimNbf
	claimIat
	claimJti
	claimClientID
	numClaims
)

func (c claim) String() string {
	return [numClaims]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id"}[c]
}

// claimOf gives the registered claim of that name.
func claimOf(name []byte) (claim, bool) {
	switch string(name) {
	case "iss":
		return claimIss, true
	case "sub":
		return claimSub, true
	case "aud":
		return claimAud, true
	case "exp":
		return claimExp, true
	case "nbf":
		return claimNbf, true
	case "iat":
		return claimIat, true
	case "jti":
		return claimJti, true
	case "client_id":
		return claimClientID, true
	}
	return 0, false
}

// claimSet is a claims object that was scanned: where it lies in doc, and
// where the values of the registered claims lie.
type claimSet struct {
	doc        []byte
	start, end int
	empty      bool
	at         [numClaims]value
}

// claimSet scans the object at the position.
func (s *scanner) claimSet() (claimSet, error) {
	c := claimSet{doc: s.data, start: s.pos}
	m := members{folds: true}
	s.folded = s.folded[:0] // claims sets do not nest
	if err := s.open(&m); err != nil {
		return c, err
	}
	for {
		name, more, err := s.next(&m)
		if err != nil {
			return c, err
		}
		if !more {
			break
		}
		id, registered := claimOf(name)
		v, err := s.value()
		if err != nil {
			return c, err
		}
		if registered {
			c.at[id] = v
		}
	}
	c.end, c.empty = s.pos, m.count == 0
	return c, nil
}

// text gives what the string claim id says, empty if it is absent.
func (c *claimSet) text(id claim) []byte {
	if !c.at[id].present() {
		return nil
	}
	return c.at[id].text(c.doc)
}

// checkShapes applies the rules that need neither time nor policy: sub, jti
// and client_id are strings, and jti is not empty, which would identify
// nothing; aud is a string or an array of strings, none of them empty
// (RFC 7519 sections 4.1.3 and 4.1.7).
func (c *claimSet) checkShapes() error {
	for _, id := range [...]claim{claimSub, claimJti, claimClientID} {
		if v := c.at[id]; v.present() && v.kind != kindString {
			return bad(CodeInvalidClaim, id.String(), id.String()+" must be a string")
		}
	}
	if v := c.at[claimJti]; v.present() && v.end-v.start == 2 {
		return bad(CodeInvalidClaim, "jti", "jti must not be empty: give a unique one, or in a request leave it out and the server adds it")
	}
	return c.checkAudience()
}

func (c *claimSet) checkAudience() error {
	v := c.at[claimAud]
	ok := true
	switch v.kind {
	case kindNone:
	case kindString:
		ok = v.end-v.start > 2
	case kindArray:
		ok = c.stringsOnly(v)
	default:
		ok = false
	}
	if !ok {
		return bad(CodeInvalidClaim, "aud", "aud must be a non-empty string or a non-empty array of such")
	}
	return nil
}

// stringsOnly reports whether the array v has members, all of them non-empty
// strings. The array was scanned before, so the walk cannot fail otherwise.
func (c *claimSet) stringsOnly(v value) bool {
	s := scanner{data: c.doc[:v.end], pos: v.start + 1}
	for {
		if s.peek() != '"' {
			return false
		}
		member, err := s.string()
		if err != nil || member.end-member.start == 2 {
			return false
		}
		if s.peek() != ',' {
			return true
		}
		s.pos++
	}
}

// date reads a NumericDate claim (RFC 7519 section 2), floored.
func (c *claimSet) date(id claim) (date, error) {
	v := c.at[id]
	if !v.present() {
		return date{}, nil
	}
	if v.kind != kindNumber {
		return date{}, bad(CodeInvalidDate, id.String(), id.String()+" must be a number of seconds since 1970")
	}
	d, ok := parseDate(c.doc[v.start:v.end])
	if !ok {
		return date{}, bad(CodeInvalidDate, id.String(), id.String()+" must be below 2^53 in magnitude; it counts seconds")
	}
	return d, nil
}

// dates are the instants of a claims set, in whole seconds.
type dates struct{ exp, nbf, iat date }

func (c *claimSet) dates() (d dates, err error) {
	if d.exp, err = c.date(claimExp); err != nil {
		return d, err
	}
	if d.nbf, err = c.date(claimNbf); err != nil {
		return d, err
	}
	d.iat, err = c.date(claimIat)
	return d, err
}

// require refuses a set that lacks one of the claims, or has an empty string
// for it.
func (c *claimSet) require(why string, ids ...claim) error {
	for _, id := range ids {
		v := c.at[id]
		if v.present() && (v.kind != kindString || v.end-v.start > 2) {
			continue
		}
		return bad(CodeClaimMissing, id.String(), "add the claim "+id.String()+": "+why)
	}
	return nil
}
