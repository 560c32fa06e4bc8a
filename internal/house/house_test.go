// Package house holds the test of how the rooms of this house may know each
// other. It has no code of its own.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/jwksd/jwksd"

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath string
	Imports    []string // direct
	Deps       []string // all
}

// room is a folder with what it must never know. Forbidden paths are matched
// with everything below them; "~" in front means directly only.
type room struct {
	folder    string
	forbidden []string
}

// rooms is the table of the architecture section of the README.
func rooms() []room {
	vault := "github.com/hashicorp/vault"
	return []room{
		{"rotation", []string{"~context", "~net", "~os", "~log", "~" + module}},
		{"rotation/rotator", []string{"net/http", vault}},
		{"keystore", []string{module + "/jwks", module + "/signer", module + "/api"}},
		{"keystore/file", []string{module + "/jwks", module + "/signer", module + "/api"}},
		{"keystore/vault", []string{module + "/jwks", module + "/signer", module + "/api"}},
		{"keystore/keystoretest", []string{module + "/jwks", module + "/signer", module + "/api"}},
		{"jwks", []string{module + "/keystore", module + "/signer", module + "/api"}},
		{"signer", []string{"net/http", vault, module + "/keystore", module + "/rotation", module + "/api"}},
		{"api", []string{vault}},
		{"client", []string{module + "/keystore", module + "/jwks", module + "/signer", module + "/rotation/rotator", module + "/cmd", module + "/internal/daemon"}},
	}
}

func TestRoomsKnowOnlyWhatTheyMay(t *testing.T) {
	all := list(t)
	for _, r := range rooms() {
		p, ok := all[module+"/"+r.folder]
		if !ok {
			t.Errorf("there is no folder %s", r.folder)
			continue
		}
		for _, rule := range r.forbidden {
			path, direct := strings.CutPrefix(rule, "~")
			known := p.Deps
			if direct {
				known = p.Imports
			}
			for _, dep := range known {
				if below(dep, path) {
					t.Errorf("%s must not know %s, but imports %s", r.folder, path, dep)
				}
			}
		}
	}
}

// Every folder that holds code of the product is in the table, or is a room
// that nothing bars: the command, and the helpers under internal.
func TestEveryRoomHasItsRule(t *testing.T) {
	var listed []string
	for _, r := range rooms() {
		listed = append(listed, module+"/"+r.folder)
	}
	for path := range list(t) {
		free := below(path, module+"/internal") || below(path, module+"/cmd") || below(path, module+"/api/wire") || below(path, module+"/deploy")
		if below(path, module) && !free && !slices.Contains(listed, path) {
			t.Errorf("%s has no rule: add it to the table", path)
		}
	}
}

// The rule finds what it is for.
func TestRuleMatchesPathsAndWhatIsBelow(t *testing.T) {
	for _, c := range []struct {
		dep, path string
		want      bool
	}{
		{"net", "net", true}, {"net/http", "net", true}, {"netip", "net", false},
		{"log/slog", "log", true}, {"os/exec", "os", true}, {"context", "net", false},
	} {
		if below(c.dep, c.path) != c.want {
			t.Errorf("below(%q, %q) = %v", c.dep, c.path, !c.want)
		}
	}
}

func below(dep, path string) bool { return dep == path || strings.HasPrefix(dep, path+"/") }

// list asks the go command for every package of the module and all they import.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	all := map[string]pkg{}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}
