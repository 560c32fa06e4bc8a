package api_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
)

// FuzzSignHandler: whatever the body, the answer is one of a few, and a token
// that comes verifies and keeps within bounds.
func FuzzSignHandler(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `{"claims":{}}`, `{"claims":{"sub":"a","aud":["b"],"client_id":"c"},"typ":"at+jwt","ttl":"5m","alg":"EdDSA"}`,
		`{"claims":{"exp":1768474800.5,"nbf":1768471100,"iat":1768471201}}`, `{"claims":{"iss":"https://evil.example"}}`,
		`{"claims":{"iss":"https:\/\/auth.example.com","aud":"\u0061","jti":""}}`, `{"claims":{"sub":"a","sub":"b"}}`, `{"claims":{"a":1e400}}`,
		`{"claims":{"\u0065xp":1768471260}}`, `{"claims":{"exp":"1"},"kid":"x"}`, "\xef\xbb\xbf{}", `{"claims":{}}{}`, string(typical("ES256")),
	} {
		f.Add([]byte(body), "application/json")
	}
	f.Add([]byte(`{"claims":{}}`), "application/json; charset=utf-8")
	f.Add([]byte(`{"claims":{}}`), "text/plain")
	f.Add([]byte(`{"claims":{}}`), "")
	f.Add(bytes.Repeat([]byte(" "), limit+1), "application/json")

	r := newRig(f)
	opt := rigOptions(r)
	opt.Log = nil
	r.serve(opt)
	set := published(f, r.view("default"))
	now := r.clock.Now()
	kids := []string{r.active("default", "ES256"), r.active("default", "EdDSA")}
	f.Fuzz(func(t *testing.T, body []byte, media string) {
		req := httptest.NewRequest(http.MethodPost, signPath, bytes.NewReader(body))
		req.Header = http.Header{"Authorization": {"Bearer " + issuer}, "Content-Type": {media}}
		w := httptest.NewRecorder()
		r.api.ServeHTTP(w, req)
		if !slices.Contains([]int{200, 400, 403, 413, 415}, w.Code) || (w.Code == 413) != (len(body) > limit) {
			t.Fatalf("answer %d to %d bytes: %s", w.Code, len(body), w.Body)
		}
		if w.Header().Get("Cache-Control") != "no-store" || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("answer %d %v: %s", w.Code, w.Header(), w.Body)
		}
		if w.Code != 200 {
			return
		}
		var got wire.Token
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		v, err := verified(set, got.Token, now)
		if err != nil {
			t.Fatalf("the token of %q: %v", body, err)
		}
		var c struct {
			Iat, Exp float64
			Jti      *string
		}
		if err := json.Unmarshal(v.Claims, &c); err != nil || c.Jti == nil {
			t.Fatalf("claims %s: %v", v.Claims, err)
		}
		if !slices.Contains(kids, v.KID) || v.KID != got.KID || v.Type != "JWT" && v.Type != "at+jwt" || strings.Count(string(v.Header), ":") != 3 ||
			!v.IssuedAt.Equal(now) || v.ExpiresAt.After(now.Add(time.Hour)) || !v.ExpiresAt.After(now) || !v.ExpiresAt.Equal(got.ExpiresAt) {
			t.Fatalf("%q gives %s . %s in %s", body, v.Header, v.Claims, w.Body)
		}
	})
}
