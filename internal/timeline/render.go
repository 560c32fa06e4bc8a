package timeline

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jwksd/jwksd/rotation"
)

// Options say what is drawn and how.
type Options struct {
	// Now is marked, if it lies in the window.
	Now time.Time
	// From and Until bound the window. From is Now by default, Until must be
	// after it.
	From, Until time.Time
	// Width of the terminal in characters, 80 by default, 40 at least.
	Width int
	// Color switches on ANSI colours.
	Color bool
	// ASCII keeps to characters that every terminal has.
	ASCII bool
	// Location of the dates, UTC by default.
	Location *time.Location
}

const (
	defaultWidth = 80
	minWidth     = 40
	minColumns   = 10
)

// complete fills in the defaults.
func (o Options) complete() (Options, error) {
	if o.Location == nil {
		o.Location = time.UTC
	}
	if o.From.IsZero() {
		o.From = o.Now
	}
	if o.Width == 0 {
		o.Width = defaultWidth
	}
	o.Width = max(o.Width, minWidth)
	o.Now, o.From, o.Until = o.Now.In(o.Location), o.From.In(o.Location), o.Until.In(o.Location)
	if !o.From.Before(o.Until) {
		return o, fmt.Errorf("a timeline from %s to %s has no length: choose a later end", o.From.Format(time.RFC3339), o.Until.Format(time.RFC3339))
	}
	return o, nil
}

// glyphs is what things are drawn with.
type glyphs struct {
	standby, active, retiring string
	marker, guide, base       string // of now: on top, down the empty columns, on the axis
	rule, tick                string
}

func (o Options) glyphs() glyphs {
	if o.ASCII {
		return glyphs{standby: ".", active: "#", retiring: "=", marker: "v", guide: "|", base: "^", rule: "-", tick: "+"}
	}
	return glyphs{standby: "░", active: "█", retiring: "▒", marker: "▼", guide: "│", base: "▲", rule: "─", tick: "┬"}
}

// picture is a drawing in the making.
type picture struct {
	Options
	glyphs
	window
	out   *bufio.Writer
	label int // width of the names in front of the rows
	here  int // the column of now, or -1
}

// Render draws the spans that touch the window, a row for each key, lane by
// lane in the order given.
func Render(w io.Writer, spans []rotation.Span, opts Options) error {
	o, err := opts.complete()
	if err != nil {
		return err
	}
	p := &picture{Options: o, glyphs: o.glyphs(), out: bufio.NewWriter(w), here: -1}
	lanes := group(spans, o)
	p.label = widest(lanes)
	p.window = window{from: o.From, until: o.Until, columns: max(o.Width-p.label-1, minColumns)}
	if i, ok := p.column(o.Now); ok {
		p.here = i
	}
	p.head()
	if len(lanes) == 0 {
		p.line("no key is published in this time")
		return p.out.Flush()
	}
	p.mark()
	for i, l := range lanes {
		if i > 0 {
			p.blank()
		}
		for j, r := range l.rows {
			name := ""
			if j == 0 {
				name = l.algorithm
			}
			p.row(name, r)
		}
	}
	p.foot()
	return p.out.Flush()
}

// lane is the rows of one algorithm.
type lane struct {
	algorithm string
	rows      []row
}

// row is one key.
type row struct {
	name string
	span rotation.Span
}

// group sorts the spans that touch the window into lanes.
func group(spans []rotation.Span, o Options) []lane {
	var lanes []lane
	names := keyNames(spans)
	for i, sp := range spans {
		gone := !sp.RemoveAt.IsZero() && !sp.RemoveAt.After(o.From)
		if gone || !sp.PublishedAt.Before(o.Until) {
			continue
		}
		at := slices.IndexFunc(lanes, func(l lane) bool { return l.algorithm == sp.Algorithm })
		if at < 0 {
			at = len(lanes)
			lanes = append(lanes, lane{algorithm: sp.Algorithm})
		}
		lanes[at].rows = append(lanes[at].rows, row{names[i], sp})
	}
	return lanes
}

// shownKID is how many characters of a kid are shown.
const shownKID = 8

// keyNames names each key: the beginning of its kid, or if it does not exist
// yet, how many turns away it is.
func keyNames(spans []rotation.Span) []string {
	names, future := make([]string, len(spans)), map[string]int{}
	for i, sp := range spans {
		n := future[sp.Algorithm]
		switch {
		case !sp.Future:
			names[i] = printable(sp.KID)
		case n == 0:
			names[i] = "(next)"
		default:
			names[i] = fmt.Sprintf("(next+%d)", n)
		}
		if sp.Future {
			future[sp.Algorithm]++
		}
	}
	return names
}

