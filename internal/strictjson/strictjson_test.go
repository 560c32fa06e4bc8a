package strictjson

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Two runes have one key if and only if EqualFold takes them for each other.
func TestC12FoldsAsEqualFold(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		key := FoldRune(r)
		if next := unicode.SimpleFold(r); key != r && !strings.EqualFold(string(key), string(r)) || FoldRune(next) != key {
			t.Fatalf("%U has the key %U, and %U has %U", r, key, next, FoldRune(next))
		}
		if utf8.RuneLen(key) > utf8.RuneLen(r) {
			t.Fatalf("the key of %U is longer", r)
		}
	}
}

func TestC12ObjectHasOneReading(t *testing.T) {
	for text, ok := range map[string]bool{
		`{}`: true, ` {"a":1,"b":{"a":2}} `: true,
		``: false, `[]`: false, `"a"`: false, `{`: false, `{"a":1}{}`: false, `{"a":1} x`: false,
		`{"a":1,"a":2}`: false, `{"a":1,"\u0061":2}`: false, `{"a":{"b":1,"b":2}}`: false,
		"{\"a\":\"\xff\"}": false, `{"a":"\ud800"}`: false, "\ufeff{}": false, `{"a":01}`: false, `{"a":NaN}`: false,
	} {
		m, err := Object([]byte(text))
		if (err == nil) != ok {
			t.Errorf("%q: %v, %v", text, m, err)
		}
	}
	m, err := Object([]byte(`{"n":9007199254740993}`))
	if err != nil || string(m["n"]) != "9007199254740993" {
		t.Errorf("%s, %v", m["n"], err)
	}
}
