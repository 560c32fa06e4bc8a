package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// algorithms that the daemon signs with.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.RS256, jose.PS256, jose.EdDSA}
}

// errUnknownKID: the set lacks the key that a token names.
var errUnknownKID = errors.New("unknown kid")

// check verifies a token against a set as it is, and returns its kid.
func check(set jose.JSONWebKeySet, token string) (kid string, err error) {
	return checkAt(set, token, time.Now())
}

func checkAt(set jose.JSONWebKeySet, token string, now time.Time) (kid string, err error) {
	parsed, err := jwt.ParseSigned(token, algorithms())
	if err != nil {
		return "", err
	}
	header := parsed.Headers[0]
	keys := set.Key(header.KeyID)
	if len(keys) != 1 {
		return header.KeyID, fmt.Errorf("%w %s: %d keys of that name among %d", errUnknownKID, header.KeyID, len(keys), len(set.Keys))
	}
	if keys[0].Algorithm != header.Algorithm || keys[0].Use != "sig" {
		return header.KeyID, fmt.Errorf("key %s is for %s and %s, the token says %s", header.KeyID, keys[0].Use, keys[0].Algorithm, header.Algorithm)
	}
	var claims jwt.Claims
	if err := parsed.Claims(keys[0].Key, &claims); err != nil {
		return header.KeyID, err
	}
	return header.KeyID, claims.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{"api"}, Time: now}, 0)
}

// fetchSet reads the set that is published now.
func (d *daemon) fetchSet(keyset string) jose.JSONWebKeySet {
	d.t.Helper()
	body, _, err := get(d.setURL(keyset))
	if err != nil {
		d.t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(body, &set); err != nil {
		d.t.Fatal(err)
	}
	return set
}

// without lists the kids that the set lacks.
func without(kids []string, set jose.JSONWebKeySet) []string {
	return slices.DeleteFunc(slices.Clone(kids), func(kid string) bool { return len(set.Key(kid)) > 0 })
}

// webCache is an HTTP cache between a verifier and the daemon. It serves an
// answer as long as its max-age allows, counted from the moment it asked.
type webCache struct {
	url string

	mu    sync.Mutex
	body  []byte
	until time.Time
}

func (c *webCache) get() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := time.Now()
	if asked.Before(c.until) {
		return c.body, nil
	}
	body, header, err := get(c.url)
	if err != nil {
		return nil, err
	}
	c.body, c.until = body, asked.Add(maxAge(header))
	return body, nil
}

func maxAge(h http.Header) time.Duration {
	for part := range strings.SplitSeq(h.Get("Cache-Control"), ",") {
		if text, ok := strings.CutPrefix(strings.TrimSpace(part), "max-age="); ok {
			seconds, _ := strconv.Atoi(text)
			return time.Duration(seconds) * time.Second
		}
	}
	return 0
}

// verifier is one that checks tokens as the promise allows: it keeps a set for
// its time, counted from the moment it asked, and does not fetch another one
// when it meets an unknown kid. It is safe for concurrent use.
type verifier struct {
	name   string
	source *webCache
	keep   time.Duration

	mu    sync.Mutex
	set   jose.JSONWebKeySet
	until time.Time
}

// verify checks a token by the set that this verifier has.
func (v *verifier) verify(token string, now time.Time) error {
	set, err := v.current()
	if err != nil {
		return err
	}
	_, err = checkAt(set, token, now)
	return err
}

func (v *verifier) current() (jose.JSONWebKeySet, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	asked := time.Now()
	if asked.Before(v.until) {
		return v.set, nil
	}
	body, err := v.source.get()
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(body, &set); err != nil {
		return jose.JSONWebKeySet{}, err
	}
	v.set, v.until = set, asked.Add(v.keep)
	return set, nil
}

// forget makes the verifier fetch the set the next time.
func (v *verifier) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.until = time.Time{}
}
