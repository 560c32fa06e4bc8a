package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
	"github.com/jwksd/jwksd/signer"
)

// sign answers POST /v1/keysets/{keyset}/sign: one parse, one look at the
// snapshot, one signature, one write. The snapshot is taken after the body was
// read: a caller who sends it slowly must not get a token from a key that was
// revoked meanwhile.
func (s *Server) sign(c *call) error {
	if err := s.may(c, ActionSign); err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	req, err := signer.ParseRequest(body)
	if err != nil {
		return err
	}
	types := c.caller.types(c.keyset, ActionSign)
	for range maxSignTries {
		v, err := s.opt.Keysets.View(c.keyset)
		if err != nil {
			return err
		}
		out, kid, err := s.token(c.r.Context(), v, &req, types)
		if err != nil {
			return err
		}
		// Where a revocation came while the key was signing, the token is as
		// good as forged and must not leave.
		if latest, err := s.opt.Keysets.View(c.keyset); err != nil || latest != v && latest.State.Revoked(kid) {
			continue
		}
		c.write(http.StatusOK, out)
		return nil
	}
	return errRevokedMeanwhile
}

// maxSignTries bounds how often a token is made anew because its key was
// revoked while it signed.
const maxSignTries = 3

// errOpening is for the moment after a revocation in which the key made in its
// place is not open yet. Nothing is broken, and nobody should revoke it.
var errOpening = &failure{status: http.StatusServiceUnavailable, code: "key_opening", detail: "the key that signs now is being opened", hint: "try again", retryAfter: time.Second}

// custodyError is a signature that did not come about because the place of the
// private key did not do its part, as Vault does not while it is sealed or fails
// over. Its text is for the log only.
type custodyError struct{ error }

func (e *custodyError) Unwrap() error { return e.error }

var errCustody = &failure{status: http.StatusServiceUnavailable, code: "signing_unavailable", detail: "the place of the private key does not sign now", hint: "try again; the daemon's log and its alarms say why", retryAfter: time.Second}

var errRevokedMeanwhile = &failure{status: http.StatusServiceUnavailable, code: "key_revoked", detail: "the key was revoked while it signed", hint: "try again", retryAfter: time.Second}

// token makes the answer under one view, and tells which key signed.
func (s *Server) token(ctx context.Context, v *rotator.View, req *signer.Request, types []string) (out []byte, kid string, err error) {
	now := s.now()
	if v.State.Closed != nil {
		return nil, "", rotation.ErrClosed // also while a key's hand-over grace runs
	}
	if err := s.opt.Keysets.Fresh(v, now); err != nil {
		return nil, "", err
	}
	key, err := v.Signer(req.Alg, now)
	if errors.Is(err, rotator.ErrUnusable) && len(v.Unusable) == 0 {
		return nil, "", errOpening
	}
	if err != nil {
		return nil, "", err
	}
	policy := &v.State.Policy
	claims, err := req.Issue(signer.Rules{
		Issuer:    policy.Issuer,
		MaxTTL:    policy.TokenTTLMax.Std(),
		ClockSkew: policy.ClockSkew.Std(),
		Types:     types,
	}, now)
	if err != nil {
		return nil, "", err
	}
	// {"token":"…","kid":"…","alg":"…","expires_at":"…"}: none of the values
	// has a character that JSON escapes.
	out = make([]byte, 0, 512+2*len(claims.Payload))
	out = append(out, `{"token":"`...)
	if out, err = signer.AppendToken(ctx, out, key, claims.Typ, claims.Payload); err != nil {
		return nil, "", &custodyError{err}
	}
	out = append(out, `","kid":"`...)
	out = append(out, key.KID()...)
	out = append(out, `","alg":"`...)
	out = append(out, key.Algorithm()...)
	out = append(out, `","expires_at":"`...)
	out = claims.ExpiresAt.AppendFormat(out, time.RFC3339)
	return append(out, "\"}\n"...), key.KID(), nil
}
