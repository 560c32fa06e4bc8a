package vault

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/keystore"
)

// One cluster serves these tests in turn: it takes seconds to make.
func TestCluster(t *testing.T) {
	t.Parallel()
	v := vaulttest.Cluster(t, 3)
	t.Run("C63RestoredBackup", func(t *testing.T) { testRestore(t, v) })
	t.Run("FailOver", func(t *testing.T) { testFailOver(t, v) })
	t.Run("C64NoActiveNode", func(t *testing.T) { testNoActiveNode(t, v) })
}

func testFailOver(t *testing.T, v *vaulttest.Vault) {
	mount := v.KV(t)
	s := mustStore(t, connect(t, v), Options{Mount: mount})
	mustSwap(t, s, "k", "", "0")
	_, cursor := mustChanges(t, s, "")
	ctx := within(t, 90*time.Second)
	var sure, maybe atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		w := mustStore(t, connect(t, v), Options{Mount: mount})
		wg.Go(func() { count(ctx, t, w, stop, &sure, &maybe) })
	}
	for _, upset := range []func(){
		func() { v.Leader(t).StepDown(t) },
		func() { n := v.Leader(t); n.Kill(t); v.Leader(t); n.Restart(t) },
		func() { n := v.Leader(t); n.Seal(t); v.Leader(t); n.Unseal(t) },
	} {
		before := sure.Load()
		upset()
		for sure.Load() < before+5 && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	close(stop)
	wg.Wait()
	doc, err := s.Load(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.ParseInt(string(doc.Data), 10, 64)
	t.Logf("%d increments were confirmed, %d were not, and the document says %d", sure.Load(), maybe.Load(), n)
	if n < sure.Load() || n > sure.Load()+maybe.Load() {
		t.Errorf("%d increments were confirmed, %d were not, and the document says %d", sure.Load(), maybe.Load(), n)
	}
	if changed, _ := mustChanges(t, s, cursor); !slices.Contains(changed, "k") {
		t.Errorf("changed is %q", changed)
	}
}

// count increments the number in k until told to stop.
func count(ctx context.Context, t *testing.T, s *Store, stop chan struct{}, sure, maybe *atomic.Int64) {
	for ctx.Err() == nil {
		select {
		case <-stop:
			return
		default:
		}
		doc, err := s.Load(ctx, "k")
		if err != nil {
			continue
		}
		n, _ := strconv.Atoi(string(doc.Data))
		switch _, err = s.Swap(ctx, "k", doc.Version, []byte(strconv.Itoa(n+1))); {
		case err == nil:
			sure.Add(1)
		case !errors.Is(err, keystore.ErrConflict):
			t.Log(err)
			maybe.Add(1)
		}
	}
}

func testNoActiveNode(t *testing.T, v *vaulttest.Vault) {
	mount := v.KV(t)
	s := mustStore(t, connect(t, v), Options{Mount: mount})
	version := mustSwap(t, s, "k", "", "1")
	leader := v.Leader(t)
	var other *vaulttest.Node
	for _, n := range v.Nodes {
		if n != leader {
			other = n
		}
	}
	leader.Kill(t)
	other.Kill(t)
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && !errors.Is(err, ErrStandby); {
		_, err = s.Load(t.Context(), "k")
		if err == nil {
			t.Fatal("one node of three answers")
		}
		wantLine(t, err, nil)
		s.client.current.Store(int32(slices.IndexFunc(v.Nodes, func(n *vaulttest.Node) bool { return n.Running() })))
	}
	wantLine(t, err, ErrStandby)
	_, err = s.Swap(t.Context(), "k", version, []byte("2"))
	wantLine(t, err, nil)
	leader.Restart(t)
	other.Restart(t)
	if doc, err := s.Load(within(t, 30*time.Second), "k"); err != nil || doc.Version != version {
		t.Errorf("healed: %+v, %v", doc, err)
	}
}

// A snapshot that is restored takes counters back; nothing from before it fits,
// and whoever follows the changes is told everything.
func testRestore(t *testing.T, v *vaulttest.Vault) {
	mount := v.KV(t)
	s := mustStore(t, connect(t, v), Options{Mount: mount})
	one := mustSwap(t, s, "k", "", "1")
	mustSwap(t, s, "other", "", "1")
	_, early := mustChanges(t, s, "")
	snapshot := v.Snapshot(t)
	two := mustSwap(t, s, "k", one, "2")
	_, late := mustChanges(t, s, early)

	v.Restore(t, snapshot)
	soon(t, func() bool { return s.Check(t.Context()) == nil })
	if changed, _ := mustChanges(t, s, late); !slices.Contains(changed, "other") || !slices.Contains(changed, "k") {
		t.Errorf("after the restore changed is %q, want all", changed)
	}
	if doc, err := s.Load(t.Context(), "k"); err != nil || doc.Version != one {
		t.Errorf("after the restore the document is %+v (%v)", doc, err)
	}
	// The counter comes to where it was, on another path.
	again := mustSwap(t, s, "k", one, "2 again")
	if again == two {
		t.Errorf("version %s came twice", again)
	}
	if _, err := s.Swap(t.Context(), "k", two, []byte("3")); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("a version from before the restore fits: %v", err)
	}
	if changed, _ := mustChanges(t, s, late); !slices.Contains(changed, "other") {
		t.Errorf("a place from before the restore gives only %q", changed)
	}
	if changed, _ := mustChanges(t, s, early); !slices.Equal(changed, []string{"k"}) {
		t.Errorf("a place that both histories share gives %q", changed)
	}
}
