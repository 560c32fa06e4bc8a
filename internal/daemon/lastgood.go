package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jwksd/jwksd/keystore/vault"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// The last good copy lets a daemon start, and publish, while its store is out
// of reach. It is written whenever the public state changes, and stamped again
// from time to time, so that who starts from it knows how old it is. It is read
// only when the store does not answer: otherwise the store is right, whatever
// the copy says.

const (
	// copyPause is the shortest time between two copies. They take at most a
	// tenth of the time, however many keysets there are.
	copyPause = time.Second
	// copyLag is the part of the shortest max_staleness that a copy may be
	// behind in how fresh it says it is.
	copyLag = 4
)

// begin looks at the store for the first time, and at the last good copy if the
// store is out of reach.
func (d *daemon) begin(ctx context.Context) error {
	err := d.store.away
	if err == nil {
		err = d.rotator.Sync(ctx)
	}
	if errors.Is(err, rotator.ErrPartial) && len(d.rotator.Names()) > 0 {
		return nil // the alarm is on; the others do not wait for it
	}
	path := d.opt.Config.LastGood
	if err == nil || path == "" || !outOfReach(err) {
		return err
	}
	kept, copyErr := readCopy(path)
	switch {
	case errors.Is(copyErr, fs.ErrNotExist):
		return fmt.Errorf("%w\nthere is no last good copy to start from yet: %s", err, path)
	case copyErr != nil:
		return fmt.Errorf("%w\n%w", err, copyErr)
	}
	d.log.Warn("the store is out of reach; starting from the last good copy", "file", path, "keysets", len(kept), "error", err)
	d.rotator.Adopt(kept)
	d.away.Store(true)
	return nil
}

// outOfReach tells the failures of a store that pass by themselves, or are dealt
// with at the store, from those of our own configuration.
func outOfReach(err error) bool {
	for _, passing := range []error{vault.ErrUnreachable, vault.ErrSealed, vault.ErrStandby, vault.ErrThrottled} {
		if errors.Is(err, passing) {
			return true
		}
	}
	var answered *vault.Error
	return errors.As(err, &answered) && answered.Status >= 500
}

// applyOnceBack puts the file's keysets in force as soon as the store lets it. A
// publisher has none to put in force, and is back when it has read them all.
func (d *daemon) applyOnceBack(ctx context.Context) {
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(copyPause):
		}
		err := d.apply(ctx, *d.config.Load())
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && !d.rotator.Adopted():
			d.away.Store(false)
			d.log.Info("the store is back")
			return
		case err != nil && !outOfReach(err) && err.Error() != said:
			said = err.Error()
			d.log.Error("the configured keysets are not in force yet, trying again", "error", err)
		}
	}
}

// keepCopy writes the copy until ctx ends, and then once more if there is news.
func (d *daemon) keepCopy(ctx context.Context) {
	if d.opt.Config.LastGood == "" {
		return
	}
	k := &keeper{path: d.opt.Config.LastGood, rotator: d.rotator}
	said := ""
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-time.After(max(copyPause, 9*k.took)):
		}
		err := k.look(time.Now())
		if err == nil {
			said = ""
			continue
		}
		if text := err.Error(); text != said {
			said = text
			d.log.Error("the last good copy cannot be written, trying again", "error", err)
		}
	}
}

// keeper decides when the copy is written.
type keeper struct {
	path    string
	rotator *rotator.Rotator

	news  uint64        // Installs of what was written last; 0: nothing was
	stamp time.Time     // the latest FreshAt in it
	lag   time.Duration // how far the stamp may be behind
	at    time.Time     // when it was looked at whether the stamp is
	took  time.Duration // to write it
}

// look writes the copy if there is news, or its stamp is far behind.
func (k *keeper) look(now time.Time) error {
	news := k.rotator.Installs()                              // before the states are read, so that none is missed
	if news == k.news && now.Sub(k.at) < k.lag || news == 0 { // then all there is came from the copy
		return nil
	}
	kept := k.rotator.Snapshot()
	stamp, lag := freshest(kept)
	k.at = now
	if news == k.news && !stamp.After(k.stamp) {
		return nil
	}
	start := time.Now()
	if err := writeCopy(k.path, kept); err != nil {
		return err
	}
	k.news, k.stamp, k.lag, k.took = news, stamp, lag, time.Since(start)
	return nil
}

// freshest returns the latest FreshAt, and how far a stamp may be behind it.
func freshest(kept []rotator.Kept) (stamp time.Time, lag time.Duration) {
	for i, one := range kept {
		if one.FreshAt.After(stamp) {
			stamp = one.FreshAt
		}
		if d := one.State.Policy.MaxStaleness.Std() / copyLag; i == 0 || d < lag {
			lag = d
		}
	}
	return stamp, lag
}
