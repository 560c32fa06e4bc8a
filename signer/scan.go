package signer

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep objects and arrays may nest; a claims set itself has
// depth 1.
const maxDepth = 32

// linearNames is up to how many members an object's names are compared one by
// one. Beyond it they go into a map, so that no object costs quadratic time.
const linearNames = 16

// kind says what a JSON value is. The zero kind means that there is none.
type kind uint8

const (
	kindNone kind = iota
	kindString
	kindNumber
	kindBool
	kindNull
	kindObject
	kindArray
)

// value is where a JSON value lies in the text, its quotes or brackets
// included.
type value struct {
	start, end int
	kind       kind
	escaped    bool // a string with at least one escape
}

// present reports whether there is a value.
func (v value) present() bool { return v.kind != kindNone }

// text gives what a string says, without quotes and escapes. It is a part of
// doc unless there were escapes.
func (v value) text(doc []byte) []byte {
	b := doc[v.start+1 : v.end-1]
	if v.escaped {
		return unescape(b)
	}
	return b
}

// scanner walks JSON text once, from left to right, and is stricter than
// RFC 8259: duplicate member names at any depth, invalid UTF-8, lone
// surrogates, a byte order mark, depth over its limit and numbers outside
// float64 are errors (I-JSON, RFC 7493 section 2). It recurses at most as deep
// as its limit and takes time linear in the text.
type scanner struct {
	data   []byte
	pos    int
	depth  int
	limit  int
	names  [][]byte // of the objects that are open, innermost last; keys in a claims set
	folded []byte   // the keys in names that are not the names themselves
}

// begin prepares the scanner for data, nested at most limit deep.
func (s *scanner) begin(data []byte, limit int) error {
	s.data, s.limit = data, limit
	s.names = make([][]byte, 0, linearNames) // enough for most requests
	if bytes.HasPrefix(s.data, []byte("\xef\xbb\xbf")) {
		return s.fail(CodeByteOrderMark, "remove the byte order mark")
	}
	return nil
}

// finish checks that nothing but white space is left.
func (s *scanner) finish() error {
	if s.space(); s.pos < len(s.data) {
		return s.fail(CodeTrailingData, "remove what follows the JSON value")
	}
	return nil
}

// fail makes an error that names the position.
func (s *scanner) fail(code, detail string) error {
	return bad(code, "", detail+" (byte "+strconv.Itoa(s.pos)+")")
}

// space skips the white space of RFC 8259 section 2.
func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek skips white space and gives the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.space(); s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

// unexpected describes the byte at the position.
func (s *scanner) unexpected(want string) error {
	if s.pos >= len(s.data) {
		return s.fail(CodeInvalidJSON, "the JSON ends too early, expected "+want)
	}
	switch s.data[s.pos] {
	case 'N', 'I':
		return s.fail(CodeInvalidJSON, "NaN and Infinity are not JSON numbers")
	}
	return s.fail(CodeInvalidJSON, "expected "+want+", found "+excerpt(s.data[s.pos:s.pos+1]))
}

// value scans one value of any kind and everything in it.
func (s *scanner) value() (value, error) {
	c := s.peek()
	v := value{start: s.pos}
	var err error
	switch {
	case c == '"':
		return s.string()
	case c == '{':
		v.kind, err = kindObject, s.object()
	case c == '[':
		v.kind, err = kindArray, s.array()
	case c == '-' || '0' <= c && c <= '9':
		v.kind, err = kindNumber, s.number()
	case c == 't':
		v.kind, err = kindBool, s.literal("true")
	case c == 'f':
		v.kind, err = kindBool, s.literal("false")
	case c == 'n':
		v.kind, err = kindNull, s.literal("null")
	default:
		err = s.unexpected("a value")
	}
	v.end = s.pos
	return v, err
}

func (s *scanner) literal(word string) error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.fail(CodeInvalidJSON, "expected "+word)
	}
	s.pos += len(word)
	return nil
}

// enter goes one level deeper; the position is at the opening bracket.
func (s *scanner) enter() error {
	if s.depth++; s.depth > s.limit {
		return s.fail(CodeTooDeep, "nest objects and arrays at most "+strconv.Itoa(maxDepth)+" deep")
	}
	s.pos++
	return nil
}

func (s *scanner) array() error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.pos++
		s.depth--
		return nil
	}
	for {
		if _, err := s.value(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			s.depth--
			return nil
		default:
			return s.unexpected("',' or ']'")
		}
	}
}

func (s *scanner) object() error {
	var m members
	if err := s.open(&m); err != nil {
		return err
	}
	for {
		if _, more, err := s.next(&m); err != nil || !more {
			return err
		}
		if _, err := s.value(); err != nil {
			return err
		}
	}
}

// members is the state of one open object.
type members struct {
	folds bool                // a claims set: letter case does not tell names apart
	start int                 // where it begins in the text
	base  int                 // where its names begin in scanner.names
	count int                 // how many members were seen
	seen  map[string]struct{} // the names or keys, once there are many
}

