package api_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api"
	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/signer"
)

func TestStaleStateSignsNoMore(t *testing.T) {
	r := newRig(t)
	limit := r.state("default").Policy.MaxStaleness.Std()
	r.clock.add(limit)
	r.signed(issuer, `{"claims":{}}`)
	r.clock.add(time.Nanosecond)
	for path, body := range map[string]string{signPath: `{"claims":{}}`, "/v1/keysets/default/signing-key": ""} {
		method := "GET"
		if body != "" {
			method = "POST"
		}
		a := r.want(r.do(method, path, operator, body), 503, "stale")
		if a.header.Get("Retry-After") != "5" {
			t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
		}
	}
	var k wire.Keyset
	if r.want(r.do("GET", "/v1/keysets/default", operator, ""), 200, "").decode(t, &k); !k.Stale {
		t.Error("the keyset is not said to be stale")
	}
	// A bad request is the caller's fault in any state.
	r.want(r.do("POST", signPath, issuer, `{`), 400, "invalid_json")
	r.sync()
	r.signed(issuer, `{"claims":{}}`)
}

func TestFrozenChangesNothingButSigns(t *testing.T) {
	r := newRig(t)
	before := r.generation("default")
	r.clock.jump(time.Hour)
	r.sync()
	a := r.want(r.do("POST", rotatePath, operator, `{}`), 503, "frozen")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if r.generation("default") != before {
		t.Error("a frozen keyset was changed")
	}
	r.signed(issuer, `{"claims":{}}`)
	r.clock.jump(0)
	r.sync()
	r.changed(rotatePath, operator, `{}`)

	// A leak does not wait for the clock to be set.
	r.clock.jump(time.Hour)
	r.sync()
	kid := r.active("default", "ES256")
	r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"a"}`)
}

func TestStoreFailures(t *testing.T) {
	for _, c := range []struct {
		name    string
		outcome keystoretest.Outcome
		ops     []string
		status  int
		code    string
	}{
		{"cannot be read", keystoretest.Refused, []string{keystoretest.OpLoad}, 503, "store_unavailable"},
		{"refuses the swap", keystoretest.Refused, []string{keystoretest.OpSwap}, 503, "unconfirmed"},
		{"loses the reply", keystoretest.ReplyLost, []string{keystoretest.OpSwap}, 200, ""},
		{"cannot destroy", keystoretest.Refused, []string{keystoretest.OpDestroyKey}, 200, ""},
	} {
		r := newRig(t)
		kid := r.active("default", "ES256")
		r.breaks(c.outcome, c.ops...)
		a := r.do("POST", revokePath, operator, `{"kid":"`+kid+`","reason":"leaked"}`)
		if a.status != c.status || a.code != c.code {
			t.Errorf("the store %s: %s", c.name, a)
		}
		if c.status == 503 && a.header.Get("Retry-After") == "" {
			t.Errorf("the store %s: no Retry-After", c.name)
		}
		if c.status >= 500 && !strings.Contains(r.log.String(), "10.9.8.7") {
			t.Errorf("the store %s: the log does not say why", c.name)
		}
		r.fault.Store(nil)
		if v := r.signed(issuer, `{"claims":{}}`); (v.KID == kid) != (c.status != 200) {
			t.Errorf("the store %s: %s signs", c.name, v.KID)
		}
	}
}

func TestCustodyFailsToMakeAKey(t *testing.T) {
	r := newRig(t)
	r.breaks(keystoretest.Refused, keystoretest.OpCreateKey)
	before := r.generation("default")
	if a := r.do("POST", revokePath, operator, `{"all":true,"reason":"leaked"}`); a.status < 500 {
		t.Errorf("all keys revoked without new ones: %s", a)
	}
	if r.generation("default") != before {
		t.Error("the keyset was changed")
	}
	r.signed(issuer, `{"claims":{}}`)
}

func TestUnusableKey(t *testing.T) {
	r := newRig(t)
	kid, other := r.active("default", "ES256"), r.active("tenant", "EdDSA")
	for keyset, kid := range map[string]string{"default": kid, "tenant": other} {
		if err := r.store.DestroyKey(t.Context(), keyset, kid); err != nil {
			t.Fatal(err)
		}
	}
	r.rotator = r.replica(custody.Local{Keys: r.keys})
	r.sync()
	r.serve(rigOptions(r))
	r.want(r.do("POST", signPath, issuer, `{"claims":{}}`), 503, "key_unusable")
	r.signed(issuer, `{"claims":{},"alg":"EdDSA"}`)
	var k wire.Keyset
	if r.want(r.do("GET", "/v1/keysets/default", reader, ""), 200, "").decode(t, &k); k.Lanes[0].Keys[0].Problem == "" || k.Lanes[1].Keys[0].Problem != "" {
		t.Errorf("problems: %+v", k.Lanes)
	}
	var all, own wire.Keysets
	r.want(r.do("GET", "/v1/keysets", operator, ""), 200, "").decode(t, &all)
	r.want(r.do("GET", "/v1/keysets", reader, ""), 200, "").decode(t, &own)
	if len(all.Daemon.Alarms) != 2 || len(own.Daemon.Alarms) != 1 || !strings.Contains(own.Daemon.Alarms[0].Message, kid) {
		t.Errorf("alarms for the operator: %+v\nfor the reader: %+v", all.Daemon.Alarms, own.Daemon.Alarms)
	}
	r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"lost"}`)
	r.signed(issuer, `{"claims":{}}`)
}

