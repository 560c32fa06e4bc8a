package vaulttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Node is one Vault process.
type Node struct {
	// Address is its URL.
	Address string

	vault  *Vault
	name   string
	dir    string
	listen string // host and port of the API
	peer   string // host and port between nodes
	log    string // path

	cmd  *exec.Cmd // nil while it does not run
	done chan struct{}
}

// prepare chooses the node's ports and writes its configuration.
func (n *Node) prepare() error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	n.listen, n.peer = ports[0], ports[1]
	n.Address = n.vault.scheme() + "://" + n.listen
	n.log = filepath.Join(n.dir, "vault.log")
	return n.configure()
}

// configure writes the configuration, in JSON.
//
// https://developer.hashicorp.com/vault/docs/configuration
func (n *Node) configure() error {
	listener := map[string]any{"address": n.listen, "cluster_address": n.peer, "tls_disable": !n.vault.opt.TLS}
	if n.vault.opt.TLS {
		listener["tls_cert_file"] = n.vault.path("server.pem")
		listener["tls_key_file"] = n.vault.path("server-key.pem")
		listener["tls_disable_client_certs"] = false
	}
	storage := map[string]any{"inmem": map[string]any{}}
	if n.vault.opt.Nodes > 1 {
		data := filepath.Join(n.dir, "data")
		if err := os.MkdirAll(data, 0o700); err != nil {
			return err
		}
		storage = map[string]any{"raft": map[string]any{
			"path": data, "node_id": n.name, "performance_multiplier": "1",
			"autopilot_reconcile_interval": "300ms", "autopilot_update_interval": "300ms",
		}}
	}
	raw, err := json.Marshal(map[string]any{
		"disable_mlock":     true,
		"log_level":         "info",
		"storage":           storage,
		"listener":          map[string]any{"tcp": listener},
		"api_addr":          n.Address,
		"cluster_addr":      "https://" + n.peer,
		"default_lease_ttl": "768h", "max_lease_ttl": "768h",
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.dir, "vault.json"), raw, 0o600)
}

// start runs the process and waits until it answers, sealed or not.
func (n *Node) start(ctx context.Context) error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.vault.binary, "server", "-config="+filepath.Join(n.dir, "vault.json"))
	cmd.Dir = n.dir
	cmd.Env = []string{"HOME=" + n.dir, "PATH=" + os.Getenv("PATH"), "GOMAXPROCS=2"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = mortal()
	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		// The process dies with its thread, which lives as long as this.
		runtime.LockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	n.cmd, n.done = cmd, done
	return poll(ctx, func() error {
		select {
		case <-done:
			return fatal{fmt.Errorf("vault ended at once:\n%s", n.tail(0))}
		default:
		}
		_, err := n.health()
		return err
	})
}

// kill ends the process, if it runs, without a chance to say good-bye.
func (n *Node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill()
	<-n.done
	n.cmd = nil
}

// health is what a node says about itself.
//
// https://developer.hashicorp.com/vault/api-docs/system/health
type health struct {
	Initialized bool `json:"initialized"`
	Sealed      bool `json:"sealed"`
	Standby     bool `json:"standby"`
}

func (n *Node) health() (health, error) {
	var h health
	// Asked like this, it always answers 200.
	err := n.do(context.Background(), "GET", "sys/health?standbyok=true&sealedcode=200&uninitcode=200", "", nil, &h)
	return h, err
}

// do sends one request to this node. Headers are names and values.
func (n *Node) do(ctx context.Context, method, path, token string, in, out any, headers ...string) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, n.Address+"/v1/"+path, body)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	req.Header.Set("X-Vault-Request", "true")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := n.vault.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// tail is the end of the log, from an offset on.
func (n *Node) tail(offset int64) string {
	f, err := os.Open(n.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err.Error()
	}
	raw, _ := io.ReadAll(f)
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// freePorts finds addresses that nobody listens on now.
func freePorts(count int) ([]string, error) {
	var addresses []string
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // together, so that none comes twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// fatal is an error that waiting does not mend.
type fatal struct{ error }

// poll repeats try until it succeeds.
func poll(ctx context.Context, try func() error) error {
	for {
		err := try()
		var f fatal
		if err == nil || errors.As(err, &f) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}
