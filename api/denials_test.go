package api

import (
	"fmt"
	"testing"
	"time"
)

func TestDenialsAreThinnedOut(t *testing.T) {
	var d denials
	now := time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)
	want := func(kind denial, after time.Duration, tell bool, unlogged int) {
		t.Helper()
		if gotTell, got := d.note(kind, now.Add(after)); gotTell != tell || got != unlogged {
			t.Errorf("%v after %v: %t with %d, want %t with %d", kind, after, gotTell, got, tell, unlogged)
		}
	}
	nobody, issuer := denial{"unauthenticated", ""}, denial{"forbidden", "issuer"}
	want(nobody, 0, true, 0)
	for range 1000 {
		want(nobody, time.Second, false, 0)
	}
	want(issuer, time.Second, true, 0) // a flood of one kind hides no other
	want(issuer, 2*time.Second, false, 0)
	want(nobody, denialEvery-1, false, 0)
	want(nobody, denialEvery, true, 1001)
	want(nobody, denialEvery+1, false, 0)
	want(nobody, -time.Hour, true, 1) // the clock was set back
	want(nobody, denialEvery-time.Hour, true, 0)

	for i := range 3 * maxDenials {
		d.note(denial{"forbidden", fmt.Sprint("caller-", i)}, now)
	}
	if len(d.kinds) > maxDenials+1 {
		t.Errorf("%d kinds are kept", len(d.kinds))
	}
	want(denial{"forbidden", "one more"}, denialEvery, true, 2*maxDenials+1)
}
