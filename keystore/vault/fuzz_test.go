package vault

import (
	"testing"

	"github.com/jwksd/jwksd/keystore"
)

// Whatever a cursor says, it is known exactly or not at all.
func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add(string(place{incarnation: "A", seq: 7, id: "B", open: []uint64{3, 5}}.cursor()))
	f.Add("A.7.B.3.00000000")
	f.Fuzz(func(t *testing.T, text string) {
		p, ok := parseCursor(keystore.Cursor(text))
		if !ok {
			return
		}
		if q, ok := parseCursor(p.cursor()); !ok || q.cursor() != p.cursor() {
			t.Errorf("%q is %+v and then %+v", text, p, q)
		}
		h := head{Format: format, ID: p.incarnation, Sequence: 9}
		h.after(keystore.Cursor(text))
	})
}

func FuzzSegment(f *testing.F) {
	for _, name := range []string{"default", "a.b-c_1", ".", "a/b", "~2F", "ä"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if back, err := unsegment(segment(name)); err != nil || back != name {
			t.Errorf("%q became %q (%v)", name, back, err)
		}
		if name, err := unsegment(name); err == nil && name != "" && segment(name) == "" {
			t.Errorf("%q has no segment", name)
		}
	})
}

// An answer of any kind is one line, and a conflict only in Vault's words.
func FuzzClassify(f *testing.F) {
	f.Add(400, `{"errors":["check-and-set parameter did not match the current version"]}`)
	f.Add(503, `{"errors":["Vault is sealed"]}`)
	f.Add(404, `{"errors":[],"data":{"data":null,"metadata":{"version":1}}}`)
	f.Add(502, "<html>\n</html>")
	f.Fuzz(func(t *testing.T, status int, body string) {
		err := classify("secret/data/x", status, []byte(body))
		for _, c := range err.Error() {
			if c == '\n' || c == '\r' {
				t.Fatalf("several lines: %q", err.Error())
			}
		}
	})
}
