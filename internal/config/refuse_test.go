package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// refusal is a text that must be refused, and how the message begins after the
// name of the file.
type refusal struct{ text, want string }

func runRefusals(t *testing.T, tests []refusal) {
	t.Helper()
	for _, tt := range tests {
		_, err := Parse("f.yaml", []byte(tt.text), now())
		if err == nil {
			t.Errorf("accepted:\n%s", tt.text)
			continue
		}
		if want := "f.yaml:" + tt.want; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q\n got %s\nwant %s", tt.text, err, want)
		}
	}
}

// keyset is a file whose keyset default has the given line as line 4.
func keyset(line string) string {
	return "keysets:\n  default:\n    issuer: https://auth.example.com\n    " + line + "\n"
}

func TestC01AlgorithmsAreAClosedList(t *testing.T) {
	var tests []refusal
	for _, alg := range []string{"none", "noNE", "None", "HS256", "HS384", "HS512", "es256", "ES256K", "RSA1_5", "dir", `""`, `"ES256 "`} {
		quoted := `"` + strings.Trim(alg, `"`) + `"`
		tests = append(tests, refusal{
			keyset("algorithms: [ES256, " + alg + "]"),
			"4:25: keysets.default.algorithms[1]: unsupported algorithm " + quoted + ": choose one of ES256,",
		})
	}
	for _, bits := range []int{0, 1024, 2047, 2049, 8200, 16384} {
		tests = append(tests, refusal{
			keyset(fmt.Sprintf("rsa_bits: %d", bits)),
			fmt.Sprintf("4:15: keysets.default.rsa_bits: %d: want a multiple of 8 from 2048 to 8192", bits),
		})
	}
	runRefusals(t, append(tests,
		refusal{keyset("algorithms: []"), "4:17: keysets.default.algorithms: empty"},
		refusal{keyset("algorithms: [ES256, ES256]"), "4:17: keysets.default.algorithms: ES256 is listed twice"},
		refusal{keyset("algorithms: ES256"), `4:17: keysets.default.algorithms: want a list, as in [a, b], got the text "ES256"`},
	))
}

func TestC02SchedulesThatDoNotHold(t *testing.T) {
	for spec, want := range map[string]string{
		"TZ=":                  "want a zone and then five cron fields",
		"CRON_TZ=":             "want a zone and then five cron fields",
		"TZ=UTC":               "want a zone and then five cron fields",
		"CRON_TZ=Nowhere/At *": "unknown time zone",
		"0 3 30 2 *":           "there is no such date",
		"@every 0s":            "longer than zero",
		"@every -1h":           "longer than zero",
		"@every":               "want a number with a unit",
		"@every 2000d":         "at most five years",
		"@every 10m":           "rotate less often or lower one of these",
		"* * * * *":            "rotate less often or lower one of these",
		"@never":               "unrecognized descriptor",
		"0 3 1 *":              "expected exactly 5 fields",
		"":                     "empty schedule",
		"0 3 29 2 1#5":         "schedule",
	} {
		_, err := Parse("f.yaml", []byte(keyset(fmt.Sprintf("rotate: %q", spec))), now())
		if err == nil || !strings.HasPrefix(err.Error(), "f.yaml:4:13: keysets.default.rotate: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", spec, err, want)
		}
	}
}

