package rotator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// Reports keeps what each replica says of itself, for the others. It is a
// means of watching, not of agreeing: nothing is decided by it.
type Reports interface {
	// PutReport replaces the report of a replica.
	PutReport(ctx context.Context, replica string, data []byte) error
	// Reports returns the reports by replica.
	Reports(ctx context.Context) (map[string][]byte, error)
	// DropReport deletes the report of a replica that is gone.
	DropReport(ctx context.Context, replica string) error
}

// Report is what a replica says of itself.
type Report struct {
	Replica string `json:"replica"`
	Role    string `json:"role"`
	Version string `json:"version"`
	// At is when it was written, by the replica's clock.
	At time.Time `json:"at"`
	// SyncedAt is when the last look at the store began after which nothing was
	// left to load.
	SyncedAt time.Time `json:"synced_at"`
	// Generations are those of the keysets that changed last.
	Generations map[string]uint64 `json:"generations"`
}

// maxReported bounds the generations in a report, so that its size does not
// grow with the number of keysets.
const maxReported = 256

// reportEvery is the pause between two reports while nothing changes.
const reportEvery = 5 * time.Second

// liveFor is how long a replica counts as alive after its last report.
const liveFor = 4 * reportEvery

// recent remembers which keysets changed last, newest first.
type recent struct {
	mu    sync.Mutex
	names []string
	dirty bool // something changed since the last report
}

func (c *recent) touch(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = true
	if i := slices.Index(c.names, name); i >= 0 {
		c.names = slices.Delete(c.names, i, i+1)
	} else if len(c.names) == maxReported {
		c.names = c.names[:maxReported-1]
	}
	c.names = slices.Insert(c.names, 0, name)
}

// take returns the names, and whether there is news to report.
func (c *recent) take() ([]string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	news := c.dirty
	c.dirty = false
	return slices.Clone(c.names), news
}

// self is this replica's report.
func (r *Rotator) self(names []string, now time.Time) Report {
	rep := Report{
		Replica: r.opt.Replica, Role: r.opt.Role, Version: r.opt.Version,
		At: now, SyncedAt: r.knowsAll(), Generations: map[string]uint64{},
	}
	for _, name := range names {
		if v, err := r.View(name); err == nil {
			rep.Generations[name] = v.State.Generation
		}
	}
	return rep
}

// knowsAll is when the last look at the store began after which nothing was
// left to load. A keyset that could not be loaded since holds it back.
func (r *Rotator) knowsAll() time.Time {
	at := r.synced.Load()
	r.keysets.Range(func(_, v any) bool {
		if behind := v.(*keyset).behind.Load(); behind != 0 {
			at = min(at, behind)
		}
		return true
	})
	return time.Unix(0, at).UTC()
}

// report tells the other replicas where this one is, at once when something
// changed and now and then otherwise. What fails is told the next time.
func (r *Rotator) report(ctx context.Context) {
	if r.opt.Reports == nil {
		return
	}
	now := r.opt.Clock.Now()
	names, news := r.recent.take()
	if !news && now.Sub(r.reported) < reportEvery {
		return
	}
	data, err := json.Marshal(r.self(names, now))
	if err == nil {
		err = r.opt.Reports.PutReport(ctx, r.opt.Replica, data)
	}
	if err != nil {
		r.recent.mark()
		r.log.Debug("reporting failed", "error", err)
		return
	}
	r.reported = now
}

func (c *recent) mark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = true
}

// Replicas returns the latest reports, this replica's own as of now, by name.
// A replica that has not reported for longer than max_staleness of every keyset
// acts on nothing any more; it is forgotten after a day.
func (r *Rotator) Replicas(ctx context.Context) ([]Report, error) {
	now := r.opt.Clock.Now()
	r.recent.mu.Lock()
	names := slices.Clone(r.recent.names)
	r.recent.mu.Unlock()
	list := []Report{r.self(names, now)}
	if r.opt.Reports == nil {
		return list, nil
	}
	kept, err := r.opt.Reports.Reports(ctx)
	if err != nil {
		return list, fmt.Errorf("reading the replicas' reports: %w", err)
	}
	for name, data := range kept {
		var rep Report
		if name == r.opt.Replica || json.Unmarshal(data, &rep) != nil {
			continue
		}
		if now.Sub(rep.At) > forgetAfter {
			if err := r.opt.Reports.DropReport(ctx, name); err != nil {
				r.log.Debug("dropping an old report failed", "replica", name, "error", err)
			}
			continue
		}
		list = append(list, rep)
	}
	slices.SortFunc(list, func(a, b Report) int { return cmp.Compare(a.Replica, b.Replica) })
	return list, nil
}

