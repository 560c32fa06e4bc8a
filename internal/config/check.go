package config

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// Derived is a keyset with everything that follows from its policy.
type Derived struct {
	Name   string          `json:"name"`
	Policy rotation.Policy `json:"policy"`
	Timing rotation.Timing `json:"timing"`
	// Ticks are the next scheduled rotations. For a schedule of the form
	// "@every 720h" they are counted from now; those of a keyset that exists
	// already are counted from its beginning.
	Ticks []time.Time `json:"ticks"`
}

// shownTicks is how many rotations Check looks ahead.
const shownTicks = 3

// Check derives the numbers of every keyset. A configuration that was parsed
// has no errors.
func Check(c Config, now time.Time) ([]Derived, error) {
	var list []Derived
	for _, k := range c.Keysets {
		timing, err := k.Policy.Derive(now)
		if err != nil {
			return nil, fmt.Errorf("keyset %s: %w", k.Name, err)
		}
		schedule, err := rotation.ParseSchedule(k.Policy.Rotate, now)
		if err != nil {
			return nil, fmt.Errorf("keyset %s: %w", k.Name, err)
		}
		d := Derived{Name: k.Name, Policy: k.Policy, Timing: timing}
		for at := schedule.Next(now); !at.IsZero() && len(d.Ticks) < shownTicks; at = schedule.Next(at) {
			d.Ticks = append(d.Ticks, at)
		}
		list = append(list, d)
	}
	return list, nil
}

// WriteCheck writes the numbers for people: for each its value, what it means,
// and how it comes about.
func WriteCheck(w io.Writer, list []Derived) error {
	b := bufio.NewWriter(w)
	for i, d := range list {
		if i > 0 {
			fmt.Fprintln(b)
		}
		d.write(b)
	}
	return b.Flush()
}

// write writes one keyset.
func (d Derived) write(b *bufio.Writer) {
	p := d.Policy
	fmt.Fprintf(b, "keyset %s: %s, %s, rotate %q, custody %s\n",
		d.Name, p.Issuer, strings.Join(p.Algorithms, " "), p.Rotate, p.Custody)
	rows := d.rows()
	widest := 0
	for _, r := range rows {
		if r.words != "" {
			widest = max(widest, len(r.value))
		}
	}
	for _, r := range rows {
		line := fmt.Sprintf("  %-15s%-*s  %s", r.name, widest, r.value, r.words)
		fmt.Fprintln(b, strings.TrimRight(line, " "))
		if r.formula != "" {
			fmt.Fprintf(b, "      = %s\n", r.formula)
		}
	}
}

// row is a derived number.
type row struct{ name, value, words, formula string }

func (d Derived) rows() []row {
	p, t := d.Policy, d.Timing
	rows := []row{
		{"lead P", t.Lead.String(), "a new key is published this long before it signs",
			fmt.Sprintf("max_staleness %s + jwks_max_age %s + verifier_cache %s + 2 x clock_skew %s",
				p.MaxStaleness, p.JWKSMaxAge, p.VerifierCache, p.ClockSkew)},
		{"retention V", t.Retention.String(), "a key stays published this long after it last signs",
			fmt.Sprintf("token_ttl_max %s + verifier_leeway %s + max_staleness %s + 4 x clock_skew %s",
				p.TokenTTLMax, p.VerifierLeeway, p.MaxStaleness, p.ClockSkew)},
		{"period R", t.Period.String(), "the shortest pause between two scheduled rotations", ""},
		{"set bound", fmt.Sprint(t.Bound), "keys at most per algorithm, forced rotations apart",
			fmt.Sprintf("2 + ceil((retention V %s + handover_grace %s) / period R %s)", t.Retention, p.HandoverGrace, t.Period)},
		{"exposure", t.Exposure.String(), "caches may trust a key this long after it was revoked",
			fmt.Sprintf("max_staleness %s + jwks_max_age %s + verifier_cache %s", p.MaxStaleness, p.JWKSMaxAge, p.VerifierCache)},
		{"destroy after", t.DestroyAfter.String(), "a private key is destroyed this long after its successor took over",
			fmt.Sprintf("handover_grace %s + max_staleness %s + 2 x clock_skew %s", p.HandoverGrace, p.MaxStaleness, p.ClockSkew)},
	}
	if lanes := len(p.Algorithms); lanes > 1 {
		rows[3].value, rows[3].words = fmt.Sprint(lanes*t.Bound), fmt.Sprintf("keys at most, %d for each of %d algorithms, forced rotations apart", t.Bound, lanes)
		rows[3].formula = fmt.Sprintf("%d x (%s)", lanes, rows[3].formula)
	}
	return append(rows, row{name: "next ticks", value: d.ticks()})
}

func (d Derived) ticks() string {
	var ticks []string
	for _, at := range d.Ticks {
		ticks = append(ticks, at.UTC().Format("2006-01-02 15:04"))
	}
	return strings.Join(ticks, ", ") + " UTC"
}
