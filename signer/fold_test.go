package signer

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
)

// scanClaims scans one claims set.
func scanClaims(text []byte) (claimSet, error) {
	var s scanner
	if err := s.begin(text, maxDepth); err != nil {
		return claimSet{}, err
	}
	c, err := s.claimSet()
	if err != nil {
		return c, err
	}
	return c, s.finish()
}

// misspellings gives names that EqualFold takes for name, raw and escaped.
func misspellings(name string) []string {
	list := []string{strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], name[:len(name)-1] + strings.ToUpper(name[len(name)-1:])}
	for i, r := range name {
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			list = append(list, name[:i]+string(f)+name[i+1:], fmt.Sprintf(`%s\u%04x%s`, name[:i], f, name[i+1:]))
		}
	}
	return list
}

func TestC12RegisteredClaimsHaveOneSpelling(t *testing.T) {
	for id := range numClaims {
		if claim(id).String() != registeredClaims[id] {
			t.Errorf("claim %d is %v, the tests expect %s", id, claim(id), registeredClaims[id])
		}
	}
	for _, name := range registeredClaims {
		list := misspellings(name)
		if strings.Contains(name, "s") {
			list = append(list, strings.Replace(name, "s", "ſ", 1), strings.Replace(name, "s", `\u017F`, 1), strings.ToUpper(strings.Replace(name, "s", "ſ", 1)))
		}
		for _, wrong := range list {
			for _, claims := range []string{
				`{"%s":"x"}`, `{"%s":9999999999}`, `{"%s":null}`, `{"` + name + `":1,"%s":1}`, `{"%s":1,"` + name + `":1}`,
				`{` + manyMembers(20, "x") + `,"%s":1}`, `{"%s":1,` + manyMembers(20, "x") + `}`,
			} {
				claims = fmt.Sprintf(claims, wrong)
				_, err := issue(`{"claims":` + claims + `}`)
				wantAmbiguous(t, claims, err, name)
				items, err := ParseBatch([]byte(`{"requests":[{"claims":{"Role":1}},{"claims":`+claims+`},{"claims":{"role":1}}]}`), 3)
				if err != nil || items[0].Err != nil || items[2].Err != nil {
					t.Fatalf("%s: %v, %+v", claims, err, items)
				}
				wantAmbiguous(t, claims, items[1].Err, name)
				_, err = checkInput(signingInput(goodHeader, goodPayload[:len(goodPayload)-1]+`,`+claims[1:]))
				if name != "iss" && name != "exp" { // these are there already
					wantAmbiguous(t, claims, err, name)
				} else if err == nil {
					t.Errorf("accepted %s", claims)
				}
				_, err = checkInput(signingInput(goodHeader, claims))
				wantAmbiguous(t, claims, err, name)
			}
			// Below the top level names mean nothing to verifiers.
			nested := `"x":{"` + wrong + `":1,"` + name + `":2,"y":[{"` + wrong + `":3}]}`
			if _, err := issue(`{"claims":{` + nested + `}}`); err != nil {
				t.Errorf("%s: %v", nested, err)
			}
			if _, err := checkInput(signingInput(goodHeader, goodPayload[:len(goodPayload)-1]+`,`+nested+`}`)); err != nil {
				t.Errorf("%s: %v", nested, err)
			}
		}
	}
}

func wantAmbiguous(t *testing.T, text string, err error, field string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted %s", text)
	}
	wantCode(t, err, CodeAmbiguousMember)
	if in := err.(*InputError); in.Field != field {
		t.Fatalf("%s: the field is %q, want %q", text, in.Field, field)
	}
}

