package vault

import (
	"errors"
	"testing"

	"github.com/jwksd/jwksd/internal/vaulttest"
	"github.com/jwksd/jwksd/keystore/keystoretest"
)

func isKind(err, kind error) bool { return errors.Is(err, kind) }

// reopener opens the store again as another process would.
type reopener struct {
	*Store
	open func(t *testing.T) *Store
}

func (r reopener) Reopen(t *testing.T) keystoretest.Store { return r.open(t) }

func TestConformance(t *testing.T) {
	v := vaulttest.Start(t)
	mount := v.KV(t)
	open := func(t *testing.T) *Store {
		return mustStore(t, connect(t, v), Options{Mount: mount})
	}
	keystoretest.Run(t, func(t *testing.T) keystoretest.Store { return reopener{open(t), open} })
}
