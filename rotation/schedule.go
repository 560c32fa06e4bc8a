package rotation

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule tells the instants at which a keyset rotates.
type Schedule struct {
	cron   cron.Schedule // nil for @every
	every  time.Duration
	anchor time.Time
}

// maxGap is the longest pause between two rotations. It is also how far
// robfig/cron looks ahead before it gives up and answers the zero time.
const maxGap = 5 * 365 * day

// ParseSchedule reads a cron line of five fields, a descriptor such as
// @monthly, or "@every DURATION". Times are UTC unless the line starts with
// CRON_TZ=Zone. The ticks of @every lie on a grid through anchor, so that
// neither a restart nor another replica moves them.
//
// What robfig/cron v3.0.1 panics on, or accepts without meaning, is refused
// here: a time zone without a rest, an impossible date, @every of zero or less.
func ParseSchedule(spec string, anchor time.Time) (Schedule, error) {
	spec = strings.TrimSpace(spec)
	if spec == "" {
		return Schedule{}, errors.New(`empty schedule: want five cron fields as in "0 3 1 * *", or "@every 720h"`)
	}
	if text, ok := strings.CutPrefix(spec, "@every"); ok {
		return parseEvery(spec, text, anchor)
	}
	zone, rest := "UTC", spec
	for _, prefix := range []string{"CRON_TZ=", "TZ="} {
		text, ok := strings.CutPrefix(spec, prefix)
		if !ok {
			continue
		}
		zone, rest, _ = strings.Cut(text, " ")
		rest = strings.TrimSpace(rest)
		if zone == "" || rest == "" {
			return Schedule{}, fmt.Errorf("schedule %q: want a zone and then five cron fields, as in %q", spec, "CRON_TZ=Europe/Paris 0 3 1 * *")
		}
	}
	if strings.Contains(rest, "TZ=") || strings.HasPrefix(rest, "@every") {
		return Schedule{}, fmt.Errorf("schedule %q: a zone goes once, in front of cron fields", spec)
	}
	loc, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return Schedule{}, fmt.Errorf("schedule %q: unknown time zone %q", spec, zone)
	}
	parser := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)
	parsed, err := parser.Parse(rest)
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: %w", spec, err)
	}
	if s, ok := parsed.(*cron.SpecSchedule); ok {
		s.Location = loc
	}
	s := Schedule{cron: parsed}
	if s.Next(anchor).IsZero() {
		return Schedule{}, fmt.Errorf("schedule %q: there is no such date within five years", spec)
	}
	return s, nil
}

func parseEvery(spec, text string, anchor time.Time) (Schedule, error) {
	d, err := ParseDuration(strings.TrimSpace(text))
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: %w", spec, err)
	}
	switch {
	case d <= 0:
		return Schedule{}, fmt.Errorf("schedule %q: the period must be longer than zero", spec)
	case d.Std() > maxGap:
		return Schedule{}, fmt.Errorf("schedule %q: the period must be at most five years", spec)
	}
	return Schedule{every: d.Std(), anchor: anchor}, nil
}

// Next returns the first tick after t, in UTC, or the zero time if there is
// none within five years.
func (s Schedule) Next(t time.Time) time.Time {
	if s.cron != nil {
		next := s.cron.Next(t.UTC())
		if next.IsZero() {
			return next
		}
		return next.UTC()
	}
	since := t.Sub(s.anchor)
	n := since / s.every
	if since < 0 && since%s.every != 0 {
		n--
	}
	return s.anchor.Add((n + 1) * s.every).UTC()
}

// atOrAfter returns the first tick at t or later.
func (s Schedule) atOrAfter(t time.Time) time.Time { return s.Next(t.Add(-1)) }

// maxTicks bounds the search of Gaps. A cron line with more ticks in five years
// than this has its shortest gap within an hour, which shows at once.
const maxTicks = 50_000

// Gaps returns the shortest and the longest pause between two neighbouring
// ticks in the five years after from. The longest is maxGap or more when ticks
// run out.
func (s Schedule) Gaps(from time.Time) (shortest, longest time.Duration) {
	if s.cron == nil {
		return s.every, s.every
	}
	last := s.Next(from)
	if last.IsZero() {
		return maxGap, maxGap
	}
	end := from.Add(maxGap)
	shortest = maxGap
	for range maxTicks {
		next := s.Next(last)
		if next.IsZero() {
			return shortest, max(longest, maxGap)
		}
		gap := next.Sub(last)
		shortest, longest = min(shortest, gap), max(longest, gap)
		if last = next; last.After(end) {
			break
		}
	}
	return shortest, longest
}
