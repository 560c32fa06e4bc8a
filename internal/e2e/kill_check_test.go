package e2e

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/file"
	"github.com/jwksd/jwksd/rotation"
)

// ledger is what callers of one daemon were told. It is safe for concurrent
// use.
type ledger struct {
	mu         sync.Mutex
	tokens     []wire.Token // that were answered
	kids       []string     // that were seen lately
	generation uint64       // the greatest that was seen
	revoked    map[string]bool
	attempted  map[string]bool // revocations without an answer
	asked      time.Time       // for the latest change
}

func newLedger() *ledger { return &ledger{revoked: map[string]bool{}, attempted: map[string]bool{}} }

func (l *ledger) signed(token wire.Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = append(l.tokens, token)
}

// changing notes a request before it is sent.
func (l *ledger) changing(revoke string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = time.Now()
	if revoke != "" {
		l.attempted[revoke] = true
	}
}

// changed notes an answer.
func (l *ledger) changed(c wire.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation = max(l.generation, c.Generation)
	for _, r := range c.Revoked {
		l.revoked[r.KID] = true
		delete(l.attempted, r.KID)
	}
}

func (l *ledger) sinceChange() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.asked)
}

func (l *ledger) someKID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kids) == 0 {
		return ""
	}
	return l.kids[rand.IntN(len(l.kids))]
}

// seen compares a keyset with what was known, and takes it over. Nothing is
// under way: a revocation without an answer has happened by now or never will.
func (l *ledger) seen(t *testing.T, k wire.Keyset) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.Generation < l.generation {
		t.Errorf("the generation went back from %d to %d", l.generation, k.Generation)
	}
	l.generation = max(l.generation, k.Generation)
	now := map[string]bool{}
	for _, r := range k.Revoked {
		now[r.KID] = true
	}
	for kid := range l.revoked {
		if !now[kid] {
			t.Errorf("key %s was revoked and is not any more", kid)
		}
	}
	for kid := range now {
		if !l.revoked[kid] && !l.attempted[kid] {
			t.Errorf("key %s was revoked by nobody", kid)
		}
	}
	l.kids = kids(k)
	for _, kid := range l.kids {
		if now[kid] {
			t.Errorf("key %s is revoked and published", kid)
		}
	}
	l.revoked = now
	clear(l.attempted)
}

// outstanding drops the tokens that have expired and returns those that must be
// accepted.
func (l *ledger) outstanding(now time.Time) []wire.Token {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = slices.DeleteFunc(l.tokens, func(token wire.Token) bool {
		return !now.Before(token.ExpiresAt) || l.revoked[token.KID]
	})
	return slices.Clone(l.tokens)
}

// inspect holds a daemon that was started again to everything that is known.
func (k *killing) inspect() {
	k.t.Helper()
	before := k.d.overview()
	now := before.Daemon.Now
	keyset := before.Keysets[0]
	for _, a := range before.Daemon.Alarms {
		k.t.Errorf("alarm after a restart: %s", a.Message)
	}
	k.ledger.seen(k.t, keyset)
	for _, alg := range []string{"ES256", "EdDSA"} {
		k.inspectLane(keyset, alg)
	}
	set := k.d.fetchSet("default")
	for _, kid := range set.Keys {
		if k.ledger.isRevoked(kid.KeyID) {
			k.t.Errorf("the revoked key %s is published", kid.KeyID)
		}
	}
	k.inspectTokens(set, now)
}

func (l *ledger) isRevoked(kid string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revoked[kid]
}

