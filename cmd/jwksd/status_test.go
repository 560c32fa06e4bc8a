package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jwksd/jwksd/api/wire"
	"github.com/jwksd/jwksd/rotation"
)

func key(kid, alg string, phase rotation.Phase) wire.Key {
	return wire.Key{KID: kid, Alg: alg, Phase: phase}
}

// lane is an active key, its standby and a retiring one.
func lane(alg, kids string) wire.Lane {
	turn := noon.Add(17*24*time.Hour + 3*time.Hour)
	active := key(kids+"Active--DCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", alg, rotation.PhaseActive)
	active.SignsUntil = turn.Add(30 * time.Second)
	standby := key(kids+"Standby-DCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", alg, rotation.PhaseStandby)
	standby.ActivateAt = turn
	retiring := key(kids+"Retiring-Ccd-6MNwXF4W_7noWXFZAfHkxZsRGC9X", alg, rotation.PhaseRetiring)
	retiring.RemoveAt = noon.Add(47*time.Hour + 59*time.Minute)
	return wire.Lane{Alg: alg, Keys: []wire.Key{active, standby, retiring}}
}

func TestStatusFitsATerminal(t *testing.T) {
	f := newFake(t)
	one, two := lane("ES256", "a"), lane("Ed25519", "b")
	one.Overdue = true
	two.Keys[0].Problem = "the private half cannot be used on this replica; the log says why"
	k := wire.Keyset{Keyset: "default", Issuer: "https://a-rather-long-name.auth.example.com/tenant", Generation: 1234, Lanes: []wire.Lane{one}}
	for i := range 696 {
		k.Revoked = append(k.Revoked, wire.Revoked{
			KID: fmt.Sprintf("Q%07d-6MNwXF4W_7noWXFZAfHkxZsRGC9XsAbcdefgh", i), Alg: "ES256",
			RevokedAt: noon.Add(time.Duration(i-695) * time.Minute), Reason: strings.Repeat("a long story ", 20),
		})
	}
	for _, lanes := range [][]wire.Lane{{one}, {one, two}} {
		k.Lanes = lanes
		f.answers["GET /v1/keysets"] = wire.Keysets{Daemon: wire.Daemon{Now: noon}, Keysets: []wire.Keyset{k}}
		status, out, errs := f.run("status")
		if status != 0 || errs != "" {
			t.Fatalf("status %d: %s", status, errs)
		}
		for line := range strings.Lines(out) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > 80 || strings.TrimRight(line, " ") != line {
				t.Errorf("%q", line)
			}
		}
		for _, want := range []string{
			"aActive-", "active", "signs until 2026-02-01 15:00:00Z (in 17d3h)\n    OVERDUE",
			"standby   signs from 2026-02-01 15:00:00Z (in 17d3h)\n",
			"Q0000695", "revoked   2026-01-15 12:00:00Z (just now)\n    a long story", "Q0000691", "\n  and 691 more revoked; -o json lists them\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if strings.Contains(out, "Q0000690") {
			t.Errorf("too many revoked keys:\n%s", out)
		}
		if _, wide, _ := f.run("status", "--wide"); !strings.Contains(wide, lanes[0].Keys[0].KID) || !strings.Contains(wide, k.Revoked[0].Reason) {
			t.Errorf("not wide:\n%s", wide)
		}
		if len(lanes) == 2 {
			t.Logf("\n%s", out)
		}
	}
}

func TestShortKids(t *testing.T) {
	k := wire.Keyset{
		Lanes:   []wire.Lane{{Keys: []wire.Key{{KID: "12345678-9a"}, {KID: "short"}}}},
		Revoked: []wire.Revoked{{KID: "12345678-9b"}, {KID: "abcdefghij"}},
	}
	shown := shorten(k)
	for kid, want := range map[string]string{"12345678-9a": "12345678-9a", "12345678-9b": "12345678-9b", "short": "short", "abcdefghij": "abcdefgh"} {
		if got := shown(kid); got != want {
			t.Errorf("%s is shown as %s", kid, got)
		}
	}
}

