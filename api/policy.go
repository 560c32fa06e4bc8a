package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/internal/jwa"
	"github.com/jwksd/jwksd/rotation"
)

// block reads the body of a PUT strictly. A null would stand for the default
// here and for nothing elsewhere, so it is refused.
func (c *call) block() (req wire.ApplyRequest, err error) {
	body, err := c.body()
	if err != nil {
		return req, err
	}
	if err := decode(body, &req); err != nil {
		return req, err
	}
	var members map[string]jsontext.Value
	if err := jsonv2.Unmarshal(body, &members); err != nil {
		return req, err
	}
	for name, value := range members {
		if value.Kind() == 'n' {
			return req, &failure{status: http.StatusBadRequest, code: "invalid_body", detail: "a member is null", hint: "leave it out to get the default", field: name}
		}
	}
	return req, nil
}

// policy completes the request by the defaults of a configuration's block and
// checks it like one.
func (s *Server) policy(req wire.ApplyRequest, now time.Time) (rotation.Policy, error) {
	p := s.opt.Defaults()
	p.Issuer, p.Revision = req.Issuer, req.Revision
	p.Algorithms = slices.Clone(p.Algorithms)
	if req.Algorithms != nil {
		p.Algorithms = req.Algorithms
	}
	set(&p.RSABits, req.RSABits)
	set(&p.Rotate, req.Rotate)
	set(&p.TokenTTLMax, req.TokenTTLMax)
	set(&p.JWKSMaxAge, req.JWKSMaxAge)
	set(&p.VerifierCache, req.VerifierCache)
	set(&p.VerifierLeeway, req.VerifierLeeway)
	set(&p.HandoverGrace, req.HandoverGrace)
	set(&p.Custody, req.Custody)
	set(&p.Discovery, req.Discovery)
	if faults := s.faults(p, now); len(faults) > 0 {
		return rotation.Policy{}, invalidPolicy(faults)
	}
	return p, nil
}

func set[T any](to, value *T) {
	if value != nil {
		*to = *value
	}
}

// faults lists everything that is wrong with a policy.
func (s *Server) faults(p rotation.Policy, now time.Time) []*rotation.PolicyError {
	var list []*rotation.PolicyError
	add := func(field, format string, args ...any) {
		list = append(list, &rotation.PolicyError{Field: field, Msg: fmt.Sprintf(format, args...)})
	}
	names := strings.Join(jwa.Names(), ", ")
	if len(p.Algorithms) > len(jwa.Names()) {
		add("algorithms", "more than there are: choose from %s", names)
		return list
	}
	for _, alg := range p.Algorithms {
		if _, err := jwa.Lookup(alg); err != nil {
			add("algorithms", "unsupported algorithm %.40q: choose one of %s", alg, names)
		}
	}
	if p.RSABits < jwa.MinRSABits || p.RSABits > jwa.MaxRSABits || p.RSABits%8 != 0 {
		add("rsa_bits", "%d: want a multiple of 8 from %d to %d", p.RSABits, jwa.MinRSABits, jwa.MaxRSABits)
	}
	if p.Custody == rotation.CustodyTransit && !slices.Contains(s.opt.Custodies, p.Custody) {
		add("custody", "transit needs keystore.vault with a transit_mount in the daemon's configuration: choose local")
	}
	if p.Revision < 0 {
		add("revision", "%d: must not be negative", p.Revision)
	}
	_, err := p.Derive(now)
	return append(list, policyErrors(err)...)
}

// policyErrors flattens what Derive joined.
func policyErrors(err error) []*rotation.PolicyError {
	var list []*rotation.PolicyError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			list = append(list, policyErrors(e)...)
		}
		return list
	}
	var one *rotation.PolicyError
	switch {
	case err == nil:
	case errors.As(err, &one):
		list = append(list, one)
	default:
		list = append(list, &rotation.PolicyError{Field: "rotate", Msg: err.Error()})
	}
	return list
}

// invalidPolicy answers with every fault; the field is that of the first.
func invalidPolicy(faults []*rotation.PolicyError) *failure {
	const most = 600 // bytes of a message, which can repeat a long value
	var texts []string
	for _, f := range faults {
		text := f.Error()
		if len(text) > most {
			text = strings.ToValidUTF8(text[:most], "") + "…"
		}
		texts = append(texts, text)
	}
	return &failure{status: http.StatusBadRequest, code: "invalid_policy", detail: strings.Join(texts, "; "), field: faults[0].Field}
}

// consequences says in words what a change of policy means to others, beyond
// what happens to keys.
func consequences(from, to rotation.Policy) []string {
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if from.Issuer != to.Issuer {
		say("tokens carry the new issuer from now on; those with %s live for up to %s more", from.Issuer, from.TokenTTLMax)
	}
	if from.Algorithms[0] != to.Algorithms[0] {
		say("requests that name no algorithm get %s as soon as it signs; verifiers must accept it by then", to.Algorithms[0])
	}
	for _, alg := range from.Algorithms {
		if !slices.Contains(to.Algorithms, alg) {
			say("%s winds down: requests for it are refused once the remaining algorithms sign", alg)
		}
	}
	if to.TokenTTLMax < from.TokenTTLMax {
		say("requests for tokens that live longer than %s are refused from now on", to.TokenTTLMax)
	}
	if from.RSABits != to.RSABits && slices.ContainsFunc(to.Algorithms, isRSA) {
		say("keys that exist keep their size; the next ones made have %d bits", to.RSABits)
	}
	if from.Custody != to.Custody {
		say("keys that exist stay where they are; the next ones made are in custody %s", to.Custody)
	}
	return list
}

func isRSA(alg string) bool {
	a, err := jwa.Lookup(alg)
	return err == nil && a.KTY == "RSA"
}
