package rotator_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// nextSwap makes one fault of a swap to come.
type nextSwap struct {
	fault atomic.Pointer[keystoretest.Fault]
	skip  atomic.Int64
}

func (n *nextSwap) arm(f keystoretest.Fault) { n.armNth(f, 0) }

func (n *nextSwap) armNth(f keystoretest.Fault, skip int) {
	n.skip.Store(int64(skip))
	n.fault.Store(&f)
}

func (n *nextSwap) hook(op keystoretest.Op) keystoretest.Fault {
	if op.Name == keystoretest.OpSwap && n.fault.Load() != nil && n.skip.Add(-1) < 0 {
		if f := n.fault.Swap(nil); f != nil {
			return *f
		}
	}
	return keystoretest.Fault{}
}

// outcomes are the ways in which a write can go wrong, and whether the writer
// can know at once that it was applied.
var outcomes = []struct {
	name    string
	fault   keystoretest.Fault
	applied bool
}{
	{"reply lost", keystoretest.Fault{Outcome: keystoretest.ReplyLost}, true},
	{"repeated and met itself", keystoretest.Fault{Outcome: keystoretest.ReplyLost, Err: keystore.ErrConflict}, true},
	{"refused", keystoretest.Fault{Outcome: keystoretest.Refused}, false},
	{"applied late", keystoretest.Fault{Outcome: keystoretest.AppliedLate, Late: 3 * time.Second}, false},
}

// faulty is a replica whose next swap can fail.
func faulty(t *testing.T) (*replica, *keystoretest.Memory, *nextSwap) {
	store, fault := keystoretest.NewMemory(), &nextSwap{}
	handle := store.Share()
	handle.Fault = fault.hook
	return config{store: handle, orphanAge: time.Hour}.run(t), store, fault
}

func TestC61FoundingWhoseWriteFails(t *testing.T) {
	for _, o := range outcomes {
		t.Run(o.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store, fault := faulty(t)
				fault.arm(o.fault)
				written, err := r.Ensure(t.Context(), name, shortPolicy(), "test")
				if written != o.applied || (err == nil) != o.applied {
					t.Fatalf("Ensure = %v, %v", written, err)
				}
				if err != nil && !errors.Is(err, rotator.ErrUnconfirmed) {
					t.Fatal(err)
				}
				settle()
				ensure(t, r, shortPolicy())
				settle()
				s := r.state(t)
				if s.Generation != 1 || s.Sequence != 2 {
					t.Fatalf("generation %d with %d keys", s.Generation, s.Sequence)
				}
				r.signs(t)
				wantPrivate(t, store, s, r.clock.Now())
			})
		})
	}
}

// TestC61AdvanceWhoseWriteFails fails each write that follows a scheduled
// switch in turn.
func TestC61AdvanceWhoseWriteFails(t *testing.T) {
	for _, o := range outcomes {
		for nth := range 3 {
			t.Run(fmt.Sprintf("%s %d", o.name, nth+1), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, store, fault := faulty(t)
					ensure(t, r, shortPolicy())
					settle()
					next := standby(t, r.state(t), r.clock.Now())
					sleepUntil(next.ActivateAt.Add(-pause / 2))
					fault.armNth(o.fault, nth)
					time.Sleep(20 * time.Second)
					settle()
					s := r.state(t)
					if k := standby(t, s, r.clock.Now()); s.Sequence != 3 || k.Sequence != 3 || !k.ActivateAt.Equal(next.ActivateAt.Add(10*time.Minute)) {
						t.Fatalf("%d keys, standby %+v", s.Sequence, k)
					}
					if r.signs(t) != next.KID {
						t.Fatal("no switch")
					}
					wantPrivate(t, store, s, r.clock.Now())
					if nth < 2 && fault.fault.Load() != nil {
						t.Fatal("there were fewer writes")
					}
					wantAlarm(t, r, "")
				})
			})
		}
	}
}

func TestC61ChangeWhoseWriteFails(t *testing.T) {
	longer := shortPolicy()
	longer.TokenTTLMax *= 2
	kinds := map[string]func(r *replica) rotator.ChangeFunc{
		"rotate":     func(*replica) rotator.ChangeFunc { return rotate(false) },
		"revoke":     func(r *replica) rotator.ChangeFunc { return revoke(r.signs(t)) },
		"revoke all": func(*replica) rotator.ChangeFunc { return revokeAll },
		"policy":     func(*replica) rotator.ChangeFunc { return setPolicy(longer) },
	}
	for kind, fn := range kinds {
		for _, o := range outcomes {
			for _, key := range []string{"", "key"} {
				t.Run(kind+" "+o.name+" "+key, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testChangeFails(t, kind, key, fn, o.fault, o.applied) })
				})
			}
		}
	}
}

