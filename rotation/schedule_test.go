package rotation

import (
	"errors"
	"testing"
	"time"
)

func TestC02SchedulesWithoutMeaning(t *testing.T) {
	for _, spec := range []string{
		"", "   ", "TZ=", "CRON_TZ=", "TZ=UTC", "CRON_TZ=UTC", "TZ= ", "CRON_TZ= 0 3 1 * *", "CRON_TZ=UTC ",
		"CRON_TZ=Nowhere/Land 0 3 1 * *", "CRON_TZ=Local 0 3 1 * *", "CRON_TZ=../../etc/passwd 0 3 1 * *",
		"CRON_TZ=UTC TZ=UTC 0 3 1 * *", "TZ=UTC @every 1h", "0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *",
		"@every", "@every 0s", "@every -1h", "@every 0d", "@every soon", "@every 2000d", "@reboot", "@",
		"* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "*/0 * * * *", "5-1 * * * *", "garbage", "\x00", "0 3 1 * * TZ=",
	} {
		if _, err := ParseSchedule(spec, epoch); err == nil {
			t.Errorf("ParseSchedule(%q): want an error", spec)
		}
		p := DefaultPolicy()
		p.Rotate = spec
		var named *PolicyError
		if _, err := p.Derive(epoch); !errors.As(err, &named) || named.Field != "rotate" {
			t.Errorf("Derive with %q: %v, want a PolicyError of rotate", spec, err)
		}
	}
}

func TestC02GapsThatDoNotFit(t *testing.T) {
	p := DefaultPolicy() // P is 1h20m10s
	for spec, fits := range map[string]bool{
		"@every 1h20m10s": false, "@every 1h20m10.999s": false, "@every 1h20m11s": true,
		"@hourly": false, "0 */2 * * *": true, "0 0,1 1 * *": false, "@every 1824d": true, "@every 1825d": false,
		"0 0 29 2 *": true, "@yearly": true,
	} {
		p.Rotate = spec
		if _, err := p.Derive(epoch); (err == nil) != fits {
			t.Errorf("%q: %v, want it to fit: %v", spec, err, fits)
		}
	}
}

func TestEveryKeepsItsGrid(t *testing.T) {
	s, err := ParseSchedule("@every 7h", epoch)
	if err != nil {
		t.Fatal(err)
	}
	at := epoch
	for i := range 1000 {
		at = s.Next(at)
		if want := epoch.Add(time.Duration(i+1) * 7 * time.Hour); !at.Equal(want) {
			t.Fatalf("tick %d is %v, want %v", i, at, want)
		}
		again, _ := ParseSchedule("@every 7h", epoch) // a restart, at any instant
		if early := again.Next(at.Add(-3 * time.Hour)); !early.Equal(at) {
			t.Fatalf("after a restart tick %d is %v, want %v", i, early, at)
		}
	}
	for _, c := range []struct{ from, want time.Duration }{
		{-1, 0}, {0, 7 * time.Hour}, {-7 * time.Hour, 0}, {-7*time.Hour - 1, -7 * time.Hour}, {1, 7 * time.Hour},
	} {
		if got := s.Next(epoch.Add(c.from)); !got.Equal(epoch.Add(c.want)) {
			t.Errorf("Next(epoch%+v) = %v, want epoch%+v", c.from, got, c.want)
		}
	}
	if at := s.atOrAfter(epoch.Add(7 * time.Hour)); !at.Equal(epoch.Add(7 * time.Hour)) {
		t.Errorf("a tick is not at or after itself: %v", at)
	}
}

func TestSchedulesInZonesWithSummerTime(t *testing.T) {
	utc := func(month time.Month, day, hour, minute int) time.Time {
		return time.Date(2026, month, day, hour, minute, 0, 0, time.UTC)
	}
	for _, c := range []struct {
		spec       string
		from, want time.Time
	}{
		{"0 3 1 * *", utc(3, 15, 0, 0), utc(4, 1, 3, 0)},
		{"CRON_TZ=Europe/Paris 0 3 1 * *", utc(3, 15, 0, 0), utc(4, 1, 1, 0)},
		{"CRON_TZ=Europe/Paris 0 3 1 * *", utc(11, 15, 0, 0), utc(12, 1, 2, 0)},
		{"TZ=America/New_York 0 3 * * *", utc(3, 7, 12, 0), utc(3, 8, 7, 0)},
		{"CRON_TZ=Europe/Paris 30 2 * * *", utc(3, 28, 12, 0), utc(3, 30, 0, 30)}, // 2:30 does not exist on the 29th
		{"CRON_TZ=Asia/Kolkata @daily", utc(1, 1, 0, 0), utc(1, 1, 18, 30)},
	} {
		s, err := ParseSchedule(c.spec, epoch)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Next(c.from); !got.Equal(c.want) || got.Location() != time.UTC {
			t.Errorf("%s after %v: %v, want %v", c.spec, c.from, got, c.want)
		}
	}
	s, _ := ParseSchedule("CRON_TZ=Europe/Paris 0 12 * * *", epoch)
	if short, long := s.Gaps(epoch); short != 23*time.Hour || long != 25*time.Hour {
		t.Errorf("days in Paris last %v to %v, want 23h to 25h", short, long)
	}
}

