package daemon

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"badgerelay/apns"
	"badgerelay/auth"
	"badgerelay/auth/authmetadata"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/badgerelay/internal/statuspage"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
	"badgerelay/cmd/internal/sdnotify"
	"badgerelay/relay"
	"badgerelay/relay/admin"
	"badgerelay/relay/ingest"
	"badgerelay/relay/registry"
)

// Options say what a daemon runs on. Config and Log are required.
type Options struct {
	// Config is a validated configuration.
	Config *config.Config
	// File is where Config was read; empty: there is no file, and the defaults hold.
	File string
	// Warnings are logged at the start.
	Warnings []*config.Problem
	// Reread reads the configuration again for a reload. nil: none.
	Reread func() (*config.Config, error)
	// Reload asks for one. nil: never.
	Reload <-chan os.Signal
	// Version is told to agents, operators and metrics.
	Version string
	// Log takes the log.
	Log io.Writer
	// Ready is called once, when agents are served. May be nil.
	Ready func(Serving)
}

// Serving is where a daemon can be reached.
type Serving struct {
	Agents   string // host:port
	Admin    string // a socket's path or host:port
	Ops      string // host:port; empty: off
	Metadata string // host:port; empty: off
	Instance string // this process's name
	Relay    *relay.Relay
}

// daemon is what the parts share. Its fields never change after run has set
// them, save what says otherwise.
type daemon struct {
	config   *config.Config
	reread   func() (*config.Config, error)
	version  string
	instance string
	started  time.Time

	logger  *slog.Logger
	level   *slog.LevelVar
	metrics prometheus.Registerer
	ready   readiness
	manager *sdnotify.Notifier
	certs   process.Certificates

	registry  registry.Registry
	shared    *registry.Postgres // the registry, where several relays can use it; nil: a file
	relay     *relay.Relay
	apps      apps
	tokens    apns.TokenSources
	validator *auth.Validator
	follower  *authmetadata.Follower // nil: switched off
	used      usedCredentials
	server    *ingest.Server
	admin     *admin.Server // set when serving is closed
	serving   chan struct{}
	pageKeys  statuspage.Keys
}

// Run serves until ctx is done, then drains. It returns nil after an orderly
// stop; an error names the step that failed and, where one is to blame, the
// field of the configuration. Every goroutine it started has ended then, save
// HTTP handlers that had to be cut.
func Run(ctx context.Context, o Options) error {
	level := new(slog.LevelVar)
	level.Set(o.Config.Log.SlogLevel())
	d := &daemon{
		config: o.Config, reread: o.Reread,
		version: o.Version, instance: newInstance(), started: time.Now(),
		serving: make(chan struct{}), level: level, logger: process.NewLogger(o.Log, level, o.Config.Log),
	}
	d.ready.set("starting")
	d.manager = sdnotify.New(d.logger)
	d.logger.Info("starting", "version", d.version, "instance", d.instance, "go", runtime.Version(), "config", cmp.Or(o.File, "none: the defaults hold"))
	for _, w := range o.Warnings {
		d.logger.Warn("configuration warning", "problem", w.Error())
	}
	if err := d.run(ctx, o); err != nil {
		return err
	}
	d.logger.Info("stopped")
	return nil
}

