package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/internal/vaulttest"
)

// onFile is the house as it was before it knew Vault: same keysets, file store.
func (h *house) onFile() string {
	store := strings.Index(h.yaml, "data_dir:")
	yaml := fmt.Sprintf("keystore: {file: {dir: %s}}\n", filepath.Join(h.dir, "store")) + h.yaml[store:]
	return strings.Replace(yaml, "last_good: ", "# ", 1)
}

func (h *house) signed() (kid string) {
	h.t.Helper()
	req, err := http.NewRequest("POST", h.API+"/v1/keysets/default/sign", strings.NewReader(`{"claims":{"sub":"a"}}`))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	var out struct{ KID string }
	if err := json.Unmarshal(body, &out); err != nil || out.KID == "" {
		h.t.Fatalf("signing: %s %s", resp.Status, body)
	}
	return out.KID
}

// A verifier cannot tell whether the keys were moved.
func TestMigrateIsNotNoticed(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	h := newHouse(t, v, v.KV(t), "signer")
	onVault := h.yaml
	h.yaml = h.onFile()
	parse := func(yaml string) config.Config {
		c, err := config.Parse(filepath.Join(h.dir, "jwksd.yaml"), []byte(yaml), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	m := Migration{From: parse(h.yaml), To: parse(onVault), Log: slog.New(slog.DiscardHandler), Progress: t.Logf}
	if _, err := Migrate(t.Context(), m); err == nil || !strings.Contains(err.Error(), "there is no file store") {
		t.Errorf("migrating nothing: %v", err)
	}
	h.mustStart()
	if status := h.post("/v1/keysets/default/rotate", `{"force":true}`); status != http.StatusOK {
		t.Fatalf("rotating answers %d", status)
	}
	eventually(t, "the next standby", func() bool { return strings.Count(h.set(), `"kid"`) == 3 })
	if _, err := Migrate(t.Context(), m); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("migrating under a running daemon: %v", err)
	}
	set, kid := h.set(), h.signed()
	h.mustStop()

	m.DryRun = true
	if done, err := Migrate(t.Context(), m); err != nil || len(done) != 1 {
		t.Fatalf("dry run: %+v, %v", done, err)
	}
	h.mustStart() // nothing is marked
	h.mustStop()
	m.DryRun = false
	for range 2 {
		if done, err := Migrate(t.Context(), m); err != nil || len(done) != 1 || done[0].Keys != 3 {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	h.refuses("migrated to Vault at http://", "use the configuration of the new place")
	h.yaml = onVault
	h.mustStart()
	if got := h.set(); got != set {
		t.Errorf("the set is\n%s\nwant\n%s", got, set)
	}
	if got := h.signed(); got != kid {
		t.Errorf("key %s signs, want %s", got, kid)
	}
	if status := h.post("/v1/keysets/default/rotate", `{"force":true}`); status != http.StatusOK {
		t.Errorf("rotating in Vault answers %d", status)
	}
	h.mustStop()
	if _, err := Migrate(t.Context(), m); err == nil || !strings.Contains(err.Error(), "that one is right") {
		t.Errorf("migrating over what changed since: %v", err)
	}
	if err := os.Remove(filepath.Join(h.dir, "store", "MIGRATED")); err != nil {
		t.Fatal(err)
	}
	h.yaml = h.onFile()
	h.mustStart() // on purpose
}