// open enters the object at the position.
func (s *scanner) open(m *members) error {
	if s.peek() != '{' {
		return s.unexpected("'{'")
	}
	m.start, m.base = s.pos, len(s.names)
	return s.enter()
}

// next goes to the value of the next member and gives its name without
// escapes. At the end of the object it leaves it, and more is false.
func (s *scanner) next(m *members) (name []byte, more bool, err error) {
	c := s.peek()
	switch {
	case c == '}':
		s.pos++
		s.depth--
		s.names = s.names[:m.base]
		return nil, false, nil
	case m.count > 0 && c != ',':
		return nil, false, s.unexpected("',' or '}'")
	case m.count > 0:
		s.pos++
	}
	if s.peek() != '"' {
		return nil, false, s.unexpected("a member name")
	}
	v, err := s.string()
	if err != nil {
		return nil, false, err
	}
	name = v.text(s.data)
	s.pos = v.start // where an error is
	if err := s.admitName(m, name); err != nil {
		return nil, false, err
	}
	s.pos = v.end
	if s.peek() != ':' {
		return nil, false, s.unexpected("':'")
	}
	s.pos++
	m.count++
	return name, true, nil
}

// admitName records a name, or says why the object may not have it.
func (s *scanner) admitName(m *members, name []byte) error {
	key := name
	if m.folds {
		key = s.foldName(name)
		if err := s.misspelt(name, key); err != nil {
			return err
		}
	}
	if !s.admit(m, key) {
		return s.collision(m, name)
	}
	return nil
}

// admit records a name or key and reports whether it is new in its object.
func (s *scanner) admit(m *members, name []byte) bool {
	if m.seen != nil {
		if _, dup := m.seen[string(name)]; dup {
			return false
		}
		m.seen[string(name)] = struct{}{}
		return true
	}
	for _, n := range s.names[m.base:] {
		if bytes.Equal(n, name) {
			return false
		}
	}
	s.names = append(s.names, name)
	if m.count+1 == linearNames {
		m.seen = make(map[string]struct{}, 4*linearNames)
		for _, n := range s.names[m.base:] {
			m.seen[string(n)] = struct{}{}
		}
	}
	return true
}

// field is a member name for InputError, empty if it is long.
func field(name []byte) string {
	if len(name) > maxExcerpt {
		return ""
	}
	return string(name)
}

// string scans the string at the position.
func (s *scanner) string() (value, error) {
	v := value{start: s.pos, kind: kindString}
	s.pos++
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		switch {
		case c == '"':
			s.pos++
			v.end = s.pos
			return v, nil
		case c == '\\':
			v.escaped = true
			if err := s.escape(); err != nil {
				return v, err
			}
		case c < 0x20:
			return v, s.fail(CodeControlCharacter, "escape control characters in strings")
		case c < utf8.RuneSelf:
			s.pos++
		default:
			r, n := utf8.DecodeRune(s.data[s.pos:])
			if r == utf8.RuneError && n == 1 {
				return v, s.fail(CodeInvalidUTF8, "encode strings as UTF-8")
			}
			s.pos += n
		}
	}
	return v, s.unexpected("'\"'")
}

// escape scans the escape at the position, a pair of surrogates as one.
func (s *scanner) escape() error {
	if s.pos+1 >= len(s.data) {
		s.pos = len(s.data)
		return s.unexpected("an escape")
	}
	switch s.data[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return nil
	case 'u':
	default:
		return s.fail(CodeInvalidJSON, "unknown escape in a string")
	}
	unit := hex4(s.data[s.pos:])
	switch {
	case unit < 0:
		return s.fail(CodeInvalidJSON, `\u needs four hexadecimal digits`)
	case unit < 0xd800 || unit > 0xdfff:
		s.pos += 6
		return nil
	}
	if low := hex4(s.data[s.pos+6:]); unit > 0xdbff || low < 0xdc00 || low > 0xdfff {
		return s.fail(CodeLoneSurrogate, "surrogates must come in pairs, high then low")
	}
	s.pos += 12
	return nil
}

// hex4 reads \uXXXX at the beginning of b, -1 if it is not that.
func hex4(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[2:6] {
		r <<= 4
		switch {
		case '0' <= c && c <= '9':
			r |= rune(c - '0')
		case 'a' <= c && c <= 'f':
			r |= rune(c-'a') + 10
		case 'A' <= c && c <= 'F':
			r |= rune(c-'A') + 10
		default:
			return -1
		}
	}
	return r
}

// unescape resolves the escapes of a string that was scanned.
func unescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] != '\\' {
			out = append(out, b[i])
			i++
			continue
		}
		switch c := b[i+1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(b[i:])
			i += 6
			if 0xd800 <= r && r <= 0xdfff {
				r = 0x10000 + (r-0xd800)<<10 + (hex4(b[i:]) - 0xdc00)
				i += 6
			}
			out = utf8.AppendRune(out, r)
			continue
		default:
			out = append(out, c)
		}
		i += 2
	}
	return out
}
