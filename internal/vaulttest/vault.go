package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Options of New.
type Options struct {
	// Nodes is one, in memory, by default. More make a raft cluster on disk.
	Nodes int
	// TLS: the API is served over TLS, and asks for client certificates. See
	// Vault.CAFile and Vault.ClientCert.
	TLS bool
}

// Vault is a server: one node, or a cluster. Its methods fail the test when
// something does not work.
type Vault struct {
	Nodes []*Node

	opt    Options
	binary string
	dir    string
	http   *http.Client
	root   string // token
	unseal string // key
	own    bool   // belongs to one test
	ca     *authority
}

// shared is the server that the tests of one process share. Only Main and
// Start touch it.
var shared struct {
	mu     sync.Mutex
	inMain bool
	vault  *Vault
}

// Main runs the tests of a package and ends the server that they share; call
// it from TestMain.
func Main(m *testing.M) {
	shared.mu.Lock()
	shared.inMain = true
	shared.mu.Unlock()
	code := m.Run()
	shared.mu.Lock()
	if shared.vault != nil {
		shared.vault.end()
	}
	os.Exit(code)
}

// Start returns the unsealed server that the tests of this process share, or
// one of the test's own where Main does not run them.
func Start(t testing.TB) *Vault {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.inMain {
		return New(t, Options{})
	}
	if shared.vault == nil {
		dir, err := os.MkdirTemp("", "vaulttest")
		if err != nil {
			t.Fatal(err)
		}
		if shared.vault, err = open(dir, Options{Nodes: 1}); err != nil {
			os.RemoveAll(dir)
			t.Fatal(err)
		}
	}
	shared.vault.showLogs(t)
	return shared.vault
}

// Cluster returns an unsealed raft cluster of the test's own, with a leader.
func Cluster(t testing.TB, nodes int) *Vault {
	t.Helper()
	return New(t, Options{Nodes: nodes})
}

// New returns an unsealed server of the test's own.
func New(t testing.TB, opt Options) *Vault {
	t.Helper()
	opt.Nodes = max(1, opt.Nodes)
	v, err := open(t.TempDir(), opt)
	if err != nil {
		t.Fatal(err)
	}
	v.own = true
	t.Cleanup(v.end)
	v.showLogs(t)
	return v
}

