package daemon

import (
	"cmp"
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"badgerelay/cmd/badgerelay/internal/config"
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

const (
	// defaultConnections is what limits.connections has when it is left out.
	defaultConnections = 20_000
	// defaultToAPNs is the same of an app's max_connections.
	defaultToAPNs = 8
	// otherFiles is how many files are kept for all that are no agent's and not
	// Apple's: the registry, its readers, operators, and those of two listeners. Ours.
	otherFiles = 200 + process.OpsConnections + process.MetadataConnections
)

// limits returns the limits that a reload applies. Agents may have no more
// connections than leaves files for everything else: without any, the relay
// could neither reach APNs nor be operated.
func (d *daemon) limits(c *config.Config) ingest.Config {
	return ingest.Config{
		MaxConnections: d.connections(c, process.OpenFiles()), MaxAddressConnections: c.Limits.ConnectionsPerAddress,
		MaxStreams: c.Limits.Streams, MaxOrganizationStreams: c.Limits.StreamsPerOrganization,
		CallsPerSecond: c.Limits.CallsPerSecond, PublishEventsPerSecond: c.Limits.PublishEventsPerSecond,
	}
}

// connections returns how many connections agents may have where so many files
// may be open; 0: that is not known.
func (d *daemon) connections(c *config.Config, files uint64) int {
	wanted := cmp.Or(c.Limits.Connections, defaultConnections)
	kept := otherFiles
	for _, app := range c.Apps {
		kept += 2 * cmp.Or(app.MaxConnections, defaultToAPNs) // as many again may be on their way
	}
	if files == 0 || uint64(wanted+kept) <= files {
		return wanted
	}
	allowed := max(16, int(files)-kept)
	d.Log.Warn("fewer files may be open than limits.connections needs; fewer agents are let in", "connections", allowed,
		"limits_connections", wanted, "open_files", files, "needed", wanted+kept)
	return allowed
}
