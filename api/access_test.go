package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/jwksd/jwksd/api"
	"github.com/jwksd/jwksd/api/wire"
)

// requests are one good request for every endpoint of a keyset.
func requests(keyset string) []struct{ method, path, body string } {
	p := "/v1/keysets/" + keyset
	return []struct{ method, path, body string }{
		{"POST", p + "/sign", `{"claims":{}}`},
		{"GET", p, ""},
		{"GET", p + "/signing-key", ""},
		{"GET", p + "/signing-key?alg=ES256", ""},
		{"GET", p + "/plan", ""},
		{"POST", p + "/rotate", `{"reason":"a"}`},
		{"POST", p + "/revoke", `{"kid":"a","reason":"a"}`},
		{"POST", p + "/revoke", `{"all":true,"reason":"a"}`},
		{"PUT", p, `{"issuer":"https://auth.example.com","dry_run":true}`},
		{"DELETE", p + "?dry_run=true", ""},
	}
}

func TestC18NoCredentials(t *testing.T) {
	r := newRig(t)
	credentials := map[string]string{
		"none":             "",
		"empty token":      "Bearer ",
		"scheme only":      "Bearer",
		"wrong scheme":     "Basic " + operator,
		"no scheme":        operator,
		"wrong token":      "Bearer wrong-token-0123456789abcdefghijk",
		"token and more":   "Bearer " + operator + " x",
		"prefix":           "Bearer " + operator[:len(operator)-1],
		"two spaces":       "Bearer  " + operator,
		"huge token":       "Bearer " + strings.Repeat("x", 5000),
		"huge, then right": "Bearer " + strings.Repeat(" ", 5000) + operator,
	}
	paths := append(requests("default"), requests("nobody")...)
	paths = append(paths, struct{ method, path, body string }{"GET", "/v1/keysets", ""}, struct{ method, path, body string }{"GET", "/elsewhere", ""},
		struct{ method, path, body string }{"DELETE", "/v1/keysets/default/sign", ""})
	for name, value := range credentials {
		var first string
		for _, req := range paths {
			a := r.do(req.method, req.path, "", req.body, "Authorization", value)
			r.want(a, 401, "unauthenticated")
			if got := a.header.Values("WWW-Authenticate"); len(got) != 1 || !strings.HasPrefix(got[0], "Bearer") {
				t.Errorf("%s: WWW-Authenticate %q", name, got)
			}
			a.header.Del("Date")
			if same := fmt.Sprint(a.header, string(a.body)); first == "" {
				first = same
			} else if same != first {
				t.Errorf("%s: %s answers otherwise: %s", name, req.path, same)
			}
		}
	}
	r.want(r.do("GET", "/v1/keysets/default", "", "", "Authorization", "bEARER "+reader), 200, "")
}

func TestC18KnownCallerWithoutGrant(t *testing.T) {
	r := newRig(t)
	allowed := map[string]map[string]bool{ // by caller, the paths that are not denied
		issuer:   {"/sign": true},
		reader:   {"": true, "/signing-key": true, "/signing-key?alg=ES256": true, "/plan": true},
		turner:   {"": true, "/signing-key": true, "/signing-key?alg=ES256": true, "/plan": true, "/rotate": true},
		revoker:  {"/revoke": true},
		stranger: {},
	}
	for caller, paths := range allowed {
		for _, req := range requests("default") {
			a := r.do(req.method, req.path, caller, req.body)
			want := paths[strings.TrimPrefix(req.path, "/v1/keysets/default")] && req.method != "PUT"
			if strings.Contains(req.body, `"all"`) {
				want = false // nobody here may revoke all
			}
			if denied := a.status == 403; denied == want {
				t.Errorf("%.8s %s %s %s: %s", caller, req.method, req.path, req.body, a)
			} else if denied {
				r.want(a, 403, "forbidden")
			}
		}
	}
	for caller, status := range map[string]int{issuer: 403, stranger: 403, revoker: 403, reader: 200, operator: 200} {
		if a := r.do("GET", "/v1/keysets", caller, ""); a.status != status {
			t.Errorf("listing as %.8s: %s", caller, a)
		}
	}
}

func TestC18UnknownAndUngrantedLookTheSame(t *testing.T) {
	r := newRig(t)
	for _, caller := range []string{stranger, issuer, reader, turner, revoker} {
		there, absent := requests("tenant"), requests("nobody")
		for i := range there {
			a := r.do(there[i].method, there[i].path, caller, there[i].body)
			b := r.do(absent[i].method, absent[i].path, caller, absent[i].body)
			r.want(a, 403, "forbidden")
			a.header.Del("Date")
			b.header.Del("Date")
			if x, y := fmt.Sprint(a.status, a.header, string(a.body)), fmt.Sprint(b.status, b.header, string(b.body)); x != y {
				t.Errorf("%s %s tells whether the keyset exists:\n%s\n%s", there[i].method, there[i].path, x, y)
			}
		}
	}
	for _, req := range requests("nobody") {
		if req.method == "PUT" {
			continue // that would found it
		}
		r.want(r.do(req.method, req.path, operator, req.body), 404, "unknown_keyset")
	}
}

func TestC18TheGrantComesBeforeTheBody(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"sign", "rotate", "revoke"} {
		for _, body := range []string{"{", strings.Repeat("x", limit+1), `{"nope":1}`} {
			r.want(r.do("POST", "/v1/keysets/default/"+path, stranger, body, "Content-Type", "text/plain"), 403, "forbidden")
		}
	}
}

