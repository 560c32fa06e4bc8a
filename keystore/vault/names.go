package vault

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds keysets and kids. An escaped name is up to three times as
// long.
const maxName = 512

func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s: the name is empty", what)
	case len(name) > maxName:
		return fmt.Errorf("%s: the name has %d bytes, more than %d", what, len(name), maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s %q: the name is not valid UTF-8", what, name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%s %q: the name has a control character", what, name)
	}
	return nil
}

// segment makes a name one segment of a path that no client, proxy or policy
// reads in another way: letters, digits, "-", "_" and "." that is not the
// first stay, every other byte becomes "~" and two hex digits. It is
// reversible, and keeps different names different.
func segment(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "~%02X", c)
		}
	}
	return b.String()
}

var errForeignName = errors.New("not a name of ours")

// unsegment is the reverse of segment, and refuses what segment does not make.
func unsegment(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '~' {
			b.WriteByte(s[i])
			continue
		}
		if len(s) < i+3 {
			return "", errForeignName
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", errForeignName
		}
		b.WriteByte(byte(c))
		i += 2
	}
	if name := b.String(); segment(name) == s {
		return name, nil
	}
	return "", errForeignName
}
