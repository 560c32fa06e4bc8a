package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// Options says where in Vault the store is.
type Options struct {
	// Mount is the path of the KV version 2 engine, "secret" by default.
	Mount string
	// Path is the folder in it, "jwksd" by default.
	Path string
	// ReadOnly: this replica publishes only. It writes nothing on its own
	// account, as its policy would not let it.
	ReadOnly bool
	// Log hears what goes wrong when no caller is there to be told.
	Log *slog.Logger
}

// Store keeps state documents and private keys in a KV version 2 engine. It is
// safe for concurrent use, by any number of processes.
//
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
type Store struct {
	client   *Client
	mount    string
	path     string
	readOnly bool
	log      *slog.Logger
	mounted  atomic.Bool // the mount was seen to be right

	stopped context.Context
	stop    context.CancelFunc
	working sync.WaitGroup

	appender appender
	pending  sightings
	floors   floors
}

// NewStore returns the store at that place. It does not connect: the first use
// looks at the mount. Close it before its client.
func NewStore(c *Client, opt Options) (*Store, error) {
	if opt.Mount == "" {
		opt.Mount = "secret"
	}
	if opt.Path == "" {
		opt.Path = "jwksd"
	}
	s := &Store{client: c, mount: strings.Trim(opt.Mount, "/"), path: strings.Trim(opt.Path, "/"), readOnly: opt.ReadOnly, log: opt.Log}
	for what, path := range map[string]string{"mount": s.mount, "path": s.path} {
		for part := range strings.SplitSeq(path, "/") {
			if part == "" || part != segment(part) {
				return nil, fmt.Errorf("the %s %q in Vault may hold letters, digits and -_. only, in parts separated by /", what, path)
			}
		}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.stopped, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Close ends what goes on in the background. The client stays open.
func (s *Store) Close() error {
	s.appender.mu.Lock() // so that nothing begins after
	s.stop()
	s.appender.mu.Unlock()
	s.working.Wait()
	return nil
}

// Check logs in, and looks whether the mount is what this store needs and the
// head may be read. Its error says what to do.
func (s *Store) Check(ctx context.Context) (err error) {
	defer explained(&err, "checking the store in Vault")
	if err := s.ready(ctx); err != nil {
		return err
	}
	if _, err := s.get(ctx, s.headPath(), 0, nil); err != nil && !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	return nil
}

// ready looks at the mount, once. KV version 1 would take what is written for
// version 2, and would overwrite without check-and-set.
//
// https://developer.hashicorp.com/vault/api-docs/system/internal-ui-mounts
func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil || s.mounted.Load() {
		return err
	}
	var mount struct {
		Path    string            `json:"path"`
		Type    string            `json:"type"`
		Options map[string]string `json:"options"`
	}
	err := s.client.Read(ctx, "sys/internal/ui/mounts/"+s.mount, nil, &mount)
	var text string
	var kind error
	switch {
	case errors.Is(err, ErrForbidden), errors.Is(err, keystore.ErrNotFound):
		kind, text = ErrForbidden, "%s: there is no such mount, or no policy of our login says anything about it: correct the mount, or attach the policy of this role in deploy/vault"
	case err != nil:
		return err
	case strings.Trim(mount.Path, "/") != s.mount:
		kind, text = ErrMount, "%s: no secrets engine is mounted there: correct the mount, or enable one (vault secrets enable -version=2 kv)"
	case mount.Type != "kv" && mount.Type != "generic":
		kind, text = ErrMount, "%s: the secrets engine mounted there is "+mount.Type+", not kv: correct the mount"
	case mount.Options["version"] != "2":
		return s.versionOne()
	default:
		s.mounted.Store(true)
		return nil
	}
	return &Error{kinds: []error{ErrMount, kind}, text: fmt.Sprintf(text, s.mount)}
}

func (s *Store) versionOne() error {
	return &Error{kinds: []error{ErrMount, ErrKVv1}, text: s.mount + ": the KV engine mounted there is of version 1, which has no check-and-set: use one of version 2 (vault kv enable-versioning " + s.mount + ")"}
}

// found is where a path of the engine stands. Version is zero if nothing was
// ever written there.
type found struct {
	version int64
	deleted bool
}

// get reads a version of a path, or the newest if that is zero, into out. If
// there is none the error is keystore.ErrNotFound, and found still says what
// is known.
//
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-version
func (s *Store) get(ctx context.Context, path string, version int64, out *json.RawMessage) (found, error) {
	var query url.Values
	if version != 0 {
		query = url.Values{"version": {strconv.FormatInt(version, 10)}}
	}
	var answer struct {
		Data     json.RawMessage `json:"data"`
		Metadata struct {
			Version  int64  `json:"version"`
			Deleted  string `json:"deletion_time"`
			Destroys bool   `json:"destroyed"`
		} `json:"metadata"`
	}
	err := s.client.Read(ctx, s.mount+"/data/"+path, query, &answer)
	f := found{version: answer.Metadata.Version, deleted: answer.Metadata.Version > 0 && errors.Is(err, keystore.ErrNotFound)}
	if err != nil {
		return f, err
	}
	if f.version == 0 {
		return f, s.versionOne()
	}
	if out != nil {
		*out = answer.Data
	}
	return f, nil
}

// put writes a path if it is at that version, zero standing for absence, and
// returns the new version. Only keystore.ErrConflict, ErrForbidden, ErrMount
// and ErrThrottled say that nothing was written.
//
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#create-update-secret
func (s *Store) put(ctx context.Context, path string, cas int64, data any) (int64, error) {
	in := map[string]any{"options": map[string]any{"cas": cas}, "data": data}
	var answer struct {
		Version int64 `json:"version"`
	}
	if err := s.client.Write(ctx, s.mount+"/data/"+path, in, &answer); err != nil {
		return 0, err
	}
	if answer.Version != cas+1 {
		return 0, s.versionOne()
	}
	return answer.Version, nil
}

// guard makes Vault refuse writes without check-and-set to a path, and keep so
// many versions of it. It comes before the first write.
//
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#create-update-metadata
func (s *Store) guard(ctx context.Context, path string, versions int) error {
	in := map[string]any{"cas_required": true, "max_versions": versions}
	return s.client.Write(ctx, s.mount+"/metadata/"+path, in, nil)
}

func (s *Store) list(ctx context.Context, path string) ([]string, error) {
	keys, err := s.client.List(ctx, s.mount+"/metadata/"+path)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(keys))
	for _, key := range keys {
		if name, err := unsegment(key); err == nil { // folders and foreign names are not ours
			names = append(names, name)
		}
	}
	return names, nil
}