func (k *killing) inspectLane(keyset wire.Keyset, alg string) {
	k.t.Helper()
	i := slices.IndexFunc(keyset.Lanes, func(l wire.Lane) bool { return l.Alg == alg })
	if i < 0 {
		k.t.Errorf("lane %s is gone", alg)
		return
	}
	lane, signing := keyset.Lanes[i], 0
	for _, key := range lane.Keys {
		if key.Phase == rotation.PhaseActive {
			signing++
		}
		if key.Problem != "" {
			k.t.Errorf("lane %s, %s key %s: %s", alg, key.Phase, key.KID, key.Problem)
		}
	}
	if signing != 1 {
		k.t.Errorf("lane %s has %d active keys", alg, signing)
	}
	if len(lane.Keys) > lane.Bound {
		k.t.Errorf("lane %s publishes %d keys, its bound is %d", alg, len(lane.Keys), lane.Bound)
	}
}

// inspectTokens checks the old tokens and a new one of each lane.
func (k *killing) inspectTokens(set jose.JSONWebKeySet, now time.Time) {
	k.t.Helper()
	old := k.ledger.outstanding(now)
	for _, token := range old {
		if _, err := checkAt(set, token.Token, now); err != nil {
			k.t.Errorf("a token of %s until %s, at %s: %v", token.KID, token.ExpiresAt, now, err)
		}
	}
	k.sum.tokens.Add(int64(len(old)))
	for _, alg := range []string{"ES256", "EdDSA"} {
		token := k.d.sign("default", alg, "")
		if _, err := check(k.d.fetchSet("default"), token.Token); err != nil {
			k.t.Errorf("a new token: %v", err)
		}
		k.ledger.signed(token)
	}
}

// afterwards lets the daemon settle, stops it, and compares the private keys
// that are kept with those that are needed.
func (k *killing) afterwards() {
	if k.t.Failed() {
		return
	}
	time.Sleep(2 * time.Second)
	k.inspect()
	k.d.stop()
	stopped := time.Now()
	k.noLeftovers()
	store, err := file.Open(file.Options{Dir: k.d.dir})
	if err != nil {
		k.t.Fatal(err)
	}
	defer store.Close()
	doc, err := store.Load(context.Background(), "default")
	if err != nil {
		k.t.Fatal(err)
	}
	state, err := rotation.Decode(doc.Data)
	if err != nil {
		k.t.Fatal(err)
	}
	kept, err := store.ListKeys(context.Background(), "default")
	if err != nil {
		k.t.Fatal(err)
	}
	k.compare(state, kept, stopped)
	k.t.Logf("generation %d, %d keys, %d private halves, %d tombstones", state.Generation, len(slices.Collect(state.Keys)), len(kept), len(state.Tombstones))
}

// slack is how long a key may be kept for a change that the stop cut off, or
// past the moment at which it was to be destroyed.
const slack = 5 * time.Second

func (k *killing) compare(state rotation.State, kept []keystore.KeyInfo, stopped time.Time) {
	k.t.Helper()
	have := map[string]keystore.KeyInfo{}
	for _, info := range kept {
		have[info.KID] = info
	}
	for key := range state.Keys {
		needed := key.DestroyAt.IsZero() || key.DestroyAt.After(stopped)
		if _, ok := have[key.KID]; needed && !ok {
			k.t.Errorf("the private half of %s is lost", key.KID)
		}
		if !key.DestroyAt.IsZero() && stopped.Sub(key.DestroyAt) > slack && have[key.KID].KID != "" {
			k.t.Errorf("the private half of %s was to be destroyed at %s", key.KID, key.DestroyAt)
		}
		delete(have, key.KID)
	}
	for info := range maps.Values(have) {
		if state.Revoked(info.KID) || stopped.Sub(info.CreatedAt) > slack {
			k.t.Errorf("orphan: the private half of %s, made at %s, revoked: %t", info.KID, info.CreatedAt, state.Revoked(info.KID))
		}
	}
}

// noLeftovers looks for files that a killed process had begun to write.
func (k *killing) noLeftovers() {
	k.t.Helper()
	entries, err := os.ReadDir(k.d.dir)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || strings.Contains(e.Name(), "tmp") {
			k.t.Errorf("left behind: %s", e.Name())
		}
	}
}
