package file

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jwksd/jwksd/keystore"
)

// Some tests need a second process: this same program, started again with the
// name of a part to play and a directory.
const childEnv = "JWKSD_KEYSTORE_FILE_TEST_CHILD"

func TestMain(m *testing.M) {
	syscall.Umask(0o022) // t.TempDir makes directories that the umask decides about
	part, dir, _ := strings.Cut(os.Getenv(childEnv), ":")
	var err error
	switch part {
	case "":
		os.Exit(m.Run())
	case "hold":
		err = childHold(dir)
	case "write":
		err = childWrite(dir)
	case "open":
		err = childOpen(dir)
	case "limit":
		err = childLimit(dir)
	default:
		err = fmt.Errorf("unknown part %q", part)
	}
	if err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(t *testing.T, part, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childEnv+"="+part+":"+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// childHold keeps the store open until its input ends.
func childHold(dir string) error {
	s, err := Open(Options{Dir: dir})
	if err != nil {
		return err
	}
	fmt.Println("OPEN")
	bufio.NewReader(os.Stdin).ReadString('\n')
	return s.Close()
}

func childOpen(dir string) error {
	s, err := Open(Options{Dir: dir})
	if err != nil {
		return err
	}
	return s.Close()
}

func TestLockedByProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := child(t, "hold", dir)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "OPEN\n" {
		t.Fatalf("the child says %q", line)
	}
	before := snapshot(t, dir)
	start := time.Now()
	_, err := Open(Options{Dir: dir})
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the refusal took %v", took)
	}
	if !errors.Is(err, keystore.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Open of a locked store: %v", err)
	}
	if _, statErr := os.Stat("/proc/locks"); statErr == nil && err != nil && !strings.Contains(err.Error(), fmt.Sprintf("pid %d", cmd.Process.Pid)) {
		t.Logf("the error does not name pid %d: %v", cmd.Process.Pid, err)
	}
	wantUnchanged(t, dir, before)

	// A holder that goes while we wait makes room.
	time.AfterFunc(200*time.Millisecond, func() { in.Close() })
	mustClose(t, mustOpen(t, Options{Dir: dir}))
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A scrub replaces the file. Who waited for the lock of the old file must not
// mistake it for that of the store.
func TestLockedThroughScrub(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Options{Dir: dir})
	stop := make(chan struct{})
	scrubs := 0
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			s.writer <- struct{}{}
			err := s.scrub()
			<-s.writer
			if err != nil {
				done <- err
				return
			}
			scrubs++
		}
	}()
	for range 2 {
		if other, err := Open(Options{Dir: dir}); !errors.Is(err, keystore.ErrLocked) {
			t.Errorf("Open of a locked store: %v, %v", other, err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if scrubs < 3 {
		t.Errorf("only %d scrubs went on meanwhile", scrubs)
	}
}

// Many who create the store at once: one gets it, and it works.
func TestCreateRace(t *testing.T) {
	dir := t.TempDir()
	const rivals = 6
	results := make(chan error, rivals)
	for range rivals {
		go func() {
			s, err := Open(Options{Dir: dir})
			if err == nil {
				time.Sleep(1200 * time.Millisecond)
				err = errors.Join(err, s.Close())
			}
			results <- err
		}()
	}
	won := 0
	for range rivals {
		if err := <-results; err == nil {
			won++
		} else if !errors.Is(err, keystore.ErrLocked) {
			t.Error(err)
		}
	}
	if won == 0 {
		t.Error("nobody got the store")
	}
	mustClose(t, mustOpen(t, Options{Dir: dir}))
	wantFiles(t, dir, "identity.txt", "jwksd.db")
}

var killKeysets = []string{"a", "b", "c"}

// childWrite changes the store until it is killed, and reports each change:
// before it is made with a small letter where the test must know, and when it
// was acknowledged with a capital.
func childWrite(dir string) error {
	ctx := context.Background()
	s, err := Open(Options{Dir: dir, ScrubInterval: 3 * time.Millisecond})
	if err != nil {
		return err
	}
	versions, counts := make(map[string]keystore.Version), make(map[string]int)
	for _, keyset := range killKeysets {
		doc, err := s.Load(ctx, keyset)
		if err == nil {
			n := 0
			fmt.Sscan(string(doc.Data), &n)
			versions[keyset], counts[keyset] = doc.Version, n
		} else if !errors.Is(err, keystore.ErrNotFound) {
			return err
		}
	}
	fmt.Println("READY")
	var kids [][2]string
	for {
		keyset := killKeysets[mrand.IntN(len(killKeysets))]
		switch mrand.IntN(3) {
		case 0:
			counts[keyset]++
			data := fmt.Appendf(nil, "%d %s", counts[keyset], strings.Repeat("x", mrand.IntN(9000)))
			if versions[keyset], err = s.Swap(ctx, keyset, versions[keyset], data); err != nil {
				return err
			}
			fmt.Println("S", keyset, counts[keyset], versions[keyset])
		case 1:
			kid := rand.Text()
			if err := s.CreateKey(ctx, keyset, kid, secretOf(kid)); err != nil {
				return err
			}
			fmt.Println("C", keyset, kid)
			kids = append(kids, [2]string{keyset, kid})
		case 2:
			if len(kids) == 0 {
				continue
			}
			k := kids[0]
			kids = kids[1:]
			fmt.Println("d", k[0], k[1])
			if err := s.DestroyKey(ctx, k[0], k[1]); err != nil {
				return err
			}
			fmt.Println("D", k[0], k[1])
		}
	}
}

func secretOf(kid string) []byte {
	h := sha256.Sum256([]byte(kid))
	return bytes.Repeat(h[:], 20)
}

// ledger is what the killed children said.
type ledger struct {
	count   map[string]int
	version map[string]string
	keys    map[[2]string]byte // C, d or D
}

func (l *ledger) read(t *testing.T, line string) {
	w := strings.Fields(line)
	switch {
	case len(w) == 4 && w[0] == "S":
		n := 0
		fmt.Sscan(w[2], &n)
		l.count[w[1]], l.version[w[1]] = n, w[3]
	case len(w) == 3 && strings.Contains("CdD", w[0]):
		l.keys[[2]string{w[1], w[2]}] = w[0][0]
	default:
		t.Errorf("the child says %q", line)
	}
}

func TestKilled(t *testing.T) {
	kills := 40
	if testing.Short() {
		kills = 5
	}
	dir := t.TempDir()
	l := &ledger{map[string]int{}, map[string]string{}, map[[2]string]byte{}}
	changes, scrubbing := 0, 0
	for range kills {
		cmd := child(t, "write", dir)
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if line, _ := lines.ReadString('\n'); line != "READY\n" {
			rest, _ := lines.ReadString('\n')
			t.Fatalf("the child says %q %q", line, rest)
		}
		time.AfterFunc(time.Duration(mrand.IntN(80_000))*time.Microsecond, func() { cmd.Process.Kill() })
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // what follows the last newline was not acknowledged
			}
			l.read(t, line)
			changes++
		}
		cmd.Wait()
		if entries, _ := os.ReadDir(dir); len(entries) > 2 {
			scrubbing++
		}
		l.check(t, dir)
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d kills, %d of them while scrubbing, after %d reported changes", kills, scrubbing, changes)
	if changes < kills {
		t.Errorf("only %d changes were reported: this tested nothing", changes)
	}
}

// check opens the store and compares it with what was acknowledged.
func (l *ledger) check(t *testing.T, dir string) {
	t.Helper()
	ctx := t.Context()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, keyset := range killKeysets {
		doc, err := s.Load(ctx, keyset)
		if errors.Is(err, keystore.ErrNotFound) && l.count[keyset] == 0 {
			continue
		}
		n := 0
		fmt.Sscan(string(doc.Data), &n)
		switch {
		case err != nil:
			t.Error(err)
		case n == l.count[keyset] && l.version[keyset] != "" && string(doc.Version) != l.version[keyset]:
			t.Errorf("document %s is at %s, acknowledged was %s", keyset, doc.Version, l.version[keyset])
		case n == l.count[keyset]+1: // written, killed before it could say so
			l.count[keyset], l.version[keyset] = n, string(doc.Version)
		case n != l.count[keyset]:
			t.Errorf("document %s says %d, acknowledged was %d", keyset, n, l.count[keyset])
		}
	}
	listed := make(map[[2]string]bool)
	for _, keyset := range killKeysets {
		list, err := s.ListKeys(ctx, keyset)
		if err != nil {
			t.Error(err)
		}
		for _, info := range list {
			listed[[2]string{keyset, info.KID}] = true
			if got, err := s.ReadKey(ctx, keyset, info.KID); err != nil || !bytes.Equal(got, secretOf(info.KID)) {
				t.Errorf("key %s: wrong content, %v", info.KID, err)
			}
		}
	}
	for k, state := range l.keys {
		if state == 'C' && !listed[k] {
			t.Errorf("key %s was acknowledged and is gone", k)
		}
		if state == 'D' && listed[k] {
			t.Errorf("key %s was destroyed and is back", k)
		}
	}
}

// childLimit fills the store up to a limit of the size of files. Go's runtime
// leaves SIGXFSZ to us, and ignoring it makes the write fail with EFBIG.
func childLimit(dir string) error {
	signal.Ignore(unix.SIGXFSZ)
	s, err := Open(Options{Dir: dir})
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	soft := limit
	soft.Cur = 512 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &soft); err != nil {
		return err
	}
	return fillUp(s, func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit) })
}

