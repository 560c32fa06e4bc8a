package timeline

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jwksd/jwksd/rotation"
)

var update = flag.Bool("update", false, "write the golden files")

func start() time.Time { return time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC) }

const day = 24 * time.Hour

// found is a keyset as it is begun, with kids that look like thumbprints.
func found(t *testing.T, p rotation.Policy) rotation.State {
	t.Helper()
	kids := []string{
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
		"a81kf92xuDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "Zz0-q3mxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
	}
	var fresh []rotation.NewKey
	for _, alg := range p.Algorithms {
		for range 2 {
			fresh = append(fresh, rotation.NewKey{KID: kids[len(fresh)], Algorithm: alg, Public: json.RawMessage("{}")})
		}
	}
	s, err := rotation.Found("default", p, start(), fresh, rotation.Operation{ID: "found", Kind: "found"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// monthly has two lanes, and tokens that live for ten days.
func monthly(t *testing.T) []rotation.Span {
	t.Helper()
	p := rotation.DefaultPolicy()
	p.Algorithms = []string{"ES256", "RS256"}
	p.TokenTTLMax = rotation.Duration(10 * day)
	return found(t, p).Forecast(start(), start().Add(90*day))
}

// short has tokens of an hour and a rotation a week, so that retiring is far
// shorter than a column.
func short(t *testing.T) []rotation.Span {
	t.Helper()
	p := rotation.DefaultPolicy()
	p.Algorithms = []string{"Ed25519"}
	p.Rotate = "0 3 * * 1"
	return found(t, p).Forecast(start(), start().Add(90*day))
}

func draw(t *testing.T, spans []rotation.Span, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Render(&b, spans, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name + ".golden"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestRenderGolden(t *testing.T) {
	later := start().Add(45*day + 6*time.Hour)
	end := start().Add(90 * day)
	for name, tt := range map[string]struct {
		spans []rotation.Span
		opts  Options
	}{
		"monthly80":  {monthly(t), Options{Now: start(), Until: end}},
		"monthly120": {monthly(t), Options{Now: start(), Until: end, Width: 120}},
		"later80":    {monthly(t), Options{Now: later, From: start(), Until: end}},
		"weekly80":   {short(t), Options{Now: later, From: later.Add(-14 * day), Until: later.Add(28 * day)}},
		"ascii60":    {monthly(t), Options{Now: later, From: start(), Until: end, Width: 60, ASCII: true}},
		"color80":    {monthly(t), Options{Now: later, From: start(), Until: end, Color: true}},
		"hours80":    {monthly(t), Options{Now: start(), From: start().Add(-time.Hour), Until: start().Add(30 * time.Hour)}},
		"empty80":    {nil, Options{Now: start(), Until: end}},
	} {
		golden(t, name, draw(t, tt.spans, tt.opts))
	}
}

func TestRenderEventsGolden(t *testing.T) {
	var b bytes.Buffer
	if err := RenderEvents(&b, monthly(t), Options{Now: start(), Until: start().Add(90 * day)}); err != nil {
		t.Fatal(err)
	}
	golden(t, "events", b.String())
}

func TestEveryLineFits(t *testing.T) {
	spans := append(monthly(t), short(t)...)
	zone, err := time.LoadLocation("America/Argentina/Buenos_Aires")
	if err != nil {
		t.Skip(err)
	}
	for width := 60; width <= 200; width += 7 {
		for _, length := range []time.Duration{time.Minute, 5 * time.Hour, 2 * day, 40 * day, 90 * day, 1000 * day} {
			for _, at := range []time.Duration{0, length / 3, length - 1} {
				o := Options{Now: start().Add(at), From: start(), Until: start().Add(length), Width: width, Location: zone}
				for line := range strings.Lines(draw(t, spans, o)) {
					line = strings.TrimSuffix(line, "\n")
					if utf8.RuneCountInString(line) > width || strings.HasSuffix(line, " ") || strings.Contains(line, "\x1b") {
						t.Fatalf("width %d, %s: %q", width, length, line)
					}
				}
			}
		}
	}
}

func TestRenderASCIIIsASCII(t *testing.T) {
	for _, c := range draw(t, monthly(t), Options{Now: start(), Until: start().Add(90 * day), ASCII: true}) {
		if c >= 0x80 {
			t.Fatalf("%q", c)
		}
	}
}

func TestControlCharactersStayOffTheTerminal(t *testing.T) {
	spans := []rotation.Span{{KID: "\x1b[2Jé\n", Algorithm: "ES256", PublishedAt: start()}}
	got := draw(t, spans, Options{Now: start(), Until: start().Add(day)})
	if !strings.Contains(got, "?[2J?? ") {
		t.Errorf("got %q", got)
	}
}

func TestNoLength(t *testing.T) {
	for _, render := range []func() error{
		func() error { return Render(&bytes.Buffer{}, nil, Options{Now: start(), Until: start()}) },
		func() error { return RenderEvents(&bytes.Buffer{}, nil, Options{Now: start()}) },
	} {
		if err := render(); err == nil || !strings.Contains(err.Error(), "choose a later end") {
			t.Errorf("got %v", err)
		}
	}
}

func TestRough(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1s", time.Millisecond: "1s", 90 * time.Second: "1m30s", time.Hour: "1h", 5*time.Hour + 20*time.Minute + 59*time.Second: "5h20m",
		day - 1: "23h59m", 3*day + 4*time.Hour + 59*time.Minute: "3d4h", 40 * day: "40d",
	} {
		if got := rough(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}
