package daemon

import (
	"context"
	"fmt"
	"time"

	"badgerelay/cmd/internal/process"
	"badgerelay/relay/registry"
)

// openRegistry opens the database that is configured. Its Run is started later.
func (d *daemon) openRegistry(ctx context.Context, lifecycle *process.Lifecycle) error {
	c := d.config.Registry
	lifetime := time.Duration(c.SubscriptionLifetime)
	if c.URL != "" {
		r, err := registry.OpenPostgres(ctx, registry.PostgresConfig{
			URL: c.URL, PasswordFile: c.PasswordFile, SubscriptionLifetime: lifetime,
			Registerer: d.Metrics, Logger: d.Component("registry"),
		})
		if err != nil {
			return fmt.Errorf("registry.url: %w", err)
		}
		d.registry, d.postgres = r, r
		lifecycle.AtEnd("registry connections", r.Close)
		if loses, err := r.FailoverLoses(ctx); err == nil && loses { // otherwise it was there a moment ago
			d.Log.Warn("a failover may lose what was acknowledged last", "why", noStandby)
		}
		return nil
	}
	path := d.config.RegistryPath()
	unlock, err := registry.LockForRelay(ctx, path)
	if err != nil {
		return fmt.Errorf("registry.path %s: %w", path, err)
	}
	lifecycle.AtEnd("registry lock", unlock)
	r, err := registry.OpenSQLite(ctx, registry.SQLiteConfig{
		Path: path, SubscriptionLifetime: lifetime, Registerer: d.Metrics, Logger: d.Component("registry"),
	})
	if err != nil {
		return fmt.Errorf("registry.path %s: %w", path, err)
	}
	d.registry = r
	lifecycle.AtEnd("registry file", r.Close)
	return nil
}

// noStandby is why a failover may lose something.
const noStandby = "registry.url names several hosts, and none is a synchronous standby"
