package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/jwksd/jwksd/signer"
)

// sign answers POST /v1/keysets/{keyset}/sign: one look at the snapshot, one
// parse, one signature, one write.
func (s *Server) sign(c *call) error {
	v, grant, err := s.view(c, ActionSign)
	if err != nil {
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
	now := s.opt.Now()
	if err := s.opt.Keysets.Fresh(v, now); err != nil {
		return err
	}
	key, err := v.Signer(req.Alg, now)
	if err != nil {
		return err
	}
	policy := &v.State.Policy
	claims, err := req.Issue(signer.Rules{
		Issuer:    policy.Issuer,
		MaxTTL:    policy.TokenTTLMax.Std(),
		ClockSkew: policy.ClockSkew.Std(),
		Types:     grant.Types,
	}, now)
	if err != nil {
		return err
	}
	// {"token":"…","kid":"…","alg":"…","expires_at":"…"}: none of the values
	// has a character that JSON escapes.
	out := make([]byte, 0, 512+2*len(claims.Payload))
	out = append(out, `{"token":"`...)
	if out, err = signer.AppendToken(c.r.Context(), out, key, claims.Typ, claims.Payload); err != nil {
		return err
	}
	out = append(out, `","kid":"`...)
	out = append(out, key.KID()...)
	out = append(out, `","alg":"`...)
	out = append(out, key.Algorithm()...)
	out = append(out, `","expires_at":"`...)
	out = claims.ExpiresAt.AppendFormat(out, time.RFC3339)
	out = append(out, "\"}\n"...)
	h := c.w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(out))}
	c.w.WriteHeader(http.StatusOK)
	c.w.Write(out)
	return nil
}
