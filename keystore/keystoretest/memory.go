package keystoretest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// The operations of a store, as a fault hook sees them.
const (
	OpLoad       = "load"
	OpSwap       = "swap"
	OpChanges    = "changes"
	OpCreateKey  = "create key"
	OpReadKey    = "read key"
	OpDestroyKey = "destroy key"
	OpListKeys   = "list keys"
)

// Op is one call of a store, before it does anything.
type Op struct {
	Name   string // OpLoad …
	N      int    // the number of the call on this handle, from 1
	Keyset string // empty for OpChanges
	KID    string // for the operations on one key
}

// Write says whether the operation changes anything.
func (o Op) Write() bool {
	return o.Name == OpSwap || o.Name == OpCreateKey || o.Name == OpDestroyKey
}

// Outcome is what becomes of a faulty call.
type Outcome int

const (
	// Normal: the call does its work.
	Normal Outcome = iota
	// Refused: the call fails and has no effect, now or later.
	Refused
	// ReplyLost: the call has its effect, but fails. If it would have failed
	// anyway, as by a conflict, that answer is lost too.
	ReplyLost
	// AppliedLate: the call fails without effect, and Fault.Late after its
	// start it takes effect if it then still can: a swap if the document is at
	// the version it expects, a create if the kid is free.
	AppliedLate
)

// Fault is what the hook makes of a call. The zero Fault is none.
type Fault struct {
	Outcome Outcome
	Delay   time.Duration // waited before anything else, unless the context ends
	Late    time.Duration // for AppliedLate
	Err     error         // of the outcomes that fail; nil stands for ErrUnavailable
}

// ErrUnavailable is the error of an injected fault that names no other.
var ErrUnavailable = errors.New("store unavailable")

// Memory is a store in memory, whose faults are made to order. It waits with
// package time only and never with its lock held, so that it can be used, and
// its delays cost nothing, in a bubble of testing/synctest. The versions it
// gives are the same in each run.
//
// A Memory is one replica's handle; [Memory.Share] makes another one on the
// same data. Its calls may come from any goroutine.
type Memory struct {
	// Fault, if not nil, is asked before each call. Set it before use. It may
	// be called by several goroutines at a time.
	Fault func(Op) Fault

	data *data

	mu sync.Mutex
	n  int
}

// data is what the handles share.
type data struct {
	mu        sync.Mutex
	id        string // of the cursors
	versions  uint64 // given out; never set back
	seq       uint64 // of the newest change
	documents map[string]document
	keys      map[keyName]secretKey
}

type document struct {
	keystore.Document
	seq uint64
}

type keyName struct{ keyset, kid string }

type secretKey struct {
	secret  []byte
	created time.Time
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{data: &data{
		id:        rand.Text(),
		documents: make(map[string]document),
		keys:      make(map[keyName]secretKey),
	}}
}

// Share returns another handle on the same data, without a fault hook.
func (m *Memory) Share() *Memory { return &Memory{data: m.data} }

// do runs one call through the fault hook. apply does the work, under the
// lock; for a write that is applied late it does so when the caller has its
// error already.
func (m *Memory) do(ctx context.Context, op Op, apply func(*data) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s %s: %w", op.Name, strings.TrimSpace(op.Keyset+" "+op.KID), err)
		}
	}()
	if err := checkNames(op); err != nil {
		return err
	}
	m.mu.Lock()
	m.n++
	op.N = m.n
	m.mu.Unlock()
	var f Fault
	if m.Fault != nil {
		f = m.Fault(op)
	}
	if f.Err == nil {
		f.Err = ErrUnavailable
	}
	if f.Outcome == AppliedLate && op.Write() {
		time.AfterFunc(f.Late, func() { _ = m.data.locked(apply) })
	}
	if err := wait(ctx, f.Delay); err != nil {
		return err
	}
	switch f.Outcome {
	case Refused, AppliedLate:
		return f.Err
	case ReplyLost:
		_ = m.data.locked(apply)
		return f.Err
	default:
		return m.data.locked(apply)
	}
}

func wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func checkNames(op Op) error {
	for _, n := range []struct {
		name   string
		needed bool
	}{
		{op.Keyset, op.Name != OpChanges},
		{op.KID, op.Name == OpCreateKey || op.Name == OpReadKey || op.Name == OpDestroyKey},
	} {
		if n.needed && n.name == "" || len(n.name) > 255 || strings.ContainsFunc(n.name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("bad name %q", n.name)
		}
	}
	return nil
}

func (d *data) locked(apply func(*data) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return apply(d)
}

func (d *data) nextVersion() keystore.Version {
	d.versions++
	return keystore.Version("m" + strconv.FormatUint(d.versions, 10))
}

