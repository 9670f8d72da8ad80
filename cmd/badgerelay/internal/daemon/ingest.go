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
	c := d.config
	tlsConfig, err := d.certs.Load("listen", c.Listen.TLS)
	if err != nil {
		return err
	}
	config := ingest.Config{
		Relay: d.relay, Registry: d.registry, Validator: d.validator, Apps: appNames(c), TLS: tlsConfig,
		Reports: ingest.Reports{Status: d.status, Place: placeOf(listeners.agents.Addr())},
		Version: d.version, Instance: d.instance, CoalescingWindow: c.CoalescingWindow(),
		MaxBatchEvents: c.Limits.BatchEvents,
		DrainGrace:     min(5*time.Second, c.DrainTimeout()/4), DrainTimeout: c.DrainTimeout() / 2,
		MinimumVersions: c.Products, DisableReflection: !c.Reflection(), TracerProvider: tracing,
		OrganizationMetrics: c.Ops.PerOrganization, Logger: d.Component("ingest"), Registerer: d.Metrics,
	}
	if d.postgres != nil { // else there can be no other relays
		config.Peers, config.Reports.Others, config.Reports.Inquiries = d.postgres, d.postgres.Presences, d.postgres
	}
	if d.server, err = ingest.New(config); err != nil {
		return err
	}
	d.server.SetLimits(d.limits(c))
	return nil
}

func (d *daemon) startIngest(lifecycle *process.Lifecycle, listeners *listeners) {
	lifecycle.Start("ingest", func(ctx context.Context) error { return d.server.Run(ctx, listeners.agents) }, func(ctx context.Context) error {
		d.server.Drain(ctx)
		return nil
	})
}
