package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jwksd/jwksd/keystore"
)

// transitAnswers is a Vault that says what it is told to.
type transitAnswers struct {
	sign  func(req transitSignRequest) (string, error) // the data of the answer
	read  func(path string) (string, error)
	asked []string
}

func (a *transitAnswers) engine() *Transit { return &Transit{client: a, slow: a, mount: "transit"} }

func (a *transitAnswers) Read(_ context.Context, path string, _ url.Values, out any) error {
	a.asked = append(a.asked, "read "+path)
	data, err := a.read(path)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(data), out)
}

func (a *transitAnswers) List(context.Context, string) ([]string, error) { return nil, nil }

func (a *transitAnswers) Write(_ context.Context, path string, in, out any) error {
	a.asked = append(a.asked, "write "+path)
	req, ok := in.(transitSignRequest)
	if !ok {
		return nil
	}
	data, err := a.sign(req)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(data), out)
}

func (a *transitAnswers) Delete(_ context.Context, path string) error {
	a.asked = append(a.asked, "delete "+path)
	return nil
}

// transitRefusal is the error that such an answer of Vault's becomes.
func transitRefusal(status int, reason string) error {
	return classify("transit/x", status, []byte(`{"errors":[`+reason+`]}`))
}

var edScheme = TransitScheme{Size: 64}

func zeroes(size int) string { return base64.StdEncoding.EncodeToString(make([]byte, size)) }

func TestTransitSignRefusesOtherAnswers(t *testing.T) {
	url64 := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 64))
	std64 := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 64))
	for _, c := range []struct {
		what   string
		scheme TransitScheme
		answer string
		want   string // in the error; empty: accepted
	}{
		{"as it should be", edScheme, `{"signature":"vault:v1:` + std64 + `","key_version":1}`, ""},
		{"no version beside it, as old servers answer", edScheme, `{"signature":"vault:v1:` + std64 + `"}`, ""},
		{"jws", TransitScheme{JWS: true, Size: 64}, `{"signature":"vault:v1:` + url64 + `","key_version":1}`, ""},
		{"another version", edScheme, `{"signature":"vault:v2:` + std64 + `","key_version":2}`, "version 1"},
		{"another version in the signature", edScheme, `{"signature":"vault:v2:` + std64 + `","key_version":1}`, "version 1"},
		{"another version beside the signature", edScheme, `{"signature":"vault:v1:` + std64 + `","key_version":2}`, "version 1"},
		{"a longer version", edScheme, `{"signature":"vault:v10:` + std64 + `"}`, "version 1"},
		{"no prefix", edScheme, `{"signature":"` + std64 + `","key_version":1}`, "version 1"},
		{"nothing", edScheme, `{}`, "version 1"},
		{"too short", edScheme, `{"signature":"vault:v1:` + zeroes(63) + `","key_version":1}`, "63 bytes, not 64"},
		{"too long", edScheme, `{"signature":"vault:v1:` + zeroes(65) + `","key_version":1}`, "65 bytes, not 64"},
		{"no signature", edScheme, `{"signature":"vault:v1:","key_version":1}`, "0 bytes, not 64"},
		{"the other base64", TransitScheme{JWS: true, Size: 64}, `{"signature":"vault:v1:` + std64 + `","key_version":1}`, "encoding"},
		{"a line break", edScheme, `{"signature":"vault:v1:` + std64[:10] + `\n` + std64[10:] + `","key_version":1}`, "encoding"},
		{"stray bits", edScheme, `{"signature":"vault:v1:` + strings.TrimSuffix(std64, "w==") + `x==","key_version":1}`, "encoding"},
		{"an error of the item", edScheme, `{"error":"no entropy\nleft"}`, "no entropy left"},
	} {
		a := &transitAnswers{sign: func(transitSignRequest) (string, error) { return c.answer, nil }}
		sig, err := a.engine().Sign(t.Context(), "k", c.scheme, []byte("input"))
		switch {
		case c.want == "" && (err != nil || len(sig) != 64):
			t.Errorf("%s: %v", c.what, err)
		case c.want != "" && (err == nil || sig != nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want an error with %q", c.what, err, c.want)
		}
	}
}

