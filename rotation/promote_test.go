package rotation

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// Rotations without lead must not make the set grow without bound. What has its
// lead, and what was revoked, is never held up.
func TestForcedRotationsAreBounded(t *testing.T) {
	now := epoch.Add(time.Minute)
	s := settled(t, founded(t, DefaultPolicy()), now)
	scheduled := s.Bound(s.Lanes[0])
	for _, k := range s.Lanes[0].Keys {
		if k.OffSchedule {
			scheduled--
		}
	}
	var full *SetFullError
	forced := 0
	for ; forced < 3*maxForced; forced++ {
		next, _, err := s.Promote(nil, true, now, Operation{ID: fmt.Sprint("force", forced)})
		if errors.As(err, &full) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
		s = settled(t, next, now)
	}
	if full == nil {
		t.Fatalf("%d keys are published", len(s.Lanes[0].Keys))
	}
	if n := len(s.Lanes[0].Keys); n != scheduled+maxForced || full.Keys != n || !errors.Is(full, ErrSetFull) || full.Algorithm != "ES256" {
		t.Errorf("refused at %d keys, %d are scheduled: %v", n, scheduled, full)
	}
	first := s.Lanes[0].Keys[0].RemoveAt
	if first.IsZero() || !full.Earliest.Equal(first) {
		t.Errorf("earliest is %v, the first key leaves at %v", full.Earliest, first)
	}

	// Without a lead it is refused for that.
	var early *NotReadyError
	if _, _, err := s.Promote(nil, false, now, Operation{ID: "a"}); !errors.As(err, &early) {
		t.Errorf("without force: %v", err)
	}
	// A revocation promotes a key without lead all the same.
	active, _ := s.Lanes[0].Active(now)
	if _, out, err := s.Revoke(active.KID, now, nil, Operation{ID: "b"}); err != nil || len(out.Promoted) != 1 || out.Promoted[0].FullLead {
		t.Errorf("a revocation in a full set: %+v, %v", out, err)
	}
	// What has its lead needs no force, and may be given it.
	if at := now.Add(lead); at.Before(first) {
		if _, _, err := settled(t, s, at).Promote(nil, true, at, Operation{ID: "c"}); err != nil {
			t.Errorf("with a lead: %v", err)
		}
	}
	// Not yet, and then there is room again, for one more.
	if _, _, err := s.Promote(nil, true, first.Add(-1), Operation{ID: "d"}); err != nil && !errors.Is(err, ErrSetFull) {
		t.Error(err)
	}
	s = settled(t, s, first)
	if n := len(s.Lanes[0].Keys); n >= full.Keys {
		t.Fatalf("%d keys are published at %v", n, first)
	}
}

// A set that grew before there was a bound says when enough keys have left.
func TestOverfullSetSaysWhenThereIsRoom(t *testing.T) {
	s := founded(t, DefaultPolicy())
	l := Lane{Algorithm: "ES256"}
	extra := s.Bound(l) + maxForced + 10
	for i := range extra {
		l.Keys = append(l.Keys, Key{KID: fmt.Sprint(i), OffSchedule: true, Period: s.Period, RemoveAt: epoch.Add(time.Duration(extra-i) * time.Minute)})
	}
	var full *SetFullError
	if err := s.full(l, epoch); !errors.As(err, &full) || !full.Earliest.Equal(epoch.Add(11*time.Minute)) {
		t.Fatalf("%+v", full)
	}
	if err := s.full(l, full.Earliest.Add(-1)); err == nil {
		t.Error("there is room too early")
	}
	if err := s.full(l, full.Earliest); err != nil {
		t.Errorf("there is no room when it was promised: %v", err)
	}
	for i := range l.Keys {
		l.Keys[i].RemoveAt = time.Time{} // their end was not seen in the store yet
	}
	if err := s.full(l, epoch); !errors.As(err, &full) || !full.Earliest.IsZero() {
		t.Errorf("%v", err)
	}
}
