package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/api/wire"
)

func (a *app) signCommand() *cobra.Command {
	var req wire.SignRequest
	var claims, sub string
	var aud []string
	c := &cobra.Command{
		Use:     "sign",
		GroupID: "use",
		Short:   "Sign claims and print the token",
		Long: `Sign claims and print the token. iss, iat, exp and jti are filled in. Claims are
a JSON object given by --claims, or read from standard input with --claims -.`,
		Example: "  jwksd sign --sub alice --aud api --ttl 5m\n  echo '{\"sub\":\"alice\",\"role\":\"admin\"}' | jwksd sign --claims -",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if req.Claims, err = a.claims(c, claims, sub, aud); err != nil {
				return err
			}
			cl, err := a.conn.client()
			if err != nil {
				return err
			}
			out, err := cl.Sign(c.Context(), a.conn.keyset, req)
			if err != nil {
				return err
			}
			if a.wantsJSON() {
				return a.json(out)
			}
			fmt.Fprintln(a.out, clean(out.Token))
			return nil
		},
	}
	a.conn.flags(c)
	c.Flags().StringVar(&claims, "claims", "", "claims as a JSON `OBJECT`, or - for standard input")
	c.Flags().StringVar(&sub, "sub", "", "the claim sub, a `SUBJECT`")
	c.Flags().StringSliceVar(&aud, "aud", nil, "the claim aud, an `AUDIENCE`; several make an array")
	c.Flags().StringVar(&req.TTL, "ttl", "", "lifetime, a `DURATION` such as 5m (default: the keyset's longest)")
	c.Flags().StringVar(&req.Typ, "typ", "", "`TYPE` in the header typ (default: JWT)")
	c.Flags().StringVar(&req.Alg, "alg", "", "`ALGORITHM` (default: the keyset's first)")
	return c
}

// maxClaims bounds what is read from standard input.
const maxClaims = 64 << 10

// claims returns the claims to sign. Those given as JSON are passed on as they
// are: checking them is the daemon's business.
func (a *app) claims(c *cobra.Command, text, sub string, aud []string) (json.RawMessage, error) {
	if text != "" {
		if sub != "" || len(aud) > 0 {
			return nil, usage(c, "give either --claims or --sub and --aud")
		}
		if text == "-" {
			data, err := io.ReadAll(io.LimitReader(a.in, maxClaims+1))
			if err != nil {
				return nil, fmt.Errorf("reading claims: %w", err)
			}
			text = string(data)
		}
		if !json.Valid([]byte(text)) {
			return nil, fmt.Errorf("the claims are no JSON: %s", clip(strings.TrimSpace(text), 60))
		}
		return json.RawMessage(text), nil
	}
	claims := map[string]any{}
	if sub != "" {
		claims["sub"] = sub
	}
	switch len(aud) {
	case 0:
	case 1:
		claims["aud"] = aud[0]
	default:
		claims["aud"] = aud
	}
	return json.Marshal(claims)
}
