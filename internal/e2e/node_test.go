package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// nodeVerifiers are verifiers in a process of their own, which use npm jose.
// They answer in the order of the questions.
type nodeVerifiers struct {
	t   testing.TB
	cmd *exec.Cmd

	mu     sync.Mutex
	in     io.WriteCloser
	tokens int

	done    chan struct{} // closed when all is answered
	stderr  bytes.Buffer
	verdict tally // owned by the reader until done
}

type nodeQuestion struct {
	ID    int    `json:"id"`
	Token string `json:"token"`
	Exp   int64  `json:"exp"`
}

type nodeAnswer struct {
	ID    int    `json:"id"`
	OK    bool   `json:"ok"`
	Late  bool   `json:"late"`
	Error string `json:"error"`
}

// startNode starts count verifiers that keep a set for a time.
func startNode(t testing.TB, url string, keep time.Duration, count int) *nodeVerifiers {
	t.Helper()
	if _, err := os.Stat(filepath.Join("node", "node_modules", "jose")); err != nil {
		t.Fatal("npm jose is missing from internal/e2e/node: run make test, which installs the node modules")
	}
	n := &nodeVerifiers{t: t, done: make(chan struct{})}
	n.cmd = exec.Command("node", filepath.Join("node", "verify.mjs"), url, issuer,
		strconv.FormatInt(keep.Milliseconds(), 10), strconv.Itoa(count))
	n.cmd.Stderr = &n.stderr
	in, err := n.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatalf("starting node: %v", err)
	}
	n.in = in
	go n.read(out)
	t.Cleanup(func() {
		n.cmd.Process.Kill() // if the test failed half-way
		n.cmd.Wait()
	})
	return n
}

func (n *nodeVerifiers) read(out io.Reader) {
	defer close(n.done)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var a nodeAnswer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			n.verdict.reject(fmt.Sprintf("an answer that is no JSON: %q", lines.Text()))
			continue
		}
		switch {
		case a.OK:
			n.verdict.verified++
		case a.Late:
			n.verdict.late++
		default:
			n.verdict.reject(a.Error)
		}
	}
}

// verify hands a token over; the answer counts at the end.
func (n *nodeVerifiers) verify(token string, exp time.Time) {
	data, err := json.Marshal(nodeQuestion{Token: token, Exp: exp.Unix()})
	if err != nil {
		panic(err) // strings and numbers are always JSON
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tokens++
	if _, err := n.in.Write(append(data, '\n')); err != nil {
		n.t.Errorf("node is gone: %v", err)
	}
}

// finish waits for every answer.
func (n *nodeVerifiers) finish() *tally {
	n.t.Helper()
	n.in.Close()
	select {
	case <-n.done:
	case <-time.After(patience):
		n.t.Fatal("node does not answer")
	}
	if got := n.verdict.verified + n.verdict.late + n.verdict.rejected; got != n.tokens {
		n.t.Errorf("node answered %d of %d questions:\n%s", got, n.tokens, n.stderr.String())
	}
	return &n.verdict
}

// tally counts verdicts. Late ones say nothing: the token had expired by the
// time its turn came on a loaded machine.
type tally struct {
	verified, late, rejected int
	reasons                  []string // of the first rejections
}

func (t *tally) reject(why string) {
	t.rejected++
	if len(t.reasons) < 5 {
		t.reasons = append(t.reasons, why)
	}
}

func (t *tally) String() string {
	return fmt.Sprintf("%d verified, %d too late to say, %d rejected %v", t.verified, t.late, t.rejected, t.reasons)
}