// open starts and unseals all nodes. The ports are chosen before Vault takes
// them, so that somebody may be quicker: it is tried three times.
func open(dir string, opt Options) (v *Vault, err error) {
	binary, err := Binary() // which may take minutes
	if err != nil {
		return nil, err
	}
	for range 3 {
		v = &Vault{opt: opt, binary: binary, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
		if v.dir, err = os.MkdirTemp(dir, "vault"); err != nil {
			return nil, err
		}
		if err = v.start(); err == nil {
			return v, nil
		}
		v.end()
	}
	return nil, fmt.Errorf("starting Vault: %w", err)
}

func (v *Vault) start() error {
	ctx, cancel := startup()
	defer cancel()
	if v.opt.TLS {
		if err := v.makeCertificates(); err != nil {
			return err
		}
	}
	for i := range v.opt.Nodes {
		n := &Node{vault: v, name: fmt.Sprintf("node%d", i+1), dir: v.path(fmt.Sprintf("node%d", i+1))}
		if err := os.MkdirAll(n.dir, 0o700); err != nil {
			return err
		}
		if err := n.prepare(); err != nil {
			return err
		}
		v.Nodes = append(v.Nodes, n)
		if err := n.start(ctx); err != nil {
			return err
		}
		if err := v.join(ctx, n); err != nil {
			return err
		}
	}
	return v.settle(ctx)
}

// settle waits for an active node, and until every node has a vote, so that
// the cluster survives the loss of any.
func (v *Vault) settle(ctx context.Context) error {
	active, err := v.leader(ctx)
	if err != nil || len(v.Nodes) == 1 {
		return err
	}
	return poll(ctx, func() error {
		var raft struct {
			Data struct {
				Config struct {
					Servers []struct {
						Voter bool `json:"voter"`
					} `json:"servers"`
				} `json:"config"`
			} `json:"data"`
		}
		if err := active.do(ctx, "GET", "sys/storage/raft/configuration", v.root, nil, &raft); err != nil {
			return err
		}
		voters := 0
		for _, s := range raft.Data.Config.Servers {
			if s.Voter {
				voters++
			}
		}
		if voters < len(v.Nodes) {
			return fmt.Errorf("%d of %d nodes have a vote", voters, len(v.Nodes))
		}
		return nil
	})
}

// join makes the first node the cluster, and the others its members.
//
// https://developer.hashicorp.com/vault/api-docs/system/init
// https://developer.hashicorp.com/vault/api-docs/system/storage/raft#join-a-raft-cluster
func (v *Vault) join(ctx context.Context, n *Node) error {
	if n == v.Nodes[0] {
		var made struct {
			Keys      []string `json:"keys"`
			RootToken string   `json:"root_token"`
		}
		if err := n.do(ctx, "PUT", "sys/init", "", map[string]any{"secret_shares": 1, "secret_threshold": 1}, &made); err != nil {
			return err
		}
		v.root, v.unseal = made.RootToken, made.Keys[0]
	} else if err := poll(ctx, func() error {
		return n.do(ctx, "PUT", "sys/storage/raft/join", "", map[string]any{"leader_api_addr": v.Nodes[0].Address}, nil)
	}); err != nil {
		return err
	}
	if err := n.open(ctx, joined); err != nil {
		return err
	}
	if n != v.Nodes[0] || len(v.Nodes) == v.opt.Nodes {
		return nil
	}
	// A new node has no vote until it was stable for this long.
	return n.do(ctx, "POST", "sys/storage/raft/autopilot/configuration", v.root, map[string]any{"server_stabilization_time": "200ms"}, nil)
}

// A node that has just joined takes a moment over the key. If it gets it again
// in that moment it is unsealed twice: two standbys run in one process, and one
// day it leads the cluster and never becomes active.
const (
	joined  = 10 * time.Second // pause before the key is sent again
	ordered = 0                // any other node answers when it is done
)

// open unseals the node and waits until it serves.
func (n *Node) open(ctx context.Context, again time.Duration) error {
	var sent time.Time
	if err := poll(ctx, func() error {
		if time.Since(sent) > again {
			if err := n.do(ctx, "PUT", "sys/unseal", "", map[string]any{"key": n.vault.unseal}, nil); err != nil {
				return err
			}
			sent = time.Now()
		}
		h, err := n.health()
		if err == nil && h.Sealed {
			err = errors.New("still sealed")
		}
		return err
	}); err != nil {
		return fmt.Errorf("unsealing %s: %w", n.name, err)
	}
	_, err := n.vault.leader(ctx)
	return err
}

// leader waits until a running node is active and serves.
func (v *Vault) leader(ctx context.Context) (*Node, error) {
	var found *Node
	err := poll(ctx, func() error {
		for _, n := range v.Nodes {
			if n.cmd == nil {
				continue
			}
			h, err := n.health()
			if err != nil || h.Sealed || h.Standby || !h.Initialized {
				continue
			}
			if n.do(ctx, "GET", "sys/mounts", v.root, nil, nil) == nil {
				found = n
				return nil
			}
		}
		return errors.New("no node is active")
	})
	return found, err
}

func startup() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 90*time.Second)
}

func (v *Vault) path(name string) string { return filepath.Join(v.dir, name) }

func (v *Vault) scheme() string {
	if v.opt.TLS {
		return "https"
	}
	return "http"
}

// end kills all nodes and removes their data.
func (v *Vault) end() {
	for _, n := range v.Nodes {
		n.kill()
	}
	v.http.CloseIdleConnections()
	_ = os.RemoveAll(v.dir)
}

// showLogs prints what the nodes log from now on if the test fails.
func (v *Vault) showLogs(t testing.TB) {
	offsets := make([]int64, len(v.Nodes))
	for i, n := range v.Nodes {
		if info, err := os.Stat(n.log); err == nil && !v.own {
			offsets[i] = info.Size()
		}
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for i, n := range v.Nodes {
			t.Logf("the log of Vault %s:\n%s", n.name, n.tail(offsets[i]))
		}
	})
}
