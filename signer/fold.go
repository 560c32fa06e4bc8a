package signer

import (
	"bytes"
	"unicode/utf8"

	"github.com/jwksd/jwksd/internal/strictjson"
)

// Many verifiers read claims into structures without regard to letter case
// and let the last member win (encoding/json, and with it golang-jwt). For
// them {"iss":"a","Iss":"b"} comes from b, and a lone "EXP" is the expiry. So
// claims may not depend on who reads them: no two names of a claims set may
// be equal under strings.EqualFold, and a claim that the server checks or
// fills has one spelling. Other claims may be spelt at will, since the caller
// could set their usual name as well. The rule is about the top level, where
// the registered claims are.

// foldName gives the key that two names share if and only if they are equal
// under strings.EqualFold. It is the name itself for most names, and never
// longer; other keys are kept in s.folded.
func (s *scanner) foldName(name []byte) []byte {
	i := 0
	for i < len(name) && name[i] < utf8.RuneSelf && (name[i] < 'A' || name[i] > 'Z') {
		i++
	}
	if i == len(name) {
		return name
	}
	from := len(s.folded)
	s.folded = append(s.folded, name[:i]...)
	for i < len(name) {
		r, n := utf8.DecodeRune(name[i:])
		s.folded = utf8.AppendRune(s.folded, strictjson.FoldRune(r))
		i += n
	}
	return s.folded[from:len(s.folded):len(s.folded)]
}

// misspelt refuses a registered claim that is not spelt exactly as it is
// registered. key is the folded name.
func (s *scanner) misspelt(name, key []byte) error {
	id, registered := claimOf(key)
	if !registered || bytes.Equal(name, key) { // registered names are their own keys
		return nil
	}
	return s.ambiguous(id.String(), "spell the claim "+id.String()+" exactly so, not "+excerpt(name)+
		": some verifiers ignore letter case")
}

// collision makes the error for a name whose key the open object has already.
func (s *scanner) collision(m *members, name []byte) error {
	if m.folds && !s.repeated(m, name) {
		return s.ambiguous(field(name), "rename the claim "+excerpt(name)+
			": another one differs from it in letter case only, and some verifiers ignore that")
	}
	err := s.fail(CodeDuplicateMember, "give the member "+excerpt(name)+" once")
	err.(*InputError).Field = field(name)
	return err
}

func (s *scanner) ambiguous(field, detail string) error {
	err := s.fail(CodeAmbiguousMember, detail)
	err.(*InputError).Field = field
	return err
}

// repeated reports whether the open object has a member of exactly that name
// before the one at the position. Only keys were recorded, so it is scanned again.
func (s *scanner) repeated(m *members, name []byte) bool {
	again := scanner{data: s.data[:s.pos], pos: m.start, limit: maxDepth}
	var exact members
	if again.open(&exact) != nil {
		return false
	}
	for {
		earlier, more, err := again.next(&exact)
		if err != nil || !more {
			return false
		}
		if bytes.Equal(earlier, name) {
			return true
		}
		if _, err := again.value(); err != nil {
			return false
		}
	}
}