// Nothing is left to a default of Vault's.
func TestTransitRequestsSayEverything(t *testing.T) {
	for _, c := range []struct {
		scheme TransitScheme
		want   string
	}{
		{TransitScheme{Hash: "sha2-256", JWS: true, Size: 64},
			`{"input":"aQ==","key_version":1,"prehashed":true,"hash_algorithm":"sha2-256","marshaling_algorithm":"jws"}`},
		{TransitScheme{Hash: "sha2-384", RSA: "pss", Size: 256},
			`{"input":"aQ==","key_version":1,"prehashed":true,"hash_algorithm":"sha2-384","signature_algorithm":"pss","salt_length":"hash","marshaling_algorithm":"asn1"}`},
		{TransitScheme{Hash: "sha2-512", RSA: "pkcs1v15", Size: 256},
			`{"input":"aQ==","key_version":1,"prehashed":true,"hash_algorithm":"sha2-512","signature_algorithm":"pkcs1v15","marshaling_algorithm":"asn1"}`},
		{edScheme, `{"input":"aQ==","key_version":1,"prehashed":false,"marshaling_algorithm":"asn1"}`},
	} {
		a := &transitAnswers{sign: func(req transitSignRequest) (string, error) {
			got, err := json.Marshal(req)
			if err != nil || string(got) != c.want {
				t.Errorf("got %s %v\nwant %s", got, err, c.want)
			}
			return "", errors.New("seen")
		}}
		a.engine().Sign(t.Context(), "k", c.scheme, []byte("i"))
	}
}

// item is one result of a batch.
func transitItem(reference, rest string) string {
	return `{"reference":"` + reference + `",` + rest + `}`
}

func TestTransitBatchKeepsErrorsWithTheirItems(t *testing.T) {
	good := `"signature":"vault:v1:` + zeroes(64) + `","key_version":1`
	for _, c := range []struct {
		what    string
		results []string
		want    [3]string
	}{
		{"one fails", []string{transitItem("0", good), transitItem("1", `"error":"too odd","key_version":0`), transitItem("2", good)}, [3]string{"", "too odd", ""}},
		{"one says nothing", []string{transitItem("0", good), transitItem("1", `"key_version":1`), transitItem("2", good)}, [3]string{"", "version 1", ""}},
		{"one has another version", []string{transitItem("0", good), transitItem("1", good), transitItem("2", strings.Replace(good, "v1", "v2", 1))}, [3]string{"", "", "version 1"}},
		{"no references, as old servers answer", []string{"{" + good + "}", "{" + good + "}", transitItem("", good)}, [3]string{}},
		{"out of order", []string{transitItem("1", good), transitItem("0", good), transitItem("2", good)}, [3]string{"out of order", "out of order", "out of order"}},
		{"too few", []string{transitItem("0", good), transitItem("1", good)}, [3]string{"2 results", "2 results", "2 results"}},
		{"none", nil, [3]string{"0 results", "0 results", "0 results"}},
	} {
		a := &transitAnswers{sign: func(req transitSignRequest) (string, error) {
			if req.Version != 1 || len(req.Batch) != 3 || req.Input != "" {
				t.Errorf("%s: the request is %+v", c.what, req)
			}
			return `{"batch_results":[` + strings.Join(c.results, ",") + `]}`, nil
		}}
		sigs, errs := a.engine().SignBatch(t.Context(), "k", edScheme, [][]byte{{1}, {2}, {3}})
		for i, want := range c.want {
			switch {
			case want == "" && (errs[i] != nil || len(sigs[i]) != 64):
				t.Errorf("%s: item %d: %v", c.what, i, errs[i])
			case want != "" && (errs[i] == nil || sigs[i] != nil || !strings.Contains(errs[i].Error(), want)):
				t.Errorf("%s: item %d: got %v, want an error with %q", c.what, i, errs[i], want)
			}
		}
	}
}

// A batch that is cut in several requests is put together in order, and a
// request that fails takes only its own items along.
func TestTransitBatchIsCut(t *testing.T) {
	inputs := make([][]byte, 2*transitBatchItems+7)
	for i := range inputs {
		inputs[i] = fmt.Appendf(nil, "input %d", i)
	}
	inputs[len(inputs)-2] = make([]byte, transitBatchBytes+1) // larger than a batch: goes alone
	var sizes []int
	a := &transitAnswers{sign: func(req transitSignRequest) (string, error) {
		sizes = append(sizes, len(req.Batch))
		if len(sizes) == 2 {
			return "", transitRefusal(503, `"Vault is sealed"`)
		}
		var results []string
		for _, in := range req.Batch { // the signature repeats the start of the input
			raw, _ := base64.StdEncoding.DecodeString(in.Input)
			sig := make([]byte, 64)
			copy(sig, raw)
			results = append(results, transitItem(in.Reference, `"signature":"vault:v1:`+base64.StdEncoding.EncodeToString(sig)+`","key_version":1`))
		}
		return `{"batch_results":[` + strings.Join(results, ",") + `]}`, nil
	}}
	sigs, errs := a.engine().SignBatch(t.Context(), "k", edScheme, inputs)
	if fmt.Sprint(sizes) != fmt.Sprint([]int{transitBatchItems, transitBatchItems, 5, 1, 1}) {
		t.Errorf("batches of %v", sizes)
	}
	for i := range inputs {
		failed := i >= transitBatchItems && i < 2*transitBatchItems
		if failed != errors.Is(errs[i], ErrSealed) || failed != (errs[i] != nil) {
			t.Fatalf("item %d: %v", i, errs[i])
		}
		want := make([]byte, 64)
		copy(want, inputs[i])
		if !failed && !bytes.Equal(sigs[i], want) {
			t.Fatalf("item %d has another's signature", i)
		}
	}
}

