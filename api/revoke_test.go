package api_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/keystore"
)

func TestRevokeOneKey(t *testing.T) {
	r := newRig(t)
	kid := r.active("default", "ES256")
	old := r.do("POST", signPath, issuer, `{"claims":{}}`)
	var before wire.Token
	old.decode(t, &before)

	dry := r.changed(revokePath, revoker, `{"kid":"`+kid+`","reason":"leaked","dry_run":true}`)
	if !dry.DryRun || r.generation("default") != r.state("default").Generation || r.active("default", "ES256") != kid || r.state("default").Revoked(kid) {
		t.Fatalf("a dry run changed something: %+v", dry)
	}
	if v := r.signed(issuer, `{"claims":{}}`); v.KID != kid {
		t.Fatal("a dry run stopped the key")
	}
	c := r.changed(revokePath, revoker, `{"kid":"`+kid+`","reason":"leaked"}`)
	dry.DryRun, dry.Operation = false, c.Operation
	if a, b := toJSON(t, dry), toJSON(t, c); a != b {
		t.Errorf("the dry run promised\n%s\nand this came\n%s", a, b)
	}
	if len(c.Revoked) != 1 || c.Revoked[0].KID != kid || c.Revoked[0].Reason != "leaked" || c.Revoked[0].By != "revoker" || c.Revoked[0].Alg != "ES256" {
		t.Errorf("revoked %+v", c.Revoked)
	}
	exposure := r.state("default").Timing().Exposure.Std()
	if len(c.Promoted) != 1 || c.Promoted[0].From != kid || !c.Promoted[0].FullLead || !c.TrustedUntil.Equal(c.At.Add(exposure)) || c.FlushAt.IsZero() || len(c.Warnings) == 0 {
		t.Errorf("the answer is %+v", c)
	}

	// It left the set at once, its tokens with it, and its private half is gone.
	set := published(t, r.view("default"))
	if strings.Contains(string(set), kid) {
		t.Error("the revoked key is still in the set")
	}
	if _, err := verified(set, before.Token, r.clock.Now()); err == nil {
		t.Error("a token of the revoked key verifies against the set")
	}
	if _, err := r.store.ReadKey(t.Context(), "default", kid); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("the private half of the revoked key: %v", err)
	}
	if v := r.signed(issuer, `{"claims":{}}`); v.KID != c.Promoted[0].To {
		t.Errorf("%s signs, %s was promoted", v.KID, c.Promoted[0].To)
	}
	r.want(r.do("POST", revokePath, revoker, `{"kid":"`+kid+`","reason":"again"}`), 409, "already_revoked")
	r.want(r.do("POST", revokePath, revoker, `{"kid":"`+kid+`","reason":"again","dry_run":true}`), 409, "already_revoked")
}

func TestRevokeStandby(t *testing.T) {
	r := newRig(t)
	l, _ := r.state("default").Lane("EdDSA")
	standby, _ := l.Standby(r.clock.Now())
	c := r.changed(revokePath, operator, `{"kid":"`+standby.KID+`","reason":"leaked"}`)
	if len(c.Promoted) != 0 || len(c.Revoked) != 1 {
		t.Errorf("the answer is %+v", c)
	}
	// Nothing is left to take over: the next revocation makes a key on the spot.
	kid := r.active("default", "EdDSA")
	dry := r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"leaked","dry_run":true}`)
	c = r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"leaked"}`)
	if len(c.Promoted) != 1 || c.Promoted[0].FullLead || len(c.Warnings) != 2 || len(dry.Promoted) != 1 || dry.Promoted[0].FullLead || dry.Generation != c.Generation {
		t.Errorf("dry run %+v\nand then %+v", dry, c)
	}
	if v := r.signed(issuer, `{"claims":{},"alg":"EdDSA"}`); v.KID != c.Promoted[0].To {
		t.Error("another key signs than the one that was made")
	}
}

