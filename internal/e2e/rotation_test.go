package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
)

// The timing of the keysets that rotate under the eyes of verifiers. The lead
// is 1s + 1s + 1.5s + 2 x 100ms = 3.7s.
const (
	quickStaleness = "1s"
	quickMaxAge    = "1s"
	quickCache     = 1500 * time.Millisecond
	quickLead      = 3700 * time.Millisecond
	quickTTL       = 8 * time.Second
	rotations      = 5 // that must be seen in each lane
)

func quick(dir string) settings {
	s := calm(dir)
	s.sync, s.staleness, s.skew = "100ms", quickStaleness, "100ms"
	scheduled := block{
		name: "default", algorithms: "ES256, ES384, ES512, EdDSA, RS256, PS256", rotate: "@every 5s",
		ttl: quickTTL.String(), maxAge: quickMaxAge, cache: quickCache.String(), grace: "1s",
	}
	manual := scheduled
	manual.name, manual.algorithms, manual.rotate = "manual", "ES256", "@every 1h"
	s.blocks = []block{scheduled, manual}
	return s
}

// TestRotationSeenByVerifiers rotates under the eyes of verifiers that use the
// promise to the full: they keep a set for verifier_cache behind an HTTP cache
// that keeps it for max-age, and never fetch because of an unknown kid. They
// accept every token, fresh and just before it expires.
//
// One keyset rotates by its schedule; the other by hand at the earliest
// instant at which that is allowed, so that each key has its bare lead.
func TestRotationSeenByVerifiers(t *testing.T) {
	d := startDaemon(t, quick(t.TempDir()))
	t.Run("by schedule", func(t *testing.T) {
		t.Parallel()
		node := startNode(t, d.setURL("default"), quickCache, 3)
		w := watch(t, d, "default", []string{"ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256"}, node)
		w.until(3*time.Minute, func() bool { return w.fewestKeys() > rotations })
		if got := node.finish(); got.rejected > 0 || got.verified == 0 {
			t.Errorf("npm jose: %s", got)
		} else {
			t.Logf("npm jose: %s", got)
		}
		w.report()
	})
	t.Run("at the earliest", func(t *testing.T) {
		t.Parallel()
		w := watch(t, d, "manual", []string{"ES256"}, nil)
		over := rotateEarly(t, d, "manual", w)
		w.until(3*time.Minute, over)
		w.report()
	})
}

// witness signs all the time and has verifiers check every token.
type witness struct {
	t      *testing.T
	d      *daemon
	keyset string
	algs   []string
	node   *nodeVerifiers // or nil

	honest   []*verifier // within the promise
	careless *verifier   // keeps its first set for good
	beyond   []*verifier // keep a set for little longer than the lead
	primed   bool        // before each rotation, so that they meet an unknown kid
	start    time.Time

	mu          sync.Mutex
	kids        map[string]map[string]bool // by algorithm
	fresh, last tally
	unknown     map[*verifier]int // kids, by those who break the promise
	waiting     sync.WaitGroup
}

func watch(t *testing.T, d *daemon, keyset string, algs []string, node *nodeVerifiers) *witness {
	w := &witness{
		t: t, d: d, keyset: keyset, algs: algs, node: node, start: time.Now(),
		kids: map[string]map[string]bool{}, unknown: map[*verifier]int{},
	}
	keeping := func(name string, keep time.Duration) *verifier {
		return &verifier{name: name, source: &webCache{url: d.setURL(keyset)}, keep: keep}
	}
	for i := range 4 {
		w.honest = append(w.honest, keeping(fmt.Sprintf("verifier %d", i), quickCache))
	}
	w.careless = keeping("careless", time.Hour)
	w.beyond = []*verifier{keeping("beyond 0", quickLead+3*time.Second), keeping("beyond 1", quickLead+3*time.Second)}
	for _, alg := range algs {
		w.kids[alg] = map[string]bool{}
	}
	return w
}

