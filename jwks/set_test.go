package jwks

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/jwksd/jwksd/internal/jwa"
)

func TestC42SameKeysSameBytes(t *testing.T) {
	a, b := newJWK(t, "ES256"), newJWK(t, "RS256")
	one := newSet(t, a, b)
	// Another replica read the keys from the state document.
	var copies []JWK
	for _, k := range []JWK{a, b} {
		c, err := Parse([]byte(mustJSON(t, k)))
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, c)
	}
	two := newSet(t, copies...)
	if !bytes.Equal(one.Bytes(), two.Bytes()) || one.ETag() != two.ETag() {
		t.Error("replicas differ")
	}
	if want := `{"keys":[` + mustJSON(t, a) + `,` + mustJSON(t, b) + `]}`; string(one.Bytes()) != want {
		t.Errorf("bytes %s\nwant  %s", one.Bytes(), want)
	}
	for name, other := range map[string]*Set{"order": newSet(t, b, a), "fewer": newSet(t, a)} {
		if other.ETag() == one.ETag() {
			t.Errorf("%s: another set has the same ETag", name)
		}
	}
	if e := one.ETag(); strings.HasPrefix(e, "W/") || len(e) < 3 || e[0] != '"' || e[len(e)-1] != '"' {
		t.Errorf("not a strong ETag: %s", e)
	}
}

// A fixed key has fixed bytes and a fixed ETag: an upgrade of the daemon must
// not change them under its caches unnoticed.
func TestC42BytesAreStableAcrossVersions(t *testing.T) {
	k, err := Parse([]byte(`{"kty":"OKP","crv":"Ed25519","x":"` + rfc8037X + `","alg":"EdDSA","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"}`))
	if err != nil {
		t.Fatal(err)
	}
	s := newSet(t, k)
	const body = `{"keys":[{"kty":"OKP","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","use":"sig","alg":"EdDSA","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	if string(s.Bytes()) != body {
		t.Errorf("bytes %s", s.Bytes())
	}
	if s.ETag() != `"nW5ZnfT-4LQ_VJPaxMT_QQ"` {
		t.Errorf("ETag %s", s.ETag())
	}
}

func TestC41OneKIDOnce(t *testing.T) {
	k := newJWK(t, "ES256")
	if _, err := NewSet([]JWK{k, k}); !errors.Is(err, ErrDuplicateKID) {
		t.Errorf("same key twice: %v", err)
	}
	rs, ps := newJWK(t, "RS256"), newJWK(t, "PS256") // the same RSA key
	if _, err := NewSet([]JWK{rs, ps}); !errors.Is(err, ErrDuplicateKID) {
		t.Errorf("one key under two algorithms: %v", err)
	}
	if _, err := NewSet([]JWK{k, {}}); err == nil {
		t.Error("a JWK without a key")
	}
}

func TestC43NoEmptySet(t *testing.T) {
	if _, err := NewSet(nil); !errors.Is(err, ErrEmptySet) {
		t.Errorf("got %v", err)
	}
}

// The set is what it was made of and stays so; nothing of an earlier set
// comes back.
func TestC44ExactlyTheGivenKeys(t *testing.T) {
	standby, active, retiring := newJWK(t, "ES256"), newJWK(t, "ES256"), newJWK(t, "ES256")
	given := []JWK{standby, active, retiring}
	s := newSet(t, given...)
	given[0] = newJWK(t, "ES256")
	s.Keys()[1] = given[0]
	after := newSet(t, standby, retiring) // active was revoked
	for _, c := range []struct {
		set  *Set
		want []JWK
	}{{s, []JWK{standby, active, retiring}}, {after, []JWK{standby, retiring}}} {
		got, skipped, err := ParseSet(c.set.Bytes())
		if err != nil || len(skipped) != 0 || len(got) != len(c.want) {
			t.Fatalf("%d keys, %d skipped, %v", len(got), len(skipped), err)
		}
		for i := range got {
			if !got[i].Equal(c.want[i]) || !c.set.Keys()[i].Equal(c.want[i]) {
				t.Errorf("key %d is another one", i)
			}
		}
	}
	if bytes.Contains(after.Bytes(), []byte(active.KID())) {
		t.Error("the revoked key is still there")
	}
}

// go-jose v4 reads a set with a key of every algorithm. Its JWK parser takes
// any alg text, so a set with "Ed25519" (RFC 9864) does not break it; but
// v4.1.8 cannot verify with that name, as the last check records.
func TestC45ParsesWithGoJose(t *testing.T) {
	for _, alg := range jwa.Names() {
		k := newJWK(t, alg)
		var theirs jose.JSONWebKeySet
		if err := json.Unmarshal(newSet(t, newJWK(t, "ES256"), k).Bytes(), &theirs); err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		got := theirs.Key(k.KID())
		if len(got) != 1 {
			t.Errorf("%s: %d keys with that kid", alg, len(got))
			continue
		}
		if !got[0].Valid() || !got[0].IsPublic() || got[0].Algorithm != alg || got[0].Use != "sig" {
			t.Errorf("%s: %+v", alg, got[0])
		}
		again, err := New(alg, got[0].Key)
		if err != nil || !again.Equal(k) {
			t.Errorf("%s: another key: %v", alg, err)
		}
	}
}

func TestC45GoJoseDoesNotKnowTheNameEd25519(t *testing.T) {
	priv := newPrivate(t, "Ed25519")
	if _, err := jose.NewSigner(jose.SigningKey{Algorithm: "Ed25519", Key: priv}, nil); err == nil {
		t.Error("go-jose has learnt Ed25519: the default for Ed25519 keys can be thought over")
	}
	if _, err := jose.NewSigner(jose.SigningKey{Algorithm: "EdDSA", Key: priv}, nil); err != nil {
		t.Error(err)
	}
}

// One key type that go-jose does not know makes it refuse the whole set: the
// reason why sets hold RSA, EC and OKP-Ed25519 keys only.
func TestC45AnUnknownKeyTypeBreaksOthers(t *testing.T) {
	k := mustJSON(t, newJWK(t, "ES256"))
	var theirs jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(`{"keys":[`+k+`,{"kty":"NEW","kid":"x"}]}`), &theirs); err == nil {
		t.Error("go-jose passes over unknown key types now")
	}
}
