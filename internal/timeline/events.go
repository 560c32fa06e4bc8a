package timeline

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// RenderEvents lists what happens to the keys after now until the end of the
// window, each instant with its distance from now.
func RenderEvents(w io.Writer, spans []rotation.Span, opts Options) error {
	o, err := opts.complete()
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	names := map[string]string{}
	name, alg := 0, 0
	for i, n := range keyNames(spans) {
		names[spans[i].KID] = n
		name, alg = max(name, len(n)), max(alg, len(spans[i].Algorithm))
	}
	events := rotation.Events(spans, o.Now, o.Until)
	if len(events) == 0 {
		fmt.Fprintf(out, "nothing happens until %s\n", o.Until.Format("2006-01-02 15:04:05 MST"))
	}
	distance := 0
	for _, e := range events {
		distance = max(distance, len(rough(e.At.Sub(o.Now))))
	}
	var last time.Time
	for _, e := range events {
		when := fmt.Sprintf("%s  in %-*s", e.At.In(o.Location).Format("Mon 2006-01-02 15:04:05 MST"), distance, rough(e.At.Sub(o.Now)))
		if e.At.Equal(last) { // the same instant is written once
			when = fmt.Sprintf("%*s", len(when), "")
		}
		last = e.At
		fmt.Fprintf(out, "%s  %-*s  %-*s  %s\n", when, alg, e.Algorithm, name, names[e.KID], words(e.Kind))
	}
	return out.Flush()
}

// words says what an event means.
func words(k rotation.EventKind) string {
	switch k {
	case rotation.EventPublished:
		return "is published, as standby"
	case rotation.EventActivated:
		return "begins to sign"
	case rotation.EventRetired:
		return "signs no more"
	case rotation.EventRemoved:
		return "leaves the set"
	}
	return string(k)
}

// rough writes a duration in its two largest units, rounded down: 3d4h, 5h20m,
// 2m10s.
func rough(d time.Duration) string {
	const day = 24 * time.Hour
	unit := time.Second
	switch {
	case d >= day:
		unit = time.Hour
	case d >= time.Hour:
		unit = time.Minute
	case d < time.Second:
		return "1s"
	}
	return rotation.Duration(d.Truncate(unit)).String()
}