func (s *Store) statePath(keyset string) string { return s.path + "/state/" + segment(keyset) }
func (s *Store) headPath() string               { return s.path + "/head" }
func (s *Store) keysPath(keyset string) string  { return s.path + "/keys/" + segment(keyset) }
func (s *Store) keyPath(keyset, kid string) string {
	return s.keysPath(keyset) + "/" + segment(kid)
}

// explained adds to every error of an operation what was being done.
func explained(err *error, format string, args ...any) {
	if *err != nil {
		*err = fmt.Errorf(format+": %w", append(args, *err)...)
	}
}

// each calls do for every item, a few at a time, and returns the first error.
func each[T any](ctx context.Context, items []T, do func(context.Context, T) error) error {
	const most = 8
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, most)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(ctx, item); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// sightings remembers since when this process knows of each unresolved intent.
type sightings struct {
	mu    sync.Mutex
	since map[string]time.Time // by the intent's id
}

var _ interface {
	Load(ctx context.Context, keyset string) (keystore.Document, error)
	Swap(ctx context.Context, keyset string, old keystore.Version, data []byte) (keystore.Version, error)
	Changes(ctx context.Context, since keystore.Cursor) ([]string, keystore.Cursor, error)
	CreateKey(ctx context.Context, keyset, kid string, secret []byte) error
	ReadKey(ctx context.Context, keyset, kid string) ([]byte, error)
	DestroyKey(ctx context.Context, keyset, kid string) error
	ListKeys(ctx context.Context, keyset string) ([]keystore.KeyInfo, error)
} = (*Store)(nil)
