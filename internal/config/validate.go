package config

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/jwks"
	"github.com/jwksd/jwksd/rotation"
)

// check reports everything that the types cannot say, and completes the
// keysets' policies.
func (r *report) check(c *Config, now time.Time) {
	r.checkStore(c)
	r.checkKeysets(c, now)
	r.checkCallers(c.Callers)
	r.checkListeners(&c.Listeners)
}

func (r *report) checkStore(c *Config) {
	at := fieldPath{"keystore", "file"}
	r.checkPath(at.key("dir"), c.Keystore.File.Dir)
	r.checkPath(at.key("identity"), c.Keystore.File.Identity)
	r.checkPath(fieldPath{"data_dir"}, c.DataDir)
	if c.Keystore.Vault != nil {
		if _, both := r.where["keystore.file"]; both {
			r.add(fieldPath{"keystore"}, "give either file or vault")
		}
		r.checkVault(c.Keystore.Vault, slices.ContainsFunc(c.Keysets, func(k Keyset) bool { return k.Policy.Custody == rotation.CustodyTransit }))
	}
	r.checkLastGood(c)
	r.checkReplica(c)
	switch {
	case c.SyncInterval <= 0:
		r.add(fieldPath{"sync_interval"}, "%s: must be longer than zero, as in 500ms", c.SyncInterval)
	case c.MaxStaleness > 0 && c.SyncInterval >= c.MaxStaleness:
		r.add(fieldPath{"sync_interval"}, "%s: must be shorter than max_staleness (%s), or no replica could ever sign", c.SyncInterval, c.MaxStaleness)
	}
}

func (r *report) checkLastGood(c *Config) {
	at := fieldPath{"last_good"}
	r.checkPath(at, c.LastGood)
	if c.LastGood != "" && c.Keystore.Vault == nil {
		r.add(at, "needs keystore.vault: a file store is on this machine already")
	}
}

func (r *report) checkReplica(c *Config) {
	switch {
	case c.Role != RoleSigner && c.Role != RolePublisher:
		r.add(fieldPath{"role"}, "%s: choose signer or publisher", excerpt(c.Role))
	case c.Role == RolePublisher && c.Keystore.Vault == nil:
		r.add(fieldPath{"role"}, "publisher needs keystore.vault: a file store belongs to one daemon, which signs")
	}
	if name := c.Replica; name != "" && (len(name) > 128 || strings.ContainsFunc(name, notReplica) || strings.HasPrefix(name, ".")) {
		r.add(fieldPath{"replica"}, "%s: want up to 128 letters, digits, dots, underscores and hyphens, the first no dot", excerpt(name))
	}
	if c.Revision < 0 {
		r.add(fieldPath{"revision"}, "%d: must not be negative", c.Revision)
	}
}

func notReplica(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-')
}

// checkPath reports a path that means something else than it seems to.
func (r *report) checkPath(at fieldPath, path string) {
	switch _, present := r.where[at.String()]; {
	case path == "" && present:
		r.add(at, "empty: give a path, or remove the key to get the default")
	case strings.HasPrefix(path, "~"):
		r.add(at, "%s: ~ is not expanded, write the path out", excerpt(path))
	case strings.ContainsRune(path, 0):
		r.add(at, "a path cannot contain a zero byte")
	}
}

func (r *report) checkKeysets(c *Config, now time.Time) {
	at := fieldPath{"keysets"}
	if len(c.Keysets) == 0 {
		r.add(at, "there is no keyset: give at least one, as in\n%s", minimal)
	}
	for i := range c.Keysets {
		k := &c.Keysets[i]
		k.Policy.MaxStaleness, k.Policy.ClockSkew, k.Policy.Revision = c.MaxStaleness, c.ClockSkew, c.Revision
		if !jwks.ValidKeyset(k.Name) {
			r.add(at.key(k.Name), "a keyset's name has 1 to 63 of a-z, 0-9, dot, underscore and hyphen, and begins with a letter or a digit: rename it")
		}
		r.checkPolicy(at.key(k.Name), k.Policy, c.Keystore.Vault != nil, now)
	}
}

func (r *report) checkPolicy(at fieldPath, p rotation.Policy, vault bool, now time.Time) {
	for i, alg := range p.Algorithms {
		if _, err := jwa.Lookup(alg); err != nil {
			r.add(at.key("algorithms").index(i), "unsupported algorithm %s: choose one of %s", excerpt(alg), strings.Join(jwa.Names(), ", "))
		}
	}
	if p.RSABits < jwa.MinRSABits || p.RSABits > jwa.MaxRSABits || p.RSABits%8 != 0 {
		r.add(at.key("rsa_bits"), "%d: want a multiple of 8 from %d to %d", p.RSABits, jwa.MinRSABits, jwa.MaxRSABits)
	}
	switch p.Custody {
	case rotation.CustodyLocal:
	case rotation.CustodyTransit:
		if !vault {
			r.add(at.key("custody"), "transit needs keystore.vault: configure it, or choose local")
		}
	default:
		r.add(at.key("custody"), "%s: choose local or transit", excerpt(string(p.Custody)))
	}
	_, err := p.Derive(now)
	for _, e := range policyErrors(err) {
		switch e.Field {
		case "max_staleness", "clock_skew": // one for all keysets, reported once
			r.add(fieldPath{e.Field}, "%s", e.Msg)
		default:
			r.add(at.key(e.Field), "%s", e.Msg)
		}
	}
}

