package rotator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// board keeps reports in memory. It can be out of reach.
type board struct {
	mu   sync.Mutex
	kept map[string][]byte
	err  error
	puts int
}

func newBoard() *board { return &board{kept: map[string][]byte{}} }

func (b *board) PutReport(_ context.Context, replica string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.kept[replica] = data
		b.puts++
	}
	return b.err
}

func (b *board) Reports(context.Context) (map[string][]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.kept), b.err
}

func (b *board) DropReport(_ context.Context, replica string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		delete(b.kept, replica)
	}
	return b.err
}

func (b *board) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// report reads what a replica said last.
func (b *board) report(t *testing.T, replica string) rotator.Report {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var rep rotator.Report
	if err := json.Unmarshal(b.kept[replica], &rep); err != nil {
		t.Fatalf("the report of %s: %v", replica, err)
	}
	return rep
}

// joined is a replica that runs and reports.
func (b *board) joined(t *testing.T, store *keystoretest.Memory, name string) *replica {
	t.Helper()
	store = store.Share()
	r := &replica{clock: clock.New(clock.Portable())}
	r.Rotator = rotator.New(rotator.Options{
		Documents: store, Custody: custody.Local{Keys: store}, Clock: r.clock, Sync: pause, OrphanAge: time.Minute,
		Reports: b, Replica: name, Role: "signer", Version: "1", Workers: 4,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

// await waits for at most limit and tells how long it took.
func await(t *testing.T, r *replica, keyset string, limit time.Duration) (rotator.Confirmation, time.Duration) {
	t.Helper()
	v, err := r.View(keyset)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	c, err := r.Await(ctx, keyset, v.State.Generation)
	if err != nil {
		t.Fatal(err)
	}
	return c, time.Since(start)
}

func wantConfirmation(t *testing.T, got rotator.Confirmation, confirmed, missing, silent []string) {
	t.Helper()
	if !slices.Equal(got.Confirmed, confirmed) || !slices.Equal(got.Missing, missing) || !slices.Equal(got.Silent, silent) {
		t.Errorf("%+v, want %v confirmed, %v missing, %v silent", got, confirmed, missing, silent)
	}
}

func TestAwaitEveryReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, b := keystoretest.NewMemory(), newBoard()
		first := b.joined(t, store, "a")
		ensure(t, first, shortPolicy())
		b.joined(t, store, "b")
		b.joined(t, store, "c")
		settle()
		change(t, first, "rotate", rotate(true))
		got, took := await(t, first, name, 10*time.Second)
		wantConfirmation(t, got, []string{"a", "b", "c"}, nil, nil)
		if took > 2*pause {
			t.Errorf("it took %s", took)
		}
	})
}

// TestAwaitOneReplica needs no reports.
func TestAwaitOneReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := config{store: keystoretest.NewMemory()}.founded(t, shortPolicy())
		change(t, r, "rotate", rotate(true))
		got, took := await(t, r, name, time.Minute)
		wantConfirmation(t, got, []string{""}, nil, nil)
		if took != 0 {
			t.Errorf("it took %s", took)
		}
		if _, err := r.Await(t.Context(), "nobody", 1); !errors.Is(err, rotator.ErrNoKeyset) {
			t.Errorf("a keyset that is not there: %v", err)
		}
	})
}

// TestReplicaThatStopsIsNotWaitedFor takes its report back.
func TestReplicaThatStopsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, b := keystoretest.NewMemory(), newBoard()
		first := b.joined(t, store, "a")
		ensure(t, first, shortPolicy())
		second := b.joined(t, store, "b")
		settle()
		if list, err := first.Replicas(t.Context()); err != nil || len(list) != 2 {
			t.Fatalf("%+v %v", list, err)
		}
		second.stop()
		change(t, first, "rotate", rotate(true))
		got, took := await(t, first, name, time.Minute)
		wantConfirmation(t, got, []string{"a"}, nil, nil)
		if took != 0 {
			t.Errorf("it took %s", took)
		}
	})
}

// TestAwaitNamesTheSlowAndNotTheDead: one replica stops without a word. As long
// as it counts as alive it is named; then it is silent; when it cannot act any
// more it is not even that; and after a day it is forgotten.
func TestAwaitNamesTheSlowAndNotTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, b := keystoretest.NewMemory(), newBoard()
		first := b.joined(t, store, "a")
		ensure(t, first, shortPolicy())
		second := b.joined(t, store, "b")
		settle()
		b.fail(errors.New("cut off"))
		second.stop()
		b.fail(nil)
		change(t, first, "rotate", rotate(true))
		got, took := await(t, first, name, 3*time.Second)
		wantConfirmation(t, got, []string{"a"}, []string{"b"}, nil)
		if took != 3*time.Second {
			t.Errorf("it took %s", took)
		}
		// Who waits long enough learns that it is dead.
		got, took = await(t, first, name, time.Minute)
		wantConfirmation(t, got, []string{"a"}, nil, []string{"b"})
		if took > 25*time.Second {
			t.Errorf("it took %s", took)
		}
		change(t, first, "rotate", rotate(true))
		got, took = await(t, first, name, time.Minute)
		wantConfirmation(t, got, []string{"a"}, nil, []string{"b"})
		if took != 0 {
			t.Errorf("a dead replica is waited for: %s", took)
		}
		time.Sleep(shortPolicy().MaxStaleness.Std())
		got, _ = await(t, first, name, time.Minute)
		wantConfirmation(t, got, []string{"a"}, nil, nil)

		time.Sleep(25 * time.Hour)
		list, err := first.Replicas(t.Context())
		if _, kept := b.kept["b"]; err != nil || len(list) != 1 || kept {
			t.Errorf("the dead are remembered: %+v %v", list, err)
		}
	})
}

