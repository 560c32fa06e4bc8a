package verify

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
)

// Names that readers without regard to letter case take for others. The
// tokens are honestly signed: nothing but the names is wrong.
func TestC50NamesDifferByMoreThanCase(t *testing.T) {
	p := newParty(t, "ES256")
	set := setJSON(t, p)
	refused := func(header, claims string) {
		t.Helper()
		v, err := ours(t, p.token(t, header, claims), set, options())
		var e *Error
		if v != nil || !errors.As(err, &e) || e.Code != CodeAmbiguous || e.Hint == "" || len(e.Error()) > 300 {
			t.Errorf("%s %s: %v", header, claims, err)
		}
	}
	for _, name := range claimNames {
		for _, wrong := range misspellings(name) {
			refused(p.header(""), claims(`,"`+wrong+`":9999999999`))
		}
	}
	for _, name := range headerNames {
		for _, wrong := range misspellings(name) {
			refused(p.header(`,"`+wrong+`":"x"`), claims(""))
		}
	}
	for _, more := range []string{
		`"scope":"a","Scope":"b"`, `"Role":1,"rOLE":2`, `"\u212aind":1,"kind":2`, `"task":1,"ta` + "\u017f" + `k":2`, `"é":1,"\u00c9":2`,
		`"iss":"https://auth.example.com","Iss":"https://victim.example"`,
		`"` + strings.Repeat("é", 500) + `":1,"` + strings.Repeat("É", 500) + `":2`,
	} {
		if !strings.Contains(more, "iss") {
			refused(p.header(","+more), claims(""))
			refused(p.header(""), claims(","+more))
		}
		refused(p.header(""), "{"+more+"}")
	}
	for _, more := range []string{
		`"Scope":"a","emailVerified":true,"É":1`, `"x":{"Iss":1,"iss":2,"role":1,"Role":2}`, `"ss":1,"ß":2,"i̇":3,"İ":4`, `"x5t#S256x":1`,
	} {
		if _, err := ours(t, p.token(t, p.header(","+more), claims(","+more)), set, options()); err != nil {
			t.Errorf("%s: %v", more, err)
		}
	}
	if _, err := ours(t, p.token(t, p.header(`,"x5t#S256":"x","cty":"json"`), claims("")), set, options()); err != nil {
		t.Error(err)
	}
	if CodeAmbiguous != "ambiguous_member" {
		t.Error("the code changed")
	}
}

// misspellings gives names that EqualFold takes for name, raw and escaped.
func misspellings(name string) []string {
	var list []string
	for _, s := range []string{strings.ToUpper(name), strings.ToLower(name)} {
		if s != name {
			list = append(list, s)
		}
	}
	for i, r := range name {
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			list = append(list, name[:i]+string(f)+name[i+1:], fmt.Sprintf(`%s\u%04x%s`, name[:i], f, name[i+1:]))
		}
	}
	return list
}

// The record of what the case of a name does in go-jose v4.1.8: its own fork
// of encoding/json tells names apart by case, so it reads what was meant, and
// has no reason to refuse.
func TestC50AmbiguousNamesElsewhere(t *testing.T) {
	p := newParty(t, "ES256")
	check(t, setJSON(t, p), []rejection{
		{name: "Iss after iss", token: p.token(t, p.header(""), claims(`,"Iss":"https://victim.example"`)), code: CodeAmbiguous, passes: true},
		{name: "EXP after exp", token: p.token(t, p.header(""), claims(`,"EXP":9999999999`)), code: CodeAmbiguous, passes: true},
		{name: "long s", token: p.token(t, p.header(""), claims(`,"iſs":"https://victim.example"`)), code: CodeAmbiguous, passes: true},
		{name: "CRIT in the header", token: p.token(t, p.header(`,"CRIT":["x"]`), claims("")), code: CodeAmbiguous, passes: true},
		{name: "B64 in the header", token: p.token(t, p.header(`,"B64":false`), claims("")), code: CodeAmbiguous, passes: true},
	})
}