func testChangeFails(t *testing.T, kind, key string, fn func(*replica) rotator.ChangeFunc, f keystoretest.Fault, applied bool) {
	r, store, fault := faulty(t)
	ensure(t, r, shortPolicy())
	settle()
	before, do := r.state(t), fn(r)
	fault.arm(f)
	op, replayed, err := r.Change(t.Context(), name, operation(kind, key), do)
	if (err == nil) != applied || replayed {
		t.Fatalf("Change = %v, %v", replayed, err)
	}
	if err != nil && !errors.Is(err, rotator.ErrUnconfirmed) {
		t.Fatal(err)
	}
	settle()
	if key != "" { // the caller asks again until there is an answer
		again, replayed, err := r.Change(t.Context(), name, operation(kind, key), do)
		if late := f.Outcome == keystoretest.AppliedLate; err != nil || replayed != (applied || late) {
			t.Fatalf("again: %v, %v", replayed, err)
		}
		if applied && (again.ID != op.ID || string(again.Result) != string(op.Result)) {
			t.Fatalf("again: %+v, want %+v", again, op)
		}
		settle()
	}
	want := 0
	if applied || key != "" || f.Outcome == keystoretest.AppliedLate {
		want = 1
	}
	s := r.state(t)
	if got := count(s, kind); got != want {
		t.Fatalf("%d effects, want %d", got, want)
	}
	if applied && op.Generation != before.Generation+1 {
		t.Fatalf("the answer %+v does not follow generation %d", op, before.Generation)
	}
	r.signs(t)
	time.Sleep(10 * time.Minute) // a key made for a write that may land stays until the next one
	settle()
	wantPrivate(t, store, r.state(t), r.clock.Now())
	wantAlarm(t, r, "")
}

// TestC61ConflictThatCannotBeRead: the answer is a conflict, perhaps with our
// own first try, and the document cannot be read just then.
func TestC61ConflictThatCannotBeRead(t *testing.T) {
	for reads, want := range map[int]error{1: nil, 2: rotator.ErrUnconfirmed} {
		synctest.Test(t, func(t *testing.T) {
			store := keystoretest.NewMemory()
			config{store: store}.founded(t, shortPolicy()).stop()
			handle, left := store.Share(), 0
			handle.Fault = func(op keystoretest.Op) keystoretest.Fault {
				switch {
				case op.Name == keystoretest.OpSwap:
					left = reads
					return keystoretest.Fault{Outcome: keystoretest.ReplyLost, Err: keystore.ErrConflict}
				case op.Name == keystoretest.OpLoad && left > 0:
					left--
					return keystoretest.Fault{Outcome: keystoretest.Refused}
				}
				return keystoretest.Fault{}
			}
			r := config{store: handle}.idle()
			if err := r.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, replayed, err := r.Change(t.Context(), name, operation("rotate", ""), rotate(true))
			if !errors.Is(err, want) || replayed {
				t.Fatalf("after %d failed readings: %v, %v", reads, replayed, err)
			}
			if s, _ := stored(t, store); count(s, "rotate") != 1 {
				t.Fatalf("%d rotations", count(s, "rotate"))
			}
		})
	}
}

// TestC61ManyKeyedChanges: as many requests with idempotency keys as the
// document remembers must not make a failed write look like a success.
func TestC61ManyKeyedChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, fault := faulty(t)
		p := shortPolicy()
		ensure(t, r, p)
		settle()
		for i := range 80 {
			p.VerifierLeeway = rotation.Duration(time.Duration(i+1) * time.Millisecond)
			if _, _, err := r.Change(t.Context(), name, operation("policy", fmt.Sprint(i)), setPolicy(p)); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		p.VerifierLeeway = 0
		fault.arm(keystoretest.Fault{Outcome: keystoretest.Refused})
		if _, _, err := r.Change(t.Context(), name, operation("policy", ""), setPolicy(p)); !errors.Is(err, rotator.ErrUnconfirmed) {
			t.Fatalf("a change that was not written: %v", err)
		}
	})
}