// TestAwaitAfterManyChanges: more keysets change at once than a report can name.
func TestAwaitAfterManyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, b := keystoretest.NewMemory(), newBoard()
		first := b.joined(t, store, "a")
		b.joined(t, store, "b")
		const keysets = 300
		for i := range keysets {
			if _, err := first.Ensure(t.Context(), fmt.Sprintf("tenant-%d", i), shortPolicy(), "test"); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		for i := range keysets {
			if _, _, err := first.Change(t.Context(), fmt.Sprintf("tenant-%d", i), operation("rotate", ""), rotate(true)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range keysets {
			got, took := await(t, first, fmt.Sprintf("tenant-%d", i), 20*time.Second)
			if wantConfirmation(t, got, []string{"a", "b"}, nil, nil); t.Failed() {
				t.Fatalf("tenant-%d after %s", i, took)
			}
		}
		if n := len(b.report(t, "b").Generations); n > 256 {
			t.Errorf("a report names %d keysets", n)
		}
	})
}

// TestAwaitTheOneThatCannotLoad: a replica that sees the store but fails to read
// one document has not synced, whatever else it reads.
func TestAwaitTheOneThatCannotLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, b := keystoretest.NewMemory(), newBoard()
		first := b.joined(t, store, "a")
		ensure(t, first, shortPolicy())
		half := store.Share()
		var mu sync.Mutex
		broken := false
		half.Fault = func(op keystoretest.Op) keystoretest.Fault {
			mu.Lock()
			defer mu.Unlock()
			if broken && op.Name == keystoretest.OpLoad {
				return keystoretest.Fault{Outcome: keystoretest.Refused}
			}
			return keystoretest.Fault{}
		}
		second := rotator.New(rotator.Options{
			Documents: half, Custody: custody.Local{Keys: half}, Clock: clock.New(clock.Portable()), Sync: pause, OrphanAge: time.Minute,
			Reports: b, Replica: "b",
		})
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { second.Run(ctx) })
		defer wg.Wait()
		defer stop()
		settle()
		mu.Lock()
		broken = true
		mu.Unlock()
		change(t, first, "rotate", rotate(true))
		got, _ := await(t, first, name, time.Minute)
		wantConfirmation(t, got, []string{"a"}, []string{"b"}, nil)
		mu.Lock()
		broken = false
		mu.Unlock()
		got, _ = await(t, first, name, time.Minute)
		wantConfirmation(t, got, []string{"a", "b"}, nil, nil)
	})
}

// TestReportsOutOfReach: nobody knows, and that is said; it heals by itself.
func TestReportsOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, b := keystoretest.NewMemory(), newBoard()
		first := b.joined(t, store, "a")
		ensure(t, first, shortPolicy())
		b.joined(t, store, "b")
		settle()
		down := errors.New("down")
		b.fail(down)
		op := change(t, first, "rotate", rotate(true))
		list, err := first.Replicas(t.Context())
		if !errors.Is(err, down) || len(list) != 1 || list[0].Replica != "a" || list[0].Generations[name] < op.Generation {
			t.Errorf("%+v %v", list, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		got, err := first.Await(ctx, name, op.Generation)
		if wantConfirmation(t, got, []string{"a"}, nil, nil); !errors.Is(err, down) {
			t.Errorf("%v", err)
		}
		b.fail(nil)
		got, _ = await(t, first, name, 10*time.Second)
		wantConfirmation(t, got, []string{"a", "b"}, nil, nil)
	})
}

// TestReportsAreFew while nothing changes.
func TestReportsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard()
		b.joined(t, keystoretest.NewMemory(), "a")
		time.Sleep(time.Hour)
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.puts < 600 || b.puts > 721 {
			t.Errorf("%d reports in an hour", b.puts)
		}
		b.kept["x"] = []byte("no report")
	})
}

func TestKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := keystoretest.NewMemory()
		first := config{store: store.Share()}.founded(t, shortPolicy())
		half := store.Share()
		other := config{store: half}.idle()
		if known, err := other.Known(t.Context(), "nobody"); known || err != nil {
			t.Errorf("a keyset that is not there: %v %v", known, err)
		}
		if known, err := other.Known(t.Context(), name); !known || err != nil {
			t.Errorf("%v %v", known, err)
		}
		if got := other.state(t).Generation; got != first.state(t).Generation {
			t.Errorf("generation %d", got)
		}
		half.Fault = func(keystoretest.Op) keystoretest.Fault {
			return keystoretest.Fault{Outcome: keystoretest.Refused}
		}
		if known, err := other.Known(t.Context(), name); known || !errors.Is(err, keystoretest.ErrUnavailable) {
			t.Errorf("%v %v", known, err)
		}
	})
}
