package daemon

import (
	"cmp"
	"context"
	"time"

	"badgerelay/cmd/internal/process"
	"badgerelay/relay"
	"badgerelay/relay/ingest"
)

// startRelay starts the relay and the apps' pools.
func (d *daemon) startRelay(ctx context.Context, lifecycle *process.Lifecycle) (err error) {
	if d.relay, err = relay.New(d.relayConfig(ctx)); err != nil {
		return err
	}
	if d.postgres != nil {
		d.postgres.OnSumsChanged(d.relay.SumsChanged)
	}
	if err := d.buildApps(d.config); err != nil {
		return err
	}
	lifecycle.Start("apns", d.runPools, nil)
	lifecycle.Start("relay", d.relay.Run, d.drainRelay)
	return nil
}

func (d *daemon) relayConfig(ctx context.Context) relay.Config {
	c := d.config
	counts, _ := d.registry.Counts(ctx) // else not known
	return relay.Config{
		Expected: counts.Mailboxes, Subscriptions: d.registry, Apps: appNames(c),
		Window:   cmp.Or(c.CoalescingWindow(), -1), // negative: off
		ShownFor: time.Duration(c.Relay.RefreshAfter), ServerErrorWait: time.Duration(c.Relay.RetryAfterServerError),
		MaxMailboxes: c.Relay.MaxMailboxes, MaxInFlight: ingest.MaxInFlight, Alone: d.postgres == nil, Instance: d.instance,
		Recount: d.recount, Logger: d.Component("relay"), Registerer: d.Metrics,
	}
}

// drainRelay settles what can be settled, and leaves the pools their share.
func (d *daemon) drainRelay(budget context.Context) error {
	if deadline, ok := budget.Deadline(); ok {
		ctx, cancel := context.WithDeadline(budget, deadline.Add(-poolDrain(d.config)))
		defer cancel()
		budget = ctx
	}
	return d.relay.Drain(budget)
}

// recount asks agents for counts. Before there is a server nobody watches, and
// who begins to is told of every mailbox.
func (d *daemon) recount(keys []relay.MailboxKey) {
	select {
	case <-d.serving:
		d.server.Recount(keys)
	default:
	}
}
