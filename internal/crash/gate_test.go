// Package crash holds the test of a daemon that dies at each of its writes to a
// real Vault. It has no code of its own.
package crash

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// gate stands between one replica and Vault, and is where the replica dies: at
// its n-th write the request is either not delivered, or delivered and nobody
// hears of it. From then on nothing passes. To Vault, and to whoever comes
// after, that is what the death of a process looks like.
//
// Reads need no death of their own: what Vault holds after one is what it holds
// after the write before it.
type gate struct {
	*httptest.Server
	to     string
	client *http.Client

	mu      sync.Mutex
	left    int  // writes until the death; 0: immortal
	applied bool // the last write is delivered
	dead    bool
	at      string // the write that it died at
	writes  int
}

func newGate(t testing.TB, v *vaulttest.Vault, left int, applied bool) *gate {
	g := &gate{to: v.Address(), left: left, applied: applied, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 30 * time.Second}}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(func() {
		g.CloseClientConnections()
		g.Close()
		g.client.CloseIdleConnections()
	})
	return g
}

// writes tells whether a request changes what Vault holds.
func writes(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != "LIST" && !strings.Contains(r.URL.Path, "/sign/")
}

// admit decides what becomes of a request.
func (g *gate) admit(r *http.Request) (deliver, answer bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return false, false
	}
	if !writes(r) {
		return true, true
	}
	if g.writes++; g.writes != g.left {
		return true, true
	}
	g.dead, g.at = true, r.Method+" "+r.URL.Path
	return g.applied, false
}

func (g *gate) serve(w http.ResponseWriter, r *http.Request) {
	deliver, answer := g.admit(r)
	var resp *http.Response
	if deliver {
		out, err := http.NewRequest(r.Method, g.to+r.URL.RequestURI(), r.Body)
		if err == nil {
			out.Header, out.ContentLength = r.Header, r.ContentLength
			resp, err = g.client.Do(out)
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
	}
	if !answer || g.died() {
		panic(http.ErrAbortHandler) // the connection breaks
	}
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

func (g *gate) died() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead
}

// last is the write that the replica died at, and how many there were.
func (g *gate) last() (string, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.at, g.writes
}