// until signs with every algorithm in turn until over, and then waits for the
// last tokens to expire.
func (w *witness) until(limit time.Duration, over func() bool) {
	w.t.Helper()
	start := time.Now()
	for i := 0; !over(); i++ {
		if time.Since(start) > limit {
			w.t.Fatalf("not over after %s; kids by lane: %v", limit, w.kids)
		}
		if w.t.Failed() {
			break
		}
		for _, alg := range w.algs {
			token := w.d.sign(w.keyset, alg, quickTTL.String())
			w.take(token, i%5 == 0)
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.waiting.Wait()
}

// take checks a token at once, and if chosen again at the last moment of its
// life. The verifiers join one by one, so that their sets differ in age.
func (w *witness) take(token wire.Token, again bool) {
	w.mu.Lock()
	w.kids[token.Alg][token.KID] = true
	w.mu.Unlock()
	for i, v := range w.honest {
		if time.Since(w.start) >= time.Duration(i)*quickCache/4 {
			w.count(&w.fresh, v, token)
		}
	}
	if w.node != nil {
		w.node.verify(token.Token, token.ExpiresAt)
	}
	for _, v := range append(w.beyond, w.careless) {
		if err := v.verify(token.Token, time.Now()); errors.Is(err, errUnknownKID) {
			w.unknown[v]++ // only this goroutine has it
		}
	}
	if again {
		w.waiting.Go(func() { w.takeAtEnd(token) })
	}
}

// beforeEnd is how long before its exp a token is checked for the last time.
const beforeEnd = 300 * time.Millisecond

func (w *witness) takeAtEnd(token wire.Token) {
	time.Sleep(time.Until(token.ExpiresAt.Add(-beforeEnd)))
	for _, v := range w.honest {
		w.count(&w.last, v, token)
	}
}

// count has one verifier check a token and counts the verdict.
func (w *witness) count(in *tally, v *verifier, token wire.Token) {
	now := time.Now()
	err := v.verify(token.Token, now)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		in.verified++
	case !now.Before(token.ExpiresAt), time.Now().After(token.ExpiresAt.Add(time.Second)):
		in.late++ // the machine was busy: the key may have left by right
	default:
		in.reject(fmt.Sprintf("%s: %s token until %s at %s: %v", v.name, token.Alg, token.ExpiresAt, now.UTC(), err))
		w.t.Errorf("rejected by %s at %s: a token of %s until %s: %v", v.name, now.UTC(), token.KID, token.ExpiresAt, err)
	}
}

// fewestKeys is how many keys signed in the lane where there were the fewest.
func (w *witness) fewestKeys() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	fewest := len(w.kids[w.algs[0]])
	for _, seen := range w.kids {
		fewest = min(fewest, len(seen))
	}
	return fewest
}

// report judges what was counted.
func (w *witness) report() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	beyond := w.unknown[w.beyond[0]] + w.unknown[w.beyond[1]]
	w.t.Logf("keyset %s, %d or more keys in each of %d lanes; fresh tokens: %s; just before exp: %s; unknown kids: %d with a set that never expires, %d with one kept a little longer than the lead",
		w.keyset, rotations+1, len(w.algs), &w.fresh, &w.last, w.unknown[w.careless], beyond)
	if w.fresh.verified == 0 || w.last.verified == 0 {
		w.t.Error("nothing was checked")
	}
	if w.unknown[w.careless] == 0 {
		w.t.Error("a verifier that never expires its set met no unknown kid: this test proves nothing")
	}
	if w.primed && beyond == 0 {
		w.t.Error("verifiers that keep a set a little longer than the lead met no unknown kid: the keys had more than their bare lead, this test proves little")
	}
}

// rotateEarly rotates by hand at the earliest instant that the daemon allows,
// in the background, and returns whether that is over. Just before each
// rotation one of two verifiers fetches the set, without the key that this
// rotation is going to make. It keeps the set a little longer than the lead, so
// that it must meet an unknown kid when that key signs.
func rotateEarly(t *testing.T, d *daemon, keyset string, w *witness) (over func() bool) {
	done := make(chan struct{})
	w.primed = true
	go func() {
		defer close(done)
		for n := 0; n <= rotations; {
			earliest, err := rotateOnce(d, keyset)
			switch {
			case err != nil:
				t.Errorf("rotating: %v", err)
				return
			case earliest.IsZero():
				n++
				continue
			}
			time.Sleep(time.Until(earliest) - 200*time.Millisecond)
			w.beyond[n%2].forget()
			if _, err := w.beyond[n%2].current(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Until(earliest))
		}
		time.Sleep(500 * time.Millisecond) // let the last one sign
	}()
	return func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

// rotateOnce rotates without force, or returns when that will be allowed.
func rotateOnce(d *daemon, keyset string) (earliest time.Time, err error) {
	_, err = d.client.Rotate(context.Background(), keyset, wire.RotateRequest{Reason: "drill"}, "")
	var answered *client.Error
	switch {
	case err == nil:
		return time.Time{}, nil
	case errors.As(err, &answered) && answered.Code == "lead_not_reached":
		return answered.Earliest, nil
	case transient(err):
		return time.Now().Add(50 * time.Millisecond), nil
	}
	return time.Time{}, err
}
