package daemon

import (
	"context"
	"fmt"
	"net"
	"time"

	"badgerelay/cmd/internal/process"
	"badgerelay/relay/admin"
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
	d.registry, d.file = r, r
	lifecycle.AtEnd("registry file", r.Close)
	return nil
}

// noStandby is why a failover may lose something.
const noStandby = "registry.url names several hosts, and none is a synchronous standby"

// placeOf names where a relay serves agents: the machine and the address, as in
// "mx1/[::]:8443". So a relay that is started again takes the place of the
// process before.
func placeOf(agents net.Addr) string { return hostname() + "/" + agents.String() }

// lastWord bounds the telling of the end, which must not keep a relay from it.
const lastWord = 2 * time.Second

// startPresence has the relays that share the registry told of this one; where none
// can, it does nothing.
func (d *daemon) startPresence(lifecycle *process.Lifecycle, listeners *listeners) {
	if d.postgres == nil {
		return
	}
	lifecycle.Start("presence", func(ctx context.Context) error { d.announce(ctx, placeOf(listeners.agents.Addr())); return nil }, nil)
}

// announce tells the relays that share the registry how this one is, from when
// it serves until ctx is done, and then that it has stopped.
func (d *daemon) announce(ctx context.Context, place string) {
	select {
	case <-d.serving:
	case <-ctx.Done():
		return
	}
	failed := false
	announce := func() {
		err := d.announceOnce(ctx, registry.Presence{Name: place})
		if ctx.Err() != nil || (err != nil) == failed {
			return
		}
		if failed = err != nil; failed {
			d.Log.Warn("other relays can't be told how this one is", "error", err)
		} else {
			d.Log.Info("other relays are told again")
		}
	}
	announce()
	process.Every(ctx, admin.PresenceInterval, announce)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer cancel()
	_ = d.announceOnce(last, registry.Presence{Name: place, Stopped: true}) // silence will tell
}

func (d *daemon) announceOnce(ctx context.Context, one registry.Presence) (err error) {
	one.StartedAt = d.started
	if one.Status, err = d.admin.Presence(ctx); err != nil {
		return err
	}
	return d.postgres.Announce(ctx, one)
}