// leaveTimeout bounds the farewell of a replica that stops.
const leaveTimeout = 2 * time.Second

// leave takes this replica's report back, so that nobody waits for it.
func (r *Rotator) leave(ctx context.Context) {
	if r.opt.Reports == nil || r.opt.ReadOnly {
		return // a publisher's policy does not let it delete
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := r.opt.Reports.DropReport(ctx, r.opt.Replica); err != nil {
		r.log.Debug("taking the report back failed", "error", err)
	}
}

// forgetAfter is when the report of a silent replica is deleted.
const forgetAfter = 24 * time.Hour

// Live tells whether the replica reported lately.
func (rep Report) Live(now time.Time) bool { return now.Sub(rep.At) <= liveFor }

// runs tells whether the replica certainly acts on the keyset's generation,
// which was in the store at the instant since, skew aside.
func (rep Report) runs(keyset string, generation uint64, since time.Time) bool {
	return rep.Generations[keyset] >= generation || rep.SyncedAt.After(since)
}

// awaitEvery is the pause between two looks at the reports.
const awaitEvery = 100 * time.Millisecond

// Confirmation tells which replicas run a generation, by name.
type Confirmation struct {
	Confirmed []string
	// Missing are alive and did not say that they do.
	Missing []string
	// Silent did not report lately and are not waited for. One that runs all
	// the same, cut off from the store, may act on what it knows until
	// max_staleness is over.
	Silent []string
}

// Await waits until every live replica runs the keyset's generation, which is in
// the store, or ctx ends. With an error, the others' reports could not be read
// and nobody knows what is missing.
func (r *Rotator) Await(ctx context.Context, keyset string, generation uint64) (Confirmation, error) {
	v, err := r.View(keyset)
	if err != nil {
		return Confirmation{}, err
	}
	now := r.opt.Clock.Now()
	since := now.Add(2 * v.State.Policy.ClockSkew.Std())
	forgotten := now.Add(-v.State.Policy.MaxStaleness.Std())
	tick := time.NewTicker(awaitEvery)
	defer tick.Stop()
	var latest Confirmation
	for seen := false; ; {
		reports, err := r.Replicas(ctx)
		switch {
		case err == nil:
			seen = true
			latest = r.confirm(reports, keyset, generation, since, forgotten)
			if len(latest.Missing) == 0 {
				return latest, nil
			}
		case !seen:
			latest = r.confirm(reports, keyset, generation, since, forgotten)
		case ctx.Err() != nil:
			err = nil // what was read before is as good
		}
		select {
		case <-ctx.Done():
			return latest, err
		case <-tick.C:
		}
	}
}

// confirm sorts the replicas by what they say of the keyset's generation.
func (r *Rotator) confirm(reports []Report, keyset string, generation uint64, since, forgotten time.Time) Confirmation {
	var c Confirmation
	now := r.opt.Clock.Now()
	for _, rep := range reports {
		switch {
		case rep.runs(keyset, generation, since), rep.Replica == r.opt.Replica && r.runs(keyset, generation):
			c.Confirmed = append(c.Confirmed, rep.Replica)
		case rep.Live(now):
			c.Missing = append(c.Missing, rep.Replica)
		case rep.At.After(forgotten):
			c.Silent = append(c.Silent, rep.Replica)
		}
	}
	return c
}

// runs tells whether this replica has that generation in view.
func (r *Rotator) runs(keyset string, generation uint64) bool {
	v, err := r.View(keyset)
	return err == nil && v.State.Generation >= generation
}

// Known tells whether the keyset has a document in the store, and takes that
// over at once if this replica does not know it yet.
func (r *Rotator) Known(ctx context.Context, name string) (bool, error) {
	_, err := r.opt.Documents.Load(ctx, name)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("loading keyset %s: %w", name, err)
	}
	return true, r.refresh(ctx, name)
}
