package rotator_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// away is a store that cannot be reached until it is back.
func away(store *keystoretest.Memory) (handle *keystoretest.Memory, back func()) {
	var reachable atomic.Bool
	handle = store.Share()
	handle.Fault = func(keystoretest.Op) keystoretest.Fault {
		if reachable.Load() {
			return keystoretest.Fault{}
		}
		return keystoretest.Fault{Outcome: keystoretest.Refused}
	}
	return handle, func() { reachable.Store(true) }
}

func TestAdoptedStateIsPublishedAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		first := config{store: store.Share()}.founded(t, shortPolicy())
		kept := first.Snapshot()
		if len(kept) != 1 || first.Installs() == 0 {
			t.Fatalf("%d states kept after %d installs", len(kept), first.Installs())
		}
		first.stop()
		handle, back := away(store)
		r := config{store: handle}.adopted(t, kept)
		time.Sleep(20 * time.Minute) // far beyond the next rotation
		synctest.Wait()
		v := r.view(t)
		if got, want := encode(t, v.State), encode(t, kept[0].State); got != want {
			t.Errorf("the state became\n%s\nwant\n%s", got, want)
		}
		if _, err := v.Signer("", r.clock.Now()); err == nil {
			t.Error("a key signs without the store")
		}
		if err := r.Fresh(v, r.clock.Now()); !errors.Is(err, rotator.ErrStale) {
			t.Errorf("a state from 20 minutes ago: %v", err)
		}
		wantAlarm(t, r, "last_good")
		if r.Installs() != 0 {
			t.Error("an adopted state counts as seen in the store")
		}
		back()
		settle()
		r.signs(t)
		wantAlarm(t, r, "")
		if r.Adopted() || r.state(t).Generation <= kept[0].State.Generation {
			t.Errorf("generation %d, adopted %v", r.state(t).Generation, r.Adopted())
		}
	})
}

// A store that came back older than the copy is not believed, and one that lost
// the keyset is not founded anew.
func TestStoreBehindTheCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		first := config{store: store.Share()}.founded(t, shortPolicy())
		old := first.state(t)
		change(t, first, "rotate", rotate(true))
		settle()
		kept := first.Snapshot()
		first.stop()
		_, version := stored(t, store)
		if _, err := store.Share().Swap(t.Context(), name, version, []byte(encode(t, old))); err != nil { // a restored backup
			t.Fatal(err)
		}
		kept = append(kept, rotator.Kept{State: renamed(t, kept[0].State, "lost"), FreshAt: kept[0].FreshAt})
		r := config{store: store.Share()}.adopted(t, kept)
		settle()
		wantAlarm(t, r, "document:"+name)
		wantAlarm(t, r, "document:lost")
		wantAlarm(t, r, "last_good")
		if got := r.state(t).Generation; got != kept[0].State.Generation {
			t.Errorf("generation %d, want that of the copy, %d", got, kept[0].State.Generation)
		}
		if _, err := r.Ensure(t.Context(), "lost", shortPolicy(), "test"); err == nil {
			t.Error("a keyset that was there is founded anew")
		}
	})
}

// adopted is a replica that runs from kept states.
func (c config) adopted(t *testing.T, kept []rotator.Kept) *replica {
	r := c.idle()
	r.Adopt(kept)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

func encode(t *testing.T, s rotation.State) string {
	t.Helper()
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func renamed(t *testing.T, s rotation.State, to string) rotation.State {
	t.Helper()
	s.Keyset = to
	return s
}