// TestUntrustedText: no words of others reach the terminal as more than words.
func TestUntrustedText(t *testing.T) {
	const evil = "x\x1b[2J\u202e\u009b\x7f\r\ny\xff"
	f := newFake(t)
	hostile := wire.Keyset{
		Keyset: evil, Issuer: evil, Lanes: []wire.Lane{{Alg: evil, Keys: []wire.Key{{KID: evil, Alg: evil, Phase: evil, Problem: evil}}}},
		Revoked: []wire.Revoked{{KID: evil, Alg: evil, Reason: evil}},
		Deleted: &rotation.Closing{By: evil, Reason: evil}, Drift: []rotation.FieldChange{{Field: evil, From: evil, To: evil}},
	}
	replica := wire.Replica{Replica: evil, Role: evil, Version: evil}
	f.answers["GET /v1/keysets"] = wire.Keysets{Keysets: []wire.Keyset{hostile}, Daemon: wire.Daemon{
		Now: noon, Alarms: []wire.Alarm{{Message: evil}}, Config: &wire.Reload{Error: evil},
		Replicas: []wire.Replica{replica, replica}, ReplicasProblem: evil,
	}}
	f.answers["GET /v1/keysets/default/plan"] = wire.Plan{Keyset: evil, Now: noon, Horizon: noon.Add(time.Hour), Keys: []rotation.Span{{KID: evil, Algorithm: evil, PublishedAt: noon}}}
	f.answers["POST /v1/keysets/default/rotate"] = wire.Change{
		Promoted: []rotation.Promotion{{Algorithm: evil, To: evil}}, Revoked: []wire.Revoked{{KID: evil, Alg: evil}}, Warnings: []string{evil},
		Replicas: &wire.Confirmation{Missing: []string{evil}},
	}
	f.answers["POST /v1/keysets/default/revoke"] = wire.Problem{Detail: evil}
	events := []rotation.Event{{KID: evil, Algorithm: evil, Kind: evil}}
	applied := wire.Applied{Keyset: evil, Diff: hostile.Drift, Events: events, Warnings: []string{evil}}
	f.answers["PUT /v1/keysets/default"], f.answers["PUT /v1/keysets/default dry"] = applied, applied
	f.answers["DELETE /v1/keysets/shop"] = wire.Deleted{Keyset: evil, Events: events, Warnings: []string{evil}}
	path := writeFile(t, "keysets:\n  default: {issuer: \"https://auth.example.com\"}\n")
	for _, args := range [][]string{
		{"status"}, {"status", "--wide"}, {"plan", "--horizon", "1h"}, {"rotate"}, {"revoke", wholeKid, "--reason", "r"},
		{"apply", "--file", path}, {"delete", "shop", "--reason", "r"}, {"status", "-k", evil},
	} {
		_, out, errs := f.run(args...)
		for line := range strings.Lines(out + errs) {
			line = strings.TrimSuffix(line, "\n")
			if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(line) || strings.HasPrefix(line, "y") {
				t.Errorf("%v prints %q", args, line)
			}
		}
		if !strings.Contains(out+errs, "x") {
			t.Errorf("%v prints nothing:\n%s%s", args, out, errs)
		}
	}
}

func TestCleanJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":"né","b":[1, 2]}`:            `{"a":"né","b":[1, 2]}`,
		"{\n  \"a\": 1\r\n}":               `{"a":1}`,
		"{\"a\":\"\u202e\x7f\U000e0001\"}": `{"a":"\u202e\u007f\udb40\udc01"}`,
		"no\x1b json":                      `no\x1b json`,
		"{\"a\":\"\xff\"}":                 `{"a":"\xff"}`,
	} {
		got := cleanJSON([]byte(in))
		if got != want {
			t.Errorf("%q is shown as %s", in, got)
		}
		var before, after any
		if utf8.ValidString(in) && json.Unmarshal([]byte(in), &before) == nil {
			if err := json.Unmarshal([]byte(got), &after); err != nil || fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("%q became %v, %v", in, after, err)
			}
		}
	}
}

func TestHelpTexts(t *testing.T) {
	f := newFake(t)
	for _, name := range []string{"serve", "check", "migrate", "status", "plan", "rotate", "revoke", "apply", "delete", "sign", "verify", "version", "completion", "completion bash", "help"} {
		args := append(strings.Fields(name), "--help")
		var out, errs strings.Builder
		status := execute(t.Context(), args, terminal{in: strings.NewReader(""), out: &out, err: &errs})
		for _, bad := range []string{"(default 0s)", " strings ", " string "} {
			if strings.Contains(out.String(), bad) {
				t.Errorf("%s --help has %q:\n%s", name, bad, out.String())
			}
		}
		if status != 0 || !strings.Contains(out.String(), "Examples:\n") {
			t.Errorf("%s --help: status %d\n%s", name, status, out.String())
		}
	}
	f.answers["POST /v1/keysets/default/rotate"] = wire.Problem{}
	for line, says := range map[string]string{
		"help rotat":           `there is no command "rotat", did you mean rotate?`,
		"help completion bsah": `there is no command "bsah", did you mean bash?`,
		"help nothing-like-it": `there is no command "nothing-like-it"`,
		"completion foo":       `there is no shell "foo"`,
		"completion bahs":      `there is no shell "bahs", did you mean bash?`,
		"completion bash x":    `unexpected argument "x"`,
	} {
		var out, errs strings.Builder
		status := execute(t.Context(), strings.Fields(line), terminal{in: strings.NewReader(""), out: &out, err: &errs})
		if status != 2 || out.String() != "" || !strings.Contains(errs.String(), says) {
			t.Errorf("%s: status %d\n%s%s", line, status, out.String(), errs.String())
		}
	}
}
