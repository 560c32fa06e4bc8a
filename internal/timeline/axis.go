package timeline

import (
	"strings"
	"time"
	"unicode/utf8"
)

// step is a distance between two ticks of the axis: months, or days, or a part
// of a day.
type step struct {
	months, days int
	part         time.Duration
}

// steps are the distances that people count in.
func steps() []step {
	return []step{
		{part: time.Second}, {part: 5 * time.Second}, {part: 15 * time.Second}, {part: 30 * time.Second},
		{part: time.Minute}, {part: 5 * time.Minute}, {part: 15 * time.Minute}, {part: 30 * time.Minute},
		{part: time.Hour}, {part: 3 * time.Hour}, {part: 6 * time.Hour}, {part: 12 * time.Hour},
		{days: 1}, {days: 2}, {days: 7},
		{months: 1}, {months: 3}, {months: 6}, {months: 12}, {months: 24}, {months: 60},
	}
}

// about is the step's length for choosing, the shortest it can be.
func (s step) about() time.Duration {
	const day = 24 * time.Hour
	return time.Duration(s.months)*28*day + time.Duration(s.days)*day + s.part
}

// monday is the day that steps of days are counted from, so that weeks begin on
// Mondays.
func monday(loc *time.Location) time.Time { return time.Date(2024, 1, 1, 0, 0, 0, 0, loc) }

// floor returns the last tick not after t.
func (s step) floor(t time.Time) time.Time {
	y, m, d := t.Date()
	loc := t.Location()
	switch {
	case s.months > 0:
		n := y*12 + int(m) - 1
		n -= n % s.months
		return time.Date(n/12, time.Month(n%12+1), 1, 0, 0, 0, 0, loc)
	case s.days > 0:
		since := int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Sub(monday(time.UTC)) / (24 * time.Hour))
		back := ((since % s.days) + s.days) % s.days
		return time.Date(y, m, d-back, 0, 0, 0, 0, loc)
	}
	clock := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second
	return time.Date(y, m, d, 0, 0, int((clock-clock%s.part)/time.Second), 0, loc)
}

// next returns the tick after the tick t.
func (s step) next(t time.Time) time.Time {
	y, m, d := t.Date()
	switch {
	case s.months > 0:
		return time.Date(y, m+time.Month(s.months), 1, 0, 0, 0, 0, t.Location())
	case s.days > 0:
		return time.Date(y, m, d+s.days, 0, 0, 0, 0, t.Location())
	}
	next := t.Add(s.part)
	if ny, nm, nd := next.Date(); ny != y || nm != m || nd != d { // ticks begin anew at midnight
		return time.Date(ny, nm, nd, 0, 0, 0, 0, t.Location())
	}
	return next
}

// label is short, and tells the year where one begins.
func (s step) label(t time.Time) string {
	midnight := t.Hour() == 0 && t.Minute() == 0 && t.Second() == 0
	switch {
	case s.months >= 12:
		return t.Format("2006")
	case s.months > 0 && t.Month() == time.January:
		return t.Format("Jan 2006")
	case s.months > 0, s.days > 0, midnight:
		return t.Format("2 Jan")
	case s.part < time.Minute:
		return t.Format("15:04:05")
	}
	return t.Format("15:04")
}

// width is that of the widest label.
func (s step) width() int {
	if s.months > 0 || s.part > 0 && s.part < time.Minute {
		return len("Jan 2006")
	}
	return len("31 Jan")
}

// choose takes the smallest step whose labels do not touch.
func choose(w window) step {
	all := steps()
	column := float64(w.until.Sub(w.from)) / float64(w.columns)
	for _, s := range all {
		if float64(s.about()) >= column*float64(s.width()+2) {
			return s
		}
	}
	return all[len(all)-1]
}

// tick is a mark on the axis.
type tick struct {
	column int
	label  string
}

// ticks lists the marks within the window.
func (w window) ticks() []tick {
	s := choose(w)
	var list []tick
	for t := s.floor(w.from); t.Before(w.until); t = s.next(t) {
		if i, ok := w.column(t); ok {
			list = append(list, tick{i, s.label(t)})
		}
	}
	return list
}

// axis draws the rule and the labels below it. A label begins under its mark,
// or is moved left so far that it fits.
func (w window) axis(g glyphs) (rule, labels string) {
	line := []rune(strings.Repeat(g.rule, w.columns))
	text := []rune(strings.Repeat(" ", w.columns))
	free := 0
	for _, t := range w.ticks() {
		line[t.column], _ = utf8.DecodeRuneInString(g.tick)
		at := min(t.column, w.columns-len(t.label))
		if at < free {
			continue
		}
		copy(text[at:], []rune(t.label))
		free = at + len(t.label) + 1
	}
	return string(line), strings.TrimRight(string(text), " ")
}
