package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// newTransport is Go's own with our certificates. The client's certificate is
// read at each handshake, so that a renewed one is taken up.
func newTransport(cfg Config) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName},
		ExpectContinueTimeout: time.Second,
	}
	if cfg.CACertFile != "" {
		pem, err := os.ReadFile(cfg.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate authority of Vault: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate: it must be the PEM file of the authority that signed Vault's", cfg.CACertFile)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	if (cfg.ClientCertFile == "") != (cfg.ClientKeyFile == "") {
		return nil, errors.New("a client certificate for Vault needs both files, certificate and key")
	}
	if cfg.ClientCertFile != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.ClientCertFile, cfg.ClientKeyFile)
			if err != nil {
				return nil, fmt.Errorf("reading the client certificate for Vault (%s, %s): %w", cfg.ClientCertFile, cfg.ClientKeyFile, err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return t, nil
}

func isCertificate(err error) bool {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
	)
	return errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &invalid) || errors.As(err, &verify)
}

// skew is the newest comparison of Vault's clock with ours.
type skew struct {
	mu    sync.Mutex
	known bool
	ahead time.Duration
}

func (s *skew) last() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ahead, s.known
}

// note compares the Date of an answer with the times around the request. Vault
// told it between the two, and cut it to seconds; what is left is a difference
// of the clocks for certain.
func (s *skew) note(date string, sent, received time.Time) {
	told, err := http.ParseTime(date)
	if err != nil {
		return
	}
	var ahead time.Duration
	sent, received = sent.Round(0), received.Round(0)
	if early := told.Sub(received); early > 0 {
		ahead = early
	} else if late := told.Add(time.Second).Sub(sent); late < 0 {
		ahead = late
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.ahead = true, ahead
}

// dated is a transport that notes the clock of the server.
type dated struct {
	*http.Transport
	skew *skew
}

func (d dated) RoundTrip(r *http.Request) (*http.Response, error) {
	sent := time.Now()
	resp, err := d.Transport.RoundTrip(r)
	if err == nil {
		d.skew.note(resp.Header.Get("Date"), sent, time.Now())
	}
	return resp, err
}

const (
	attempts  = 4
	firstWait = 50 * time.Millisecond
)

// retry repeats a read while Vault cannot serve, a few times only: who calls
// us comes again anyway.
func (c *Client) retry(ctx context.Context, do func(context.Context) error) error {
	wait := firstWait
	for n := 1; ; n++ {
		err := do(ctx)
		if err == nil || n >= max(attempts, len(c.nodes)+1) || !again(err) {
			return err
		}
		if sleep(ctx, jitter(wait)) != nil {
			return err
		}
		wait *= 3
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