// run is the wiring, in the order of the data from its end to its beginning.
func (d *daemon) run(ctx context.Context, o Options) error {
	c := d.config
	if err := c.MakeDirectories(); err != nil {
		return err
	}
	listeners, err := openListeners(c)
	if err != nil {
		return err
	}
	defer listeners.close()
	listeners.agents, listeners.admin = process.TellAccept(listeners.agents, d.logger), process.TellAccept(listeners.admin, d.logger)

	lifecycle := process.NewLifecycle(d.logger)
	defer func() { _ = lifecycle.Stop(context.Background()) }() // what a failed start leaves; its own error is the one that matters

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.metrics = prometheus.WrapRegistererWithPrefix("badgerelay_", metrics)
	d.metrics.MustRegister(process.BuildInfo(d.version), process.DroppedLines(o.Log), &d.certs, d.ready.metric())
	if listeners.ops != nil {
		ops := process.Ops{
			Title: "badgerelay " + d.version, Metrics: metrics, Own: d.metrics, Ready: d.readiness,
			Profiles: configfile.Loopback(listeners.ops.Addr().String()), Beside: []string{"/status", "/status/json"},
		}
		lifecycle.Start("ops", func(ctx context.Context) error {
			return process.HTTP{Handler: process.KnownHosts(d.withPage(ops.Handler()), c.OpsHosts()...), Logger: d.logger, Connections: opsConnections}.Serve(ctx, listeners.ops)
		}, nil)
	}

	tracing, err := newTracing(ctx, c.SampleRatio(), d.version, d.instance, d.logger)
	if err != nil {
		return fmt.Errorf("set up tracing: %w", err)
	}
	if tracing != nil {
		lifecycle.Start("tracing", tracing.Run, nil)
	}

	if err := d.openRegistry(ctx, lifecycle); err != nil {
		return err
	}
	if d.shared != nil {
		lifecycle.Start("presence", func(ctx context.Context) error { d.announce(ctx, placeOf(listeners.agents.Addr())); return nil }, nil)
	}

	peers := d.peers()
	counts, _ := d.registry.Counts(ctx) // else not known
	d.relay, err = relay.New(relay.Config{
		Expected: counts.Mailboxes, Subscriptions: d.registry, Apps: appNames(c), Window: orOff(c.CoalescingWindow()),
		ShownFor: time.Duration(c.Relay.RefreshAfter), ServerErrorWait: time.Duration(c.Relay.RetryAfterServerError),
		MaxMailboxes: c.Relay.MaxMailboxes, MaxInFlight: ingest.MaxInFlight, Alone: peers == nil, Instance: d.instance,
		Recount: d.recount, Logger: d.component("relay"), Registerer: d.metrics,
	})
	if err != nil {
		return err
	}
	if d.shared != nil {
		d.shared.OnSumsChanged(d.relay.SumsChanged)
	}
	if err := d.buildApps(c); err != nil {
		return err
	}
	lifecycle.Start("apns", d.runPools, nil)
	lifecycle.Start("relay", d.relay.Run, d.drainRelay)

	follower, err := d.newFollower()
	if err != nil {
		return err
	}
	var unknownKey func([20]byte, string)
	if follower != nil {
		lifecycle.Start("metadata follower", follower.Run, nil)
		unknownKey, d.follower = follower.KeyUnknown, follower
	}
	d.validator, err = auth.NewValidator(auth.Config{
		Keys: d.registry, Principal: c.Principal(), Authorities: authorities(c, listeners),
		Skew: time.Duration(c.Auth.ClockSkew), MaxSpan: time.Duration(c.Auth.MaxTokenSpan), CacheSize: c.Auth.CacheSize,
		OnAccepted: d.used.accepted, OnUnknownKey: unknownKey, Registerer: d.metrics,
	})
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	lifecycle.Start("credentials", d.touchCredentials, nil)
	cancelFeed := d.registry.OnChange(d.registryChanged)
	defer cancelFeed()

	if err := d.startMetadata(lifecycle, listeners); err != nil {
		return err
	}
	tlsConfig, err := d.certs.Load("listen", c.Listen.TLS)
	if err != nil {
		return err
	}
	d.server, err = ingest.New(ingest.Config{
		Relay: d.relay, Registry: d.registry, Peers: peers, Validator: d.validator, Apps: appNames(c), TLS: tlsConfig,
		Reports: d.reports(listeners),
		Version: d.version, Instance: d.instance, CoalescingWindow: c.CoalescingWindow(),
		MaxBatchEvents: c.Limits.BatchEvents,
		DrainGrace:     min(5*time.Second, c.DrainTimeout()/4), DrainTimeout: c.DrainTimeout() / 2,
		MinimumVersions: c.Products, DisableReflection: !c.Reflection(), TracerProvider: tracing.provider(),
		OrganizationMetrics: c.Ops.PerOrganization, Logger: d.component("ingest"), Registerer: d.metrics,
	})
	if err != nil {
		return err
	}
	d.server.SetLimits(d.limits(c))
	lifecycle.Start("registry", d.registry.Run, nil) // now that everybody listens who must not miss a change
	if err := d.startAdmin(lifecycle, listeners); err != nil {
		return err
	}
	lifecycle.Start("ingest", func(ctx context.Context) error { return d.server.Run(ctx, listeners.agents) }, func(ctx context.Context) error {
		d.server.Drain(ctx)
		return nil
	})

	d.ready.set("")
	d.server.SetReady(true)
	close(d.serving)
	d.logger.Info("serving", "agents", process.Address(listeners.agents), "tls", tlsConfig != nil, "admin", process.Address(listeners.admin),
		"ops", process.Address(listeners.ops), "metadata", process.Address(listeners.metadata), "apps", len(d.apps.all()))
	if o.Ready != nil {
		o.Ready(Serving{
			Agents: listeners.agents.Addr().String(), Admin: listeners.admin.Addr().String(), Ops: process.Address(listeners.ops),
			Metadata: process.Address(listeners.metadata), Instance: d.instance, Relay: d.relay,
		})
	}
	lifecycle.Start("readiness", d.watchReadiness, nil)
	lifecycle.Start("certificates", d.watchEnds, nil)
	lifecycle.Start("watchdog", func(ctx context.Context) error { return d.manager.Watch(ctx, d.alive) }, nil)
	d.manager.Ready()
	failure := d.wait(ctx, lifecycle, o.Reload)

	d.ready.set("draining")
	d.manager.Stopping()
	d.server.SetReady(false)
	budget, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.DrainTimeout())
	defer cancel()
	return errors.Join(failure, lifecycle.Stop(budget))
}

