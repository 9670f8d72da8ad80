package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"badgerelay/auth"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay/ingest"
	"badgerelay/relay/registry"
)

// startAuth makes what checks tokens, and starts what follows published keys and
// what keeps the credentials' last uses.
func (d *daemon) startAuth(lifecycle *process.Lifecycle, listeners *listeners) (err error) {
	if d.follower, err = d.newFollower(); err != nil {
		return err
	}
	var unknownKey func([20]byte, string)
	if d.follower != nil {
		lifecycle.Start("metadata follower", d.follower.Run, nil)
		unknownKey = d.follower.KeyUnknown
	}
	c := d.config
	d.validator, err = auth.NewValidator(auth.Config{
		Keys: d.registry, Principal: c.Principal(), Authorities: authorities(c, listeners),
		Skew: time.Duration(c.Auth.ClockSkew), MaxSpan: time.Duration(c.Auth.MaxTokenSpan), CacheSize: c.Auth.CacheSize,
		OnAccepted: d.used.accepted, OnUnknownKey: unknownKey, Registerer: d.Metrics,
	})
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	lifecycle.Start("credentials", d.touchCredentials, nil)
	return nil
}

// authorities returns the configured names, or the address that agents reach,
// with the port that the system chose.
func authorities(c *config.Config, listeners *listeners) []string {
	if len(c.Auth.Authorities) > 0 {
		return c.Auth.Authorities
	}
	return []string{listeners.agents.Addr().String()}
}

// registryChanged passes on what is new in the registry. The registry calls it after
// each commit and before the change is acknowledged; ingest listens by itself.
func (d *daemon) registryChanged(changes []registry.Change) {
	ingest.Tell(d.relay, d.validator, changes)
	changed := func(c registry.Change) bool { return c.Kind == registry.ChangeOrganizationChanged }
	if d.follower != nil && slices.ContainsFunc(changes, changed) {
		d.follower.SourcesChanged()
	}
}

// touchInterval is how exact a credential's last use is; contract,
// badgerelay.v1.Credential.last_used_at.
const touchInterval = time.Minute

// usedCredentials remembers which credentials were used since the last look.
type usedCredentials struct {
	mu   sync.Mutex // guards last
	last map[string]time.Time
}

// accepted is called with every accepted token.
func (u *usedCredentials) accepted(p auth.Principal) {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[string]time.Time{}
	}
	u.last[p.CredentialID] = now
}

func (u *usedCredentials) take() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	last := u.last
	u.last = nil
	return last
}

// touchCredentials writes last uses to the registry once a minute, and at the
// end.
func (d *daemon) touchCredentials(ctx context.Context) error {
	process.Every(ctx, touchInterval, func() { d.touch(ctx) })
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	d.touch(last)
	return nil
}

func (d *daemon) touch(ctx context.Context) {
	used := d.used.take()
	if len(used) == 0 {
		return
	}
	if err := d.registry.TouchCredentials(ctx, used); err != nil {
		d.Component("auth").Warn("last uses of credentials not kept", "error", err)
	}
}
