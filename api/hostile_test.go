package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// Tests of what somebody with bad intentions sends.

// TestReasonShows: a reason ends up in other people's terminals.
func TestReasonShows(t *testing.T) {
	r := newRig(t)
	before := r.generation("default")
	for name, reason := range map[string]string{
		"escape": "a\x1b[2Jb", "bell": "\a", "newline": "a\nrevoked key-1", "return": "a\rb", "NUL": "\x00", "DEL": "\x7f", "C1": "\u009b2J",
		"override": "a\u202eb", "isolate": "\u2066a", "mark": "\u200fa", "zero width": "a\u200bb", "BOM": "\ufeffa", "line separator": "a\u2028b",
		"wide space": "a\u00a0b", "private": "\ue000", "unassigned": "\U0010fffe", "tag": "\U000e0041",
	} {
		body := toJSON(t, map[string]string{"reason": reason})
		r.want(r.do("POST", rotatePath, operator, body), 400, "invalid_reason")
		body = toJSON(t, map[string]any{"all": true, "reason": reason})
		if a := r.want(r.do("POST", revokePath, operator, body), 400, "invalid_reason"); strings.Contains(string(a.body), reason) {
			t.Errorf("%s: it is sent back: %s", name, a)
		}
		body = toJSON(t, map[string]any{"reason": reason})
		r.want(r.do("DELETE", "/v1/keysets/default", operator, body), 400, "invalid_reason")
	}
	if r.generation("default") != before {
		t.Fatal("a refused request changed the keyset")
	}
	r.changed(rotatePath, operator, `{"reason":"Schlüssel weg — 鍵を失った (#42) 🔑"}`)
}

// TestOneHeaderOfAKind: of two, a proxy may have checked the other one.
func TestOneHeaderOfAKind(t *testing.T) {
	r := newRig(t)
	send := func(name string, values ...string) answer {
		req, err := http.NewRequest("POST", r.http.URL+rotatePath, strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + operator}, "Content-Type": {"application/json"}}
		req.Header[name] = values
		return r.send(req)
	}
	before := r.generation("default")
	r.want(send("Authorization", "Bearer "+operator, "Bearer "+stranger), 400, "duplicate_header")
	r.want(send("Authorization", "Bearer "+operator, "Bearer "+operator), 400, "duplicate_header")
	r.want(send("Authorization", "Bearer "+stranger, ""), 400, "duplicate_header")
	r.want(send("Idempotency-Key", "a", "b"), 400, "duplicate_header")
	r.want(send("Idempotency-Key", "a", "a"), 400, "duplicate_header")
	r.want(send("Idempotency-Key", "", "a"), 400, "duplicate_header")
	r.want(send("Idempotency-Key", "a\tb"), 400, "invalid_idempotency_key")
	r.want(send("Idempotency-Key", "a\u202eb"), 400, "invalid_idempotency_key")
	r.want(send("Idempotency-Key", "a\xffb"), 400, "invalid_idempotency_key")
	if r.generation("default") != before {
		t.Fatal("a refused request changed the keyset")
	}
	r.want(send("Idempotency-Key", "a"), 200, "")
}

// TestForcedRotationsFillTheSet: the set is what every verifier reads.
func TestForcedRotationsFillTheSet(t *testing.T) {
	r := newRig(t)
	r.run()
	path := "/v1/keysets/tenant/rotate"
	for range 200 {
		r.eventually("there is a standby", r.standby("tenant", "EdDSA"))
		a := r.do("POST", path, operator, `{"force":true}`)
		if a.status == 200 {
			r.clock.add(time.Second)
			continue
		}
		var p wire.Problem
		if r.want(a, 409, "set_full").decode(t, &p); !p.Earliest.After(r.clock.Now()) || !strings.Contains(p.Detail, p.Earliest.Format(time.RFC3339)) {
			t.Errorf("it does not say when there is room: %s", a)
		}
		if n := len(published(t, r.view("tenant"))); n > 16<<10 {
			t.Errorf("the set has %d bytes", n)
		}
		kid := r.active("tenant", "EdDSA")
		r.changed("/v1/keysets/tenant/revoke", operator, `{"kid":"`+kid+`","reason":"leaked"}`)
		r.changed("/v1/keysets/tenant/revoke", operator, `{"all":true,"reason":"leaked"}`)
		return
	}
	t.Fatal("the set grows without bound")
}

