package vault

import (
	"testing"

	"github.com/jwksd/jwksd/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }
