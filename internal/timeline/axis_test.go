package timeline

import (
	"strings"
	"testing"
	"time"
)

func TestAxisLabels(t *testing.T) {
	for _, tt := range []struct {
		from    time.Time
		length  time.Duration
		columns int
		want    string
	}{
		{start(), 20 * time.Second, 64, "12:00:00 12:00:05 12:00:10 12:00:15"},
		{start(), time.Hour, 64, "12:00 12:15 12:30 12:45"},
		{start(), 30 * time.Hour, 64, "12:00 18:00 11 Mar 06:00 12:00"},
		{start(), 5 * day, 64, "11 Mar 12 Mar 13 Mar 14 Mar 15 Mar"},
		{start(), 30 * day, 64, "16 Mar 23 Mar 30 Mar 6 Apr"},
		{start(), 90 * day, 64, "1 Apr 1 May 1 Jun"},
		{start(), 400 * day, 64, "1 Apr 1 Jul 1 Oct Jan 2027 1 Apr"},
		{start(), 2000 * day, 64, "2027 2028 2029 2030 2031"},
	} {
		w := window{from: tt.from, until: tt.from.Add(tt.length), columns: tt.columns}
		rule, labels := w.axis(Options{ASCII: true}.glyphs())
		if got := strings.Join(strings.Fields(labels), " "); got != tt.want {
			t.Errorf("%s: got %s, want %s\n%s\n%s", tt.length, got, tt.want, rule, labels)
		}
		if len(rule) != tt.columns || len(labels) > tt.columns {
			t.Errorf("%s: %d and %d characters", tt.length, len(rule), len(labels))
		}
	}
}

// Ticks are at whole hours and midnights of the place, on the days when its
// clocks change too.
func TestTicksAcrossAChangeOfClocks(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Skip(err)
	}
	for _, from := range []time.Time{
		time.Date(2026, 3, 28, 22, 10, 0, 0, zone), time.Date(2026, 10, 24, 22, 10, 0, 0, zone),
		time.Date(2026, 3, 29, 3, 10, 0, 0, zone), time.Date(2026, 10, 25, 2, 10, 0, 0, zone),
	} {
		for _, s := range steps() {
			at := s.floor(from)
			if at.After(from) {
				t.Errorf("%+v: the tick %s is after %s", s, at, from)
			}
			for range 40 {
				next := s.next(at)
				if !next.After(at) {
					t.Fatalf("%+v: after %s comes %s", s, at, next)
				}
				at = next
				whole := s.part == 0 || s.part < time.Hour || at.Minute() == 0
				if !whole || s.days > 0 && at.Hour() != 0 || s.months > 0 && at.Day() != 1 {
					t.Errorf("%+v: tick at %s", s, at)
				}
			}
		}
	}
}
