package chaos

import (
	"syscall"
	"time"

	"github.com/jwksd/jwksd/api/wire"
)

// killLeader kills the active Vault node, and starts and unseals it when
// another has taken over.
func (w *world) killLeader() {
	w.t.Helper()
	w.story.begin(w.t, "the leader of Vault is killed")
	old := w.vault.Leader(w.t)
	old.Kill(w.t)
	w.vault.Leader(w.t)
	w.story.note("another node leads")
	w.heal()
	w.story.begin(w.t, "the killed Vault node comes back")
	old.Restart(w.t)
	w.calm(period / 2)
}

// seal seals Vault for longer than max_staleness. The daemons sign no more, and
// go on serving their sets.
func (w *world) seal() {
	w.t.Helper()
	w.story.begin(w.t, "Vault is sealed")
	sealed := w.vault.sealAll(w.t)
	for _, d := range w.daemons {
		w.becomesStale(d)
	}
	w.story.note("every daemon is stale")
	time.Sleep(period) // so that keys take their turn meanwhile
	for _, d := range w.daemons {
		w.refuses(d)
		if _, _, err := d.set("local"); err != nil {
			w.t.Errorf("daemon %s serves no set while Vault is sealed: %v", d.name, err)
		}
	}
	w.story.begin(w.t, "Vault is unsealed")
	for _, n := range sealed {
		n.Unseal(w.t)
	}
	w.calm(period / 2)
}

// refuses holds a stale daemon to the answer that it must give.
func (w *world) refuses(d *daemon) {
	w.t.Helper()
	for _, l := range lanes {
		out, err := d.client.Sign(w.t.Context(), l.keyset, wire.SignRequest{Claims: []byte(`{"aud":"api"}`), Alg: l.alg})
		if got := reason(err); got != "stale" {
			w.t.Errorf("daemon %s is stale and answers %s to a request to sign with %v, kid %s: %v", d.name, got, l, out.KID, err)
		}
	}
}

// killDaemon kills a daemon in the middle of its work, and starts it again.
func (w *world) killDaemon(d *daemon) {
	w.t.Helper()
	w.story.begin(w.t, "daemon "+d.name+" is killed")
	d.kill()
	time.Sleep(period / 2)
	d.spawn()
	w.story.note("ready again after %d starts", d.await())
	w.calm(period / 2)
}

// pause stops a daemon's process for longer than max_staleness, while the
// others rotate, and lets it go on without a way to Vault: it must know by
// itself that its state is too old.
func (w *world) pause(d *daemon) {
	w.t.Helper()
	w.story.begin(w.t, "daemon "+d.name+" is paused")
	d.signal(syscall.SIGSTOP)
	time.Sleep(staleness + period)
	mend := d.network.cut()
	w.story.begin(w.t, "daemon "+d.name+" goes on, cut off from Vault")
	d.signal(syscall.SIGCONT)
	for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		w.refuses(d)
		if d.ready("publish") {
			w.t.Errorf("daemon %s was paused, and is ready to publish before it could refresh", d.name)
		}
	}
	if _, _, err := d.set("local"); err != nil {
		w.t.Errorf("daemon %s serves no set: %v", d.name, err)
	}
	w.story.begin(w.t, "daemon "+d.name+" finds Vault again")
	mend()
	w.heal()
}

// cutAndSlow cuts and slows the connections to Vault, each daemon's in another
// way.
func (w *world) cutAndSlow() {
	w.t.Helper()
	a, b, c := w.daemons[0].network, w.daemons[1].network, w.daemons[2].network
	w.story.begin(w.t, "connections are cut (a), slow (b) and swallow answers (c)")
	mend := a.cut()
	slow := b.poison(`{"name":"slow","type":"latency","stream":"downstream","attributes":{"latency":300,"jitter":200}}`)
	swallow := c.poison(`{"name":"swallow","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`)
	time.Sleep(staleness + period/2)
	mend()
	slow()
	swallow()
	w.story.begin(w.t, "connections are reset (a), of few bytes (b) and in shreds (c)")
	reset := a.poison(`{"name":"reset","type":"reset_peer","stream":"downstream","attributes":{"timeout":5},"toxicity":0.5}`)
	narrow := b.poison(`{"name":"narrow","type":"bandwidth","stream":"downstream","attributes":{"rate":40}}`)
	shreds := c.poison(`{"name":"shreds","type":"slicer","stream":"upstream","attributes":{"average_size":100,"size_variation":50,"delay":2000}}`)
	time.Sleep(staleness + period/2)
	reset()
	narrow()
	shreds()
	w.story.begin(w.t, "connections are mended")
	w.heal()
}

// killBoth kills the leader and a daemon at once, and starts the daemon while
// Vault has no leader.
func (w *world) killBoth(d *daemon) {
	w.t.Helper()
	w.story.begin(w.t, "the leader of Vault and daemon "+d.name+" are killed")
	old := w.vault.Leader(w.t)
	old.Kill(w.t)
	d.kill()
	d.spawn()
	w.story.note("daemon %s is ready after %d starts", d.name, d.await())
	w.heal()
	w.story.begin(w.t, "the killed Vault node comes back")
	old.Restart(w.t)
	w.heal()
}

// cutAll cuts every daemon off from Vault.
func (w *world) cutAll() {
	w.t.Helper()
	w.story.begin(w.t, "every daemon is cut off from Vault")
	var mend []func()
	for _, d := range w.daemons {
		mend = append(mend, d.network.cut())
	}
	for _, d := range w.daemons {
		w.becomesStale(d)
	}
	time.Sleep(period)
	w.story.begin(w.t, "every daemon finds Vault again")
	for _, f := range mend {
		f()
	}
	w.heal()
}

// pauseSealed pauses a daemon and seals Vault, and lets both go on.
func (w *world) pauseSealed(d *daemon) {
	w.t.Helper()
	w.story.begin(w.t, "daemon "+d.name+" is paused, and Vault is sealed")
	d.signal(syscall.SIGSTOP)
	sealed := w.vault.sealAll(w.t)
	time.Sleep(staleness + period/2)
	w.story.begin(w.t, "daemon "+d.name+" goes on, and Vault is unsealed")
	d.signal(syscall.SIGCONT)
	w.refuses(d)
	for _, n := range sealed {
		n.Unseal(w.t)
	}
	w.heal()
}

// becomesStale waits until a daemon finds its state too old to act on.
func (w *world) becomesStale(d *daemon) {
	w.t.Helper()
	within(w.t, patience, "that "+d.name+" finds itself stale", func() bool { return !d.ready("publish") && !d.ready("sign") })
}
