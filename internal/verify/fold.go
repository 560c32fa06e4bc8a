package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jwksd/jwksd/internal/strictjson"
)

// The members that have one spelling. Readers that ignore letter case, as
// encoding/json does, take "Iss" or "CRIT" for them; a token that means
// different things to different readers is no token.
var (
	// RFC 7515 section 4.1 and RFC 7797 section 3.
	headerNames = []string{"alg", "b64", "crit", "cty", "jku", "jwk", "kid", "typ", "x5c", "x5t", "x5t#S256", "x5u"}
	// RFC 7519 section 4.1 and RFC 9068 section 2.2: what this package and
	// the daemon have rules about.
	claimNames = []string{"aud", "client_id", "exp", "iat", "iss", "jti", "nbf", "sub"}
)

// checkNames refuses members that a reader without regard to letter case takes
// for one another or for a registered one (in the sense of strings.EqualFold).
func (m members) checkNames(registered []string, part string) error {
	seen := make(map[string]string, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) { // sorted, so that the error is always the same
		key := strings.Map(strictjson.FoldRune, name)
		other, twice := seen[key]
		if i := slices.IndexFunc(registered, func(r string) bool { return r != name && strings.EqualFold(r, name) }); i >= 0 {
			other, twice = registered[i], true
		}
		if twice {
			return refuse(CodeAmbiguous, fmt.Errorf("%q can be read as %q", clip(name), clip(other)),
				"some readers ignore letter case and would understand another token; the issuer has to spell each member in one way",
				"the token's %s", part)
		}
		seen[key] = name
	}
	return nil
}
