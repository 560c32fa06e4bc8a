package rotation

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written as text: Go's syntax plus the
// unit d for 24 hours, as in "30d" or "1d12h".
type Duration time.Duration

const day = 24 * time.Hour

// ParseDuration reads Go's duration syntax with a leading number of days.
func ParseDuration(text string) (Duration, error) {
	rest := text
	var total time.Duration
	if days, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("duration %q: want whole days before the d, as in 30d or 1d12h", text)
		}
		total, rest = time.Duration(n)*day, after
		if rest == "" {
			return Duration(total), nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || (total > 0 && d < 0) || total+d < total && d > 0 {
		return 0, fmt.Errorf("duration %q: want a number with a unit, as in 90s, 15m, 1h30m or 30d", text)
	}
	return Duration(total + d), nil
}

// String writes the duration so that ParseDuration reads it back, whole days
// as d.
func (d Duration) String() string {
	t := time.Duration(d)
	if t < day {
		return trimZeros(t.String())
	}
	days := strconv.FormatInt(int64(t/day), 10) + "d"
	if t %= day; t == 0 {
		return days
	}
	return days + trimZeros(t.String())
}

// trimZeros turns 1h0m0s into 1h.
func trimZeros(s string) string {
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes what String returns.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration accepts.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// Std is the duration as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }
