package clock

import (
	"testing"
	"time"
)

func TestClockFollowsSmallStepsAndReportsLargeOnes(t *testing.T) {
	wall := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var elapsed time.Duration
	c := New(func() (time.Time, time.Duration) { return wall, elapsed })
	pass := func(d time.Duration) { wall, elapsed = wall.Add(d), elapsed+d }
	want := func(at time.Time) {
		t.Helper()
		if got := c.Now(); !got.Equal(at) {
			t.Fatalf("Now() = %s, want %s", got, at)
		}
	}

	pass(time.Minute)
	want(wall)

	wall = wall.Add(3 * time.Second) // a correction within the limit
	if ahead := c.Check(5 * time.Second); ahead != 0 {
		t.Fatalf("Check = %s for a small step", ahead)
	}
	want(wall)

	before := c.Now()
	wall = wall.Add(time.Hour) // a jump
	if ahead := c.Check(5 * time.Second); ahead != time.Hour {
		t.Fatalf("Check = %s, want 1h", ahead)
	}
	want(before)
	pass(time.Minute)
	want(before.Add(time.Minute))

	wall = wall.Add(-time.Hour) // and back
	if ahead := c.Check(5 * time.Second); ahead != 0 {
		t.Fatalf("Check = %s after the jump was undone", ahead)
	}
	want(wall)

	wall = wall.Add(-time.Minute)
	if ahead := c.Check(5 * time.Second); ahead != -time.Minute {
		t.Fatalf("Check = %s, want -1m", ahead)
	}
}

func TestSystemClockRuns(t *testing.T) {
	read := System()
	_, first := read()
	time.Sleep(2 * time.Millisecond)
	wall, second := read()
	if second-first < 2*time.Millisecond {
		t.Fatalf("elapsed time went from %s to %s over a sleep of 2ms", first, second)
	}
	if d := time.Since(wall).Abs(); d > time.Minute {
		t.Fatalf("wall clock is off by %s", d)
	}
}