// printable shortens a kid and keeps control characters off the terminal.
func printable(kid string) string {
	r := []rune(kid)
	for i, c := range r {
		if c <= ' ' || c >= 0x7f {
			r[i] = '?'
		}
	}
	return string(r[:min(len(r), shownKID)])
}

// widest is how much room the names need: "ES256  NzbLsXh8 ".
func widest(lanes []lane) int {
	algorithm, name := 0, shownKID
	for _, l := range lanes {
		algorithm = max(algorithm, len(l.algorithm))
		for _, r := range l.rows {
			name = max(name, len(r.name))
		}
	}
	return algorithm + 2 + name + 1
}

// head tells the window and the scale, on one line if they fit.
func (p *picture) head() {
	bounds := fmt.Sprintf("%s to %s, %s", p.from.Format("2 Jan 2006 15:04"), p.until.Format("2 Jan 2006 15:04"), p.until.Format("MST"))
	scale := "one column is about " + rough(p.until.Sub(p.from)/time.Duration(p.columns))
	if utf8.RuneCountInString(bounds)+2+len(scale) <= p.Width {
		p.line(bounds + ", " + scale)
	} else {
		p.line(bounds)
		p.line(scale)
	}
	p.line("")
}

// mark points at now.
func (p *picture) mark() {
	if p.here < 0 {
		return
	}
	under := p.label + p.here
	p.line(strings.Repeat(" ", min(max(under-1, p.label), p.Width-len("now"))) + "now")
	p.line(strings.Repeat(" ", under) + p.marker)
}

// blank separates lanes; the mark of now runs through.
func (p *picture) blank() {
	if p.here < 0 {
		p.line("")
		return
	}
	p.line(strings.Repeat(" ", p.label+p.here) + p.guide)
}

func (p *picture) row(algorithm string, r row) {
	var b strings.Builder
	names := fmt.Sprintf("%s%s", algorithm, strings.Repeat(" ", p.label-len(algorithm)-1-max(shownKID, len(r.name))))
	fmt.Fprintf(&b, "%s%-*s ", names, max(shownKID, len(r.name)), r.name)
	cells := p.cells(r.span)
	for i := 0; i < len(cells); {
		n := i + 1
		for n < len(cells) && cells[n] == cells[i] {
			n++
		}
		b.WriteString(p.run(cells[i], i, n))
		i = n
	}
	p.line(b.String())
}

// run draws the columns from i to n, all in one state.
func (p *picture) run(s state, i, n int) string {
	switch s {
	case active:
		return p.paint("32", strings.Repeat(p.active, n-i))
	case retiring:
		return p.paint("33", strings.Repeat(p.retiring, n-i))
	case standby:
		return p.paint("36", strings.Repeat(p.standby, n-i))
	}
	if i <= p.here && p.here < n {
		return strings.Repeat(" ", p.here-i) + p.guide + strings.Repeat(" ", n-p.here-1)
	}
	return strings.Repeat(" ", n-i)
}

// paint colours text. The code is one of ANSI's for the foreground.
func (p *picture) paint(code, text string) string {
	if !p.Color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// foot draws the axis and the legend.
func (p *picture) foot() {
	rule, labels := p.axis(p.glyphs)
	if p.here >= 0 {
		marks := []rune(rule)
		marks[p.here], _ = utf8.DecodeRuneInString(p.base)
		rule = string(marks)
	}
	p.line(strings.Repeat(" ", p.label) + rule)
	p.line(strings.Repeat(" ", p.label) + labels)
	p.line("")
	p.legend()
}

// legend explains the shades, on one line if it fits.
func (p *picture) legend() {
	entries := []struct{ code, glyph, text string }{
		{"36", p.standby, "standby: published"},
		{"32", p.active, "active: signs"},
		{"33", p.retiring, "retiring: still published"},
	}
	line, used := "", 0
	for _, e := range entries {
		length := utf8.RuneCountInString(e.glyph) + 1 + len(e.text)
		if used > 0 && used+3+length > p.Width {
			p.line(line)
			line, used = "", 0
		}
		if used > 0 {
			line, used = line+"   ", used+3
		}
		line, used = line+p.paint(e.code, e.glyph)+" "+e.text, used+length
	}
	p.line(line)
}

func (p *picture) line(s string) { p.out.WriteString(strings.TrimRight(s, " ") + "\n") }
