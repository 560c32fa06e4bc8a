package rotation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Span is the life of one key as far as it can be foretold. Instants beyond the
// horizon of a Forecast are zero.
type Span struct {
	KID         string    `json:"kid"` // future-N for a key that does not exist yet
	Algorithm   string    `json:"algorithm"`
	Sequence    uint64    `json:"sequence"`
	Future      bool      `json:"future,omitempty"`
	PublishedAt time.Time `json:"published_at"`
	ReadyAt     time.Time `json:"ready_at,omitzero"`
	ActivateAt  time.Time `json:"activate_at,omitzero"`
	RetireAt    time.Time `json:"retire_at,omitzero"` // when another key signs in its place
	RemoveAt    time.Time `json:"remove_at,omitzero"`
}

// Event is a thing that will happen to a key.
type Event struct {
	At        time.Time `json:"at"`
	Kind      EventKind `json:"kind"`
	KID       string    `json:"kid"`
	Algorithm string    `json:"algorithm"`
}

// EventKind is one of the words for what happens to keys.
type EventKind string

// Kinds of events.
const (
	EventPublished EventKind = "published"
	EventActivated EventKind = "activated"
	EventRetired   EventKind = "retired"
	EventRemoved   EventKind = "removed"
)

// maxForecast bounds the work of one Forecast, in changes of the document.
const maxForecast = 5000

// Forecast plays the schedule from now to the horizon, as if every change was
// written at once and nobody intervened, and returns each key's span in the
// order of the set.
func (s State) Forecast(now, horizon time.Time) []Span {
	spans := map[string]Span{}
	at := stamp(now)
	for range maxForecast {
		s.record(spans)
		t := Instant{Observed: at, Now: at}
		plan := s.Plan(t)
		if !plan.Due {
			if plan.Wake.IsZero() || plan.Wake.After(horizon) {
				break
			}
			at = plan.Wake
			continue
		}
		next, err := s.Advance(t, s.imagine(plan.Needs), Operation{ID: "forecast"})
		if err != nil {
			break
		}
		s = next
	}
	return sortSpans(spans)
}

// imagine names keys that do not exist yet.
func (s State) imagine(algs []string) []NewKey {
	fresh := make([]NewKey, len(algs))
	for i, alg := range algs {
		fresh[i] = NewKey{KID: fmt.Sprintf("%s%d", futurePrefix, s.Sequence+uint64(i)+1), Algorithm: alg, Public: json.RawMessage("{}")}
	}
	return fresh
}

// futurePrefix cannot begin a thumbprint's text by chance: those have 43
// characters and these far fewer.
const futurePrefix = "future-"

func (s State) record(spans map[string]Span) {
	for _, l := range s.Lanes {
		for _, k := range l.Keys {
			sp := Span{
				KID: k.KID, Algorithm: k.Algorithm, Sequence: k.Sequence,
				Future:      len(k.KID) < 43 && len(k.KID) > len(futurePrefix) && k.KID[:len(futurePrefix)] == futurePrefix,
				PublishedAt: cmp.Or(k.PublishedAt, k.CreatedAt),
				ReadyAt:     k.ReadyAt, ActivateAt: k.ActivateAt, RemoveAt: k.RemoveAt,
			}
			if end, ok := l.superseded(k); ok {
				sp.RetireAt = end
				if sp.RemoveAt.IsZero() {
					sp.RemoveAt = end.Add((k.Grace + k.TokenTTLMax + k.Retain).Std())
				}
			}
			spans[k.KID] = sp
		}
	}
}

func sortSpans(spans map[string]Span) []Span {
	list := make([]Span, 0, len(spans))
	for _, sp := range spans {
		list = append(list, sp)
	}
	slices.SortFunc(list, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Algorithm, b.Algorithm), cmp.Compare(a.Sequence, b.Sequence))
	})
	return list
}

// Events lists what happens after from until the horizon, in order.
func Events(spans []Span, from, horizon time.Time) []Event {
	var events []Event
	for _, sp := range spans {
		for _, e := range []Event{
			{At: sp.PublishedAt, Kind: EventPublished},
			{At: sp.ActivateAt, Kind: EventActivated},
			{At: sp.RetireAt, Kind: EventRetired},
			{At: sp.RemoveAt, Kind: EventRemoved},
		} {
			if e.At.After(from) && !e.At.After(horizon) {
				e.KID, e.Algorithm = sp.KID, sp.Algorithm
				events = append(events, e)
			}
		}
	}
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	return events
}

// Overdue tells whether the lane's active key has outlived its planned end: the
// first tick that a successor made in time would have taken.
func (s State) Overdue(l Lane, now time.Time) bool {
	active, ok := l.Active(now)
	if !ok || s.Winding(l) {
		return !ok && len(l.Keys) > 0 && !s.Winding(l) && !l.fresh(now)
	}
	schedule, err := ParseSchedule(s.Policy.Rotate, s.CreatedAt)
	if err != nil {
		return true
	}
	planned := schedule.atOrAfter(active.ActivateAt.Add(s.leadAt(active.ActivateAt) + leadMargin))
	return planned.IsZero() || now.After(planned)
}

// fresh: the lane waits for its first key to earn the lead.
func (l Lane) fresh(now time.Time) bool { return len(l.standbys(now)) == len(l.Keys) }