func TestC03Text(t *testing.T) {
	runRefusals(t, []refusal{
		{"", " the file is empty: a minimal one is\n"},
		{"# nothing\n", " the file is empty"},
		{"---\n", " the file is empty"},
		{"null\n", " the file is empty"},
		{"- a\n", "1:1: want a block of keys, got a list"},
		{"5\n", "1:1: want a block of keys, got the number 5"},
		{"{}\n", "1:1: keysets: there is no keyset"},
		{"keysets: [\n", "1:10: this is no YAML: sequence end token"},
		{"a: b: c\n", "1:4: this is no YAML: mapping value is not allowed"},
		{"\tkeysets: {}\n", "1:8: this is no YAML: tab character"},
		{"a: 1\n---\nb: 1\n", "2:1: a second document begins here"},
		{"a: 1\n...\nb: 1\n", "3:1: text after the end of the document"},
		{"%YAML 1.2\n---\na: 1\n", "1:1: directives are not accepted"},
		{"a: &x [1]\nb: [*x, *x]\n", "1:4: anchors, aliases and merges are not accepted"},
		{keyset("<<: {}"), "4:5: anchors, aliases and merges are not accepted"},
		{keyset("rotate: * 3 * * *"), "4:13: anchors, aliases and merges are not accepted: write the value out, and put text that begins with & or * in quotes"},
		{keyset("rotate: @monthly"), "4:13: this is no YAML: '@' is a reserved character; check the indentation, and put text with special characters in quotes"},
		{keyset("rotate: !!str x"), "4:13: tags are not accepted"},
		{"? a\n: b\n", "1:1: keys with ? are not accepted"},
		{"a: x\n# \xff\n", "2:3: the text is not UTF-8"},
		{strings.Repeat("[", 40), "1:33: nested more than 32 deep"},
		{strings.Repeat("- ", 40) + "a", "1:65: nested more than 32 deep"},
		{strings.Repeat("#", maxSize+1), " the file has more than 1048576 bytes"},
	})
}

func TestC03Keys(t *testing.T) {
	token := strings.Repeat("a1", 32)
	runRefusals(t, []refusal{
		{"keyset: {}\nkeysets: {a: {issuer: https://a.example}}\n", "1:1: keyset: unknown key: did you mean keysets?"},
		{"sync-interval: 1s\n" + keyset(""), "1:1: sync-interval: unknown key: did you mean sync_interval?"},
		{"logging: {}\n" + keyset(""), "1:1: logging: unknown key: here may stand keystore, sync_interval, max_staleness,"},
		{"\"\": 1\n" + keyset(""), `1:1: "": unknown key`},
		{"\"a\\nb.c\": 1\n" + keyset(""), `1:1: "a\nb.c": unknown key`},
		{keyset("token_tll_max: 1h"), "4:5: keysets.default.token_tll_max: unknown key: did you mean token_ttl_max?"},
		{keyset("JWKSMaxAge: 1h"), "4:5: keysets.default.JWKSMaxAge: unknown key: did you mean jwks_max_age?"},
		{keyset("max_staleness: 1h"), "4:5: keysets.default.max_staleness: unknown key here: max_staleness belongs to the top level"},
		{"keystore: {redis: {address: x}}\n" + keyset(""), "1:12: keystore.redis: unknown key: here may stand file, vault"},
		{"keystore: {file: {directory: x}}\n" + keyset(""), "1:19: keystore.file.directory: unknown key: did you mean dir?"},
		{"callers:\n  - nmae: a\n" + keyset(""), "2:5: callers[0].nmae: unknown key: did you mean name?\nf.yaml:2:5: callers[0].identity"},
		{"callers: [{name: a, identity: {token_sha256: " + token + "}, grants: [{keysets: [a], actions: [read]}, {keysets: [a], actons: [read], actions: [read]}]}]\n" + keyset(""),
			"1:170: callers[0].grants[1].actons: unknown key: did you mean actions?"},
		{"callers: [{name: a, identity: {token_sha: " + token + ", token_sha256: " + token + "}, grants: [{keysets: [a], actions: [read]}]}]\n" + keyset(""),
			"1:32: callers[0].identity.token_sha: unknown key: did you mean token_sha256?"},
		{"listeners: {api: {tls: {certificate: x}}}\n" + keyset(""), "1:19: listeners.api.tls.key: missing: give the private key's PEM file\nf.yaml:1:25: listeners.api.tls.certificate: unknown key: did you mean cert?"},
		{"listeners: {admin: {}}\n" + keyset(""), "1:13: listeners.admin: unknown key: here may stand public, api, ops"},
		{keyset("") + "keysets: {}\n", "5:1: keysets: the key is repeated: it stands in line 1 already"},
		{keyset("issuer: https://b.example"), "4:5: keysets.default.issuer: the key is repeated: it stands in line 3 already"},
		{keyset("\n  default: {issuer: https://b.example}"), "5:3: keysets.default: the key is repeated"},
		{keyset("\n  \"default\": {issuer: https://b.example}"), "5:3: keysets.default: the key is repeated"},
		{"callers: [{name: a, identity: {token_sha256: " + token + "}, grants: [{keysets: [a], actions: [read], actions: [sign]}]}]\n" + keyset(""),
			"1:154: callers[0].grants[0].actions: the key is repeated"},
	})
}

