package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
)

// maxWait bounds how long a request may wait for the replicas.
const maxWait = rotation.Duration(time.Minute)

// answerTime is what the answer may take on its way after the waiting.
const answerTime = 15 * time.Second

func checkWait(wait rotation.Duration) error {
	if wait < 0 || wait > maxWait {
		return &failure{status: http.StatusBadRequest, code: "invalid_wait", detail: fmt.Sprintf("wait %s is not a duration of up to %s", wait, maxWait), field: "wait"}
	}
	return nil
}

// confirm waits until every live replica runs the change, or the time is over.
// The change stands whatever comes of it.
func (s *Server) confirm(c *call, out *wire.Change, wait rotation.Duration) {
	if wait == 0 {
		return
	}
	// The server's own limit may be shorter. It cannot be moved where there is
	// no connection, and then there is no limit.
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(wait.Std() + answerTime))
	ctx, cancel := context.WithTimeout(c.r.Context(), wait.Std())
	defer cancel()
	got, err := s.opt.Keysets.Await(ctx, c.keyset, out.Generation)
	out.Replicas = &wire.Confirmation{Confirmed: orNone(got.Confirmed), Missing: orNone(got.Missing), Silent: got.Silent}
	if err != nil {
		s.log.Warn("waiting for the replicas failed", "keyset", c.keyset, "generation", out.Generation, "error", err)
		out.Warnings = append(out.Warnings, "the reports of the other replicas could not be read, so nobody knows which of them run the change")
		return
	}
	out.Everywhere = len(got.Missing) == 0
	if len(got.Silent) > 0 {
		out.Warnings = append(out.Warnings, fmt.Sprintf("not heard of lately: %s; if one of them still runs, it may act on the old state until %s",
			strings.Join(got.Silent, ", "), stampText(out.EverywhereBy)))
	}
}

// orNone makes a list that is never null on the wire.
func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// reportsTimeout bounds how long a status waits for the replicas' reports.
const reportsTimeout = 2 * time.Second

// replicas tells what the replicas say of themselves, as far as the caller may
// know. A status is wanted most when the store is out of reach, so that does not
// fail it.
func (s *Server) replicas(c *call, d *wire.Daemon) {
	ctx, cancel := context.WithTimeout(c.r.Context(), reportsTimeout)
	defer cancel()
	reports, err := s.opt.Keysets.Replicas(ctx)
	if err != nil {
		s.log.Warn("the reports of the other replicas cannot be read", "error", err)
		d.ReplicasProblem = "the reports of the other replicas cannot be read; the log says why"
	}
	d.Replicas = []wire.Replica{}
	for _, r := range reports {
		rep := wire.Replica{
			Replica: r.Replica, Role: r.Role, Version: r.Version,
			SeenAt: r.At.Round(0).UTC(), Live: r.Live(d.Now), SyncedAt: r.SyncedAt.UTC(), Generations: map[string]uint64{},
		}
		for keyset, generation := range r.Generations {
			if c.caller.reads(keyset) {
				rep.Generations[keyset] = generation
			}
		}
		d.Replicas = append(d.Replicas, rep)
	}
}
