package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// line is a way to Vault that can be cut.
type line struct {
	t       *testing.T
	to      string // host and port
	address string

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
}

func newLine(t *testing.T, url string) *line {
	w := &line{t: t, to: strings.TrimPrefix(url, "http://"), address: "127.0.0.1:0"}
	w.join()
	t.Cleanup(w.cut)
	return w
}

func (w *line) join() {
	w.t.Helper()
	l, err := net.Listen("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.l, w.address = l, l.Addr().String()
	w.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", w.to)
			if err != nil {
				c.Close()
				continue
			}
			w.mu.Lock()
			if w.l != l {
				c.Close()
				far.Close()
			}
			w.conns = append(w.conns, c, far)
			w.mu.Unlock()
			go func() { io.Copy(far, c); far.Close() }()
			go func() { io.Copy(c, far); c.Close() }()
		}
	}()
}

func (w *line) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.l != nil {
		w.l.Close()
	}
	for _, c := range w.conns {
		c.Close()
	}
	w.l, w.conns = nil, nil
}

// house is one daemon's configuration, on a mount of its own.
type house struct {
	t    *testing.T
	wire *line
	dir  string
	yaml string
	Addresses
	token string
	stop  func() error
}

func newHouse(t *testing.T, v *vaulttest.Vault, mount, role string) *house {
	t.Helper()
	h := &house{t: t, wire: newLine(t, v.Address()), dir: t.TempDir(), stop: func() error { return nil }}
	h.yaml = fmt.Sprintf(`
keystore:
  vault: {address: "http://%s", mount: %s, timeout: 2s, auth: {token_file: %s}}
data_dir: %s
last_good: %[4]s/copy
role: %[5]s
replica: %[5]s
sync_interval: 50ms
max_staleness: 4s
clock_skew: 500ms
keysets:
  default: {issuer: "https://issuer.test", rotate: "@every 720h", jwks_max_age: 1s, verifier_cache: 1s}
listeners: {public: {address: "127.0.0.1:0"}, api: {address: "127.0.0.1:0"}, ops: {address: "127.0.0.1:0"}}
`, h.wire.address, mount, vaulttest.File(t, v.RootToken()), h.dir, role)
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *house) copy() string { return filepath.Join(h.dir, "copy") }

// start runs the daemon until it is ready, or returns why it is not.
func (h *house) start() error {
	h.t.Helper()
	c, err := config.Parse(filepath.Join(h.dir, "jwksd.yaml"), []byte(h.yaml), time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Config: c, Version: "test", Log: slog.New(slog.DiscardHandler), Ready: func(a Addresses) { ready <- a }})
	}()
	select {
	case err := <-ended:
		cancel()
		return err
	case h.Addresses = <-ready:
	case <-time.After(time.Minute):
		h.t.Fatal("the daemon does not get ready")
	}
	h.stop = func() error {
		cancel()
		h.stop = func() error { return nil }
		return <-ended
	}
	if h.token, err = ReadOperatorToken(filepath.Join(h.dir, OperatorTokenFile)); err != nil {
		h.t.Fatal(err)
	}
	return nil
}

func (h *house) mustStart() {
	h.t.Helper()
	if err := h.start(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) mustStop() {
	h.t.Helper()
	if err := h.stop(); err != nil {
		h.t.Fatal(err)
	}
}

// refuses expects a start that fails with all of the texts.
func (h *house) refuses(texts ...string) {
	h.t.Helper()
	err := h.start()
	if err == nil {
		h.mustStop()
		h.t.Errorf("the daemon starts, want %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			h.t.Errorf("the daemon says %q, want %q", err, text)
		}
	}
}

// set is what is published: the bytes, and their ETag.
func (h *house) set() string {
	h.t.Helper()
	resp, err := http.Get(h.Public + "/.well-known/jwks.json")
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		h.t.Fatalf("the set: %s %v %s", resp.Status, err, body)
	}
	return resp.Header.Get("ETag") + " " + string(body)
}

// post sends a request to the api listener, and returns its status.
func (h *house) post(path, body string) int {
	h.t.Helper()
	req, err := http.NewRequest("POST", h.API+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (h *house) sign() int { return h.post("/v1/keysets/default/sign", `{"claims":{"sub":"a"}}`) }

// ready is what the daemon says of its readiness for "sign" or "publish".
func (h *house) ready(what string) readiness {
	h.t.Helper()
	resp, err := http.Get(h.Ops + "/readyz/" + what)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	var r readiness
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || r.Ready != (resp.StatusCode == http.StatusOK) {
		h.t.Fatalf("readiness: %s %v", resp.Status, err)
	}
	return r
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for start := time.Now(); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("in vain: " + what)
		}
	}
}

// keeps waits until the copy holds a generation of keyset default.
func (h *house) keeps(generation uint64) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("generation %d in the copy", generation), func() bool {
		kept, err := readCopy(h.copy())
		return err == nil && len(kept) == 1 && kept[0].State.Generation >= generation
	})
}