func TestC03Types(t *testing.T) {
	runRefusals(t, []refusal{
		{"keysets: 5\n", "1:10: keysets: want a block of named keysets, got the number 5"},
		{"keysets: [default]\n", "1:10: keysets: want a block of named keysets, got a list"},
		{"keysets:\n", "1:1: keysets: no value: want a block of named keysets"},
		{"keysets:\n  default:\n", "2:3: keysets.default: no value: want a block of keys"},
		{"keysets:\n  default: yes\n", `2:12: keysets.default: want a block of keys, got the text "yes"`},
		{"keysets: {a: {issuer: 5}}\n", "1:23: keysets.a.issuer: want text, got the number 5: put it in quotes"},
		{"keysets: {a: {issuer: true}}\n", "1:23: keysets.a.issuer: want text, got true: put it in quotes"},
		{"keysets: {a: {issuer: [x]}}\n", "1:23: keysets.a.issuer: want text, got a list"},
		{keyset("discovery: yes"), `4:16: keysets.default.discovery: want true or false, got the text "yes"`},
		{keyset("discovery: 1"), "4:16: keysets.default.discovery: want true or false, got the number 1"},
		{keyset("rsa_bits: \"2048\""), `4:15: keysets.default.rsa_bits: want a whole number, got the text "2048"`},
		{keyset("rsa_bits: 2048.0"), "4:15: keysets.default.rsa_bits: \"2048.0\": want a whole number"},
		{keyset("rsa_bits: 0x800"), "4:15: keysets.default.rsa_bits: \"0x800\": want a whole number"},
		{keyset("rsa_bits: 4_096"), "4:15: keysets.default.rsa_bits: \"4_096\": want a whole number"},
		{keyset("algorithms: [256]"), "4:18: keysets.default.algorithms[0]: want text, got the number 256: put it in quotes"},
		{keyset("algorithms: [[ES256]]"), "4:18: keysets.default.algorithms[0]: want text, got a list"},
		{keyset("algorithms: {ES256}"), "4:5: keysets.default.algorithms: want a list, as in [a, b], got a block of keys"},
		{keyset("rotate:"), "4:5: keysets.default.rotate: no value: want text; remove the key if the default will do"},
		{keyset("token_ttl_max: 3600"), `4:20: keysets.default.token_ttl_max: "3600" has no unit`},
		{keyset("token_ttl_max: \"3600\""), `4:20: keysets.default.token_ttl_max: "3600" has no unit`},
		{keyset("token_ttl_max: 1.5"), `4:20: keysets.default.token_ttl_max: "1.5" has no unit`},
		{keyset("token_ttl_max: 0"), `4:20: keysets.default.token_ttl_max: "0" has no unit`},
		{keyset("token_ttl_max: .inf"), `4:20: keysets.default.token_ttl_max: ".inf" has no unit`},
		{keyset("token_ttl_max: 1 h"), `4:20: keysets.default.token_ttl_max: "1 h" is no duration`},
		{keyset("token_ttl_max: [1h]"), "4:20: keysets.default.token_ttl_max: want a duration, as in 90s, 15m, 1h30m or 30d, got a list"},
		{"callers: {name: a}\n" + keyset(""), "1:1: callers: want a list, as in [a, b], got a block of keys"},
		{"callers: [a]\n" + keyset(""), `1:11: callers[0]: want a block of keys, got the text "a"`},
	})
}