// transitMountOf is what Vault says of a mount of that type.
func transitMountOf(kind string) (string, error) { return `{"type":"` + kind + `"}`, nil }

// transitMount answers what is asked of a transit engine.
func transitMount(read func(path string) (string, error)) func(path string) (string, error) {
	return func(path string) (string, error) {
		if strings.HasPrefix(path, "sys/internal/ui/mounts/") {
			return transitMountOf("transit")
		}
		return read(path)
	}
}

// A key is lost only if a transit engine says so: whoever believes anything
// less gives up keys that are well.
func TestTransitKeyIsNotLostBecauseTheMountIsWrong(t *testing.T) {
	absent := transitRefusal(404, "")
	for _, c := range []struct {
		what  string
		mount func() (string, error)
		gone  bool
	}{
		{"transit", func() (string, error) { return transitMountOf("transit") }, true},
		{"kv", func() (string, error) { return transitMountOf("kv") }, false},
		{"no mount", func() (string, error) { return "", transitRefusal(403, `"preflight capability check returned 403"`) }, false},
		{"not Vault", func() (string, error) { return "", classify("x", 404, []byte("<html>")) }, false},
		{"sealed", func() (string, error) { return "", transitRefusal(503, `"Vault is sealed"`) }, false},
		{"nothing", func() (string, error) { return `{}`, nil }, false},
	} {
		a := &transitAnswers{
			read: func(path string) (string, error) {
				if strings.HasPrefix(path, "sys/") {
					return c.mount()
				}
				return "", absent
			},
			sign: func(transitSignRequest) (string, error) { return "", transitRefusal(400, `"signing key not found"`) },
		}
		_, err := a.engine().Read(t.Context(), "k")
		if err == nil || errors.Is(err, keystore.ErrNotFound) != c.gone {
			t.Errorf("%s: reading: %v", c.what, err)
		}
		_, err = a.engine().Sign(t.Context(), "k", edScheme, nil)
		if err == nil || errors.Is(err, keystore.ErrNotFound) != c.gone {
			t.Errorf("%s: signing: %v", c.what, err)
		}
		if err := a.engine().Destroy(t.Context(), "k"); (err == nil) != c.gone {
			t.Errorf("%s: destroying: %v", c.what, err)
		}
		if _, err := a.engine().Names(t.Context()); (err == nil) != c.gone {
			t.Errorf("%s: listing: %v", c.what, err)
		}
	}
}

// Names come from a document. Those that would lead elsewhere are not asked for.
func TestTransitTakesNoOtherNames(t *testing.T) {
	a := &transitAnswers{}
	for _, name := range []string{"", "..", "../../sys/seal", "a/b", "a/config", "a b", "a%2fb", "a?b", "a#b", "-a", "a-", "ä", strings.Repeat("a", 256)} {
		if _, err := a.engine().Read(t.Context(), name); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("reading %q: %v", name, err)
		}
		if _, err := a.engine().Sign(t.Context(), name, edScheme, nil); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("signing with %q: %v", name, err)
		}
		if err := a.engine().Destroy(t.Context(), name); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("destroying %q: %v", name, err)
		}
	}
	if a.asked != nil {
		t.Errorf("asked for %v", a.asked)
	}
}

// goodTransitKey is what Vault says of a key as it should be.
func goodTransitKey() map[string]any {
	return map[string]any{
		"type": "ed25519", "latest_version": 1, "exportable": false, "allow_plaintext_backup": false,
		"derived": false, "deletion_allowed": false, "imported_key": false, "auto_rotate_period": 0,
		"min_available_version": 0, "min_encryption_version": 0, "min_decryption_version": 1,
		"keys": map[string]any{"1": map[string]any{
			"creation_time": "2026-11-22T01:48:06.360732902Z",
			"public_key":    "vhvayF6zvAcX+qJxuZo6Fnjns/F/Cx7sfBG2d97nIsI=",
		}},
	}
}

