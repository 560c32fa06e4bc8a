package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/jwksd/jwksd/keystore"
)

// maxReport bounds what a replica may say of itself.
const maxReport = 128 << 10

// report is what stands under a replica's name.
type report struct {
	Format  int    `json:"format"`
	Replica string `json:"replica"`
	Report  []byte `json:"report"`
}

func (s *Store) reportPath(replica string) string { return s.path + "/replicas/" + segment(replica) }

// PutReport replaces the report of a replica. Only that replica writes it, so
// there is no check-and-set, and a write that lands late does little harm.
func (s *Store) PutReport(ctx context.Context, replica string, data []byte) (err error) {
	defer explained(&err, "writing the report of replica %q", replica)
	if err := checkName("replica", replica); err != nil {
		return err
	}
	if len(data) > maxReport {
		return fmt.Errorf("%d bytes are too many, the most is %d", len(data), maxReport)
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	in := map[string]any{"data": report{format, replica, data}}
	return s.client.Write(ctx, s.mount+"/data/"+s.reportPath(replica), in, nil)
}

// Reports returns the reports by replica. What was not written by a replica is
// passed over.
func (s *Store) Reports(ctx context.Context) (_ map[string][]byte, err error) {
	defer explained(&err, "reading the reports of the replicas")
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	names, err := s.list(ctx, s.path+"/replicas")
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	all := map[string][]byte{}
	err = each(ctx, names, func(ctx context.Context, name string) error {
		var raw json.RawMessage
		if _, err := s.get(ctx, s.reportPath(name), 0, &raw); err != nil {
			if errors.Is(err, keystore.ErrNotFound) {
				return nil // deleted since
			}
			return err
		}
		var r report
		if json.Unmarshal(raw, &r) == nil && r.Format == format && r.Replica == name {
			mu.Lock()
			defer mu.Unlock()
			all[name] = r.Report
		}
		return nil
	})
	return all, err
}

// DropReport deletes the report of a replica that is gone.
func (s *Store) DropReport(ctx context.Context, replica string) (err error) {
	defer explained(&err, "deleting the report of replica %q", replica)
	if err := checkName("replica", replica); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	return s.client.Delete(ctx, s.mount+"/metadata/"+s.reportPath(replica))
}
