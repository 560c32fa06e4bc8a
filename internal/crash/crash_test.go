package crash

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/rotation"
)

// atATime is how many lives go on at a time. They mostly wait.
const atATime = 8

// TestCrashAtEachWrite dies at each write to Vault in turn, until a life ends
// before its death does. One change is several writes: the private key, the
// announcement, the document, and what is destroyed.
//
// A write that is not delivered leaves what the one before it left, if that was;
// so with custody transit only those that are delivered are tried.
func TestCrashAtEachWrite(t *testing.T) {
	v := vaulttest.Start(t)
	token := vaulttest.File(t, v.RootToken())
	mount, transit := v.KV(t), v.Transit(t)
	for _, c := range []struct {
		kind    rotation.Custody
		applied bool
	}{{rotation.CustodyLocal, false}, {rotation.CustodyLocal, true}, {rotation.CustodyTransit, true}} {
		t.Run(fmt.Sprintf("%s, applied %v", c.kind, c.applied), func(t *testing.T) {
			at := place{vault: v, token: token, mount: mount, transit: transit}
			if steps := enumerate(t, at, c.kind, c.applied); steps < 30 && !t.Failed() {
				t.Errorf("only %d writes: the script does not reach Vault", steps)
			}
		})
	}
}

// enumerate lives one life for each write there is, and returns their number.
func enumerate(t *testing.T, at place, kind rotation.Custody, applied bool) int {
	var next atomic.Int64
	var over atomic.Bool // a life ended before its death did
	var workers sync.WaitGroup
	for range atATime {
		workers.Go(func() {
			for !over.Load() && !t.Failed() {
				n, at := int(next.Add(1)), at
				at.path = fmt.Sprintf("%s/%v/%d", kind, applied, n)
				t.Run(fmt.Sprint("write ", n), func(t *testing.T) { live(t, at, kind, n, applied, &over) })
			}
		})
	}
	workers.Wait()
	return int(next.Load())
}

func live(t *testing.T, p place, kind rotation.Custody, n int, applied bool, over *atomic.Bool) {
	l := &life{t: t, place: p, kind: kind, gate: newGate(t, p.vault, n, applied), time: &forward{started: time.Now()}}
	l.run()
	if !l.gate.died() {
		over.Store(true)
	}
	l.check()
	if t.Failed() {
		at, _ := l.gate.last()
		t.Logf("died at write %d, %s", n, at)
	}
}
