package daemon

import (
	"context"
	"net"
	"time"

	"badgerelay/cmd/internal/process"
	"badgerelay/relay/admin"
	"badgerelay/relay/registry"
)

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
	ticker := time.NewTicker(admin.PresenceInterval)
	defer ticker.Stop()
	failed := false
	for {
		err := d.announceOnce(ctx, registry.Presence{Name: place})
		if ctx.Err() == nil && (err != nil) != failed {
			failed = err != nil
			if failed {
				d.Log.Warn("other relays can't be told how this one is", "error", err)
			} else {
				d.Log.Info("other relays are told again")
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
			defer cancel()
			_ = d.announceOnce(last, registry.Presence{Name: place, Stopped: true}) // silence will tell
			return
		}
	}
}

func (d *daemon) announceOnce(ctx context.Context, one registry.Presence) (err error) {
	one.StartedAt = d.started
	if one.Status, err = d.admin.Presence(ctx); err != nil {
		return err
	}
	return d.postgres.Announce(ctx, one)
}