func readTransitKey(t *testing.T, data map[string]any) (TransitKey, error) {
	t.Helper()
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	a := &transitAnswers{read: transitMount(func(string) (string, error) { return string(text), nil })}
	return a.engine().Read(t.Context(), "k")
}

func TestTransitKeyIsRefused(t *testing.T) {
	key, err := readTransitKey(t, goodTransitKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Check("ed25519"); err != nil {
		t.Fatal(err)
	}
	if _, err := key.Check("rsa-2048"); !errors.Is(err, keystore.ErrCorrupt) {
		t.Errorf("of another type: %v", err)
	}
	for _, c := range []struct {
		member string
		value  any
		want   string
	}{
		{"exportable", true, "exportable"},
		{"allow_plaintext_backup", true, "plaintext backup"},
		{"derived", true, "derives"},
		{"imported_key", true, "imported"},
		{"deletion_allowed", true, "deletion is allowed"},
		{"auto_rotate_period", 3600, "rotates by itself"},
		{"latest_version", 2, "latest version is 2"},
		{"min_encryption_version", 2, "locked"},
		{"min_available_version", 2, "locked"},
		{"keys", map[string]any{}, "no public key"},
		{"type", "ecdsa-p256", "of type ecdsa-p256"},
		{"type", "aes256-gcm96", "of type aes256-gcm96"},
	} {
		data := goodTransitKey()
		data[c.member] = c.value
		key, err := readTransitKey(t, data)
		if err != nil {
			t.Errorf("%s %v: %v", c.member, c.value, err)
			continue
		}
		if _, err := key.Check("ed25519"); !errors.Is(err, keystore.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: got %v, want an error with %q", c.member, c.value, err, c.want)
		}
	}
}

// What is missing in an answer is neither a no nor a lost key.
func TestTransitKeyOfBadAnswersIsUnknown(t *testing.T) {
	var cases []map[string]any
	for _, member := range []string{"type", "latest_version", "exportable", "allow_plaintext_backup", "derived", "deletion_allowed"} {
		data := goodTransitKey()
		delete(data, member)
		cases = append(cases, data)
	}
	for _, public := range []string{"", "AAAA", "-----BEGIN PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		data := goodTransitKey()
		data["keys"] = map[string]any{"1": map[string]any{"creation_time": "2026-11-22T01:48:06Z", "public_key": public}}
		cases = append(cases, data)
	}
	for _, data := range cases {
		if _, err := readTransitKey(t, data); !errors.Is(err, errTransitAnswer) || errors.Is(err, keystore.ErrCorrupt) || errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("%v: %v", data, err)
		}
	}
}

// The outcome of a write may be unknown: what is there counts.
func TestTransitFindsWhatALostReplyHasMade(t *testing.T) {
	good, _ := json.Marshal(goodTransitKey())
	a := &transitAnswers{read: transitMount(func(string) (string, error) { return string(good), nil })}
	lost := transitRepliesLost{a}
	if _, err := (&Transit{client: a, slow: lost, mount: "transit"}).Create(t.Context(), "k", "ed25519"); err != nil {
		t.Error(err)
	}
	a.read = transitMount(func(string) (string, error) { return "", transitRefusal(404, "") })
	_, err := (&Transit{client: a, slow: lost, mount: "transit"}).Create(t.Context(), "k", "ed25519")
	if !errors.Is(err, errTransitReplyLost) || errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("nothing was made: %v", err)
	}
}

var errTransitReplyLost = errors.New("connection reset")

type transitRepliesLost struct{ *transitAnswers }

func (transitRepliesLost) Write(context.Context, string, any, any) error { return errTransitReplyLost }

func TestTransitEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	seen := false
	a := &transitDeadline{transitAnswers: transitAnswers{}, seen: &seen}
	if _, err := (&Transit{client: a, slow: a, mount: "transit"}).Sign(ctx, "k", edScheme, nil); !errors.Is(err, context.Canceled) || !seen {
		t.Error(err)
	}
	if _, err := (&Transit{client: a, slow: a, mount: "transit"}).Sign(t.Context(), "k", edScheme, nil); err == nil || !seen {
		t.Error(err)
	}
}

// transitDeadline does what a Client does with a context that has ended, and refuses
// one that never ends.
type transitDeadline struct {
	transitAnswers
	seen *bool
}

func (w *transitDeadline) Write(ctx context.Context, _ string, _, _ any) error {
	_, *w.seen = ctx.Deadline()
	if err := ctx.Err(); err != nil {
		return err
	}
	return transitRefusal(http.StatusServiceUnavailable, `"Vault is sealed"`)
}
