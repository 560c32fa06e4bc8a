package jwks

import "strings"

// noneMatchFails reports whether If-None-Match, given as its field lines, is
// false for a representation with this strong entity tag, so that the answer
// is 304 (RFC 9110 section 13.1.2). Tags are compared weakly (section
// 8.8.3.2): W/"a" matches "a". A line that is not a list of entity tags counts
// up to its first mistake; after that it matches nothing, which costs the
// client a full answer and no more.
func noneMatchFails(lines []string, etag string) bool {
	for _, line := range lines {
		if line == etag || len(lines) == 1 && trim(line) == "*" {
			return true
		}
		for rest := line; ; {
			tag, next, ok := nextTag(rest)
			if !ok {
				break
			}
			if tag == etag {
				return true
			}
			rest = next
		}
	}
	return false
}

// nextTag takes one entity tag, without W/ and with its quotes, from the front
// of a list. A comma inside the quotes belongs to the tag; empty list elements
// are passed over (RFC 9110 section 5.6.1.2).
func nextTag(list string) (tag, rest string, ok bool) {
	list = strings.TrimLeft(list, " \t,")
	list = strings.TrimPrefix(list, "W/")
	if list == "" || list[0] != '"' {
		return "", "", false
	}
	end := strings.IndexByte(list[1:], '"')
	if end < 0 {
		return "", "", false
	}
	tag, rest = list[:end+2], trim(list[end+2:])
	if rest != "" && rest[0] != ',' {
		return "", "", false
	}
	return tag, rest, true
}

// trim removes optional white space (RFC 9110 section 5.6.3).
func trim(s string) string { return strings.Trim(s, " \t") }
