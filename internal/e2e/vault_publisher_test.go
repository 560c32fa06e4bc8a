package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
	"github.com/jwksd/jwksd/internal/vaulttest"
)

// TestPublisher runs a daemon of the role publisher, with the policy of that
// role and no more, beside one that signs. It serves the same bytes, and can
// do nothing else.
func TestPublisher(t *testing.T) {
	t.Parallel()
	v := vaulttest.New(t, vaulttest.Options{})
	kv, transit := v.KV(t), v.Transit(t)
	s := calm(t.TempDir())
	s.replica = "signer"
	s.vault = vaultLogin(v, kv, transit, newAppRole(t, v, signerPolicy(t, kv, transit)))
	second := s.blocks[0]
	second.name, second.algorithms, second.custody = "second", "EdDSA", "transit"
	s.blocks = append(s.blocks, second)

	role := newAppRole(t, v, vaultPolicy(t, "publisher.hcl", kv, transit))
	p := s
	p.dir, p.replica, p.role = t.TempDir(), "publisher", "publisher"
	p.vault = vaultLogin(v, kv, transit, role)

	early := startDaemon(t, p) // before there is anything to publish
	if _, _, err := get(early.setURL("default")); err == nil {
		t.Error("the publisher serves a set before there is one")
	}
	signer := startDaemon(t, s)
	t.Run("serves the same", func(t *testing.T) { servesTheSame(t, signer, early) })
	t.Run("cannot sign", func(t *testing.T) { cannotSign(t, early) })
	t.Run("cannot read private keys", func(t *testing.T) { cannotRead(t, v, role, kv, transit, signer) })
	t.Run("starts while nobody signs", func(t *testing.T) {
		want, header, err := get(signer.setURL("default"))
		if err != nil {
			t.Fatal(err)
		}
		signer.stop()
		early.stop()
		early.start()
		body, again, err := get(early.setURL("default"))
		if err != nil || !bytes.Equal(body, want) || again.Get("ETag") != header.Get("ETag") {
			t.Errorf("after a restart the publisher serves, %v:\n%s\nwant\n%s", err, body, want)
		}
	})
}

// vaultLogin is the setting of keystore.vault for a login.
func vaultLogin(v *vaulttest.Vault, kv, transit string, r *appRole) string {
	return fmt.Sprintf("{address: %q, mount: %s, transit_mount: %s, auth: {approle: {role_id_file: %q, secret_id_file: %q, mount: %s}}}",
		v.Address(), kv, transit, r.roleIDFile, r.secretIDFile, r.mount)
}

// margin is how much longer than sync_interval a change may take on a machine
// that is busy.
const margin = 10 * time.Second

