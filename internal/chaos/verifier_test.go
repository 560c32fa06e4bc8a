package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

var (
	// errUnknownKID: the set lacks the key that a token names.
	errUnknownKID = errors.New("unknown kid")
	// errNoSet: no daemon that is ready gave a set.
	errNoSet = errors.New("no set")
)

// check verifies a token against a set at an instant.
func check(set jose.JSONWebKeySet, token string, now time.Time) error {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA})
	if err != nil {
		return err
	}
	header := parsed.Headers[0]
	keys := set.Key(header.KeyID)
	if len(keys) != 1 {
		return fmt.Errorf("%w %s: %d keys of that name among %d", errUnknownKID, header.KeyID, len(keys), len(set.Keys))
	}
	if keys[0].Algorithm != header.Algorithm || keys[0].Use != "sig" {
		return fmt.Errorf("key %s is for %s and %s, the token says %s", header.KeyID, keys[0].Use, keys[0].Algorithm, header.Algorithm)
	}
	var claims jwt.Claims
	if err := parsed.Claims(keys[0].Key, &claims); err != nil {
		return err
	}
	return claims.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{"api"}, Time: now}, 0)
}

// source is where a verifier finds a set: at one of the daemons in turn, as a
// balancer does that leaves out those which are not ready to publish. Behind
// it is an HTTP cache that keeps an answer as long as its max-age allows.
type source struct {
	keyset  string
	daemons []*daemon
	care    care

	next  int
	body  []byte
	until time.Time
}

// care is what a balancer does about daemons that are not ready to publish.
type care int

const (
	strict   care = iota // leaves them out
	panicky              // asks them if nobody is ready
	heedless             // does not look
)

// get returns a set. Its age counts from before the daemon was asked whether
// it is ready.
func (s *source) get(now time.Time) ([]byte, error) {
	if now.Before(s.until) {
		return s.body, nil
	}
	err := s.ask(s.care != heedless)
	if err != nil && s.care == panicky {
		err = s.ask(false)
	}
	return s.body, err
}

// ask fetches a set from the next daemon that gives one.
func (s *source) ask(ready bool) error {
	for range s.daemons {
		d := s.daemons[s.next%len(s.daemons)]
		s.next++
		asked := time.Now()
		if ready && !d.ready("publish") {
			continue
		}
		body, age, err := d.set(s.keyset)
		if err != nil {
			continue
		}
		s.body, s.until = body, asked.Add(age)
		return nil
	}
	return errNoSet
}

// set fetches a set, and tells how long caches may keep it.
func (d *daemon) set(keyset string) ([]byte, time.Duration, error) {
	resp, err := d.probe.Get(d.setURL(keyset))
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return body, maxAgeOf(resp.Header), err
}

func maxAgeOf(h http.Header) time.Duration {
	for part := range strings.SplitSeq(h.Get("Cache-Control"), ",") {
		if text, ok := strings.CutPrefix(strings.TrimSpace(part), "max-age="); ok {
			seconds, _ := strconv.Atoi(text)
			return time.Duration(seconds) * time.Second
		}
	}
	return 0
}

// verifier checks tokens as the promise allows: it keeps a set for its time,
// counted from before it asked for it, and does not fetch another one when it
// meets an unknown kid. When it can get no set it gives no verdict. One
// goroutine works off what it is given.
type verifier struct {
	kind   string
	source source
	keep   time.Duration
	judge  func(v *verifier, t issued, err error, now time.Time)

	queue chan issued
	set   jose.JSONWebKeySet
	until time.Time
	rest  time.Time // before which nobody is asked again
}

func (v *verifier) run(done *sync.WaitGroup) {
	done.Go(func() {
		for t := range v.queue {
			set, err := v.current()
			now := time.Now()
			if err == nil {
				err = check(set, t.Token.Token, now)
			}
			v.judge(v, t, err, now)
		}
	})
}

func (v *verifier) current() (jose.JSONWebKeySet, error) {
	asked := time.Now()
	if asked.Before(v.until) {
		return v.set, nil
	}
	if asked.Before(v.rest) {
		return jose.JSONWebKeySet{}, errNoSet
	}
	body, err := v.source.get(asked)
	if err == nil {
		err = json.Unmarshal(body, &v.set)
	}
	if err != nil {
		v.rest = time.Now().Add(200 * time.Millisecond)
		return jose.JSONWebKeySet{}, err
	}
	v.until = asked.Add(v.keep)
	return v.set, nil
}
