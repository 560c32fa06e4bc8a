package vaulttest

import (
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestStartIsShared(t *testing.T) {
	a, b := Start(t), Start(t)
	if a != b {
		t.Error("two servers in one process")
	}
	mount := a.KV(t)
	a.Do(t, "POST", mount+"/data/x", map[string]any{"data": map[string]any{"a": "b"}})
	out := a.Do(t, "GET", mount+"/data/x", nil)
	if got := out["data"].(map[string]any)["data"].(map[string]any)["a"]; got != "b" {
		t.Errorf("read back %v", got)
	}
}

// The engines and logins that the tests of the product need.
func TestParts(t *testing.T) {
	v := Start(t)
	for _, kind := range []string{"approle", "jwt", "cert"} {
		v.EnableAuth(t, kind)
	}
	v.Transit(t)
	token := v.Token(t, map[string]any{"policies": []string{"default"}})
	if _, err := v.Try(t, token, "GET", "sys/mounts", nil); err == nil {
		t.Error("a token without a policy may list the mounts")
	}
	if _, err := v.Try(t, token, "GET", "auth/token/lookup-self", nil); err != nil {
		t.Error(err)
	}
}

func TestSealInMemory(t *testing.T) {
	v := New(t, Options{})
	v.Nodes[0].Seal(t)
	if h, err := v.Nodes[0].health(); err != nil || !h.Sealed {
		t.Fatalf("%+v, %v", h, err)
	}
	v.Nodes[0].Unseal(t)
	v.Do(t, "GET", "sys/mounts", nil)
}

func TestTLS(t *testing.T) {
	v := New(t, Options{TLS: true})
	v.Do(t, "GET", "sys/mounts", nil)
	v.ClientCert(t, "somebody")
}

func TestCluster(t *testing.T) {
	v := Cluster(t, 3)
	mount := v.KV(t)
	write := func(key string) {
		t.Helper()
		v.Do(t, "POST", mount+"/data/"+key, map[string]any{"data": map[string]any{"a": key}})
	}
	write("first")

	old := v.Leader(t)
	old.Kill(t)
	if old.Running() {
		t.Error("killed, and runs")
	}
	if next := v.Leader(t); next == old {
		t.Error("the leader is the one that was killed")
	}
	write("second")
	old.Restart(t)

	before := v.Leader(t)
	before.StepDown(t)
	write("third")

	for range v.Nodes { // the active one, and those that take over
		v.Leader(t).Seal(t)
		sealed := 0
		for _, n := range v.Nodes {
			if h, err := n.health(); err == nil && h.Sealed {
				sealed++
			}
		}
		if sealed > 1 { // no quorum: nobody takes over
			break
		}
	}
	for _, n := range v.Nodes {
		if h, err := n.health(); err == nil && h.Sealed {
			n.Unseal(t)
		}
	}
	for _, key := range []string{"first", "second", "third"} {
		v.Do(t, "GET", mount+"/data/"+key, nil)
	}
}