// servesTheSame compares body and ETag of both daemons, at first and after each
// of some changes.
func servesTheSame(t *testing.T, signer, publisher *daemon) {
	changes := []func() error{
		func() error { return nil },
		func() error {
			return change(signer.client.Rotate(t.Context(), "default", wire.RotateRequest{Reason: "drill"}, ""))
		},
		func() error {
			return change(signer.client.Rotate(t.Context(), "second", wire.RotateRequest{Reason: "drill"}, ""))
		},
		func() error {
			kid := signer.sign("default", "", "1m").KID
			return change(signer.client.Revoke(t.Context(), "default", wire.RevokeRequest{KID: kid, Reason: "drill"}, ""))
		},
	}
	for i, f := range changes {
		if err := f(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for _, keyset := range []string{"default", "second"} {
			eventually(t, "a publisher that has caught up", func() bool {
				want, header, err := get(signer.setURL(keyset))
				if err != nil {
					t.Fatal(err)
				}
				got, gotHeader, err := get(publisher.setURL(keyset))
				return err == nil && bytes.Equal(got, want) && gotHeader.Get("ETag") == header.Get("ETag") && header.Get("ETag") != ""
			})
		}
		took := time.Since(start)
		t.Logf("change %d is published %s after it was answered; sync_interval is 100ms", i, took.Round(time.Millisecond))
		if took > 100*time.Millisecond+margin {
			t.Errorf("change %d came to the publisher after %s only", i, took)
		}
	}
	token := signer.sign("second", "", "1m")
	if _, err := check(publisher.fetchSet("second"), token.Token); err != nil {
		t.Errorf("a token of the signer, by the set of the publisher: %v", err)
	}
}

func change(_ wire.Change, err error) error { return err }

// cannotSign asks the publisher for everything that a signer does.
func cannotSign(t *testing.T, d *daemon) {
	for what, do := range map[string]func() error{
		"sign": func() error { _, err := d.client.Sign(t.Context(), "default", signRequest("", "1m")); return err },
		"rotate": func() error {
			return change(d.client.Rotate(t.Context(), "default", wire.RotateRequest{Reason: "drill", Force: true}, ""))
		},
		"revoke": func() error {
			return change(d.client.Revoke(t.Context(), "default", wire.RevokeRequest{All: true, Reason: "drill"}, ""))
		},
	} {
		var answered *client.Error
		err := do()
		if !errors.As(err, &answered) || answered.Status < 400 || answered.Status == http.StatusInternalServerError {
			t.Errorf("%s on a publisher: %v", what, err)
			continue
		}
		t.Logf("%s on a publisher: %d %s: %v", what, answered.Status, answered.Code, err)
	}
	for _, name := range []string{"default", "second"} {
		for _, l := range d.keyset(name).Lanes {
			for _, k := range l.Keys {
				if k.Problem != "" {
					t.Errorf("keyset %s, key %s: %s", name, k.KID, k.Problem)
				}
			}
		}
	}
	if alarms := d.overview().Daemon.Alarms; len(alarms) > 0 {
		t.Errorf("the publisher raises alarms: %v", alarms)
	}
}

// cannotRead logs in as the publisher does, and tries what it must not do.
func cannotRead(t *testing.T, v *vaulttest.Vault, r *appRole, kv, transit string, signer *daemon) {
	login := v.Do(t, "POST", "auth/"+r.mount+"/login", map[string]any{"role_id": r.roleID, "secret_id": r.secretID})
	token := login["auth"].(map[string]any)["client_token"].(string)
	kid := signer.sign("default", "", "1m").KID
	private := kv + "/data/jwksd/keys/default/" + kid
	v.Do(t, "GET", private, nil) // it is there
	names := v.Do(t, "GET", transit+"/keys?list=true", nil)["data"].(map[string]any)["keys"].([]any)
	inTransit := names[0].(string)
	for _, c := range []struct {
		method, path string
		in           any
	}{
		{"GET", private, nil},
		{"GET", kv + "/metadata/jwksd/keys/default?list=true", nil},
		{"DELETE", kv + "/metadata/jwksd/keys/default/" + kid, nil},
		{"POST", kv + "/data/jwksd/keys/default/other", map[string]any{"data": map[string]any{"a": "b"}}},
		{"POST", kv + "/data/jwksd/state/default", map[string]any{"data": map[string]any{"a": "b"}}},
		{"POST", kv + "/data/jwksd/head", map[string]any{"data": map[string]any{"a": "b"}}},
		{"GET", transit + "/keys?list=true", nil},
		{"GET", transit + "/keys/" + inTransit, nil},
		{"POST", transit + "/sign/" + inTransit, map[string]any{"input": "YQ=="}},
	} {
		if out, err := v.Try(t, token, c.method, c.path, c.in); err == nil {
			t.Errorf("the publisher's token may %s %s: %v", c.method, c.path, out)
		}
	}
	if _, err := v.Try(t, token, "GET", kv+"/data/jwksd/state/default", nil); err != nil {
		t.Errorf("the publisher's token may not read the state, so that its refusals say nothing: %v", err)
	}
}
