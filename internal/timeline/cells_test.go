package timeline

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// hours is a window of ten columns of an hour each.
func hours() window {
	return window{from: start(), until: start().Add(10 * time.Hour), columns: 10}
}

const never = 1 << 30 // not known

// span has its instants in minutes after the window's begin.
func span(published, activate, retire, remove int) rotation.Span {
	at := func(m int) time.Time {
		if m == never {
			return time.Time{}
		}
		return start().Add(time.Duration(m) * time.Minute)
	}
	return rotation.Span{PublishedAt: start().Add(time.Duration(published) * time.Minute), ActivateAt: at(activate), RetireAt: at(retire), RemoveAt: at(remove)}
}

func show(row []state) string {
	var b strings.Builder
	for _, s := range row {
		b.WriteByte(" .=#"[s])
	}
	return b.String()
}

func TestCells(t *testing.T) {
	for name, tt := range map[string]struct {
		span rotation.Span
		want string
	}{
		"on the hours":                      {span(60, 180, 360, 480), " ..###==  "},
		"published long ago":                {span(-600, 180, 360, 480), "...###==  "},
		"the future is not known":           {span(60, 180, never, never), " ..#######"},
		"never active":                      {span(60, never, 180, 300), " ..==     "},
		"unscheduled":                       {span(60, never, never, never), " ........."},
		"the larger part wins":              {span(65, 205, 335, 500), " ..###==  "},
		"a short standby":                   {span(150, 152, 360, 480), "  .###==  "},
		"a short retiring":                  {span(60, 180, 310, 311), " ..##=    "},
		"a short retiring at a boundary":    {span(60, 180, 300, 301), " ..##=    "},
		"a short active":                    {span(60, 181, 183, 300), " ..#=     "},
		"active is the strongest":           {span(121, 122, 123, 124), "  #       "},
		"standby drives nobody out":         {span(121, 122, 179, 179), "  #       "},
		"retiring drives standby out":       {span(122, never, 130, 131), "  =       "},
		"a second shows":                    {span(125, 125, 125, 126), "  =       "},
		"retired before the window":         {span(-100, -90, -80, never), "=========="},
		"gone before the window":            {span(-100, -90, -80, -70), "          "},
		"a retired one that left too early": {span(60, 180, 400, 300), " ..##     "},
	} {
		w := hours()
		if got := show(w.cells(tt.span)); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// Whatever the instants: states stay in their order, a signing key is seen to
// sign, and every key that is published is seen.
func TestCellsProperties(t *testing.T) {
	order := regexp.MustCompile(`^ *\.*#*=* *$`)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		w := window{from: start(), until: start().Add(time.Duration(1 + rng.IntN(1e6))), columns: 1 + rng.IntN(70)}
		length := int64(w.until.Sub(w.from))
		m := make([]int64, 4)
		for i := range m {
			m[i] = rng.Int64N(3*length+2) - length
		}
		slices.Sort(m)
		at := func(i int) time.Time { return start().Add(time.Duration(m[i])) }
		sp := rotation.Span{PublishedAt: at(0), ActivateAt: at(1), RetireAt: at(2), RemoveAt: at(3)}
		row := show(w.cells(sp))
		if len(row) != w.columns || !order.MatchString(row) {
			t.Fatalf("order: %q of %v in %d", row, m, length)
		}
		touches := func(from, to int64) bool { return from < to && from < length && to > 0 }
		if touches(m[1], m[2]) && !strings.Contains(row, "#") {
			t.Fatalf("active is hidden: %q of %v in %d", row, m, length)
		}
		if touches(m[0], m[3]) && strings.TrimSpace(row) == "" {
			t.Fatalf("the key is hidden: %q of %v in %d", row, m, length)
		}
	}
}

func TestColumnIsWhereTheInstantLies(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		w := window{from: start(), until: start().Add(time.Duration(1 + rng.Int64N(1e18))), columns: 1 + rng.IntN(200)}
		at := start().Add(time.Duration(rng.Int64N(int64(w.until.Sub(w.from)))))
		i, ok := w.column(at)
		if !ok || at.Before(w.at(i)) || i+1 < w.columns && !at.Before(w.at(i+1)) {
			t.Fatalf("%s in column %d of %d, %s to %s", at, i, w.columns, w.from, w.until)
		}
	}
	w := hours()
	for _, at := range []time.Time{w.from.Add(-1), w.until} {
		if _, ok := w.column(at); ok {
			t.Errorf("%s is in the window", at)
		}
	}
}
