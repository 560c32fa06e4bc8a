package rotator_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
)

// counter counts the calls of a store.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) fault(op keystoretest.Op) keystoretest.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[op.Name]++
	return keystoretest.Fault{}
}

// take returns the counts since the last time.
func (c *counter) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = nil
	return n
}

func total(n map[string]int) int {
	sum := 0
	for _, v := range n {
		sum += v
	}
	return sum
}

func TestManyKeysets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := shortPolicy()
		p.Rotate = "@every 48h"
		store := keystoretest.NewMemory()
		founder := config{store: store}.idle()
		make := func(from, to int) {
			for i := from; i < to; i++ {
				if _, err := founder.Ensure(t.Context(), fmt.Sprintf("tenant-%d", i), p, "test"); err != nil {
					t.Fatal(err)
				}
			}
		}
		calls := &counter{}
		handle := store.Share()
		handle.Fault = calls.fault
		atRest := func() int {
			settle()
			calls.take()
			time.Sleep(10 * pause)
			synctest.Wait()
			return total(calls.take())
		}
		make(0, 10)
		few := config{store: handle, workers: 8}.run(t)
		want := atRest()
		few.stop()

		make(10, 1000)
		idle := config{store: handle, workers: 8}.idle()
		if err := idle.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(idle.Names()); n != 1000 {
			t.Fatalf("one Sync loaded %d of 1000 keysets", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go idle.Run(ctx)
		defer cancel()
		if n := atRest(); n != want || n != 10 {
			t.Fatalf("10 rounds at rest take %d calls for 1000 keysets, %d for 10", n, want)
		}
	})
}

// TestOneChangeIsOneLoad: a change costs the other replicas one reading and
// the opening of the new key.
func TestOneChangeIsOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := keystoretest.NewMemory(), &counter{}
		r := config{store: store}.founded(t, shortPolicy())
		handle := store.Share()
		handle.Fault = calls.fault
		idle := config{store: handle}.idle()
		if err := idle.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		calls.take()
		r.stop()
		p := shortPolicy()
		p.TokenTTLMax++
		change(t, r, "policy", setPolicy(p))
		if err := idle.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := calls.take(); n[keystoretest.OpChanges] != 1 || n[keystoretest.OpLoad] != 1 || total(n) != 2 {
			t.Fatal(n)
		}
	})
}

// TestRunStops in the middle of everything, and leaves nothing behind: the
// bubble waits for every goroutine in it.
func TestRunStops(t *testing.T) {
	for after := range 40 {
		synctest.Test(t, func(t *testing.T) {
			store := keystoretest.NewMemory()
			handle := store.Share()
			handle.Fault = func(keystoretest.Op) keystoretest.Fault {
				return keystoretest.Fault{Delay: 300 * time.Millisecond}
			}
			founder := config{store: store}.idle()
			for i := range 5 {
				if _, err := founder.Ensure(t.Context(), fmt.Sprint("tenant-", i), shortPolicy(), "test"); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10*time.Minute + pause) // there is work
			r := config{store: handle, workers: 2}.run(t)
			time.Sleep(time.Duration(after) * 100 * time.Millisecond)
			asked := time.Now()
			r.stop()
			if took := time.Since(asked); took > 0 {
				t.Fatalf("Run took %s to stop", took)
			}
		})
	}
}

func TestRunLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 10 {
		r := config{store: keystoretest.NewMemory()}.idle()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		if _, err := r.Ensure(ctx, name, rotation.DefaultPolicy(), "test"); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-done
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}
