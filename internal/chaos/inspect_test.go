package chaos

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jwksd/jwksd/rotation"
)

// stored is what Vault holds of a keyset.
type stored struct {
	state rotation.State
	keys  map[string]time.Time // when the private halves were made, by kid or by handle
}

// document reads a state document out of Vault.
func (c *cluster) document(t *testing.T, keyset string) rotation.State {
	t.Helper()
	out := c.Do(t, "GET", "secret/data/jwksd/state/"+keyset, nil)
	raw, err := json.Marshal(out["data"].(map[string]any)["data"])
	if err != nil {
		t.Fatal(err)
	}
	var kept struct {
		Document string `json:"document"`
	}
	if err := json.Unmarshal(raw, &kept); err != nil {
		t.Fatal(err)
	}
	state, err := rotation.Decode([]byte(kept.Document))
	if err != nil {
		t.Fatalf("the document of keyset %s in Vault: %v\n%.300s", keyset, err, raw)
	}
	return state
}

// holds reads what Vault holds of a keyset, the private halves first.
func (c *cluster) holds(t *testing.T, keyset string) stored {
	t.Helper()
	s := stored{keys: map[string]time.Time{}}
	if keyset == "transit" {
		for _, name := range c.list(t, "transit/keys") {
			if out, err := c.Try(t, c.RootToken(), "GET", "transit/keys/"+name, nil); err == nil {
				s.keys[name] = transitMade(t, out)
			}
		}
	} else {
		for _, kid := range c.list(t, "secret/metadata/jwksd/keys/"+keyset) {
			if out, err := c.Try(t, c.RootToken(), "GET", "secret/metadata/jwksd/keys/"+keyset+"/"+kid, nil); err == nil {
				s.keys[kid] = instant(t, out["data"].(map[string]any)["created_time"])
			}
		}
	}
	s.state = c.document(t, keyset)
	return s
}

func transitMade(t *testing.T, answer map[string]any) time.Time {
	t.Helper()
	first := answer["data"].(map[string]any)["keys"].(map[string]any)["1"]
	return instant(t, first.(map[string]any)["creation_time"])
}

func instant(t *testing.T, v any) time.Time {
	t.Helper()
	text, _ := v.(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// orphanAge is how long a private key is kept that no document names.
const orphanAge = time.Hour

// inspect compares the private keys in Vault with those that the document
// needs: none is lost, and none is left that was to be destroyed. A key may be
// made or destroyed just while it looks.
func (c *cluster) inspect(t *testing.T, w *watcher, keyset string) (problems []string, kept, unnamed int) {
	t.Helper()
	s := c.holds(t, keyset)
	now := time.Now()
	wrong := func(format string, args ...any) {
		problems = append(problems, fmt.Sprintf("keyset %s: the private half of ", keyset)+fmt.Sprintf(format, args...))
	}
	left := maps.Clone(s.keys)
	for k := range s.state.Keys {
		at := k.KID
		if keyset == "transit" {
			at = k.Handle
		}
		_, there := s.keys[at]
		delete(left, at)
		due := !k.DestroyAt.IsZero() && k.DestroyAt.Before(now)
		switch {
		case !there && !due:
			wrong("%s is lost", k.KID)
		case there && due:
			wrong("%s was to be destroyed at %s, and is there at %s", k.KID, stamp(k.DestroyAt), stamp(now))
		}
	}
	for name, made := range left {
		if now.Sub(made) > orphanAge {
			wrong("%s of %s is named by nobody", name, stamp(made))
		}
		if w.published(keyset, name) {
			wrong("%s, which has left the set, is there", name)
		}
	}
	return problems, len(s.keys), len(left)
}

// inOrder waits until the private keys in Vault are those that the documents
// need, and returns a line about them.
func (c *cluster) inOrder(t *testing.T, w *watcher) string {
	t.Helper()
	var counts []string
	for _, keyset := range []string{"local", "transit"} {
		for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
			problems, kept, unnamed := c.inspect(t, w, keyset)
			if len(problems) == 0 {
				counts = append(counts, fmt.Sprintf("%s: %d private keys, %d named by no document", keyset, kept, unnamed))
				break
			}
			if time.Now().After(end) {
				t.Fatalf("after %s:\n%s", patience, strings.Join(problems, "\n"))
			}
		}
	}
	return strings.Join(counts, "; ")
}