func TestDurationRoundTrip(t *testing.T) {
	for text, want := range map[string]string{
		"0s": "0s", "90s": "1m30s", "15m": "15m", "1h": "1h", "60m": "1h", "1h0m1s": "1h0m1s", "10h": "10h", "1h10m": "1h10m",
		"24h": "1d", "30d": "30d", "1d12h": "1d12h", "36h30m": "1d12h30m", "1d1ms": "1d1ms", "100ms": "100ms", "10m0.5s": "10m0.5s",
		"3650d": "3650d", "-5m": "-5m",
	} {
		d, err := ParseDuration(text)
		if err != nil || d.String() != want {
			t.Errorf("ParseDuration(%q) = %s, %v, want %s", text, d, err, want)
			continue
		}
		var back Duration
		if err := back.UnmarshalText([]byte(d.String())); err != nil || back != d {
			t.Errorf("%s reads back as %s, %v", d, back, err)
		}
	}
	for _, text := range []string{"", "d", "1.5d", "-1d", "1d-1h", "1h2d", "5", "1 d", "99999d", "1dd", "65535d2562047h"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", text, d)
		}
	}
}

func TestDeriveTheDefaultPolicy(t *testing.T) {
	got, err := DefaultPolicy().Derive(epoch)
	if err != nil {
		t.Fatal(err)
	}
	hms := func(h, m, s int) Duration {
		return Duration(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second)
	}
	want := Timing{
		Lead:         hms(1, 20, 10), // 1h + 5m + 15m + 2 x 5s
		Retention:    hms(2, 1, 20),  // 1h + 1m + 1h + 4 x 5s
		Period:       Duration(28 * day),
		Bound:        3,
		Exposure:     hms(1, 20, 0),
		DestroyAfter: hms(1, 0, 40), // 30s + 1h + 2 x 5s
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestC04PoliciesThatDoNotHold(t *testing.T) {
	for field, change := range map[string]func(*Policy){
		"issuer":          func(p *Policy) { p.Issuer = "auth.example.com" },
		"algorithms":      func(p *Policy) { p.Algorithms = []string{"ES256", "ES256"} },
		"custody":         func(p *Policy) { p.Custody = "none" },
		"rotate":          func(p *Policy) { p.Rotate = "@hourly" },
		"token_ttl_max":   func(p *Policy) { p.TokenTTLMax = 1 },
		"jwks_max_age":    func(p *Policy) { p.JWKSMaxAge = -1 },
		"verifier_cache":  func(p *Policy) { p.VerifierCache = Duration(11 * 365 * day) },
		"verifier_leeway": func(p *Policy) { p.VerifierLeeway = -1 },
		"handover_grace":  func(p *Policy) { p.HandoverGrace = -1 },
		"max_staleness":   func(p *Policy) { p.MaxStaleness = 0 },
		"clock_skew":      func(p *Policy) { p.ClockSkew = -1 },
	} {
		p := DefaultPolicy()
		change(&p)
		var named *PolicyError
		if _, err := p.Derive(epoch); !errors.As(err, &named) || named.Field != field {
			t.Errorf("%s: Derive answers %v", field, err)
		}
		s := founded(t, DefaultPolicy())
		if _, err := s.SetPolicy(p, epoch.Add(time.Hour), Operation{ID: "x"}); err == nil {
			t.Errorf("%s: SetPolicy takes a policy that does not hold", field)
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, seed := range []string{
		"0 3 1 * *", "@every 720h", "@every 30d", "@monthly", "CRON_TZ=Europe/Paris 0 3 1 * *", "TZ=", "CRON_TZ=UTC",
		"TZ=UTC TZ=UTC * * * * *", "0 0 31 2 *", "*/5 * * * *", "1-59/2 0-23/3 1,15 JAN-DEC MON-FRI", "@every -1h", "? ? ? ? ?",
		"0/18446744073709551615 * * * *", "* * * * 7", "@every 0.000000001s", "0 0 29 2 *",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := ParseSchedule(spec, epoch)
		if err != nil {
			return
		}
		for _, from := range []time.Time{epoch, epoch.Add(1234567 * time.Second), epoch.Add(-time.Hour)} {
			next := s.Next(from)
			if !next.IsZero() && !next.After(from) {
				t.Fatalf("%q: the tick after %v is %v", spec, from, next)
			}
			if at := s.atOrAfter(next); !next.IsZero() && !at.Equal(next) {
				t.Fatalf("%q: the first tick at %v or later is %v", spec, next, at)
			}
		}
		if short, long := s.Gaps(epoch); short > long || short <= 0 {
			t.Fatalf("%q: gaps from %v to %v", spec, short, long)
		}
	})
}
