package migrate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/internal/migrate"
	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/keystore"
	"github.com/jwksd/jwksd/keystore/file"
	"github.com/jwksd/jwksd/keystore/vault"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// lived is a file store with two keysets that have a past: rotations, a revoked
// key, and a private key that no document names.
func lived(t *testing.T) *file.Store {
	t.Helper()
	s := must(file.Open(file.Options{Dir: t.TempDir()}))(t)
	t.Cleanup(func() { s.Close() })
	r := rotator.New(rotator.Options{Documents: s, Custody: custody.Local{Keys: s}, Clock: clock.New(clock.System())})
	force := func(st rotation.State, now time.Time, _ []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		next, _, err := st.Promote(nil, true, now, op)
		return next, err
	}
	revoke := func(st rotation.State, now time.Time, fresh []rotation.NewKey, op rotation.Operation) (rotation.State, error) {
		k, _ := st.Default(now)
		next, _, err := st.Revoke(k.KID, now, fresh, op)
		return next, err
	}
	for name, algs := range map[string][]string{"one": {"ES256", "EdDSA"}, "two": {"EdDSA"}} {
		p := rotation.DefaultPolicy()
		p.Algorithms = algs
		must(r.Ensure(t.Context(), name, p, "test"))(t)
		for _, fn := range []rotator.ChangeFunc{force, revoke} { // the revoke makes the key that is missing
			if _, _, err := r.Change(t.Context(), name, rotation.Operation{Kind: "test"}, fn); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.CreateKey(t.Context(), "one", "orphan", []byte("never named")); err != nil {
		t.Fatal(err)
	}
	return s
}

// space is a path of its own in a mount that the tests of a function share.
func space(t *testing.T, v *vaulttest.Vault, mount, path string) *vault.Store {
	t.Helper()
	c := must(vault.NewClient(vault.Config{Addresses: v.Addresses(), Timeout: 20 * time.Second, Auth: vault.Auth{TokenFile: vaulttest.File(t, v.RootToken())}}))(t)
	t.Cleanup(func() { c.Close() })
	s := must(vault.NewStore(c, vault.Options{Mount: mount, Path: path}))(t)
	t.Cleanup(func() { s.Close() })
	return s
}

func options(from migrate.Source, to migrate.Target) migrate.Options {
	return migrate.Options{Source: from, Target: to, Now: time.Now}
}

// same holds the target to what the source has, and to nothing more.
func same(t *testing.T, from *file.Store, to *vault.Store) {
	t.Helper()
	for _, name := range []string{"one", "two"} {
		want, got := must(from.Load(t.Context(), name))(t), must(to.Load(t.Context(), name))(t)
		if !bytes.Equal(want.Data, got.Data) {
			t.Errorf("the document of %s is another one:\n%s\nwant\n%s", name, got.Data, want.Data)
		}
		s := must(rotation.Decode(got.Data))(t)
		var needed []string
		for k := range s.Keys {
			needed = append(needed, k.KID)
			must(custody.Local{Keys: to}.Open(t.Context(), name, k))(t)
		}
		slices.Sort(needed)
		if kept := kids(t, to, name); !slices.Equal(kept, needed) {
			t.Errorf("private keys %v, want %v", kept, needed)
		}
	}
}

func kids(t *testing.T, s custody.PrivateKeys, keyset string) []string {
	t.Helper()
	var list []string
	for _, info := range must(s.ListKeys(t.Context(), keyset))(t) {
		list = append(list, info.KID)
	}
	slices.Sort(list)
	return list
}

func TestMigrateMovesEverythingOnce(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	from, to := lived(t), space(t, v, v.KV(t), "jwksd")
	dry := options(from, to)
	dry.DryRun = true
	plan := must(migrate.Run(t.Context(), dry))(t)
	if len(plan) != 2 || plan[0].Keyset != "one" || plan[0].Keys < 3 || plan[0].Done {
		t.Errorf("dry run: %+v", plan)
	}
	if _, err := to.Load(t.Context(), "one"); !errors.Is(err, keystore.ErrNotFound) || len(kids(t, to, "one")) > 0 {
		t.Errorf("the dry run wrote: %v", err)
	}
	for _, again := range []bool{false, true} {
		done := must(migrate.Run(t.Context(), options(from, to)))(t)
		if len(done) != 2 || done[0].Done != again || done[1].Done != again || done[0].Keys != plan[0].Keys {
			t.Errorf("again %v: %+v", again, done)
		}
		same(t, from, to)
	}
}

var errDied = errors.New("died")

// mortal is a target whose n-th write is the last thing that happens: either it
// is not made, or nobody hears that it was.
type mortal struct {
	*vault.Store
	left    int
	applied bool
	dead    bool
}

func (m *mortal) write(do func() error) error {
	if m.left--; m.dead || m.left == 0 && !m.applied {
		m.dead = true
		return errDied
	}
	err := do()
	if m.left == 0 {
		m.dead = true
		return errDied
	}
	return err
}

func (m *mortal) CreateKey(ctx context.Context, keyset, kid string, secret []byte) error {
	return m.write(func() error { return m.Store.CreateKey(ctx, keyset, kid, secret) })
}

func (m *mortal) Swap(ctx context.Context, keyset string, old keystore.Version, data []byte) (v keystore.Version, err error) {
	err = m.write(func() error { v, err = m.Store.Swap(ctx, keyset, old, data); return err })
	return v, err
}

func (m *mortal) Load(ctx context.Context, keyset string) (keystore.Document, error) {
	if m.dead {
		return keystore.Document{}, errDied
	}
	return m.Store.Load(ctx, keyset)
}

func TestMigrateGoesOnAfterACrashAtEachWrite(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	mount, from := v.KV(t), lived(t)
	for _, applied := range []bool{false, true} {
		steps := 0
		for done := false; !done; steps++ {
			to := space(t, v, mount, fmt.Sprintf("%v/%d", applied, steps))
			_, err := migrate.Run(t.Context(), options(from, &mortal{Store: to, left: steps + 1, applied: applied}))
			if done = err == nil; !done && !errors.Is(err, errDied) {
				t.Fatal(err)
			}
			for _, name := range []string{"one", "two"} { // whatever stands there finds its keys
				if doc, err := to.Load(t.Context(), name); err == nil {
					s := must(rotation.Decode(doc.Data))(t)
					for k := range s.Keys {
						must(custody.Local{Keys: to}.Open(t.Context(), name, k))(t)
					}
				}
			}
			must(migrate.Run(t.Context(), options(from, to)))(t)
			same(t, from, to)
		}
		if steps < 7 {
			t.Errorf("only %d steps", steps)
		}
	}
}

// A target that went its own way is left as it is, all of it.
func TestMigrateRefusesAnotherDocument(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	from, to := lived(t), space(t, v, v.KV(t), "jwksd")
	other := must(lived(t).Load(t.Context(), "two"))(t)
	must(to.Swap(t.Context(), "two", "", other.Data))(t)
	_, err := migrate.Run(t.Context(), options(from, to))
	if !errors.Is(err, migrate.ErrDiffers) || !strings.Contains(err.Error(), "keyset two") {
		t.Errorf("another document: %v", err)
	}
	if list := kids(t, to, "one"); len(list) > 0 {
		t.Errorf("written before the refusal: %v", list)
	}
}

// A private half that was lost before holds nothing up; one that another secret
// stands in the place of does.
func TestMigrateLostAndForeignKeys(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	from, mount := lived(t), v.KV(t)
	s := must(rotation.Decode(must(from.Load(t.Context(), "two"))(t).Data))(t)
	var all []rotation.Key
	for k := range s.Keys {
		all = append(all, k)
	}
	blocked := space(t, v, mount, "blocked")
	if err := blocked.CreateKey(t.Context(), "two", all[0].KID, []byte("not it")); err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.Run(t.Context(), options(from, blocked)); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("a foreign key in the target: %v", err)
	}
	if err := from.DestroyKey(t.Context(), "two", all[0].KID); err != nil {
		t.Fatal(err)
	}
	to := space(t, v, mount, "jwksd")
	done := must(migrate.Run(t.Context(), options(from, to)))(t)
	if !slices.Equal(done[1].Lost, []string{all[0].KID}) || done[1].Keys != len(all)-1 {
		t.Errorf("%+v", done)
	}
}

func TestMark(t *testing.T) {
	dir := t.TempDir()
	if err := migrate.CheckMark(dir); err != nil {
		t.Fatal(err)
	}
	if err := migrate.CheckMark(filepath.Join(dir, "missing")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := migrate.Mark(dir, "there", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)); err != nil {
			t.Fatal(err)
		}
		if err := migrate.CheckMark(dir); err == nil || !strings.Contains(err.Error(), "migrated to there on 2026-01-02T03:04:05Z") {
			t.Errorf("the mark says %v", err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files", len(left))
	}
}
