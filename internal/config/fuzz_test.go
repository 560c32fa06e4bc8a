package config

import (
	"errors"
	"os"
	"reflect"
	"testing"
)

// FuzzParse: no panic, every error is an *Error with a place, and what was
// accepted is accepted again with the same result.
func FuzzParse(f *testing.F) {
	sample, err := os.ReadFile("testdata/sample.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	for _, seed := range []string{
		minimal, "", "{}", "keysets: {a: {issuer: 'https://a.example', rotate: \"CRON_TZ=\"}}",
		keyset("rotate: \"TZ= 0 3 1 * *\""), keyset("algorithms: [none, HS256]"), keyset("token_ttl_max: 1e400"),
		"a: &a [*a]\n", "a: !!binary x\n", "? [a]\n: b\n", "a: |2-\n   x\n", "a: >+\n\n", "%TAG ! x\n---\n", "{a: [}", "\"\\x", "- - - a",
		keyset("discovery: y"), keyset("issuer: \"\\u0000\""), "callers: [{grants: [{}, 1, ~]}]", "listeners: {api: {tls: ~}}",
		"keysets:\n  a: {issuer: >-\n      https://a.example\n  }\n", "keysets:\r  a:\r    issuer: x\r",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f.yaml", data, now())
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) == 0 || err.Error() == "" {
				t.Fatalf("no problem in %#v", err)
			}
			return
		}
		if _, err := Check(c, now()); err != nil {
			t.Fatalf("accepted, but does not hold: %v", err)
		}
		again, err := Parse("f.yaml", data, now())
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("the second time: %v\n%+v\n%+v", err, c, again)
		}
	})
}