// fillUp writes until there is no more room, makes room, and goes on.
func fillUp(s *Store, makeRoom func() error) error {
	ctx := context.Background()
	written := 0
	var v keystore.Version
	var full error
	secret := func(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 8000) }
	for full == nil {
		if written > 2000 {
			return errors.New("it does not get full")
		}
		if full = s.CreateKey(ctx, "a", fmt.Sprint(written), secret(written)); full != nil {
			break
		}
		written++
		next, err := s.Swap(ctx, "a", v, fmt.Append(nil, written))
		if full = err; err == nil {
			v = next
		}
	}
	fmt.Println(full)
	if !errors.Is(full, keystore.ErrNotWritten) {
		return fmt.Errorf("the error does not say that nothing was written: %w", full)
	}
	if !strings.Contains(full.Error(), s.path) || !strings.Contains(full.Error(), "what was stored before is safe") {
		return fmt.Errorf("the error does not help: %w", full)
	}
	check := func(when string) error {
		for i := range written {
			if got, err := s.ReadKey(ctx, "a", fmt.Sprint(i)); err != nil || !bytes.Equal(got, secret(i)) {
				return fmt.Errorf("%s: key %d: %w", when, i, err)
			}
		}
		if doc, err := s.Load(ctx, "a"); err != nil || doc.Version != v {
			return fmt.Errorf("%s: the document is at %q, not %q: %w", when, doc.Version, v, err)
		}
		return nil
	}
	for range 3 { // again and again
		if err := s.CreateKey(ctx, "a", "more", bytes.Repeat([]byte("m"), 200_000)); err == nil {
			return errors.New("it was not full")
		}
		if err := check("while full"); err != nil {
			return err
		}
	}
	if err := makeRoom(); err != nil {
		return err
	}
	if err := s.CreateKey(ctx, "a", "more", bytes.Repeat([]byte("m"), 200_000)); err != nil {
		return fmt.Errorf("after room was made: %w", err)
	}
	next, err := s.Swap(ctx, "a", v, []byte("after"))
	if err != nil {
		return fmt.Errorf("after room was made: %w", err)
	}
	v = next
	if err := s.DestroyKey(ctx, "a", "more"); err != nil {
		return fmt.Errorf("after room was made: %w", err)
	}
	if err := check("after"); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	again, err := Open(Options{Dir: s.dir})
	if err != nil {
		return err
	}
	s = again
	defer s.Close()
	return check("after reopening")
}

// The lock of a file that lost its name to another is worth nothing.
func TestLockOfReplacedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tryLock(f, path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path+"2", nil, 0o600), os.Rename(path+"2", path)); err != nil {
		t.Fatal(err)
	}
	if err := tryLock(f, path); !errors.Is(err, keystore.ErrLocked) {
		t.Errorf("the lock of a replaced file: %v, want ErrLocked", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := tryLock(f, path); !errors.Is(err, keystore.ErrLocked) {
		t.Errorf("the lock of a removed file: %v, want ErrLocked", err)
	}
}