// Load implements the store.
func (m *Memory) Load(ctx context.Context, keyset string) (doc keystore.Document, err error) {
	err = m.do(ctx, Op{Name: OpLoad, Keyset: keyset}, func(d *data) error {
		found, ok := d.documents[keyset]
		if !ok {
			return keystore.ErrNotFound
		}
		doc = keystore.Document{Version: found.Version, Data: bytes.Clone(found.Data)}
		return nil
	})
	if err != nil {
		return keystore.Document{}, err // the reply may have been lost
	}
	return doc, nil
}

// Swap implements the store.
func (m *Memory) Swap(ctx context.Context, keyset string, old keystore.Version, content []byte) (keystore.Version, error) {
	content = bytes.Clone(content) // it may be applied when the caller has changed it
	var next keystore.Version
	err := m.do(ctx, Op{Name: OpSwap, Keyset: keyset}, func(d *data) error {
		if d.documents[keyset].Version != old {
			return keystore.ErrConflict
		}
		d.seq++
		version := d.nextVersion()
		d.documents[keyset] = document{keystore.Document{Version: version, Data: content}, d.seq}
		next = version
		return nil
	})
	if err != nil {
		return "", err
	}
	return next, nil
}

// Changes implements the store.
func (m *Memory) Changes(ctx context.Context, since keystore.Cursor) (changed []string, next keystore.Cursor, err error) {
	err = m.do(ctx, Op{Name: OpChanges}, func(d *data) error {
		from := d.parse(since)
		for keyset, doc := range d.documents {
			if doc.seq > from {
				changed = append(changed, keyset)
			}
		}
		slices.SortFunc(changed, func(a, b string) int {
			return cmp.Compare(d.documents[a].seq, d.documents[b].seq)
		})
		next = keystore.Cursor(d.id + "." + strconv.FormatUint(d.seq, 10))
		return nil
	})
	if err != nil {
		return nil, since, err
	}
	return changed, next, nil
}

func (d *data) parse(cursor keystore.Cursor) uint64 {
	id, number, _ := strings.Cut(string(cursor), ".")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || id != d.id || seq > d.seq {
		return 0
	}
	return seq
}

// CreateKey implements the store.
func (m *Memory) CreateKey(ctx context.Context, keyset, kid string, secret []byte) error {
	secret = bytes.Clone(secret)
	return m.do(ctx, Op{Name: OpCreateKey, Keyset: keyset, KID: kid}, func(d *data) error {
		name := keyName{keyset, kid}
		if there, ok := d.keys[name]; ok {
			if !bytes.Equal(there.secret, secret) {
				return keystore.ErrExists
			}
			return nil
		}
		d.keys[name] = secretKey{secret, time.Now()}
		return nil
	})
}

// ReadKey implements the store.
func (m *Memory) ReadKey(ctx context.Context, keyset, kid string) (secret []byte, err error) {
	err = m.do(ctx, Op{Name: OpReadKey, Keyset: keyset, KID: kid}, func(d *data) error {
		k, ok := d.keys[keyName{keyset, kid}]
		if !ok {
			return keystore.ErrNotFound
		}
		secret = bytes.Clone(k.secret)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return secret, nil
}

// DestroyKey implements the store.
func (m *Memory) DestroyKey(ctx context.Context, keyset, kid string) error {
	return m.do(ctx, Op{Name: OpDestroyKey, Keyset: keyset, KID: kid}, func(d *data) error {
		delete(d.keys, keyName{keyset, kid})
		return nil
	})
}

// ListKeys implements the store.
func (m *Memory) ListKeys(ctx context.Context, keyset string) (list []keystore.KeyInfo, err error) {
	err = m.do(ctx, Op{Name: OpListKeys, Keyset: keyset}, func(d *data) error {
		for name, k := range d.keys {
			if name.keyset == keyset {
				list = append(list, keystore.KeyInfo{KID: name.kid, CreatedAt: k.created})
			}
		}
		slices.SortFunc(list, func(a, b keystore.KeyInfo) int { return cmp.Compare(a.KID, b.KID) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Backup returns a function that puts the store back to what it is now, as the
// restoration of a backup does: versions given out since do not return, and
// cursors become unknown. All handles see it.
func (m *Memory) Backup() (restore func()) {
	d := m.data
	d.mu.Lock()
	defer d.mu.Unlock()
	documents, keys := maps.Clone(d.documents), maps.Clone(d.keys)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.documents, d.keys = maps.Clone(documents), maps.Clone(keys)
		d.id = rand.Text()
	}
}

// Drop removes the document of a keyset, as no store does by itself.
func (m *Memory) Drop(keyset string) {
	_ = m.data.locked(func(d *data) error {
		delete(d.documents, keyset)
		return nil
	})
}
