package rotator_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jwksd/jwksd/keystore/keystoretest"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// mortal kills a replica at its n-th call of the store: either the call is not
// made, or it takes effect and nobody hears of it. After that nothing that the
// replica does reaches the store.
type mortal struct {
	mu      sync.Mutex
	left    int
	applied bool
	dead    bool
	at      keystoretest.Op
}

func (m *mortal) fault(op keystoretest.Op) keystoretest.Fault {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return keystoretest.Fault{Outcome: keystoretest.Refused}
	}
	if op.Name == keystoretest.OpChanges { // changes nothing, and comes without end
		return keystoretest.Fault{}
	}
	if m.left--; m.left > 0 {
		return keystoretest.Fault{}
	}
	m.dead, m.at = true, op
	if m.applied {
		return keystoretest.Fault{Outcome: keystoretest.ReplyLost}
	}
	return keystoretest.Fault{Outcome: keystoretest.Refused}
}

func (m *mortal) died() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// life drives one replica, and its successor after a crash, through a script.
type life struct {
	t      *testing.T
	store  *keystoretest.Memory
	mortal *mortal
	r      *replica
	kid    string // that the operator revokes
	again  bool   // started again after the crash
}

func (l *life) start(fault func(keystoretest.Op) keystoretest.Fault) {
	handle := l.store.Share()
	handle.Fault = fault
	l.r = config{store: handle, orphanAge: 2 * time.Minute, sync: 5 * pause}.run(l.t)
	time.Sleep(time.Millisecond)
	synctest.Wait()
}

// until repeats a step until it is done, whoever must be started for it.
func (l *life) until(what string, done func() bool) {
	for range 3000 {
		if l.mortal.died() && !l.again {
			l.again = true
			l.r.stop()
			l.start(nil)
		}
		if done() {
			return
		}
		time.Sleep(2 * pause)
	}
	l.t.Fatalf("%s does not come to pass after a crash in %s", what, l.mortal.at.Name)
}

func (l *life) change(kind string, fn rotator.ChangeFunc) {
	l.until(kind, func() bool {
		_, _, err := l.r.Change(context.Background(), name, operation(kind, kind), fn)
		if err != nil && !l.mortal.died() {
			l.t.Fatalf("%s: %v", kind, err)
		}
		return err == nil
	})
}

func (l *life) active() string {
	v, err := l.r.View(name)
	if err != nil {
		return ""
	}
	k, _ := v.State.Default(time.Now())
	return k.KID
}

// turned waits until another key signs.
func (l *life) turned(what string) {
	before := l.active()
	l.until(what, func() bool { kid := l.active(); return kid != "" && kid != before })
}

// wait lets an amount of time pass.
func (l *life) wait(d time.Duration) {
	end := time.Now().Add(d)
	l.until("waiting", func() bool { return !time.Now().Before(end) })
}

func (l *life) run() {
	l.start(l.mortal.fault)
	longer := shortPolicy()
	longer.TokenTTLMax *= 2
	l.until("founding", func() bool {
		_, err := l.r.Ensure(context.Background(), name, shortPolicy(), "test")
		return err == nil
	})
	l.turned("the scheduled rotation")
	l.wait(4 * time.Minute)
	l.change("rotate", rotate(false))
	l.wait(4 * time.Minute)
	l.kid = l.active()
	l.change("revoke", revoke(l.kid))
	l.change("revoke all", revokeAll)
	l.change("policy", setPolicy(longer))
	l.turned("the flush")
	l.wait(30 * time.Minute) // what was replaced is destroyed and removed
}

// check holds the end of a life to what it was meant to be.
func (l *life) check() {
	t := l.t
	l.r.stop() // whoever starts looks for orphans, and is not told by memory what is gone
	time.Sleep(2 * time.Minute)
	l.start(nil)
	settle()
	if err := l.document(); err != nil {
		t.Error(err)
	}
	wantPrivate(t, l.store, l.r.state(t), l.r.clock.Now())
	l.r.signs(t)
	wantAlarm(t, l.r, "")
}

func (l *life) document() error {
	s, _ := stored(l.t, l.store)
	// The document remembers 64 operations, and those with a key longest.
	for _, kind := range []string{"rotate", "revoke", "revoke all", "policy"} {
		if n := count(s, kind); n != 1 {
			return fmt.Errorf("%d times %s, want once", n, kind)
		}
	}
	if !s.Revoked(l.kid) || s.Policy.TokenTTLMax != 2*shortPolicy().TokenTTLMax {
		return errors.New("a change is lost")
	}
	if max := s.Bound(s.Lanes[0]); len(s.Lanes[0].Keys) > max {
		return fmt.Errorf("%d keys, at most %d wanted", len(s.Lanes[0].Keys), max)
	}
	if err := s.Check(); err != nil {
		return err
	}
	for _, tomb := range s.Tombstones {
		if _, there := s.Key(tomb.KID); there {
			return fmt.Errorf("key %s is revoked and published", tomb.KID)
		}
	}
	return nil
}

// TestCrashAtEachStep dies at each call of the store in turn until a life ends
// before its death does.
func TestCrashAtEachStep(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied %v", applied), func(t *testing.T) {
			steps := 0
			for done := false; !done && !t.Failed(); {
				steps++
				synctest.Test(t, func(t *testing.T) {
					l := &life{t: t, store: keystoretest.NewMemory(), mortal: &mortal{left: steps, applied: applied}}
					l.run()
					done = !l.mortal.died()
					l.check()
					if t.Failed() {
						t.Logf("died at call %d, %s", steps, l.mortal.at.Name)
					}
				})
			}
			if t.Logf("%d steps", steps-1); steps < 50 {
				t.Error("too few steps: the script does not reach the store")
			}
		})
	}
}
