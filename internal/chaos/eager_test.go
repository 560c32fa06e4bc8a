package chaos

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/client"
)

// eager rotates one lane by hand, on one daemon after the other, as soon as the
// daemon allows it without force. Its keys have their bare lead, not what the
// schedule leaves on top of it.
type eager struct {
	t       *testing.T
	daemons []*daemon
	lane    lane
	working sync.WaitGroup

	rotated int // by the goroutine, until it has ended
}

func (e *eager) run(ctx context.Context) {
	e.working.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			wait := e.rotate(ctx, e.daemons[i%len(e.daemons)])
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	})
}

// rotate tries once, and returns how long to wait before the next time.
func (e *eager) rotate(ctx context.Context, d *daemon) time.Duration {
	const soon = 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := d.client.Rotate(ctx, e.lane.keyset, wire.RotateRequest{Alg: e.lane.alg, Reason: "drill"}, "")
	var answered *client.Error
	switch {
	case err == nil:
		e.rotated++
	case errors.As(err, &answered) && answered.Code == "lead_not_reached" && !answered.Earliest.IsZero():
		return min(max(time.Until(answered.Earliest), 0)+soon/10, 2*period)
	case errors.As(err, &answered) && answered.Status != http.StatusServiceUnavailable && answered.Status != http.StatusConflict:
		e.t.Errorf("rotating on %s: %d %s: %v", d.name, answered.Status, answered.Code, err)
	}
	return soon
}