// policyErrors flattens what Policy.Derive joined.
func policyErrors(err error) []*rotation.PolicyError {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var list []*rotation.PolicyError
		for _, e := range joined.Unwrap() {
			list = append(list, policyErrors(e)...)
		}
		return list
	}
	if e := (*rotation.PolicyError)(nil); errors.As(err, &e) {
		return []*rotation.PolicyError{e}
	}
	return []*rotation.PolicyError{{Field: "rotate", Msg: err.Error()}}
}

func (r *report) checkCallers(callers []Caller) {
	names, tokens := map[string]int{}, map[string]int{}
	for i := range callers {
		c, at := &callers[i], fieldPath{"callers"}.index(i)
		first, taken := names[c.Name]
		switch {
		case c.Name == "":
			r.add(at.key("name"), "missing: name the caller, for the audit log")
		case len(c.Name) > 128 || strings.ContainsFunc(c.Name, unprintable):
			r.add(at.key("name"), "%s: want up to 128 characters without spaces", excerpt(c.Name))
		case taken:
			r.add(at.key("name"), "%s is the name of callers[%d] already: names are unique", excerpt(c.Name), first)
		default:
			names[c.Name] = i
		}
		r.checkIdentity(at.key("identity"), &c.Identity, i, tokens)
		if len(c.Grants) == 0 {
			r.add(at.key("grants"), `none: say what the caller may do, as in [{keysets: ["*"], actions: [sign]}]`)
		}
		for j, g := range c.Grants {
			r.checkGrant(at.key("grants").index(j), g)
		}
	}
}

func unprintable(c rune) bool { return c <= ' ' || c >= 0x7f }

// emptySHA256 is the SHA-256 of nothing: what a shell computes for a variable
// that is not set.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (r *report) checkIdentity(at fieldPath, id *Identity, i int, seen map[string]int) {
	const how = `as printed by: printf %s "$TOKEN" | sha256sum`
	sum := strings.ToLower(id.TokenSHA256)
	id.TokenSHA256 = sum
	first, taken := seen[sum]
	field := at.key("token_sha256")
	switch {
	case sum == "":
		r.add(field, "missing: give the SHA-256 of the caller's token in 64 hexadecimal digits, %s", how)
	case len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "":
		r.add(field, "want 64 hexadecimal digits, %s", how) // perhaps the token itself: not repeated
	case sum == emptySHA256:
		r.add(field, "this is the hash of an empty token: the variable was not set, %s", how)
	case taken:
		r.add(field, "callers[%d] has the same token already: give each caller its own", first)
	default:
		seen[sum] = i
	}
}

func (r *report) checkGrant(at fieldPath, g Grant) {
	if len(g.Keysets) == 0 {
		r.add(at.key("keysets"), `none: list the keysets, or "*" for all`)
	}
	for i, name := range g.Keysets {
		if name != "*" && !jwks.ValidKeyset(name) {
			r.add(at.key("keysets").index(i), `%s is no name of a keyset: want a name or "*"; patterns are not accepted`, excerpt(name))
		}
	}
	if len(g.Actions) == 0 {
		r.add(at.key("actions"), "none: list some of %s", actionNames())
	}
	for i, action := range g.Actions {
		if !slices.Contains(Actions(), action) {
			hint := "choose from " + actionNames()
			if best := nearest(string(action), strings.Split(actionNames(), ", ")); best != "" {
				hint = "did you mean " + best + "?"
			}
			r.add(at.key("actions").index(i), "unknown action %s: %s", excerpt(string(action)), hint)
		}
	}
	for i, typ := range g.Types {
		if typ == "" || len(typ) > 127 || strings.ContainsFunc(typ, notMediaType) {
			r.add(at.key("types").index(i), "%s is no typ value: want a media type, application/ left out, as in logout+jwt", excerpt(typ))
		}
	}
	signs := slices.Contains(g.Actions, ActionSign) || slices.Contains(g.Actions, ActionSignInput)
	if len(g.Types) > 0 && !signs {
		r.add(at.key("types"), "this grant signs nothing: add sign or sign-input to its actions, or remove types")
	}
}

func actionNames() string {
	var names []string
	for _, a := range Actions() {
		names = append(names, string(a))
	}
	return strings.Join(names, ", ")
}

// notMediaType: RFC 6838 section 4.2, and the slash between type and subtype.
func notMediaType(c rune) bool {
	letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	return !letter && !strings.ContainsRune("!#$&-^_.+/", c)
}
