package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// story is what happened when, for the summary, and how signing went in each
// phase of it.
type story struct {
	start time.Time

	mu     sync.Mutex
	phases []*chapter
}

// chapter is the time from one fault to the next.
type chapter struct {
	name  string
	from  time.Time
	notes []string
	asked map[string]map[string]int // by custody and outcome
}

func newStory() *story { return &story{start: time.Now()} }

// begin opens the next phase.
func (s *story) begin(t testing.TB, name string) {
	t.Helper()
	t.Logf("%5.1fs  %s", time.Since(s.start).Seconds(), name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phases = append(s.phases, &chapter{name: name, from: time.Now(), asked: map[string]map[string]int{}})
}

// note adds a line to the phase.
func (s *story) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.phases[len(s.phases)-1]
	at := time.Since(s.start).Seconds()
	c.notes = append(c.notes, fmt.Sprintf("%5.1fs    ", at)+fmt.Sprintf(format, args...))
}

func (s *story) phase() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phases[len(s.phases)-1].name
}

// count notes how a request to sign ended.
func (s *story) count(l lane, outcome string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.phases[len(s.phases)-1].asked
	if asked[l.keyset] == nil {
		asked[l.keyset] = map[string]int{}
	}
	asked[l.keyset][outcome]++
}

// signed is how many requests ended with a token, in all phases.
func (s *story) signed() (signed, asked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.phases {
		for _, outcomes := range c.asked {
			for outcome, n := range outcomes {
				asked += n
				if outcome == "signed" {
					signed += n
				}
			}
		}
	}
	return signed, asked
}

// String is the timeline.
func (s *story) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, c := range s.phases {
		fmt.Fprintf(&b, "%5.1fs  %s\n", c.from.Sub(s.start).Seconds(), c.name)
		for _, n := range c.notes {
			fmt.Fprintln(&b, n)
		}
		for _, keyset := range slices.Sorted(maps.Keys(c.asked)) {
			var parts []string
			for _, outcome := range slices.Sorted(maps.Keys(c.asked[keyset])) {
				parts = append(parts, fmt.Sprintf("%d %s", c.asked[keyset][outcome], outcome))
			}
			fmt.Fprintf(&b, "          custody %s: %s\n", keyset, strings.Join(parts, ", "))
		}
	}
	return b.String()
}
