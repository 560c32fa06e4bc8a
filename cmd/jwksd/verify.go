package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/jwksd/jwksd/internal/daemon"
	"github.com/jwksd/jwksd/internal/verify"
)

// verdict is the answer of verify for machines.
type verdict struct {
	Valid     bool            `json:"valid"`
	Code      string          `json:"code,omitempty"`
	Error     string          `json:"error,omitempty"`
	KID       string          `json:"kid,omitempty"`
	Alg       string          `json:"alg,omitempty"`
	Typ       string          `json:"typ,omitempty"`
	ExpiresAt time.Time       `json:"expires_at,omitzero"`
	Claims    json.RawMessage `json:"claims,omitempty"`
}

func (a *app) verifyCommand() *cobra.Command {
	var source string
	var opts verify.Options
	var leeway durationFlag
	c := &cobra.Command{
		Use:     "verify [FILE]",
		GroupID: "use",
		Short:   "Verify a token against a published set",
		Long: `Verify the token in FILE, or on standard input, strictly, and print its claims.
The set is fetched from the daemon on this machine, or from --jwks.
The exit status is 0 only if the token is valid.`,
		Example: "  jwksd sign --sub alice | jwksd verify\n  jwksd verify token.jwt --jwks https://auth.example.com/.well-known/jwks.json --audience api",
		Args:    atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			token, err := a.readToken(args)
			if err != nil {
				return err
			}
			set, err := a.readSet(c.Context(), source)
			if err != nil {
				return err
			}
			opts.Now, opts.Leeway = time.Now(), time.Duration(leeway)
			return a.writeVerdict(verify.Verify(token, set, opts))
		},
	}
	a.conn.flags(c)
	c.Flags().StringVar(&source, "jwks", "", "`URL` or file of the set (default: the daemon's)")
	c.Flags().StringVar(&opts.Issuer, "issuer", "", "require this `ISSUER` as iss")
	c.Flags().StringVar(&opts.Audience, "audience", "", "require this `AUDIENCE` in aud")
	c.Flags().StringSliceVar(&opts.Types, "typ", nil, "require this `TYPE` as typ, or one of several")
	durationVar(c, &leeway, "leeway", "accept a token this long past its exp")
	return c
}

// readToken reads a token from a file or standard input. Tokens are secrets, so
// they do not go onto the command line.
func (a *app) readToken(args []string) (string, error) {
	in := a.in
	if len(args) == 1 && args[0] != "-" {
		if strings.Count(args[0], ".") == 2 && len(args[0]) > 60 {
			return "", errors.New("give the token in a file or on standard input: other users can read the command line")
		}
		f, err := os.Open(args[0])
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, verify.MaxTokenBytes+2))
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

// maxSet bounds what is read of a set.
const maxSet = 1 << 20

// readSet reads a set from a file, a URL, or the daemon on this machine.
func (a *app) readSet(ctx context.Context, source string) (verify.Set, error) {
	if source == "" {
		public, err := a.conn.address("", daemon.PublicAddressFile)
		if err != nil {
			return verify.Set{}, err
		}
		source = public + setPath(a.conn.keyset)
	}
	read := os.ReadFile
	if strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://") {
		read = func(url string) ([]byte, error) { return fetch(ctx, url) }
	}
	data, err := read(source)
	if err != nil {
		return verify.Set{}, fmt.Errorf("reading the set: %w", err)
	}
	set, skipped, err := verify.ParseSet(data)
	if err != nil {
		return verify.Set{}, fmt.Errorf("reading the set at %s: %w", source, err)
	}
	for _, s := range skipped {
		a.note("note: key %d of the set is skipped: %v", s.Index+1, s.Err)
	}
	return set, nil
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxSet))
}

func (a *app) writeVerdict(v *verify.Verified, err error) error {
	var refused *verify.Error
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if a.wantsJSON() {
		out := verdict{Valid: err == nil}
		if err != nil {
			out.Code, out.Error = string(refused.Code), refused.Detail
		} else {
			out.KID, out.Alg, out.Typ = v.KID, v.Algorithm, v.Type
			out.ExpiresAt, out.Claims = v.ExpiresAt, v.Claims
		}
		if jsonErr := a.json(out); jsonErr != nil {
			return jsonErr
		}
		if err != nil {
			return errNo
		}
		return nil
	}
	if err != nil {
		a.note("not valid: %s", refused.Detail)
		if refused.Hint != "" {
			a.note("hint: %s", refused.Hint)
		}
		return errNo
	}
	fmt.Fprintf(a.out, "valid until %s, signed with %s key %s\n%s\n", clockText(v.ExpiresAt), clean(v.Algorithm), clean(v.KID), cleanJSON(v.Claims))
	return nil
}