// meddled is a custody whose keys call back before they sign.
type meddled struct {
	custody.Local
	before func(kid string) error
}

type meddledKey struct {
	signer.Signing
	before func(kid string) error
}

func (m *meddled) Open(ctx context.Context, keyset string, k rotation.Key) (signer.Signing, error) {
	key, err := m.Local.Open(ctx, keyset, k)
	return &meddledKey{key, m.before}, err
}

func (k *meddledKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	if err := k.before(k.KID()); err != nil {
		return nil, err
	}
	return k.Signing.Sign(ctx, input)
}

// meddle puts a hook before every signature of the rig.
func (r *rig) meddle(before func(kid string) error) {
	r.rotator = r.replica(&meddled{custody.Local{Keys: r.keys}, before})
	r.sync()
	r.serve(rigOptions(r))
}

func TestFailingSignature(t *testing.T) {
	r := newRig(t)
	r.meddle(func(string) error { return errInternals })
	r.want(r.do("POST", signPath, issuer, `{"claims":{}}`), 503, "signing_unavailable")
	r.meddle(func(string) error { return errors.Join(context.DeadlineExceeded, errInternals) })
	r.want(r.do("POST", signPath, issuer, `{"claims":{}}`), 503, "timeout")
}

// TestRevokedWhileSigning: the revocation has answered while the key signed, so
// the token must not leave.
func TestRevokedWhileSigning(t *testing.T) {
	for _, times := range []int32{1, 2, 1000} {
		r := newRig(t)
		var left atomic.Int32
		left.Store(times)
		r.meddle(func(kid string) error {
			if left.Add(-1) >= 0 {
				r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"leaked"}`)
			}
			return nil
		})
		a := r.do("POST", signPath, issuer, `{"claims":{}}`)
		for _, gone := range r.state("default").Tombstones {
			if strings.Contains(string(a.body), gone.KID) {
				t.Errorf("revoked %d times: a revoked key signed: %s", times, a)
			}
		}
		if times < 3 {
			r.want(a, 200, "")
		} else if r.want(a, 503, "key_revoked"); a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
}

// slowCustody takes its time to open keys.
type slowCustody struct {
	custody.Local
	opens chan struct{} // closed when keys may be opened
}

func (s *slowCustody) Open(ctx context.Context, keyset string, k rotation.Key) (signer.Signing, error) {
	<-s.opens
	return s.Local.Open(ctx, keyset, k)
}

// TestKeyIsBeingOpened: while the key made after a revocation is not open yet,
// nobody is told that it is broken, let alone to revoke it.
func TestKeyIsBeingOpened(t *testing.T) {
	r := newRig(t)
	open := make(chan struct{})
	close(open)
	slow := &slowCustody{custody.Local{Keys: r.keys}, open}
	r.rotator = r.replica(slow)
	r.sync()
	r.serve(rigOptions(r))
	slow.opens = make(chan struct{})
	done := make(chan wire.Change, 1)
	go func() { done <- r.changed(revokePath, operator, `{"all":true,"reason":"leaked"}`) }()
	r.eventually("the revocation is in force", func() bool { return len(r.state("default").Tombstones) == 4 })
	a := r.do("POST", signPath, issuer, `{"claims":{}}`)
	if r.want(a, 503, "key_opening"); a.header.Get("Retry-After") != "1" || strings.Contains(string(a.body), "revoke") {
		t.Errorf("%s, Retry-After %q", a, a.header.Get("Retry-After"))
	}
	close(slow.opens)
	<-done
	r.signed(issuer, `{"claims":{}}`)
}

// secretInPanic must not get out.
const secretInPanic = "s3cr3t-scalar"

// moody panics, or fails, in place of authenticating.
type moody struct{ with any }

func (m moody) Authenticate(_ context.Context, r *http.Request) (*api.Caller, error) {
	switch v := m.with.(type) {
	case func():
		v()
	case error:
		if r.Header.Get("Fail") != "" {
			return nil, v
		}
	}
	panic(m.with)
}

func TestPanics(t *testing.T) {
	r := newRig(t)
	var none []int
	for name, with := range map[string]any{
		"text": secretInPanic, "error": errors.New(secretInPanic), "bytes": []byte(secretInPanic), "struct": struct{ Key string }{secretInPanic},
		"index": func() { _ = none[len(none)] }, "nil pointer": func() { var k *api.Caller; _ = k.Name }, "nil": func() { panic(any(nil)) },
	} {
		r.api.SetAuth(moody{with})
		r.want(r.do("GET", "/v1/keysets", operator, ""), 500, "internal")
		r.want(r.do("POST", signPath, operator, `{"claims":{}}`), 500, "internal")
		if log := r.log.String(); !strings.Contains(log, "request panicked") || !strings.Contains(log, "moody.Authenticate") {
			t.Errorf("%s: the log does not say where: %s", name, log)
		}
	}
	r.api.SetAuth(moody{errors.New(secretInPanic)})
	r.want(r.do("GET", "/v1/keysets", operator, "", "Fail", "1"), 500, "internal")
	if !strings.Contains(r.log.String(), "index out of range") {
		t.Error("the log does not say what the runtime found")
	}
	if strings.Contains(r.answers.String(), secretInPanic) {
		t.Error("an answer repeats a panic")
	}
	if strings.Count(r.log.String(), secretInPanic) != 1 { // the error that was returned, not thrown
		t.Errorf("the log repeats a panic: %s", r.log)
	}
	r.api.SetAuth(api.NewTokens(rigCallers()))
	r.signed(issuer, `{"claims":{}}`)
}

// brittle is an answer that panics once it has begun.
type brittle struct {
	http.ResponseWriter
	with any
}

func (b brittle) Write([]byte) (int, error) { panic(b.with) }

func TestPanicAfterTheAnswerBegan(t *testing.T) {
	r := newRig(t)
	inner := r.api
	for _, with := range []any{secretInPanic, http.ErrAbortHandler} {
		handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { inner.ServeHTTP(brittle{w, with}, req) })
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("the handler ended with %v", p)
				}
			}()
			req, _ := http.NewRequest("POST", signPath, strings.NewReader(`{"claims":{}}`))
			req.Header = http.Header{"Authorization": {"Bearer " + issuer}, "Content-Type": {"application/json"}}
			handler.ServeHTTP(deaf{http.Header{}}, req)
		}()
	}
	if strings.Contains(r.log.String(), secretInPanic) {
		t.Error("the log repeats a panic")
	}
	if n := strings.Count(r.log.String(), "request panicked"); n != 1 { // to abort is no fault
		t.Errorf("%d panics in the log: %s", n, r.log)
	}
}
