package timeline

import (
	"slices"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// state is what a key is at some time, the weakest first: a stronger one is
// drawn where both want the same column.
type state uint8

const (
	absent state = iota
	standby
	retiring
	active
)

// window is the time that is drawn, in columns of equal length.
type window struct {
	from, until time.Time
	columns     int
}

// at returns the instant at which a column begins.
func (w window) at(column int) time.Time {
	length := float64(w.until.Sub(w.from))
	return w.from.Add(time.Duration(length * float64(column) / float64(w.columns)))
}

// column returns the column that the instant falls in, and whether it is drawn.
func (w window) column(t time.Time) (int, bool) {
	if t.Before(w.from) || !t.Before(w.until) {
		return 0, false
	}
	i := int(float64(t.Sub(w.from)) / float64(w.until.Sub(w.from)) * float64(w.columns))
	i = min(i, w.columns-1)
	for i > 0 && t.Before(w.at(i)) { // rounding
		i--
	}
	for i+1 < w.columns && !t.Before(w.at(i+1)) {
		i++
	}
	return i, true
}

// overlap is how much of the column lies between from and to.
func (w window) overlap(column int, from, to time.Time) time.Duration {
	start, end := w.at(column), w.at(column+1)
	if from.After(start) {
		start = from
	}
	if to.Before(end) {
		end = to
	}
	return max(end.Sub(start), 0)
}

// stretch is a time in one state.
type stretch struct {
	state    state
	from, to time.Time
}

// stretches cuts a span into its states. An instant that is not known lies
// beyond the window.
func stretches(sp rotation.Span, end time.Time) []stretch {
	known := func(t time.Time) time.Time {
		if t.IsZero() || t.After(end) {
			return end
		}
		return t
	}
	removed := known(sp.RemoveAt)
	retired := earlier(known(sp.RetireAt), removed)
	activated := earlier(known(sp.ActivateAt), retired)
	return []stretch{
		{standby, sp.PublishedAt, activated},
		{active, activated, retired},
		{retiring, retired, removed},
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// cells decides what each column shows, by the rules of the package comment.
func (w window) cells(sp rotation.Span) []state {
	row := make([]state, w.columns)
	parts := stretches(sp, w.until)
	shown := map[state]int{}
	for i := range row {
		most := w.at(i + 1).Sub(w.at(i))
		var fullest time.Duration
		for _, p := range parts {
			part := w.overlap(i, p.from, p.to)
			most -= part
			if part > fullest {
				row[i], fullest = p.state, part
			}
		}
		if most > fullest { // the key is absent for the most part
			row[i] = absent
		}
		shown[row[i]]++
	}
	slices.SortFunc(parts, func(a, b stretch) int { return int(b.state) - int(a.state) }) // the strongest first
	for _, p := range parts {
		w.give(row, shown, p)
	}
	return row
}

// give hands a column to a state that has none.
func (w window) give(row []state, shown map[state]int, p stretch) {
	if shown[p.state] > 0 {
		return
	}
	best, most := -1, time.Duration(0)
	for i, holder := range row {
		if holder > p.state && shown[holder] == 1 {
			continue
		}
		if part := w.overlap(i, p.from, p.to); part > most {
			best, most = i, part
		}
	}
	if best < 0 {
		return
	}
	shown[row[best]]--
	row[best] = p.state
	shown[p.state]++
}