// wait returns when ctx is done, with nil, or with the error of a part that
// ended by itself. Meanwhile it reloads when asked to.
func (d *daemon) wait(ctx context.Context, lifecycle *process.Lifecycle, reload <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			d.logger.Info("draining", "budget", d.config.DrainTimeout())
			return nil
		case err := <-lifecycle.Failed:
			return err
		case <-reload:
			d.manager.Reloading()
			if ended, err := d.awaitReload(ctx, lifecycle); ended {
				return err
			}
			d.manager.Ready()
		}
	}
}

// awaitReload reloads, and reports whether the daemon is to end meanwhile: a file
// that can't be read in time, on a file system that is away, must not keep it. The
// error is that of the part that failed.
func (d *daemon) awaitReload(ctx context.Context, lifecycle *process.Lifecycle) (ended bool, err error) {
	done := make(chan struct{})
	go func() { // ends when the files are read; where that never happens, with the process
		defer close(done)
		d.reload(ctx)
	}()
	select {
	case <-done:
		return false, nil
	case <-ctx.Done():
		d.logger.Info("draining", "budget", d.config.DrainTimeout())
		return true, nil
	case err := <-lifecycle.Failed:
		return true, err
	}
}

func (d *daemon) component(name string) *slog.Logger { return d.logger.With("component", name) }

// newInstance returns a name that no other process has. Agents are told it, so it
// tells nothing of the machine.
func newInstance() string { return rand.Text()[:10] }

func hostname() string {
	host, err := os.Hostname()
	if err != nil {
		return "relay"
	}
	return host
}

// orOff returns what relay.Config takes for "off" where d is zero.
func orOff(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// authorities returns the configured names, or the address that agents reach,
// with the port that the system chose.
func authorities(c *config.Config, listeners *listeners) []string {
	if len(c.Auth.Authorities) > 0 {
		return c.Auth.Authorities
	}
	return []string{listeners.agents.Addr().String()}
}
