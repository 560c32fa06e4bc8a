package chaos

import (
	"context"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
)

// world is everything that the test breaks.
type world struct {
	t       *testing.T
	vault   *cluster
	daemons []*daemon
	story   *story
	witness *witness
	watcher *watcher
	eager   *eager
}

// TestThreeDaemonsOnThreeVaults rotates every few seconds for two minutes while
// one thing after another breaks. Verifiers outside see nothing of it: no valid
// token is rejected and no kid is unknown. After each fault everything heals by
// itself.
func TestThreeDaemonsOnThreeVaults(t *testing.T) {
	w := newWorld(t)
	signing, stop := context.WithCancel(t.Context())
	defer stop()
	watching, done := context.WithCancel(t.Context())
	defer done()
	w.story.begin(t, "nothing is broken")
	w.witness = newWitness(t, w.story, w.daemons, w.daemons[2])
	w.watcher = watch(watching, t, w.story, w.daemons)
	w.witness.sign(signing)
	w.eager = &eager{t: t, daemons: w.daemons, lane: lanes[1]}
	w.eager.run(signing)
	w.calm(2 * period)

	w.killLeader()
	w.seal()
	w.killDaemon(w.daemons[1])
	w.pause(w.daemons[2])
	w.cutAndSlow()
	w.killBoth(w.daemons[0])
	w.cutAll()
	w.pauseSealed(w.daemons[1])

	w.story.begin(t, "nothing is broken any more")
	w.calm(max(2*period, shortest-time.Since(w.story.start)))
	stop()
	w.eager.working.Wait()
	w.story.note("%d rotations of %v by hand, at the earliest", w.eager.rotated, w.eager.lane)
	w.witness.finish() // goes on rotating until the last token has expired
	done()
	w.watcher.working.Wait()
	w.judge()
	for _, d := range w.daemons {
		d.stop()
	}
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, vault: startCluster(t)}
	for i, name := range []string{"a", "b", "c"} {
		n := newNetwork(t, name, i, w.vault.Addresses())
		w.daemons = append(w.daemons, newDaemon(t, name, w.vault, n))
	}
	w.story = newStory()
	for _, d := range w.daemons { // all at once found the keysets
		d.spawn()
	}
	for _, d := range w.daemons {
		d.await()
		d.connect()
	}
	return w
}

// calm lets time pass in which nothing is broken.
func (w *world) calm(d time.Duration) {
	w.t.Helper()
	time.Sleep(d)
	w.heal()
}

// heal waits until every daemon is ready for everything, raises no alarm, and
// runs the same generation as the others, which has a standby in every lane,
// and until the private keys in Vault are those that are needed.
func (w *world) heal() {
	w.t.Helper()
	took := within(w.t, patience, "that everything heals by itself", w.well)
	w.story.note("well after %.1fs; %s", took.Seconds(), w.vault.inOrder(w.t, w.watcher))
}

func (w *world) well() bool {
	first := map[string]uint64{}
	for i, d := range w.daemons {
		all, err := d.overview()
		if err != nil || len(all.Daemon.Alarms) > 0 || len(all.Keysets) != 2 || !d.ready("sign") || !d.ready("publish") {
			return false
		}
		for _, k := range all.Keysets {
			if i == 0 {
				first[k.Keyset] = k.Generation
			}
			if k.Generation != first[k.Keyset] || k.Stale || !complete(k) {
				return false
			}
		}
	}
	return true
}

// complete tells whether every lane has a standby and no key has a problem.
func complete(k wire.Keyset) bool {
	for _, l := range k.Lanes {
		if len(l.Keys) < 2 {
			return false
		}
		for _, key := range l.Keys {
			if key.Problem != "" {
				return false
			}
		}
	}
	return true
}

// judge looks at the whole: every lane went on rotating.
func (w *world) judge() {
	w.t.Helper()
	w.heal()
	w.watcher.turns(w.witness.tokens)
	for _, l := range lanes {
		if got, want := w.watcher.signers(l, time.Now()), int(shortest/period)/2; got < want {
			w.t.Errorf("only %d keys of %v had their turn, want %d or more", got, l, want)
		} else {
			w.story.note("%d keys of %v had their turn", got, l)
		}
	}
	if w.eager.rotated == 0 {
		w.t.Error("nothing was rotated by hand")
	}
	signed, asked := w.story.signed()
	if signed*2 < asked {
		w.t.Errorf("only %d of %d requests to sign were answered with a token", signed, asked)
	}
	w.t.Logf("timeline:\n%s", w.story)
	w.t.Logf("%d of %d requests to sign answered with a token; %d views looked at; most keys in a view %v, bounds %v",
		signed, asked, w.watcher.views, w.watcher.most, w.watcher.bound)
}
