package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// hammer asks for tokens until stop is closed, and checks every one.
type hammer struct {
	r       *rig
	client  *http.Client
	gone    *sync.Map // kids whose revocation has been answered
	signed  atomic.Int64
	overrun atomic.Int64 // tokens whose key was revoked before they were checked
	opening atomic.Int64 // answers that the new key is not open yet
}

func (h *hammer) run(alg string, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := h.once(alg); err != nil {
			return err
		}
	}
}

func (h *hammer) once(alg string) error {
	gone := map[string]bool{}
	h.gone.Range(func(kid, _ any) bool { gone[kid.(string)] = true; return true })

	req, err := http.NewRequest("POST", h.r.http.URL+signPath, strings.NewReader(`{"claims":{},"alg":"`+alg+`"}`))
	if err != nil {
		return err
	}
	req.Header = http.Header{"Authorization": {"Bearer " + issuer}, "Content-Type": {"application/json"}}
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode == 503 && bytes.Contains(body, []byte(`"key_opening"`)) {
		h.opening.Add(1)
		return nil
	}
	if err != nil || resp.StatusCode != 200 {
		return fmt.Errorf("answer %d %s: %w", resp.StatusCode, body, err)
	}
	v, err := h.r.rotator.View("default")
	if err != nil {
		return err
	}
	var got wire.Token
	if err := json.Unmarshal(body, &got); err != nil {
		return err
	}
	h.signed.Add(1)
	if gone[got.KID] {
		return fmt.Errorf("key %s signed after its revocation was answered", got.KID)
	}
	if v.State.Revoked(got.KID) {
		h.overrun.Add(1)
		return nil
	}
	return h.check(v, got.Token)
}

// check verifies the token against the set of the view, strictly and with
// another library.
func (h *hammer) check(v *rotator.View, token string) error {
	set := published(h.r.t, v)
	if _, err := verified(set, token, h.r.clock.Now()); err != nil {
		return fmt.Errorf("generation %d: %w", v.State.Generation, err)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(set, &keys); err != nil {
		return err
	}
	sig, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA})
	if err != nil {
		return err
	}
	found := keys.Key(sig.Signatures[0].Header.KeyID)
	if len(found) != 1 {
		return errors.New("go-jose does not find the key once")
	}
	_, err = sig.Verify(found[0])
	return err
}

// TestC32TokensVerifyAtOnce signs from several sides while keys are turned and
// revoked as fast as it goes.
func TestC32TokensVerifyAtOnce(t *testing.T) {
	r := newRig(t)
	r.run()
	h := &hammer{r: r, client: r.http.Client(), gone: &sync.Map{}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	for i := range 4 {
		wg.Go(func() { failed <- h.run([]string{"ES256", "EdDSA"}[i%2], stop) })
	}
	for round := range 40 {
		before := h.signed.Load()
		r.turn(h, round)
		r.clock.add(time.Second)
		r.eventually("tokens are signed in between", func() bool { return h.signed.Load() > before+4 || len(failed) > 0 })
	}
	close(stop)
	wg.Wait()
	for range 4 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d tokens, %d of them overrun by a revocation, %d asked for while a key was opened, generation %d", h.signed.Load(), h.overrun.Load(), h.opening.Load(), r.generation("default"))
}

// turn changes the keyset in one way or another.
func (r *rig) turn(h *hammer, round int) {
	alg := []string{"ES256", "EdDSA"}[round/4%2]
	switch round % 4 {
	case 0, 2:
		r.eventually("there is a standby", r.standby("default", "ES256"))
		r.eventually("there is a standby", r.standby("default", "EdDSA"))
		r.changed(rotatePath, operator, `{"force":true}`)
		return
	case 1:
		kid := r.active("default", alg)
		r.changed(revokePath, operator, `{"kid":"`+kid+`","reason":"leaked"}`)
		h.gone.Store(kid, true)
	case 3:
		c := r.changed(revokePath, operator, `{"all":true,"reason":"leaked"}`)
		if len(c.Revoked) < 2 || !slices.ContainsFunc(c.Promoted, func(p rotation.Promotion) bool { return p.Algorithm == alg }) {
			r.t.Errorf("all revoked: %+v", c)
		}
		for _, k := range c.Revoked {
			h.gone.Store(k.KID, true)
		}
	}
}
