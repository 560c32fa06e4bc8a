package daemon

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/jwksd/jwksd/rotation/rotator"
)

// health answers whether the process lives, and whether this replica should be
// sent requests to sign or requests for sets. Both may differ: a replica with a
// stale state signs no more, but that is no reason to restart it.
func (d *daemon) health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz/sign", func(w http.ResponseWriter, _ *http.Request) { d.report(w, d.unready(true)) })
	mux.HandleFunc("GET /readyz/publish", func(w http.ResponseWriter, _ *http.Request) { d.report(w, d.unready(false)) })
	return mux
}

type readiness struct {
	Ready   bool            `json:"ready"`
	Reasons []string        `json:"reasons,omitempty"`
	Alarms  []rotator.Alarm `json:"alarms,omitempty"`
}

func (d *daemon) report(w http.ResponseWriter, reasons []string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if len(reasons) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(readiness{Ready: len(reasons) == 0, Reasons: reasons, Alarms: d.rotator.Alarms()})
}

// unready lists what keeps the replica from its work, signing included if asked
// for.
func (d *daemon) unready(signing bool) []string {
	if !d.ready.Load() {
		return []string{"starting"}
	}
	var reasons []string
	if signing && d.away.Load() {
		reasons = append(reasons, "the store is out of reach since the start")
	}
	now := d.clock.Now()
	for _, name := range d.rotator.Names() {
		v, err := d.rotator.View(name)
		if err != nil {
			continue
		}
		if errors.Is(d.rotator.Fresh(v, now), rotator.ErrStale) {
			reasons = append(reasons, "keyset "+name+" was not refreshed for longer than max_staleness")
			continue
		}
		if !signing || v.State.Closed != nil {
			continue
		}
		err = d.rotator.Fresh(v, now)
		if err == nil {
			_, err = v.Signer("", now)
		}
		if err != nil {
			reasons = append(reasons, "keyset "+name+" cannot sign: "+err.Error())
		}
	}
	return reasons
}
