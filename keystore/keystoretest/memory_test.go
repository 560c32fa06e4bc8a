package keystoretest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/keystoretest"
)

type reopenable struct{ *keystoretest.Memory }

func (r reopenable) Reopen(*testing.T) keystoretest.Store { return reopenable{r.Share()} }

func TestMemory(t *testing.T) {
	keystoretest.Run(t, func(*testing.T) keystoretest.Store { return reopenable{keystoretest.NewMemory()} })
}

// faulty returns two handles on one store; the first has the fault for writes.
func faulty(f keystoretest.Fault) (bad, good *keystoretest.Memory) {
	good = keystoretest.NewMemory()
	bad = good.Share()
	bad.Fault = func(op keystoretest.Op) keystoretest.Fault {
		if op.Write() {
			return f
		}
		return keystoretest.Fault{}
	}
	return bad, good
}

func TestRefused(t *testing.T) {
	ctx, mine := t.Context(), errors.New("mine")
	bad, good := faulty(keystoretest.Fault{Outcome: keystoretest.Refused, Err: mine})
	if _, err := bad.Swap(ctx, "a", "", []byte("x")); !errors.Is(err, mine) {
		t.Fatal(err)
	}
	if _, err := good.Load(ctx, "a"); !errors.Is(err, keystore.ErrNotFound) {
		t.Fatalf("a refused swap was applied: %v", err)
	}
}

func TestReplyLost(t *testing.T) {
	ctx := t.Context()
	bad, good := faulty(keystoretest.Fault{Outcome: keystoretest.ReplyLost})
	v, err := bad.Swap(ctx, "a", "", []byte("x"))
	if !errors.Is(err, keystoretest.ErrUnavailable) || v != "" {
		t.Fatal(v, err)
	}
	if doc, err := good.Load(ctx, "a"); err != nil || string(doc.Data) != "x" {
		t.Fatalf("a swap without reply was not applied: %q, %v", doc.Data, err)
	}
	if err := bad.CreateKey(ctx, "a", "k", []byte("s")); !errors.Is(err, keystoretest.ErrUnavailable) {
		t.Fatal(err)
	}
	if err := good.CreateKey(ctx, "a", "k", []byte("s")); err != nil {
		t.Fatal(err)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := faulty(keystoretest.Fault{Delay: time.Hour})
		start := time.Now()
		if _, err := bad.Swap(t.Context(), "a", "", nil); err != nil || time.Since(start) != time.Hour {
			t.Fatal(err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := bad.Swap(ctx, "b", "", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Hour+time.Minute {
			t.Fatalf("an ended context was noticed after %v", took)
		}
		if _, err := good.Load(t.Context(), "b"); !errors.Is(err, keystore.ErrNotFound) {
			t.Fatal(err)
		}
	})
}

func TestAppliedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		bad, good := faulty(keystoretest.Fault{Outcome: keystoretest.AppliedLate, Delay: time.Second, Late: time.Minute})
		content := []byte("late")
		for _, keyset := range []string{"free", "taken"} {
			if _, err := bad.Swap(ctx, keyset, "", content); !errors.Is(err, keystoretest.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		clear(content) // the store has its own copy
		if _, err := good.Load(ctx, "free"); !errors.Is(err, keystore.ErrNotFound) {
			t.Fatalf("applied early: %v", err)
		}
		if _, err := good.Swap(ctx, "taken", "", []byte("first")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if doc, err := good.Load(ctx, "free"); err != nil || string(doc.Data) != "late" {
			t.Fatalf("not applied: %q, %v", doc.Data, err)
		}
		if doc, err := good.Load(ctx, "taken"); err != nil || string(doc.Data) != "first" {
			t.Fatalf("a late swap overwrote: %q, %v", doc.Data, err)
		}
	})
}

func TestHookSeesCalls(t *testing.T) {
	ctx, m := t.Context(), keystoretest.NewMemory()
	var ops []keystoretest.Op
	m.Fault = func(op keystoretest.Op) keystoretest.Fault {
		ops = append(ops, op)
		return keystoretest.Fault{}
	}
	m.Changes(ctx, "")
	m.CreateKey(ctx, "a", "k", nil)
	want := []keystoretest.Op{{Name: keystoretest.OpChanges, N: 1}, {Name: keystoretest.OpCreateKey, N: 2, Keyset: "a", KID: "k"}}
	if len(ops) != 2 || ops[0] != want[0] || ops[1] != want[1] {
		t.Fatalf("the hook saw %v, want %v", ops, want)
	}
}

func TestBackup(t *testing.T) {
	ctx, m := t.Context(), keystoretest.NewMemory()
	v1, _ := m.Swap(ctx, "a", "", []byte("1"))
	restore := m.Backup()
	v2, _ := m.Swap(ctx, "a", v1, []byte("2"))
	_, cursor, _ := m.Changes(ctx, "")
	restore()
	if doc, err := m.Load(ctx, "a"); err != nil || doc.Version != v1 {
		t.Fatal(doc, err)
	}
	if changed, _, _ := m.Changes(ctx, cursor); len(changed) != 1 {
		t.Fatalf("a cursor survived the restoration: %v", changed)
	}
	if v3, err := m.Swap(ctx, "a", v1, []byte("3")); err != nil || v3 == v2 {
		t.Fatalf("version %q repeats: %v", v3, err)
	}
	m.Drop("a")
	if _, err := m.Load(ctx, "a"); !errors.Is(err, keystore.ErrNotFound) {
		t.Fatal(err)
	}
}
