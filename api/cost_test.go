package api_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/jwksd/jwksd/signer"
)

const typicalBody = `{"claims":{"sub":"248289761001","aud":["https://api.example.com"],"client_id":"s6BhdRkqt3","scope":"openid profile email","roles":["reader","writer"],"tenant":{"id":42,"name":"acme"}},"ttl":"5m","typ":"at+jwt"`

func typical(alg string) []byte { return []byte(typicalBody + `,"alg":"` + alg + `"}`) }

// sink is an answer that costs nothing.
type sink struct {
	h      http.Header
	status int
	n      int
}

func (s *sink) Header() http.Header { return s.h }
func (s *sink) WriteHeader(status int) {
	s.status = status
}
func (s *sink) Write(p []byte) (int, error) {
	s.n += len(p)
	return len(p), nil
}

// direct returns a function that sends one request to sign straight to the
// handler, and allocates nothing itself.
func (r *rig) direct(body []byte) func() {
	src := bytes.NewReader(body)
	req := httptest.NewRequest(http.MethodPost, signPath, nil)
	req.Body = io.NopCloser(src)
	req.ContentLength = int64(len(body))
	req.Header.Set("Authorization", "Bearer "+issuer)
	req.Header.Set("Content-Type", "application/json")
	w := &sink{h: http.Header{}}
	return func() {
		src.Reset(body)
		clear(w.h)
		if r.api.ServeHTTP(w, req); w.status != 200 {
			r.t.Fatalf("answer %d", w.status)
		}
	}
}

// bare returns a function that makes the standard library's signature.
func bare(t testing.TB, alg string) func() {
	priv, err := signer.Generate(alg, 0)
	if err != nil {
		t.Fatal(err)
	}
	input, opts := make([]byte, 500), crypto.SignerOpts(crypto.Hash(0))
	if alg == "ES256" {
		digest := sha256.Sum256(input)
		input, opts = digest[:], crypto.SHA256
	}
	return func() {
		if _, err := priv.Sign(rand.Reader, input, opts); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSignAllocations bounds what the whole handler adds to the signature. What
// the standard library's own signature allocates differs from release to
// release, so it is measured and subtracted.
func TestSignAllocations(t *testing.T) {
	const bound = 12
	r := newRig(t)
	for _, alg := range []string{"EdDSA", "ES256"} {
		raw := testing.AllocsPerRun(300, bare(t, alg))
		all := testing.AllocsPerRun(300, r.direct(typical(alg)))
		t.Logf("%s: %.0f allocations, %.0f of them in the bare signature", alg, all, raw)
		if all-raw > bound {
			t.Errorf("%s: %.0f allocations beyond the bare signature, at most %d wanted", alg, all-raw, bound)
		}
	}
}

// The benchmarks below are read as ratios of one run. The bound for signing over
// HTTP is 1/(1/raw + 1/echo).

// BenchmarkSignRaw is the bare signature.
func BenchmarkSignRaw(b *testing.B) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			sign := bare(b, alg)
			b.ReportAllocs()
			for b.Loop() {
				sign()
			}
		})
	}
}

// BenchmarkSignHandler is the handler without a network.
func BenchmarkSignHandler(b *testing.B) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			send := newRig(b).direct(typical(alg))
			b.ReportAllocs()
			for b.Loop() {
				send()
			}
		})
	}
}

// BenchmarkEcho is a server of net/http alone that reads and answers as many
// bytes as a request to sign.
func BenchmarkEcho(b *testing.B) {
	reply := make([]byte, 850)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Write(reply)
	}))
	defer srv.Close()
	overHTTP(b, srv, typical("ES256"))
}

// BenchmarkSignHTTP is signing over HTTP, the client's work included as it is
// in BenchmarkEcho.
func BenchmarkSignHTTP(b *testing.B) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) { overHTTP(b, newRig(b).http, typical(alg)) })
	}
}

func overHTTP(b *testing.B, srv *httptest.Server, body []byte) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for pb.Next() {
			req, _ := http.NewRequest(http.MethodPost, srv.URL+signPath, bytes.NewReader(body))
			req.Header = http.Header{"Authorization": {"Bearer " + issuer}, "Content-Type": {"application/json"}}
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
				b.Errorf("answer %d: %v", resp.StatusCode, err)
			}
			resp.Body.Close()
		}
	})
}