func TestC12ClaimsDifferByMoreThanCase(t *testing.T) {
	long, longUpper := strings.Repeat("é", 100), strings.Repeat("É", 100)
	for _, c := range []struct{ claims, code string }{
		{`{"scope":"a","Scope":"b"}`, CodeAmbiguousMember},
		{`{"Scope":"a","scope":"b"}`, CodeAmbiguousMember},
		{`{"Role":"a","rOLE":"b"}`, CodeAmbiguousMember},
		{`{"ROLE":"a","x":1,"r\u006fle":"b"}`, CodeAmbiguousMember},
		{`{"kind":1,"Kind":2}`, CodeAmbiguousMember},
		{`{"\u212aind":1,"Kind":2}`, CodeAmbiguousMember},
		{`{"task":1,"ta` + "\u017f" + `k":2}`, CodeAmbiguousMember},
		{`{"σ":1,"ς":2}`, CodeAmbiguousMember},
		{`{"straße":1,"STRAẞE":2}`, CodeAmbiguousMember},
		{`{"𐐀":1,"\ud801\udc28":2}`, CodeAmbiguousMember},
		{`{"` + long + `":1,"` + longUpper + `":2}`, CodeAmbiguousMember},
		{`{` + manyMembers(14, "M3") + `}`, CodeAmbiguousMember},
		{`{` + manyMembers(15, "M3") + `}`, CodeAmbiguousMember},
		{`{` + manyMembers(16, "M3") + `}`, CodeAmbiguousMember},
		{`{` + manyMembers(1000, "M999") + `}`, CodeAmbiguousMember},
		{`{"A":1,` + manyMembers(1000, "a") + `}`, CodeAmbiguousMember},
		// What is exactly twice is said to be that.
		{`{"Role":1,"Role":2}`, CodeDuplicateMember},
		{`{"Role":{"a":1},"x":[2],"R\u006fle":2}`, CodeDuplicateMember},
		{`{"É":1,"\u00c9":2}`, CodeDuplicateMember},
		{`{"M":1,` + manyMembers(1000, "M") + `}`, CodeDuplicateMember},
		{`{"role":1,"x":{"Role":2},"Role":3,"Role":4}`, CodeAmbiguousMember},
		{`{"x":{"a":1,"a":1},"role":1,"Role":3}`, CodeDuplicateMember},
		// One spelling of a claim without rules, whatever it is, is enough.
		{`{"Scope":"a","Role":"b","emailVerified":true,"É":1,"\u212a":1}`, ""},
		{`{"AZP":"a","NONCE":"b","Cnf":{},"ACT":{}}`, ""},
		{`{"isss":1,"is":1,"I-S-S":1,"client-id":1,"ClientID":1}`, ""},
		{`{"ss":1,"ß":2,"i̇":3,"İ":4,"i":5,"ı":6,"é":7,"e` + "\u0301" + `":8}`, ""}, // simple folds only
		{`{"x":{"role":1,"Role":2,"Iss":3},"y":{"iss":1,"ISS":2}}`, ""},
	} {
		_, err := issue(`{"claims":` + c.claims + `}`)
		_, signErr := checkInput(signingInput(goodHeader, goodPayload[:len(goodPayload)-1]+`,`+c.claims[1:]))
		for _, err := range []error{err, signErr} {
			if c.code != "" {
				wantCode(t, err, c.code)
			} else if err != nil {
				t.Errorf("%s: %v", c.claims, err)
			}
		}
	}
	_, err := issue(`{"claims":{"scope":"a","Scope":"b"}}`)
	wantAmbiguous(t, "scope", err, "Scope")
	// Claims sets of one batch do not know of each other.
	items, err := ParseBatch([]byte(`{"requests":[{"claims":{"Role":1,"X":2}},{"claims":{"ROLE":1,"role":2}},{"claims":{"x":1,"rolE":2}}]}`), 3)
	if err != nil || items[0].Err != nil || items[2].Err != nil {
		t.Fatalf("%v, %+v", err, items)
	}
	wantCode(t, items[1].Err, CodeAmbiguousMember)
}

// Claims in camel case cost one allocation, however many there are.
func TestFoldingAllocations(t *testing.T) {
	plain, camel := []byte(`{"claims":{"aa":1,"bb":2,"cc":3,"dd":4}}`), []byte(`{"claims":{"aA":1,"bB":2,"cC":3,"dD":4}}`)
	count := func(body []byte) float64 {
		return testing.AllocsPerRun(200, func() {
			if _, err := ParseRequest(body); err != nil {
				t.Fatal(err)
			}
		})
	}
	if a, b := count(plain), count(camel); b > a+1 {
		t.Errorf("%.0f allocations, %.0f in camel case", a, b)
	}
}
