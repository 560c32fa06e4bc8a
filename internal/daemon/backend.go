package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jwksd/jwksd/internal/clock"
	"github.com/jwksd/jwksd/internal/config"
	"github.com/jwksd/jwksd/internal/custody"
	"github.com/jwksd/jwksd/internal/migrate"
	"github.com/jwksd/jwksd/keystore/file"
	"github.com/jwksd/jwksd/keystore/vault"
	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// backend is where documents and private keys are kept.
type backend struct {
	documents rotator.Documents
	custody   rotator.Custody
	reports   rotator.Reports // nil if nobody shares the store
	orphanAge time.Duration
	// skew tells how far the store's clock is ahead of ours, if it has one.
	skew  func() (time.Duration, bool)
	close func() error
	// away is why the store could not be looked at. It is set only if there may
	// be a last good copy to start from.
	away error
}

// vaultOrphanAge is how old an unnamed private key in Vault must be before it
// is destroyed: longer than a lost write may take to land.
const vaultOrphanAge = time.Hour

func openBackend(ctx context.Context, c config.Config, clk *clock.Clock, log *slog.Logger) (*backend, error) {
	if c.Keystore.Vault != nil {
		return openVault(ctx, c, log)
	}
	keep := c.Keystore.File
	if err := migrate.CheckMark(keep.Dir); err != nil {
		return nil, err
	}
	store, err := file.Open(file.Options{Dir: keep.Dir, Identity: keep.Identity, Now: clk.Now, Logger: log})
	if err != nil {
		return nil, err
	}
	return &backend{
		documents: store,
		custody:   custody.Local{Keys: store},
		orphanAge: 0, // the store is locked: no write of another process can land
		close:     store.Close,
	}, nil
}

func openVault(ctx context.Context, c config.Config, log *slog.Logger) (*backend, error) {
	v := c.Keystore.Vault
	client, err := vault.NewClient(vaultClient(v, log))
	if err != nil {
		return nil, err
	}
	publisher := c.Role == config.RolePublisher
	store, err := vault.NewStore(client, vault.Options{Mount: v.Mount, Path: v.Path, ReadOnly: publisher, Log: log})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	b := &backend{
		documents: store,
		reports:   store,
		orphanAge: vaultOrphanAge,
		skew:      client.Skew,
		close:     func() error { return errors.Join(store.Close(), client.Close()) },
	}
	places := custody.Places{}
	if !publisher {
		places[rotation.CustodyLocal] = custody.Local{Keys: store}
	}
	if !publisher && v.TransitMount != "" {
		places[rotation.CustodyTransit] = custody.NewTransit(vault.NewTransit(client, v.TransitMount), v.Mount+"/"+v.Path)
	}
	b.custody = places
	if err := store.Check(ctx); err != nil {
		if c.LastGood == "" || !outOfReach(err) {
			return nil, errors.Join(err, b.close())
		}
		b.away = err
	}
	return b, nil
}

// vaultClient turns the configuration into the client's.
func vaultClient(v *config.Vault, log *slog.Logger) vault.Config {
	c := vault.Config{
		Addresses: []string{v.Address}, Namespace: v.Namespace, CACertFile: v.CACert,
		Timeout: v.Timeout.Std(), Log: log,
		Auth: vault.Auth{TokenFile: v.Auth.TokenFile},
	}
	if a := v.Auth.AppRole; a != nil {
		c.Auth.AppRole = &vault.AppRole{Mount: a.Mount, RoleIDFile: a.RoleIDFile, SecretIDFile: a.SecretIDFile, Wrapped: a.Wrapped}
	}
	if k := v.Auth.Kubernetes; k != nil {
		c.Auth.Kubernetes = &vault.Kubernetes{Mount: k.Mount, Role: k.Role, TokenFile: k.TokenFile}
	}
	if j := v.Auth.JWT; j != nil {
		c.Auth.JWT = &vault.JWT{Mount: j.Mount, Role: j.Role, TokenFile: j.TokenFile}
	}
	if cert := v.Auth.Cert; cert != nil {
		c.ClientCertFile, c.ClientKeyFile = cert.Cert, cert.Key
		c.Auth.Cert = &vault.Cert{Mount: cert.Mount, Role: cert.Name}
	}
	return c
}
