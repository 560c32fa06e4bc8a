// Package daemon puts the parts together: store, custody, rotator, listeners.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jwksd/jwksd/api"
	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// Options of Run.
type Options struct {
	Config config.Config
	// Path is the configuration file that Reload reads again; empty if there is
	// none.
	Path    string
	Version string
	Log     *slog.Logger
	// Reload asks for the configuration to be read again.
	Reload <-chan struct{}
	// Ready is called once, when the listeners answer and every configured
	// keyset has its keys.
	Ready func(Addresses)
}

// Addresses are where the daemon listens.
type Addresses struct {
	Public, API, Ops string // URLs; Ops is empty if it is off
}

// Daemon is one running jwksd.
type daemon struct {
	opt     Options
	log     *slog.Logger
	clock   *clock.Clock
	store   *backend
	rotator *rotator.Rotator
	api     *api.Server
	cert    certificate

	config atomic.Pointer[config.Config] // in force
	reload atomic.Pointer[wire.Reload]
	ready  atomic.Bool
	away   atomic.Bool // the store is out of reach since the start
}

// Run serves until ctx ends, and then lets requests and changes under way end.
// It returns nil after an orderly stop.
func Run(ctx context.Context, opt Options) (err error) {
	d := &daemon{opt: opt, log: opt.Log, clock: clock.New(clock.System())}
	d.config.Store(&opt.Config)
	if d.store, err = openBackend(ctx, opt.Config, d.clock, opt.Log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.store.close()) }()

	d.rotator = rotator.New(rotator.Options{
		Documents: d.store.documents,
		Custody:   d.store.custody,
		Clock:     d.clock,
		Log:       opt.Log,
		Sync:      opt.Config.SyncInterval.Std(),
		OrphanAge: d.store.orphanAge,
		ReadOnly:  opt.Config.Role == config.RolePublisher,
		Reports:   d.store.reports,
		Replica:   replicaName(opt.Config),
		Role:      opt.Config.Role,
		Version:   opt.Version,
		StoreSkew: d.store.skew,
		Workers:   runtime.GOMAXPROCS(0),
	})
	auth, err := callers(opt.Config)
	if err != nil {
		return err
	}
	d.api = api.New(api.Options{
		Keysets: d.rotator, Auth: auth, Now: d.clock.Now, Log: opt.Log,
		Version: opt.Version, Reload: d.reload.Load,
		Defaults: d.defaults, Custodies: custodies(opt.Config), Configured: d.configured,
		ReadOnly: opt.Config.Role == config.RolePublisher, Shared: d.store.reports != nil,
	})
	if err = d.begin(ctx); err == nil {
		err = d.serve(ctx)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // asked to stop while starting
	}
	return err
}

// serve opens the listeners first, so that an address in use is found before
// any keyset is founded, then founds the keysets, then turns the keys until ctx
// ends.
func (d *daemon) serve(ctx context.Context) error {
	servers, addresses, err := d.listen()
	if err != nil {
		return err
	}
	// The rotator outlives the servers, so that a request under way finds it
	// working.
	turning, stop := context.WithCancel(context.WithoutCancel(ctx))
	serving, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	var down sync.WaitGroup
	defer down.Wait()
	defer cancel(nil)
	for _, s := range servers {
		down.Go(func() {
			if err := s.run(serving); err != nil {
				cancel(err)
			}
		})
	}
	if d.away.Load() {
		parts.Go(func() { d.applyOnceBack(turning) })
	} else if err := d.apply(serving, *d.config.Load()); err != nil {
		return err
	}
	parts.Go(func() { d.rotator.Run(turning) })
	parts.Go(func() { d.keepCopy(turning) })
	d.announce(addresses)
	d.ready.Store(true)
	if d.opt.Ready != nil {
		d.opt.Ready(addresses)
	}
	d.obey(serving)
	if cause := context.Cause(serving); ctx.Err() == nil && cause != nil {
		return cause
	}
	d.log.Info("stopping")
	return nil
}

// obey reloads the configuration whenever that is asked for, until ctx ends.
func (d *daemon) obey(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.opt.Reload:
			d.reloadConfig(ctx)
		}
	}
}

