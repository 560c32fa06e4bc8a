package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
		servers = append(servers, &server{name: name, l: l, http: httpServer(h, d.log)})
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

func (c *certificate) load(t *config.TLS) error {
	if t == nil {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return fmt.Errorf("listeners.api.tls: %w", err)
	}
	c.current.Store(&pair)
	return nil
}

// tls returns the listener's TLS settings, nil for none.
func (d *daemon) tls(t *config.TLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	if err := d.cert.load(t); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return d.cert.current.Load(), nil
		},
	}, nil
}
