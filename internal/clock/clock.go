// Package clock gives the daemon a time that nobody can move under its feet.
//
// Deadlines, lifetimes and turns of keys are absolute instants, so a wall clock
// that jumps by an hour would start a key an hour too early or keep a leaked one
// an hour too long. A Clock takes the wall clock once and then counts elapsed
// time, time asleep included. It follows the wall clock's small corrections and
// reports large ones instead of obeying them.
package clock

import (
	"sync"
	"time"
)

// Source reads the wall clock, and the time elapsed since some fixed moment by
// a clock that no one sets and that goes on while the machine is suspended.
type Source func() (wall time.Time, elapsed time.Duration)

// Clock is safe for concurrent use.
type Clock struct {
	read Source

	mu   sync.RWMutex
	base time.Time     // the time that was trusted ...
	at   time.Duration // ... at this elapsed time
}

// New returns a clock that starts at the source's wall clock.
func New(read Source) *Clock {
	wall, elapsed := read()
	return &Clock{read: read, base: wall.Round(0).UTC(), at: elapsed}
}

// Now returns the trusted time, in UTC and without a monotonic reading.
func (c *Clock) Now() time.Time {
	_, elapsed := c.read()
	return c.trusted(elapsed)
}

func (c *Clock) trusted(elapsed time.Duration) time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.base.Add(elapsed - c.at)
}

// Check compares the wall clock with the trusted time. Up to the limit the
// trusted time follows it, and Check returns zero. Beyond it the trusted time
// stays, and Check returns by how much the wall clock is ahead (or behind, if
// negative). That ends when the wall clock comes back, or with a new Clock.
func (c *Clock) Check(limit time.Duration) time.Duration {
	wall, elapsed := c.read()
	wall = wall.Round(0).UTC()
	ahead := wall.Sub(c.trusted(elapsed))
	if ahead.Abs() > limit {
		return ahead
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.at = wall, elapsed
	return 0
}
