package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
)

// issued is a token with where and when it was asked for.
type issued struct {
	wire.Token
	daemon, keyset string
	sent, received time.Time
	last           bool // checked shortly before it expires
}

// lane is one algorithm of one keyset.
type lane struct{ keyset, alg string }

var lanes = []lane{{"local", "ES256"}, {"local", "EdDSA"}, {"transit", "ES256"}}

// witness signs all the time on every daemon, and has verifiers outside check
// every token at once, and some of them again at the end of their life.
type witness struct {
	t       *testing.T
	story   *story
	daemons []*daemon

	verifiers []*verifier

	working sync.WaitGroup // signers
	waiting sync.WaitGroup // for ends of tokens
	judging sync.WaitGroup // verifiers

	mu     sync.Mutex
	tokens []issued
	tally  map[string]*tally // by the kind of verifier and check
}

// tally counts verdicts. Late ones say nothing: the token had expired before
// its turn came. So do those without a set.
type tally struct{ verified, unknown, rejected, late, noSet int }

func newWitness(t *testing.T, s *story, daemons []*daemon, paused *daemon) *witness {
	w := &witness{t: t, story: s, daemons: daemons, tally: map[string]*tally{}}
	for _, keyset := range []string{"local", "transit"} {
		for i := range daemons {
			w.verifier(honest, keyset, rotated(daemons, i), cacheFor, strict)
			w.verifier(honest, keyset, daemons[i:i+1], cacheFor, strict)
		}
		w.verifier("one that asks anyone when nobody is ready", keyset, daemons, cacheFor, panicky)
		w.verifier(careless, keyset, daemons, broken, strict)
		w.verifier("one that asks daemon "+paused.name+", ready or not", keyset, []*daemon{paused}, cacheFor, heedless)
	}
	return w
}

// Kinds of verifiers.
const (
	honest   = "those that keep the promise" // must accept everything
	careless = "one that keeps a set for too long"
)

// rotated begins with the i-th.
func rotated(daemons []*daemon, i int) []*daemon {
	return append(slices.Clone(daemons[i:]), daemons[:i]...)
}

func (w *witness) verifier(kind, keyset string, daemons []*daemon, keep time.Duration, c care) {
	v := &verifier{
		kind: kind, source: source{keyset: keyset, daemons: daemons, care: c}, keep: keep,
		judge: w.judge, queue: make(chan issued, 1<<14),
	}
	v.run(&w.judging)
	w.verifiers = append(w.verifiers, v)
}

// sign asks every daemon for tokens of every lane until ctx ends.
func (w *witness) sign(ctx context.Context) {
	for _, d := range w.daemons {
		for _, l := range lanes {
			w.working.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					w.signOne(ctx, d, l, i%4 == 0)
					time.Sleep(400 * time.Millisecond)
				}
			})
		}
	}
}

func (w *witness) signOne(ctx context.Context, d *daemon, l lane, again bool) {
	sent := time.Now()
	out, err := d.client.Sign(ctx, l.keyset, wire.SignRequest{
		Claims: json.RawMessage(`{"sub":"alice","aud":"api"}`), Alg: l.alg, TTL: tokenLife.String(),
	})
	received := time.Now()
	if ctx.Err() != nil && err != nil {
		return
	}
	w.story.count(l, reason(err))
	if err != nil {
		var answered *client.Error
		if errors.As(err, &answered) && answered.Status != http.StatusServiceUnavailable {
			w.t.Errorf("signing on %s with %v, %s: %d %s: %v", d.name, l, w.story.phase(), answered.Status, answered.Code, err)
		}
		return
	}
	t := issued{Token: out, daemon: d.name, keyset: l.keyset, sent: sent, received: received}
	w.mu.Lock()
	w.tokens = append(w.tokens, t)
	w.mu.Unlock()
	w.hand(t)
	if again {
		w.waiting.Go(func() {
			time.Sleep(time.Until(t.ExpiresAt.Add(-time.Second)))
			t.last = true
			w.hand(t)
		})
	}
}

// reason is the code of a refusal.
func reason(err error) string {
	var answered *client.Error
	switch {
	case err == nil:
		return "signed"
	case errors.As(err, &answered):
		return answered.Code
	}
	return "no answer"
}

// hand gives a token to every verifier of its keyset.
func (w *witness) hand(t issued) {
	for _, v := range w.verifiers {
		if v.source.keyset == t.keyset {
			v.queue <- t
		}
	}
}

// judge counts a verdict. Of those who keep the promise, any rejection is a
// failure of the test.
func (w *witness) judge(v *verifier, t issued, err error, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kind := v.kind + ", fresh tokens"
	if t.last {
		kind = v.kind + ", tokens about to expire"
	}
	c := w.tally[kind]
	if c == nil {
		c = &tally{}
		w.tally[kind] = c
	}
	switch {
	case errors.Is(err, errNoSet):
		c.noSet++
	case !now.Before(t.ExpiresAt):
		c.late++
	case err == nil:
		c.verified++
	default:
		c.rejected++
		if errors.Is(err, errUnknownKID) {
			c.unknown++
		}
		if v.kind == honest && c.rejected <= 10 {
			w.t.Errorf("rejected at %s, %s: a %s token of %s signed by %s between %s and %s, until %s: %v", stamp(now), w.story.phase(),
				t.keyset, t.KID, t.daemon, stamp(t.sent), stamp(t.received), stamp(t.ExpiresAt), err)
		}
	}
}

func stamp(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// finish waits for the last tokens to expire and for the last verdicts, and
// reports.
func (w *witness) finish() {
	w.t.Helper()
	w.working.Wait()
	w.waiting.Wait()
	for _, v := range w.verifiers {
		close(v.queue)
	}
	w.judging.Wait()
	for _, kind := range slices.Sorted(maps.Keys(w.tally)) {
		c := w.tally[kind]
		w.t.Logf("%s: %d verified, %d rejected of which %d for an unknown kid; no verdict: %d without a set, %d too late",
			kind, c.verified, c.rejected, c.unknown, c.noSet, c.late)
	}
	for _, when := range []string{", fresh tokens", ", tokens about to expire"} {
		if c := w.tally[honest+when]; c == nil || c.verified == 0 {
			w.t.Errorf("%s%s: nothing was verified", honest, when)
		}
	}
	if c := w.tally[careless+", fresh tokens"]; c == nil || c.unknown == 0 {
		w.t.Error("a verifier that keeps a set for too long met no unknown kid: this test proves nothing")
	}
}