func TestC18OddPaths(t *testing.T) {
	r := newRig(t)
	odd := []string{
		"/", "//", "/v1", "/v1/", "/v2/keysets", "/v1/keysets/", "/v1/keysets//", "//v1/keysets", "/v1//keysets", "/v1/keysetsdefault",
		"/v1/keysets//sign", "/v1/keysets/default/", "/v1/keysets/default//", "/v1/keysets/default//sign", "/v1/keysets/default/sign/",
		"/v1/keysets/default/sign/x", "/v1/keysets/default/SIGN", "/V1/keysets/default/sign", "/v1/keysets/default/nope",
		"/v1/keysets/default%2Fsign", "/v1/keysets/default%2fsign", "/v1/keysets%2Fdefault/sign", "/v1/keysets/%64efault/sign", "/v1/keysets/default/%73ign",
		"/v1/keysets/%2e%2e/keysets/default", "/v1/keysets/%2e%2e/sign", "/v1/keysets/../sign", "/v1/keysets/./sign", "/v1/keysets/default/../default/sign",
		"/v1/keysets/default%00/sign", "/v1/keysets/%00/sign", "/v1/keysets/default%0a/sign", "/v1/keysets/%FF/sign", "/v1/keysets/default;x/sign", "/v1/keysets/%20/sign",
		"/v1/keysets/" + strings.Repeat("a", 10000) + "/sign", "/v1/keysets/default/" + strings.Repeat("a", 10000), "/v1/keysets/default" + strings.Repeat("/", 5000) + "sign",
		"/v1/keysets/*/sign", "/v1/keysets/*", "/v1/keysets/Default/sign",
	}
	for _, path := range odd {
		for _, method := range []string{"GET", "POST"} {
			for _, caller := range []string{operator, stranger} {
				req, err := http.NewRequest(method, r.http.URL, strings.NewReader(`{"claims":{}}`))
				if err != nil {
					t.Fatal(err)
				}
				req.URL.Opaque = "//" + req.URL.Host + path // as it stands, nothing escaped or cleaned
				if _, err := url.ParseRequestURI(req.URL.Scheme + ":" + req.URL.Opaque); err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				req.Header.Set("Authorization", "Bearer "+caller)
				req.Header.Set("Content-Type", "application/json")
				a := r.send(req)
				ok := a.status == 404 || a.status == 403 || a.status == 405
				if !ok || caller == stranger && a.code == "unknown_keyset" {
					t.Errorf("%s %.60s as %.8s: %s", method, path, caller, a)
				}
			}
		}
	}
	r.want(r.do("POST", signPath+"?x=%zz&y", issuer, `{"claims":{}}`), 200, "") // a query means nothing here
	if strings.Contains(r.log.String(), strings.Repeat("a", 1000)) {
		t.Error("a path of any length goes into the log")
	}
}

// TestC18OtherForms sends what an http.Client does not: the handler must answer
// requests in any form.
func TestC18OtherForms(t *testing.T) {
	r := newRig(t)
	for _, target := range []string{"*", "/v1/keysets/default"} {
		req := httptest.NewRequest(http.MethodOptions, "/", nil)
		req.URL = &url.URL{Path: target}
		req.RequestURI = target
		req.Header.Set("Authorization", "Bearer "+operator)
		w := httptest.NewRecorder()
		r.api.ServeHTTP(w, req)
		a := answer{status: w.Code, header: w.Header(), body: w.Body.Bytes()}
		r.wantPromises("OPTIONS "+target, false, &a)
		if a.status != 404 && a.status != 405 {
			t.Errorf("OPTIONS %s: %s", target, a)
		}
	}
}

func TestSetAuthHoldsFromTheNextRequest(t *testing.T) {
	r := newRig(t)
	r.signed(issuer, `{"claims":{}}`)
	r.api.SetAuth(api.NewTokens(nil))
	r.want(r.do("POST", signPath, issuer, `{"claims":{}}`), 401, "unauthenticated")
	r.api.SetAuth(api.NewTokens(rigCallers()))
	r.signed(issuer, `{"claims":{}}`)
}

// TestListShowsOnlyWhatMayBeRead is about other people's keysets, in the list
// and in the alarms.
func TestListShowsOnlyWhatMayBeRead(t *testing.T) {
	r := newRig(t)
	r.clock.jump(1e12)
	r.sync()
	for _, name := range []string{"default", "tenant"} {
		r.store.Drop(name)
		// A change makes the rotator miss the document that is gone.
		r.do("POST", "/v1/keysets/"+name+"/rotate", operator, "")
	}
	kid := r.active("tenant", "EdDSA")

	var all, own wire.Keysets
	r.want(r.do("GET", "/v1/keysets", operator, ""), 200, "").decode(t, &all)
	a := r.want(r.do("GET", "/v1/keysets", reader, ""), 200, "")
	a.decode(t, &own)
	if len(all.Keysets) != 2 || all.Keysets[0].Keyset != "default" || all.Keysets[1].Keyset != "tenant" || len(own.Keysets) != 1 || own.Keysets[0].Keyset != "default" {
		t.Errorf("the operator sees %d keysets, the reader %d: %s", len(all.Keysets), len(own.Keysets), a)
	}
	if len(all.Daemon.Alarms) != 3 {
		t.Fatalf("there should be alarms about the clock and two documents: %+v", all.Daemon.Alarms)
	}
	if text := string(a.body); strings.Contains(text, "tenant") || strings.Contains(text, kid) {
		t.Errorf("the reader of default hears of tenant: %s", text)
	}
	about := map[string]string{}
	for _, alarm := range own.Daemon.Alarms {
		about[alarm.Name] = alarm.Message
	}
	if len(about) != 2 || about["clock"] == "" || strings.Contains(about["clock"], "jumped") || !strings.Contains(about["document:default"], "gone from the store") {
		t.Errorf("the reader hears %v", about)
	}
}