func TestC03Values(t *testing.T) {
	caller := func(identity, grants string) string {
		return "callers:\n- name: a\n  identity: " + identity + "\n  grants: " + grants + "\n" + keyset("")
	}
	id := "{token_sha256: \"" + strings.Repeat("0", 64) + "\"}"
	listen := func(s string) string { return "listeners:\n  " + s + "\n" + keyset("") }
	runRefusals(t, []refusal{
		{"keysets:\n  a:\n    rotate: \"@monthly\"\n", "2:3: keysets.a.issuer: missing: give the issuer's URL"},
		{"keysets: {a: {issuer: example.com}}\n", "1:23: keysets.a.issuer: \"example.com\" is not a URL"},
		{"keysets: {.a: {issuer: https://a.example}}\n", `1:11: keysets.".a": a keyset's name has 1 to 63`},
		{"keysets: {Default: {issuer: https://a.example}}\n", "1:11: keysets.Default: a keyset's name has"},
		{"keysets: {a/b: {issuer: https://a.example}}\n", "1:11: keysets.a/b: a keyset's name has"},
		{keyset("token_ttl_max: 500ms"), "4:20: keysets.default.token_ttl_max: 500ms: tokens count in whole seconds"},
		{keyset("verifier_cache: -1s"), "4:21: keysets.default.verifier_cache: -1s: must not be negative"},
		{keyset("custody: transit"), "4:14: keysets.default.custody: transit needs keystore.vault"},
		{keyset("custody: hsm"), "4:14: keysets.default.custody: \"hsm\": choose local or transit"},
		{"sync_interval: 0s\n" + keyset(""), "1:16: sync_interval: 0s: must be longer than zero"},
		{"sync_interval: 2h\n" + keyset(""), "1:16: sync_interval: 2h: must be shorter than max_staleness (1h)"},
		{"max_staleness: 0s\n" + keyset(""), "1:16: max_staleness: must be longer than zero"},
		{"clock_skew: -1s\n" + keyset("") + "  b: {issuer: https://b.example}\n", "1:13: clock_skew: -1s: must not be negative"},
		{"keystore: {file: {dir: ~/state}}\n" + keyset(""), "1:24: keystore.file.dir: \"~/state\": ~ is not expanded"},
		{"keystore: {file: {dir: \"\"}}\n" + keyset(""), "1:24: keystore.file.dir: empty"},
		{caller(id, "[]"), "4:11: callers[0].grants: none: say what the caller may do"},
		{caller("{}", "[{keysets: [a], actions: [read]}]"), "3:3: callers[0].identity.token_sha256: missing"},
		{caller("{token_sha256: abc}", "[{keysets: [a], actions: [read]}]"), "3:28: callers[0].identity.token_sha256: want 64 hexadecimal digits"},
		{caller("{token_sha256: "+emptySHA256+"}", "[{keysets: [a], actions: [read]}]"), "3:28: callers[0].identity.token_sha256: this is the hash of an empty token"},
		{caller(id, "[{keysets: [a]}]"), "4:13: callers[0].grants[0].actions: none: list some of sign, sign-input, read"},
		{caller(id, "[{actions: [read]}]"), "4:13: callers[0].grants[0].keysets: none"},
		{caller(id, "[{keysets: [a*], actions: [read]}]"), "4:23: callers[0].grants[0].keysets[0]: \"a*\" is no name of a keyset"},
		{caller(id, "[{keysets: [a], actions: [read, write]}]"), "4:43: callers[0].grants[0].actions[1]: unknown action \"write\": choose from sign,"},
		{caller(id, "[{keysets: [a], actions: [revoke_all]}]"), "4:37: callers[0].grants[0].actions[0]: unknown action \"revoke_all\": did you mean revoke-all?"},
		{caller(id, "[{keysets: [a], actions: [sign], types: [\"a b\"]}]"), "4:52: callers[0].grants[0].types[0]: \"a b\" is no typ value"},
		{caller(id, "[{keysets: [a], actions: [read], types: [x+jwt]}]"), "4:51: callers[0].grants[0].types: this grant signs nothing"},
		{listen("public: {address: 8080}"), "2:21: listeners.public.address: want text, got the number 8080"},
		{listen("public: {address: \"8080\"}"), "2:21: listeners.public.address: \"8080\": want host:port"},
		{listen("public: {address: \":http\"}"), "2:21: listeners.public.address: \":http\": the port must be a number"},
		{listen("public: {address: \":65536\"}"), "2:21: listeners.public.address: \":65536\": the port must be a number"},
		{listen("public: {address: \"\"}"), "2:21: listeners.public.address: \"\": want host:port"},
		{listen("public: {content_type: text/plain}"), "2:26: listeners.public.content_type: \"text/plain\": choose application/jwk-set+json or application/json"},
		{listen("api: {address: \"127.0.0.1:8080\"}"), "2:18: listeners.api.address: 127.0.0.1:8080 is the address of the public listener already"},
		{listen("api: {address: \":8081\"}"), "2:18: listeners.api.address: \":8081\" is reachable from other machines"},
		{listen("api: {address: \"10.0.0.1:8081\"}"), "2:18: listeners.api.address: \"10.0.0.1:8081\" is reachable"},
		{listen("api: {tls: {cert: a.crt}}"), "2:9: listeners.api.tls.key: missing: give the private key's PEM file"},
		{listen("ops: {}"), "2:3: listeners.ops.address: missing"},
	})
}

