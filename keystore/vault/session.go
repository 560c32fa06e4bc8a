package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"
)

// session holds the token of a client. Requests take it; a login replaces it
// when there is none, when Vault refuses it, and when it cannot be renewed.
type session struct {
	client *Client
	how    login

	// turn is held by whoever logs in or renews. It is no mutex because that
	// takes requests: whoever waits for it must be able to give up.
	turn chan struct{}

	mu      sync.Mutex
	grant   grant
	since   time.Time     // of the login
	first   time.Duration // lease at the login
	failure error         // of a refused login, until retry
	retry   time.Time
	stamp   string // of the credentials that were refused
	failed  int
	running bool

	wake chan struct{} // the grant changed
}

const (
	// quiet is how long after a login another one will not help against a
	// denied permission.
	quiet = 30 * time.Second
	// lookEvery is how often a token file is read again.
	lookEvery = 5 * time.Second
	// retryMost is the longest pause between two refused logins.
	retryMost = 30 * time.Second
)

// errKeep: a new login would not help.
var errKeep = errors.New("no new login")

func newSession(c *Client, how login) *session {
	return &session{client: c, how: how, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
}

func (s *session) lock(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) unlock() { <-s.turn }

// end stops the renewal. Under mu, so that none begins after.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client.stop()
}

func (s *session) now() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant.token
}

// token returns the token, after a login if there is none.
func (s *session) token(ctx context.Context) (string, error) {
	if token := s.now(); token != "" {
		return token, nil
	}
	if err := s.lock(ctx); err != nil {
		return "", err
	}
	defer s.unlock()
	if token := s.now(); token != "" {
		return token, nil
	}
	return s.login(ctx)
}

// replace returns another token than the one that was refused. bad says that
// Vault does not know the token, and not only that it may not do something.
func (s *session) replace(ctx context.Context, refused string, bad bool) (string, error) {
	if err := s.lock(ctx); err != nil {
		return "", err
	}
	defer s.unlock()
	s.mu.Lock()
	current, since := s.grant.token, s.since
	s.mu.Unlock()
	if current != refused {
		return current, nil
	}
	if !bad && time.Since(since) < quiet {
		return "", errKeep
	}
	fresh, err := s.login(ctx)
	if err != nil && !bad {
		return "", errKeep // the token still works for the rest
	}
	return fresh, err
}

// login gets a new token. After a refusal it waits before it asks Vault again,
// which locks out who is refused often, and repeats what was said; but not once
// the credentials were replaced. The caller holds the turn.
func (s *session) login(ctx context.Context) (string, error) {
	s.mu.Lock()
	failure, retry, refused := s.failure, s.retry, s.stamp
	s.mu.Unlock()
	stamp := stampOf(s.how.files())
	if failure != nil && stamp == refused && time.Now().Before(retry) {
		return "", failure
	}
	g, err := s.how.login(ctx, s.client)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failure = nil
		if errors.Is(err, ErrLogin) {
			pause := min(time.Second/4<<min(s.failed, 10), retryMost)
			s.failed++
			s.stamp = stamp
			s.failure, s.retry = err, time.Now().Add(jitter(pause))
		}
		return "", err
	}
	s.failure, s.failed = nil, 0
	s.adopt(g)
	s.client.log.Info("logged in to Vault", "method", s.how.name(), "lease", g.lease.String())
	return g.token, nil
}

// stampOf tells whether files are the same as before, without reading them.
func stampOf(files []string) string {
	var b strings.Builder
	for _, path := range files {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintln(&b, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

// adopt takes a new token. The caller holds mu.
func (s *session) adopt(g grant) {
	s.grant, s.since, s.first = g, time.Now(), g.lease
	if !s.running && s.client.stopped.Err() == nil {
		s.running = true
		s.client.working.Go(s.run)
	}
	s.notify()
}

func (s *session) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run keeps the token alive until the client is closed.
func (s *session) run() {
	ctx := s.client.stopped
	for ctx.Err() == nil {
		s.mu.Lock()
		g := s.grant
		s.mu.Unlock()
		due := time.NewTimer(renewIn(g.lease))
		look := time.NewTimer(lookEvery)
		_, watching := s.how.(*tokenFile)
		if !watching {
			look.Stop()
		}
		if g.lease == 0 {
			due.Stop()
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-look.C:
			s.lookAgain(ctx)
		case <-due.C:
			s.prolong(ctx)
		}
		due.Stop()
		look.Stop()
	}
}

// renewIn is two thirds of a lease, less up to a tenth so that replicas that
// started together do not stay together.
func renewIn(lease time.Duration) time.Duration {
	due := max(lease*2/3, time.Second/2)
	return due - rand.N(due/10+1)
}

// lookAgain logs in if the token file holds another token.
func (s *session) lookAgain(ctx context.Context) {
	value, err := credential("token", s.how.(*tokenFile).path)
	if err != nil || value == s.now() {
		return // a file that is gone for a moment does not end a good token
	}
	if s.lock(ctx) != nil {
		return
	}
	defer s.unlock()
	if _, err := s.login(ctx); err != nil {
		s.warn(ctx, "the new token for Vault cannot be used; keeping the old one", err)
	}
}

// prolong renews the token, or logs in when that has come to its end; it
// returns when one of them worked, at the latest when the client is closed.
func (s *session) prolong(ctx context.Context) {
	pause := time.Second
	for {
		if s.lock(ctx) != nil {
			return
		}
		err := s.renew(ctx)
		if err != nil {
			_, err = s.login(ctx)
		}
		s.unlock()
		if err == nil || ctx.Err() != nil {
			return
		}
		s.warn(ctx, "the token for Vault could not be renewed; trying again", err)
		if sleep(ctx, jitter(pause)) != nil {
			return
		}
		pause = min(2*pause, retryMost)
	}
}

var errEnding = errors.New("the token comes to its end")

// renew prolongs the token. When Vault gives much less than at first, the
// token's longest life is near, and a new one is needed.
//
// https://developer.hashicorp.com/vault/api-docs/auth/token#renew-a-token-self
func (s *session) renew(ctx context.Context) error {
	s.mu.Lock()
	g, first := s.grant, s.first
	s.mu.Unlock()
	if !g.renewable {
		return errEnding
	}
	r, err := post(ctx, s.client, "auth/token/renew-self", g.token, "{}")
	if err != nil {
		return err
	}
	renewed, err := r.grant()
	if err != nil {
		return err
	}
	if renewed.lease < first/2 {
		return errEnding
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grant.token == g.token {
		s.grant.lease, s.grant.renewable = renewed.lease, renewed.renewable
	}
	s.client.log.Debug("renewed the token for Vault", "lease", renewed.lease.String())
	return nil
}

func (s *session) warn(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		s.client.log.Warn(what, "error", err)
	}
}

// object is a JSON object of strings, given as names and values.
func object(pairs ...string) string {
	m := make(map[string]string, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(raw)
}
