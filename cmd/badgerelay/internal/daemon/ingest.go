package daemon

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"badgerelay/cmd/internal/process"
	"badgerelay/relay/ingest"
)

// newServer makes the agents' server; startIngest starts it.
func (d *daemon) newServer(listeners *listeners, tracing trace.TracerProvider) error {
	c, err := d.ingestConfig(listeners, tracing)
	if err != nil {
		return err
	}
	if d.server, err = ingest.New(c); err != nil {
		return err
	}
	d.server.SetLimits(d.limits(d.config))
	return nil
}

func (d *daemon) ingestConfig(listeners *listeners, tracing trace.TracerProvider) (ingest.Config, error) {
	c := d.config
	tlsConfig, err := d.certs.Load("listen", c.Listen.TLS)
	return ingest.Config{
		Relay: d.relay, Registry: d.registry, Peers: d.peers(), Validator: d.validator, Apps: appNames(c), TLS: tlsConfig,
		Reports: d.reports(listeners),
		Version: d.version, Instance: d.instance, CoalescingWindow: c.CoalescingWindow(),
		MaxBatchEvents: c.Limits.BatchEvents,
		DrainGrace:     min(5*time.Second, c.DrainTimeout()/4), DrainTimeout: c.DrainTimeout() / 2,
		MinimumVersions: c.Products, DisableReflection: !c.Reflection(), TracerProvider: tracing,
		OrganizationMetrics: c.Ops.PerOrganization, Logger: d.Component("ingest"), Registerer: d.Metrics,
	}, err
}

// reports is what reports of mailboxes tell besides.
func (d *daemon) reports(listeners *listeners) ingest.Reports {
	r := ingest.Reports{Status: d.status, Place: placeOf(listeners.agents.Addr())}
	if d.postgres != nil {
		r.Others, r.Inquiries = d.postgres.Presences, d.postgres
	}
	return r
}

func (d *daemon) startIngest(lifecycle *process.Lifecycle, listeners *listeners) {
	lifecycle.Start("ingest", func(ctx context.Context) error { return d.server.Run(ctx, listeners.agents) }, func(ctx context.Context) error {
		d.server.Drain(ctx)
		return nil
	})
}
