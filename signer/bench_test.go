package signer

import (
	"crypto/ecdsa"
	"crypto/rand"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

const benchBody = `{"claims":{"sub":"248289761001","aud":["https://api.example.com"],"client_id":"s6BhdRkqt3","scope":"openid profile email","roles":["reader","writer"],"tenant":{"id":42,"name":"acme"},"auth_time":1799999000},"ttl":"5m","typ":"at+jwt"}`

func issueAndSign(tb testing.TB, body []byte, rules *Rules, key Signing) []byte {
	r, err := ParseRequest(body)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := r.Issue(*rules, testNow)
	if err != nil {
		tb.Fatal(err)
	}
	token, err := SignToken(tb.Context(), key, out.Typ, out.Payload)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// TestAllocations bounds what this package adds to the bare signature. The
// bare ECDSA signature of the standard library allocates far more by itself,
// and differently from release to release, so it is measured and subtracted.
func TestAllocations(t *testing.T) {
	const bound = 12
	body, rules := []byte(benchBody), testRules()
	for _, alg := range []string{"ES256", "EdDSA"} {
		key, _ := testKey(t, alg)
		digest := key.digest([]byte("input"))
		raw := testing.AllocsPerRun(200, func() { key.priv.Sign(rand.Reader, digest, key.opts) })
		all := testing.AllocsPerRun(200, func() { issueAndSign(t, body, &rules, key) })
		t.Logf("%s: %.0f allocations, %.0f of them in the bare signature", alg, all, raw)
		if all-raw > bound {
			t.Errorf("%s: %.0f allocations beyond the bare signature, at most %d wanted", alg, all-raw, bound)
		}
	}
	scan := testing.AllocsPerRun(200, func() {
		if _, err := ParseRequest(body); err != nil {
			t.Fatal(err)
		}
	})
	if t.Logf("parsing: %.0f allocations", scan); scan > 2 {
		t.Errorf("parsing: %.0f allocations", scan)
	}
}

// TestNamesAreComparedOneByOneOnlyWhileFew keeps hostile objects from costing the
// square of their size: from linearNames members on a map is asked, and the list
// of names stops growing. How time grows is for BenchmarkHostile to show.
func TestNamesAreComparedOneByOneOnlyWhileFew(t *testing.T) {
	for _, folds := range []bool{false, true} {
		var s scanner
		m := members{folds: folds}
		if err := s.begin([]byte("{"+manyMembers(1000, "x")+"}"), maxDepth); err != nil {
			t.Fatal(err)
		}
		if err := s.open(&m); err != nil {
			t.Fatal(err)
		}
		for n := 1; ; n++ {
			_, more, err := s.next(&m)
			if err != nil {
				t.Fatal(err)
			}
			if !more {
				break
			}
			if listed := len(s.names) - m.base; listed > linearNames {
				t.Fatalf("after %d members %d names are compared one by one", n, listed)
			}
			if n > linearNames && len(m.seen) != n {
				t.Fatalf("after %d members the map has %d", n, len(m.seen))
			}
			if _, err := s.value(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// hostileTexts are of about n bytes each, and made to be slow to scan.
func hostileTexts() map[string]func(n int) string {
	return map[string]func(n int) string{
		"many members":                  func(n int) string { return "{" + manyMembers(n/10, "x") + "}" },
		"many escapes":                  func(n int) string { return `{"` + strings.Repeat(`\u0061`, n/6) + `":0}` },
		"many objects":                  func(n int) string { return "[" + strings.Repeat(`{"a":0,"b":0},`, n/14) + "0]" },
		"a long number":                 func(n int) string { return "[0." + strings.Repeat("1", n) + "e5]" },
		"many long numbers":             func(n int) string { return "[" + strings.Repeat(strings.Repeat("9", 300)+"e1,", n/303) + "0]" },
		"a claims set of many capitals": func(n int) string { return "{" + strings.ToUpper(manyMembers(n/10, "x")) + "}" },
		"a claims set of long names": func(n int) string {
			var b strings.Builder
			for i := range 15 {
				fmt.Fprintf(&b, `"%s%x":0,`, strings.Repeat([]string{"é", "É"}[i%2], n/30), i)
			}
			return "{" + b.String() + `"x":0}`
		},
		"long equal names": func(n int) string {
			var b strings.Builder
			for i := range 15 {
				fmt.Fprintf(&b, `"%s%x":0,`, strings.Repeat("a", n/15), i)
			}
			return "{" + b.String() + `"x":0}`
		},
	}
}

// BenchmarkHostile scans each text at two sizes: in linear time the throughput
// is the same at both.
func BenchmarkHostile(b *testing.B) {
	for name, text := range hostileTexts() {
		scan := func(data []byte) error { _, err := scanAll(data); return err }
		if strings.HasPrefix(name, "a claims set") {
			scan = func(data []byte) error { _, err := scanClaims(data); return err }
		}
		for _, size := range []int{1 << 16, 1 << 20} {
			data := []byte(text(size))
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					if err := scan(data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

var benchAlgorithms = []string{"ES256", "EdDSA", "RS256"}

// BenchmarkSignRaw is the bare signature on a digest: the bound.
func BenchmarkSignRaw(b *testing.B) {
	for _, alg := range benchAlgorithms {
		b.Run(alg, func(b *testing.B) {
			key, _ := testKey(b, alg)
			input := []byte(strings.Repeat("x", 500))
			digest := key.digest(input)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := key.priv.Sign(rand.Reader, digest, key.opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIssueAndSign is everything from the body to the token.
func BenchmarkIssueAndSign(b *testing.B) {
	for _, alg := range benchAlgorithms {
		b.Run(alg, func(b *testing.B) {
			key, _ := testKey(b, alg)
			body, rules := []byte(benchBody), testRules()
			b.ReportAllocs()
			for b.Loop() {
				issueAndSign(b, body, &rules, key)
			}
		})
	}
}

// BenchmarkIssue is the same without the signature.
func BenchmarkIssue(b *testing.B) {
	body, rules := []byte(benchBody), testRules()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := ParseRequest(body)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.Issue(rules, testNow); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan is ParseRequest alone.
func BenchmarkScan(b *testing.B) {
	body := []byte(benchBody)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRequest(body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRawECDSA compares two ways from a digest to r||s: the ASN.1 form
// taken apart here, and the big integers of ecdsa.Sign.
func BenchmarkRawECDSA(b *testing.B) {
	key, _ := testKey(b, "ES256")
	priv, digest := key.priv.(*ecdsa.PrivateKey), key.digest([]byte("input"))
	b.Run("asn1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			der, _ := ecdsa.SignASN1(rand.Reader, priv, digest)
			if _, err := joseECDSA(der, 64); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bigint", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r, s *big.Int
			r, s, err := ecdsa.Sign(rand.Reader, priv, digest)
			if err != nil {
				b.Fatal(err)
			}
			raw := make([]byte, 64)
			r.FillBytes(raw[:32])
			s.FillBytes(raw[32:])
		}
	})
}