func TestEverywhereBy(t *testing.T) {
	for _, shared := range []bool{false, true} {
		r := newRig(t)
		opt := rigOptions(r)
		opt.Shared = shared
		r.serve(opt)
		kid := r.active("default", "ES256")
		for _, c := range []wire.Change{
			r.changed(rotatePath, operator, `{}`),
			r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"a","dry_run":true}`),
			r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"a"}`),
		} {
			want := c.At
			if shared {
				want = c.At.Add(r.state("default").Policy.MaxStaleness.Std())
			}
			if !c.EverywhereBy.Equal(want) {
				t.Errorf("shared %t: everywhere by %s, made at %s", shared, c.EverywhereBy, c.At)
			}
		}
	}
}

// TestDenialsDoNotFillTheLog: anybody can be denied as often as they like.
func TestDenialsDoNotFillTheLog(t *testing.T) {
	r := newRig(t)
	lines := func() int { return strings.Count(r.log.String(), "request denied") }
	for range 500 {
		r.want(r.do("GET", "/v1/keysets", "", ""), 401, "unauthenticated")
	}
	if n := lines(); n != 1 {
		t.Errorf("500 denials make %d lines", n)
	}
	r.want(r.do("GET", "/v1/keysets", stranger, ""), 403, "forbidden")
	r.want(r.do("GET", "/v1/keysets", issuer, ""), 403, "forbidden")
	if n := lines(); n != 3 || !strings.Contains(r.log.String(), `"caller":"stranger"`) {
		t.Errorf("those of other callers make %d lines in all", n)
	}
	r.clock.add(time.Minute)
	r.do("GET", "/v1/keysets", "", "")
	if log := r.log.String(); lines() != 4 || !strings.Contains(log, `"unlogged":499`) {
		t.Errorf("what was left out is not counted: %s", log[strings.LastIndex(log[:len(log)-1], "\n")+1:])
	}
}

// fullDisk takes no writes.
type fullDisk struct {
	*rotator.Rotator
	err error
}

func (f fullDisk) Change(context.Context, string, rotation.Operation, rotator.ChangeFunc) (rotation.Operation, bool, error) {
	return rotation.Operation{}, false, f.err
}

func (f fullDisk) Ensure(context.Context, string, rotation.Policy, string) (bool, error) {
	return false, f.err
}

func TestStoreTakesNoWrites(t *testing.T) {
	full := fmt.Errorf("replacing the document: %w: %w", keystore.ErrNotWritten, errInternals)
	notWritten := func(r *rig, a answer) {
		t.Helper()
		r.want(a, 503, "not_written")
		if !strings.Contains(string(a.body), "nothing was changed") || !strings.Contains(string(a.body), "free space") {
			t.Errorf("the answer does not help: %s", a)
		}
		if !strings.Contains(r.log.String(), "10.9.8.7") {
			t.Error("the log does not say why")
		}
	}
	r := newRig(t)
	opt := rigOptions(r)
	opt.Keysets = fullDisk{r.rotator, full}
	r.serve(opt)
	notWritten(r, r.do("POST", rotatePath, operator, `{}`))
	notWritten(r, r.do("POST", revokePath, operator, `{"all":true,"reason":"a"}`))
	notWritten(r, r.do("PUT", "/v1/keysets/default", operator, `{"issuer":"https://auth.example.com","token_ttl_max":"7m"}`))
	notWritten(r, r.do("DELETE", "/v1/keysets/default", operator, ""))
	// An earlier try may have been written all the same.
	opt.Keysets = fullDisk{r.rotator, fmt.Errorf("%w: %w", rotator.ErrUnconfirmed, full)}
	r.serve(opt)
	r.want(r.do("POST", rotatePath, operator, `{}`), 503, "unconfirmed")

	// The private keys that a change needs are written first.
	r = newRig(t)
	f := func(op keystoretest.Op) keystoretest.Fault {
		if op.Name != keystoretest.OpCreateKey {
			return keystoretest.Fault{}
		}
		return keystoretest.Fault{Outcome: keystoretest.Refused, Err: full}
	}
	r.fault.Store(&f)
	before := r.generation("default")
	notWritten(r, r.do("POST", revokePath, operator, `{"all":true,"reason":"a"}`))
	notWritten(r, r.do("PUT", "/v1/keysets/fresh", operator, `{"issuer":"https://auth.example.com"}`))
	if r.generation("default") != before {
		t.Error("the keyset was changed")
	}
	r.fault.Store(nil)
	r.changed(revokePath, operator, `{"all":true,"reason":"a"}`)
	for _, gone := range r.state("default").Tombstones {
		if !strings.Contains(r.log.String(), `"kids":[`) || !strings.Contains(r.log.String(), strconv.Quote(gone.KID)) {
			t.Errorf("the log does not name %s", gone.KID)
		}
	}
}