func TestRevokeAll(t *testing.T) {
	r := newRig(t)
	var kids []string
	for k := range r.state("default").Keys {
		kids = append(kids, k.KID)
	}
	const body = `{"all":true,"reason":"the store leaked"}`
	r.want(r.do("POST", revokePath, revoker, body), 403, "forbidden")
	r.want(r.do("POST", revokePath, revoker, `{"all":true,"reason":"a","dry_run":true}`), 403, "forbidden")
	dry := r.changed(revokePath, operator, `{"all":true,"reason":"the store leaked","dry_run":true}`)
	if len(dry.Revoked) != 4 || len(dry.Promoted) != 2 || !dry.DryRun || len(r.state("default").Tombstones) != 0 {
		t.Fatalf("dry run: %+v", dry)
	}
	c := r.changed(revokePath, operator, body)
	if len(c.Revoked) != len(kids) || len(c.Promoted) != 2 || c.Generation != dry.Generation || !c.TrustedUntil.Equal(dry.TrustedUntil) || toJSON(t, c.Revoked) != toJSON(t, dry.Revoked) {
		t.Errorf("dry run\n%s\nand then\n%s", toJSON(t, dry), toJSON(t, c))
	}
	set := string(published(t, r.view("default")))
	for _, kid := range kids {
		if strings.Contains(set, kid) {
			t.Errorf("%s is still in the set", kid)
		}
		if _, err := r.store.ReadKey(t.Context(), "default", kid); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("private half of %s: %v", kid, err)
		}
	}
	r.signed(issuer, `{"claims":{}}`)
	r.signed(issuer, `{"claims":{},"alg":"EdDSA"}`)
	if kid := r.active("tenant", "EdDSA"); kid == "" || r.generation("tenant") == 0 {
		t.Error("the other keyset was touched")
	}
}

func TestRevokeBodies(t *testing.T) {
	r := newRig(t)
	before := r.generation("default")
	kid := r.active("default", "ES256")
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		`{"kid":"` + kid + `"}`:                                             {400, "reason_required"},
		`{"kid":"` + kid + `","reason":""}`:                                 {400, "reason_required"},
		`{"kid":"` + kid + `","reason":" \t"}`:                              {400, "reason_required"},
		`{"all":true}`:                                                      {400, "reason_required"},
		`{"reason":"a"}`:                                                    {400, "invalid_revoke"},
		`{"kid":"","all":false,"reason":"a"}`:                               {400, "invalid_revoke"},
		`{"kid":"` + kid + `","all":true,"reason":"a"}`:                     {400, "invalid_revoke"},
		`{"kid":"` + kid + `","reason":"` + strings.Repeat("x", 501) + `"}`: {400, "invalid_reason"},
		`{"kid":"nobody","reason":"a"}`:                                     {404, "unknown_kid"},
		`{"kid":"nobody","reason":"a","dry_run":true}`:                      {404, "unknown_kid"},
		`{"kid":"` + r.active("tenant", "EdDSA") + `","reason":"a"}`:        {404, "unknown_kid"}, // another keyset's
		`{"kid":"` + kid + `","reason":"a","kid":"x"}`:                      {400, "invalid_body"},
		`{"kid":"` + kid + `","reason":"a","dry_run":true,"dry_run":false}`: {400, "invalid_body"},
		`{"kid":"` + kid + `","reason":"a","Dry_Run":true}`:                 {400, "invalid_body"},
		`{"kid":"` + kid + `","reason":"a","dryrun":true}`:                  {400, "invalid_body"},
		`{"kid":"` + kid + `","reason":"a","dry_run":"true"}`:               {400, "invalid_body"},
		`{"kid":["` + kid + `"],"reason":"a"}`:                              {400, "invalid_body"},
		"":                                                                  {400, "invalid_revoke"},
		`{"kid":"` + strings.Repeat("x", 60000) + `","reason":"a"}`:         {404, "unknown_kid"},
		`{"kid":"\u0000\"<script>","reason":"a"}`:                           {404, "unknown_kid"},
	} {
		if a := r.want(r.do("POST", revokePath, operator, body), want.status, want.code); len(a.body) > 1000 {
			t.Errorf("%d bytes are sent back", len(a.body))
		}
	}
	if r.generation("default") != before {
		t.Error("a refused request changed the keyset")
	}
}

// TestRevocationStaysAfterTime: the flush turns the keys once more, and the
// revoked one stays out.
func TestRevocationStaysAfterTime(t *testing.T) {
	r := newRig(t)
	r.run()
	kid := r.active("default", "ES256")
	c := r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"leaked"}`)
	r.eventually("the next standby is made", r.standby("default", "ES256"))
	r.clock.add(time.Until(c.FlushAt) - time.Until(c.At) + time.Minute)
	r.sync()
	if now := r.active("default", "ES256"); now == c.Promoted[0].To || now == kid {
		t.Errorf("%s signs after the flush", now)
	}
	if v := r.signed(issuer, `{"claims":{}}`); v.KID == kid {
		t.Error("the revoked key signs")
	}
}
