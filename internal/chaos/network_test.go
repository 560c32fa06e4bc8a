package chaos

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// network is the way of one daemon to Vault: a balancer, as it stands in front
// of most Vaults, and behind it a proxy to each node, where connections are cut
// and slowed.
//
//	daemon -> balancer -> proxy -> node
type network struct {
	t       testing.TB
	proxies []*toxiproxy.Proxy
	checker *http.Client

	listener net.Listener
	mu       sync.Mutex
	healthy  []bool
	conns    []map[net.Conn]bool // by node
	first    int                 // node that is tried first
	closed   chan struct{}
	working  sync.WaitGroup
}

func newNetwork(t testing.TB, name string, first int, nodes []string) *network {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	n := &network{t: t, first: first, closed: make(chan struct{}), checker: &http.Client{Timeout: time.Second}}
	for i, address := range nodes {
		p := toxiproxy.NewProxy(server, fmt.Sprintf("%s-%d", name, i), "127.0.0.1:0", strings.TrimPrefix(address, "http://"))
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		n.proxies = append(n.proxies, p)
		n.conns = append(n.conns, map[net.Conn]bool{})
		n.healthy = append(n.healthy, true)
	}
	var err error
	if n.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	n.working.Go(n.accept)
	for i, p := range n.proxies {
		n.working.Go(func() { n.watch(i, "http://"+p.Listen) })
	}
	t.Cleanup(n.close)
	return n
}

func (n *network) close() {
	close(n.closed)
	n.listener.Close()
	for i := range n.conns {
		n.mark(i, false)
	}
	n.working.Wait()
	for _, p := range n.proxies {
		p.Stop()
	}
	n.checker.CloseIdleConnections()
}

// address is what the daemon is told.
func (n *network) address() string { return "http://" + n.listener.Addr().String() }

// watch asks a node how it is, by the way that requests go too.
func (n *network) watch(i int, address string) {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-n.closed:
			return
		case <-tick.C:
		}
		resp, err := n.checker.Get(address + "/v1/sys/health?standbyok=true&perfstandbyok=true")
		if err == nil {
			resp.Body.Close()
		}
		n.mark(i, err == nil && resp.StatusCode == http.StatusOK)
	}
}

// mark notes how a node is. The connections to one that is ill are closed.
func (n *network) mark(i int, well bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.healthy[i] = well
	if !well {
		for c := range n.conns[i] {
			c.Close()
		}
	}
}

func (n *network) accept() {
	for {
		c, err := n.listener.Accept()
		if err != nil {
			return
		}
		n.working.Go(func() { n.serve(c) })
	}
}

// serve joins a connection with one to a node that is well.
func (n *network) serve(c net.Conn) {
	defer c.Close()
	i, up := n.dial()
	if up == nil {
		return
	}
	defer up.Close()
	n.mu.Lock()
	n.conns[i][c] = true
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.conns[i], c)
	}()
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(c, up)
		c.Close()
	})
	io.Copy(up, c)
	up.Close()
	back.Wait()
}

func (n *network) dial() (int, net.Conn) {
	for k := range n.proxies {
		i := (n.first + k) % len(n.proxies)
		n.mu.Lock()
		well := n.healthy[i]
		n.mu.Unlock()
		if !well {
			continue
		}
		if c, err := net.DialTimeout("tcp", n.proxies[i].Listen, time.Second); err == nil {
			return i, c
		}
	}
	return 0, nil
}

// cut closes every connection and accepts no more, until the returned function
// mends it.
func (n *network) cut() (mend func()) {
	n.t.Helper()
	for _, p := range n.proxies {
		p.Stop()
	}
	return func() {
		n.t.Helper()
		for _, p := range n.proxies {
			if err := p.Start(); err != nil {
				n.t.Errorf("mending a connection: %v", err)
			}
		}
	}
}

// poison adds a toxic to every connection, in toxiproxy's own words, until the
// returned function takes it away.
func (n *network) poison(toxic string) (cure func()) {
	n.t.Helper()
	for _, p := range n.proxies {
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			n.t.Errorf("%s: %v", toxic, err)
		}
	}
	return func() {
		for _, p := range n.proxies {
			p.Toxics.ResetToxics(n.t.Context())
		}
	}
}
