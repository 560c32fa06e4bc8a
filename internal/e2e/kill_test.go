package e2e

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
)

// killers is how many daemons are killed side by side, and kills how often
// each of them.
const (
	killers = 4
	kills   = 52
)

// hasty rotates as fast as is allowed: the lead is 0.9s.
func hasty(dir string) settings {
	s := calm(dir)
	s.sync, s.staleness, s.skew = "50ms", "500ms", "50ms"
	s.blocks = []block{{
		name: "default", algorithms: "ES256, EdDSA", rotate: "@every 2s",
		ttl: "4s", maxAge: "0s", cache: "300ms", grace: "500ms",
	}}
	return s
}

// TestKillAtAnyMoment kills daemons without warning: while they start, rotate,
// revoke, destroy and sign. Each comes back without help, and nothing that it
// had promised is lost.
func TestKillAtAnyMoment(t *testing.T) {
	t.Parallel()
	var sum counts
	t.Run("side by side", func(t *testing.T) {
		for range killers {
			t.Run("daemon", func(t *testing.T) {
				t.Parallel()
				k := newKilling(t, &sum)
				k.run()
				k.afterwards()
			})
		}
	})
	t.Logf("%d kills (%d while starting, %d within 50 ms after a request for a change, %d while one was under way), %d restarts, %d tokens checked after a restart, %d acknowledged revocations, %d acknowledged rotations",
		sum.kills.Load(), sum.starting.Load(), sum.soon.Load(), sum.underWay.Load(), sum.restarts.Load(), sum.tokens.Load(), sum.revoked.Load(), sum.rotated.Load())
	if got := sum.kills.Load(); got < 200 && !t.Failed() {
		t.Errorf("only %d kills", got)
	}
}

// counts of all daemons together.
type counts struct {
	kills, starting, soon, underWay, restarts, tokens, revoked, rotated atomic.Int64
}

// killing is one daemon with all that is known about it from outside.
type killing struct {
	t      *testing.T
	d      *daemon
	ledger *ledger
	sum    *counts
}

func newKilling(t *testing.T, sum *counts) *killing {
	return &killing{t: t, d: startDaemon(t, hasty(t.TempDir())), ledger: newLedger(), sum: sum}
}

func (k *killing) run() {
	for range kills {
		if k.t.Failed() {
			return
		}
		k.traffic()
		if rand.IntN(5) == 0 {
			k.killWhileStarting()
		}
		k.d.start()
		k.sum.restarts.Add(1)
		k.inspect()
	}
}

// killWhileStarting starts the daemon and kills it before it can be ready, or
// just then.
func (k *killing) killWhileStarting() {
	k.d.spawn()
	time.Sleep(time.Duration(rand.Int64N(int64(60 * time.Millisecond))))
	k.d.kill()
	k.sum.kills.Add(1)
	k.sum.starting.Add(1)
}

// traffic signs and changes keys for a while and then kills the daemon, mostly
// just after a request for a change went out.
func (k *killing) traffic() {
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	busy.Go(func() { k.signing(ctx) })
	end := time.Now().Add(50*time.Millisecond + time.Duration(rand.Int64N(int64(700*time.Millisecond))))
	for time.Until(end) > 0 {
		k.change()
		time.Sleep(min(time.Until(end), 100*time.Millisecond+time.Duration(rand.Int64N(int64(200*time.Millisecond)))))
	}
	var answered atomic.Bool
	if rand.IntN(4) > 0 {
		busy.Go(func() { k.change(); answered.Store(true) })
		most := []time.Duration{4 * time.Millisecond, 30 * time.Millisecond}[rand.IntN(2)]
		time.Sleep(time.Duration(rand.Int64N(int64(most))))
	} else {
		answered.Store(true)
	}
	underWay := !answered.Load()
	k.d.kill()
	if k.ledger.sinceChange() < 50*time.Millisecond {
		k.sum.soon.Add(1)
	}
	if underWay {
		k.sum.underWay.Add(1)
	}
	k.sum.kills.Add(1)
	cancel()
	busy.Wait()
}

// signing gets tokens and keeps those that were answered.
func (k *killing) signing(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		alg := []string{"ES256", "EdDSA"}[i%2]
		if out, err := k.d.client.Sign(ctx, "default", signRequest(alg, "")); err == nil {
			k.ledger.signed(out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// change asks for a rotation or a revocation, whatever comes of it.
func (k *killing) change() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if rand.IntN(3) > 0 {
		alg := []string{"", "ES256", "EdDSA"}[rand.IntN(3)]
		k.ledger.changing("")
		out, err := k.d.client.Rotate(ctx, "default", wire.RotateRequest{Force: true, Alg: alg, Reason: "drill"}, "")
		if err == nil {
			k.ledger.changed(out)
			k.sum.rotated.Add(1)
		}
		return
	}
	kid := k.ledger.someKID()
	if kid == "" {
		return
	}
	k.ledger.changing(kid)
	out, err := k.d.client.Revoke(ctx, "default", wire.RevokeRequest{KID: kid, Reason: "drill"}, "")
	if err == nil {
		k.ledger.changed(out)
		k.sum.revoked.Add(1)
	}
}