// kept waits until there is a copy, and returns its generation.
func (h *house) kept() uint64 {
	h.t.Helper()
	h.keeps(1)
	kept, err := readCopy(h.copy())
	if err != nil {
		h.t.Fatal(err)
	}
	return kept[0].State.Generation
}

func TestStartFromTheLastGoodCopy(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	mount := v.KV(t)
	signer := newHouse(t, v, mount, "signer")
	signer.mustStart()
	for _, role := range []string{"publisher", "signer"} {
		h := signer
		if role == "publisher" {
			h = newHouse(t, v, mount, role)
			h.mustStart()
		}
		h.kept()
		want := h.set()
		h.mustStop()
		h.wire.cut()
		h.mustStart()
		if got := h.set(); got != want {
			t.Errorf("%s: the set from the copy is\n%s\nwant\n%s", role, got, want)
		}
		if status := h.sign(); status < 400 || role == "signer" && status != http.StatusServiceUnavailable {
			t.Errorf("%s: signing answers %d", role, status)
		}
		if status := h.post("/v1/keysets/default/rotate", `{"force":true}`); status < 400 {
			t.Errorf("%s: rotating answers %d", role, status)
		}
		if r := h.ready("sign"); r.Ready {
			t.Errorf("%s: ready to sign", role)
		}
		eventually(t, "a copy that is stale", func() bool { return !h.ready("publish").Ready })
		if r := h.ready("publish"); len(r.Alarms) == 0 || !strings.Contains(fmt.Sprint(r), "last good copy") || !strings.Contains(fmt.Sprint(r.Reasons), "max_staleness") {
			t.Errorf("%s: readiness %+v", role, r)
		}
		if got := h.set(); got != want {
			t.Errorf("%s: the stale set is\n%s\nwant\n%s", role, got, want)
		}
		h.wire.join()
		eventually(t, "readiness after the outage", func() bool {
			r := h.ready("publish")
			return r.Ready && len(r.Alarms) == 0 && (role == "publisher" || h.ready("sign").Ready)
		})
		if got := h.set(); got != want {
			t.Errorf("%s: the set after the outage is\n%s\nwant\n%s", role, got, want)
		}
		if status := h.sign(); role == "signer" && status != http.StatusOK {
			t.Errorf("signing after the outage answers %d", status)
		}
	}
}

// The store is right once it is back, whatever the copy said.
func TestCopyNeverWinsOverTheStore(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	mount := v.KV(t)
	publisher, signer := newHouse(t, v, mount, "publisher"), newHouse(t, v, mount, "signer")
	signer.mustStart()
	publisher.mustStart()
	before := signer.kept()
	publisher.keeps(before)
	publisher.mustStop()
	if status := signer.post("/v1/keysets/default/rotate", `{"force":true}`); status != http.StatusOK {
		t.Fatalf("rotating answers %d", status)
	}
	signer.keeps(before + 2) // promoted, and the next standby
	publisher.wire.cut()
	publisher.mustStart()
	old := publisher.set()
	if old == signer.set() {
		t.Error("the copy is not old: this tests nothing")
	}
	publisher.wire.join()
	eventually(t, "the store's set", func() bool { return publisher.set() == signer.set() })
	publisher.keeps(before + 2)
	publisher.mustStop()
	publisher.mustStart() // with the store: the copy is not even looked at
	if publisher.set() == old {
		t.Error("the old set is back")
	}
}

func TestCopyIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	v := vaulttest.New(t, vaulttest.Options{})
	h := newHouse(t, v, v.KV(t), "signer")
	h.wire.cut()
	h.refuses("Vault does not answer", "there is no last good copy to start from yet")
	h.wire.join()
	h.mustStart()
	h.kept()
	h.mustStop()
	good := mustRead(t, h.copy())

	v.Nodes[0].Seal(t) // a sealed one is out of reach as well
	h.mustStart()
	h.mustStop()
	if !bytes.Equal(mustRead(t, h.copy()), good) {
		t.Error("the copy was written without the store")
	}
	put(t, h.copy(), bytes.Replace(good, []byte("https://issuer.test"), []byte("https://issuer.tesT"), 1))
	h.refuses("Vault is sealed", "the last good copy "+h.copy()+" is refused: it does not fit")
	put(t, h.copy(), good[:len(good)/2])
	h.refuses("Vault is sealed", "is refused: it does not fit")
	v.Nodes[0].Unseal(t)
	h.mustStart() // with the store nobody needs the copy, and it is made anew
	eventually(t, "a good copy", func() bool { _, err := readCopy(h.copy()); return err == nil })
	h.mustStop()

	h.yaml = strings.Replace(h.yaml, "mount: kv-", "mount: nowhere-", 1) // a mistake of ours is no outage
	h.refuses("nowhere-", "correct the mount")
	if err := os.Remove(h.copy()); err != nil {
		t.Fatal(err)
	}
}