func TestC03TwoCallersAreTwo(t *testing.T) {
	one := "  identity: {token_sha256: \"" + strings.Repeat("0", 64) + "\"}\n  grants: [{keysets: [a], actions: [read]}]\n"
	runRefusals(t, []refusal{
		{keyset("") + "callers:\n- name: a\n" + one + "- name: a\n" + strings.Replace(one, "0", "1", 1), "9:9: callers[1].name: \"a\" is the name of callers[0] already"},
		{keyset("") + "callers:\n- name: a\n" + one + "- name: b\n" + one, "10:28: callers[1].identity.token_sha256: callers[0] has the same token already"},
	})
}

// Everything that is wrong is said at once, in the order of the lines, and
// nothing that only follows from another fault.
func TestC03AllFaultsAtOnce(t *testing.T) {
	text := `keysets:
  default:
    algorithms: [HS256, 5]
    rotate: "@every 1m"
    token_ttl_max: 3600
    tokenttl: 1h
  other:
    issuer: nowhere
sync_interval: 0s
listeners: {api: {address: ":8081"}}
`
	_, err := Parse("f.yaml", []byte(text), now())
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range e.Problems {
		got = append(got, fmt.Sprintf("%d %s", p.Line, p.Field))
	}
	want := []string{
		"2 keysets.default.issuer",
		"3 keysets.default.algorithms[0]",
		"3 keysets.default.algorithms[1]",
		"5 keysets.default.token_ttl_max",
		"6 keysets.default.tokenttl",
		"8 keysets.other.issuer",
		"9 sync_interval",
		"10 listeners.api.address",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s\n\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), err)
	}
}

func TestTheTokenItselfIsNotRepeated(t *testing.T) {
	const secret = "s3cr3t-bearer-token"
	_, err := Parse("f.yaml", []byte("callers: [{name: a, identity: {token_sha256: "+secret+"}}]\n"+keyset("")), now())
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v", err)
	}
}

func TestLongListsOfFaultsAreCut(t *testing.T) {
	_, err := Parse("f.yaml", []byte(keyset("algorithms: ["+strings.Repeat("x, ", 40)+"]")), now())
	if lines := strings.Split(err.Error(), "\n"); len(lines) != shownProblems+1 || !strings.HasPrefix(lines[shownProblems], "and ") {
		t.Errorf("got %s", err)
	}
}