// apply puts the file's keysets in force, one swap each. What a newer file has
// set, or an operator has deleted, stays: status reports the difference.
func (d *daemon) apply(ctx context.Context, c config.Config) error {
	if c.Role == config.RolePublisher {
		return nil
	}
	for _, k := range c.Keysets {
		wrote, err := d.rotator.Ensure(ctx, k.Name, k.Policy, "config")
		// At the start, a keyset that cannot be changed is served as it is.
		kept := errors.Is(err, rotation.ErrOlderRevision) || errors.Is(err, rotation.ErrClosed)
		if kept || !d.ready.Load() && d.unchangeable(k.Name, err) {
			d.log.Warn("the configuration of this keyset is not put in force", "keyset", k.Name, "why", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("keyset %s: %w", k.Name, err)
		}
		if wrote {
			d.log.Info("policy in force", "keyset", k.Name)
		}
	}
	return nil
}

// unchangeable tells whether an error is about a keyset whose state is good to
// serve but not to change, or about one of several that has none.
func (d *daemon) unchangeable(keyset string, err error) bool {
	_, missing := d.rotator.View(keyset)
	return errors.Is(err, rotator.ErrFrozen) || errors.Is(missing, rotator.ErrDocument) && len(d.rotator.Names()) > 0
}

// announce writes down where the daemon listens, for the command line. That is
// a convenience: a disk that is full does not keep the daemon from serving.
func (d *daemon) announce(a Addresses) {
	dir := d.opt.Config.DataDir
	for name, url := range map[string]string{APIAddressFile: a.API, PublicAddressFile: a.Public} {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && string(old) == url+"\n" {
			continue
		}
		if err := writeFile(path, url+"\n"); err != nil {
			d.log.Warn("the commands will not find this daemon by themselves", "error", err)
		}
	}
}

// reloadConfig reads the file again. What does not hold together is rejected
// whole, and the old configuration stays.
func (d *daemon) reloadConfig(ctx context.Context) {
	outcome := &wire.Reload{At: d.clock.Now(), OK: true}
	if err := d.tryReload(ctx); err != nil {
		outcome.OK, outcome.Error = false, err.Error()
		d.log.Error("configuration rejected, the old one stays in force", "error", err)
	} else {
		d.log.Info("configuration reloaded")
	}
	d.reload.Store(outcome)
}

func (d *daemon) tryReload(ctx context.Context) error {
	if d.opt.Path == "" {
		return errors.New("there is no configuration file: start jwksd serve with --config")
	}
	c, err := config.Load(d.opt.Path, d.clock.Now())
	if err != nil {
		return err
	}
	old := d.config.Load()
	if !c.Keystore.Equal(old.Keystore) || c.Role != old.Role || c.Replica != old.Replica || c.DataDir != old.DataDir || c.LastGood != old.LastGood || c.SyncInterval != old.SyncInterval || !sameListeners(c.Listeners, old.Listeners) {
		return fmt.Errorf("%s: keystore, data_dir, last_good, role, replica, sync_interval and listeners change only with a restart", d.opt.Path)
	}
	auth, err := callers(c)
	if err != nil {
		return err
	}
	cert, err := readCertificate(c.Listeners.API.TLS)
	if err != nil {
		return err
	}
	if err := d.apply(ctx, c); err != nil {
		return err
	}
	d.cert.current.Store(cert)
	d.api.SetAuth(auth)
	d.config.Store(&c)
	for _, k := range old.Keysets {
		if !configured(c, k.Name) {
			d.log.Warn("keyset left the configuration but goes on turning", "keyset", k.Name)
		}
	}
	return nil
}

func sameListeners(a, b config.Listeners) bool {
	sameTLS := (a.API.TLS == nil) == (b.API.TLS == nil) && (a.API.TLS == nil || *a.API.TLS == *b.API.TLS)
	a.API.TLS, b.API.TLS = nil, nil
	return sameTLS && a == b
}

func configured(c config.Config, keyset string) bool {
	return slices.ContainsFunc(c.Keysets, func(k config.Keyset) bool { return k.Name == keyset })
}

// defaults are what a policy takes that a request does not say.
func (d *daemon) defaults() rotation.Policy {
	c, p := d.config.Load(), rotation.DefaultPolicy()
	p.MaxStaleness, p.ClockSkew = c.MaxStaleness, c.ClockSkew
	return p
}

// configured are the policies of the file, by keyset.
func (d *daemon) configured() map[string]rotation.Policy {
	policies := map[string]rotation.Policy{}
	for _, k := range d.config.Load().Keysets {
		policies[k.Name] = k.Policy
	}
	return policies
}

// custodies are the places where keys can be made.
func custodies(c config.Config) []rotation.Custody {
	if v := c.Keystore.Vault; v != nil && v.TransitMount != "" {
		return []rotation.Custody{rotation.CustodyLocal, rotation.CustodyTransit}
	}
	return []rotation.Custody{rotation.CustodyLocal}
}

// expects tells whether a keyset is about to be founded.
func (d *daemon) expects(keyset string) bool { return configured(*d.config.Load(), keyset) }

// replicaName is what this daemon is called among those that share the store.
func replicaName(c config.Config) string {
	if c.Replica != "" {
		return c.Replica
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "jwksd"
}

// stopTimeout bounds how long requests under way may take after a stop.
const stopTimeout = 15 * time.Second

// urlOf writes the address of a listener as a URL that a client on this machine
// can use.
func urlOf(scheme string, l net.Listener) string {
	addr := l.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(addr.Port))
}
