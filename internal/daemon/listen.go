package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/jwks"
)

// server is one listener with its handler.
type server struct {
	name string
	http *http.Server
	l    net.Listener
	// unused are the connections over which nothing came yet, as load balancers
	// open them in advance. A stop does not wait for them.
	unused sync.Map // net.Conn to nothing
}

func newServer(name string, l net.Listener, h *http.Server) *server {
	s := &server{name: name, http: h, l: l}
	h.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.unused.Store(c, nil)
		} else {
			s.unused.Delete(c)
		}
	}
	return s
}

// listen opens every listener of the configuration, or none.
func (d *daemon) listen() (servers []*server, a Addresses, err error) {
	c := d.config.Load().Listeners
	defer func() {
		if err != nil {
			for _, s := range servers {
				s.l.Close()
			}
		}
	}()
	add := func(name, address string, h http.Handler, t *tls.Config) (string, error) {
		l, err := open(name, address)
		if err != nil {
			return "", err
		}
		url := urlOf("http", l)
		if t != nil {
			url = urlOf("https", l)
			l = tls.NewListener(l, t)
		}
		servers = append(servers, newServer(name, l, httpServer(h, d.log)))
		return url, nil
	}
	sets := jwks.Handler(&publisher{rotator: d.rotator, expected: d.expects}, jwks.Options{PlainJSON: c.Public.ContentType == config.ContentTypeJSON})
	if a.Public, err = add("public", c.Public.Address, sets, nil); err != nil {
		return servers, a, err
	}
	secure, err := d.tls(c.API.TLS)
	if err != nil {
		return servers, a, err
	}
	if a.API, err = add("api", c.API.Address, d.api, secure); err != nil {
		return servers, a, err
	}
	if c.Ops.Address != "" {
		a.Ops, err = add("ops", c.Ops.Address, d.health(), nil)
	}
	return servers, a, err
}

func open(name, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listeners.%s: %s is in use by another process: stop it or choose another address", name, address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listeners.%s: this user may not listen on %s: choose a port above 1023", name, address)
	case err != nil:
		return nil, fmt.Errorf("listeners.%s: %w", name, err)
	}
	return l, nil
}

// httpServer bounds everything that a client could hold open or make large.
func httpServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// run serves until ctx ends and then lets the requests under way end.
func (s *server) run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("listener %s: %w", s.name, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	s.l.Close() // from here on no connection is new
	s.unused.Range(func(c, _ any) bool {
		c.(net.Conn).Close()
		return true
	})
	if err := s.http.Shutdown(grace); err != nil {
		s.http.Close()
	}
	<-failed
	return nil
}

// certificate is what the api listener shows, exchanged on reload.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

// readCertificate reads the files, if there are any.
func readCertificate(t *config.TLS) (*tls.Certificate, error) {
	if t == nil {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("listeners.api.tls: %w", err)
	}
	return &pair, nil
}

// tls returns the listener's TLS settings, nil for none.
func (d *daemon) tls(t *config.TLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	cert, err := readCertificate(t)
	if err != nil {
		return nil, err
	}
	d.cert.current.Store(cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return d.cert.current.Load(), nil
		},
	}, nil
}
