package rotator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Names of alarms; those that end in a colon are followed by what they are
// about.
const (
	alarmStore    = "store"
	alarmClock    = "clock"
	alarmCopy     = "last_good"
	alarmDocument = "document:"
	alarmKey      = "key:"
	alarmWork     = "work:"
	alarmWrite    = "write:"
)

// Alarm is a condition that a person should look at. It ends by itself when its
// cause does.
type Alarm struct {
	Name    string    `json:"name"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`

	latest time.Time // when its condition was met last
}

// alarms are the conditions that hold now, by name.
type alarms struct {
	mu  sync.Mutex
	set map[string]Alarm
}

// alarm raises an alarm. It is logged when it begins or changes, not each time
// its condition is met.
func (r *Rotator) alarm(name, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	a := &r.alarms
	a.mu.Lock()
	defer a.mu.Unlock()
	now := r.opt.Clock.Now()
	old, on := a.set[name]
	since := old.Since
	if !on {
		since = now
	}
	if a.set == nil {
		a.set = map[string]Alarm{}
	}
	a.set[name] = Alarm{Name: name, Message: msg, Since: since, latest: now}
	if on && old.Message == msg {
		return
	}
	r.log.Error("alarm", "name", name, "problem", msg)
}

// calm ends an alarm.
func (r *Rotator) calm(name string) {
	a := &r.alarms
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, on := a.set[name]; on {
		delete(a.set, name)
		r.log.Info("alarm over", "name", name)
	}
}

// writeAlarmFor is how long a write that failed stays an alarm if no other is
// tried: then nobody can know whether the next one will succeed.
const writeAlarmFor = 5 * time.Minute

// calmWrites ends the alarms about writes that nobody tried again.
func (r *Rotator) calmWrites() {
	now := r.opt.Clock.Now()
	for _, a := range r.Alarms() {
		if strings.HasPrefix(a.Name, alarmWrite) && now.Sub(a.latest) > writeAlarmFor {
			r.calm(a.Name)
		}
	}
}

// alarmed returns the alarm's message if it is on.
func (r *Rotator) alarmed(name string) (string, bool) {
	r.alarms.mu.Lock()
	defer r.alarms.mu.Unlock()
	a, on := r.alarms.set[name]
	return a.Message, on
}

// Alarms lists what is wrong now, by name.
func (r *Rotator) Alarms() []Alarm {
	r.alarms.mu.Lock()
	defer r.alarms.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.alarms.set), func(a, b Alarm) int { return cmp.Compare(a.Name, b.Name) })
}
