// Package daemon is the running relay: it builds every part from a
// configuration, connects them, and takes them down in the order that loses
// nothing.
//
// run in daemon.go is the map: sinks are built first and stopped last, sources
// the other way round, each under its name in the log. While it runs, SIGHUP
// reads the configuration again; what can change is swapped as whole values,
// and a file that is wrong leaves everything as it was.
//
// The package holds no logic of badges, tokens or pushes, and does not survive
// its own death: whoever starts it restarts it.
package daemon

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"runtime"
	"time"

	"badgerelay/apns"
	"badgerelay/auth"
	"badgerelay/auth/authmetadata"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/badgerelay/internal/statuspage"
	"badgerelay/cmd/internal/process"
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
	// Warnings are those of Config.
	Warnings []*config.Problem
	// Reread reads the configuration again for a reload, with its warnings. nil: none.
	Reread func() (*config.Config, []*config.Problem, error)
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
	process.Daemon
	config   *config.Config
	reread   func() (*config.Config, []*config.Problem, error)
	version  string
	instance string
	started  time.Time

	ready readiness
	certs process.Certificates

	registry  registry.Registry
	postgres  *registry.Postgres // the registry, where several relays can use it; nil: a file
	file      *registry.SQLite   // the registry, where it is a file
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
	d := &daemon{
		Daemon: process.NewDaemon("badgerelay", o.Version, o.Log, o.Config.Log),
		config: o.Config, reread: o.Reread,
		version: o.Version, instance: newInstance(), started: time.Now(),
		serving: make(chan struct{}),
	}
	d.ready.set("starting")
	d.Metrics.MustRegister(&d.certs, d.ready.metric())
	d.Log.Info("starting", "version", d.version, "instance", d.instance, "go", runtime.Version(), "config", cmp.Or(o.File, "none: the defaults hold"))
	d.Warn(o.Warnings)
	if err := d.run(ctx, o); err != nil {
		return err
	}
	d.Log.Info("stopped")
	return nil
}

// run is the wiring, in the order of the data from its end to its beginning.
func (d *daemon) run(ctx context.Context, o Options) error {
	if err := d.config.MakeDirectories(); err != nil {
		return err
	}
	listeners, err := openListeners(d.config)
	if err != nil {
		return err
	}
	defer listeners.Close()
	listeners.agents, listeners.admin = process.TellAccept(listeners.agents, d.Log), process.TellAccept(listeners.admin, d.Log)

	lifecycle := process.NewLifecycle(d.Log)
	defer func() { _ = d.stop(ctx, lifecycle) }() // what a failed start leaves; its own error is the one that matters

	page := &statuspage.Page{Admin: d.adminService, Keys: &d.pageKeys}
	d.StartOps(lifecycle, listeners.ops, process.Ops{Ready: d.readiness, Beside: page.Handlers()}, d.config.OpsHosts())
	tracing, err := d.startTracing(ctx, lifecycle)
	if err != nil {
		return err
	}
	if err := d.openRegistry(ctx, lifecycle); err != nil {
		return err
	}
	d.startPresence(lifecycle, listeners)
	if err := d.startRelay(ctx, lifecycle); err != nil {
		return err
	}
	if err := d.startAuth(lifecycle, listeners); err != nil {
		return err
	}
	cancelFeed := d.registry.OnChange(d.registryChanged)
	defer cancelFeed()
	if err := d.startMetadata(lifecycle, listeners); err != nil {
		return err
	}
	if err := d.newServer(listeners, tracing); err != nil {
		return err
	}
	lifecycle.Start("registry", d.registry.Run, nil) // now that everybody listens who must not miss a change
	if err := d.startAdmin(lifecycle, listeners); err != nil {
		return err
	}
	d.startIngest(lifecycle, listeners)

	d.ready.set("")
	d.server.SetReady(true)
	close(d.serving)
	d.tellServing(listeners, o.Ready)
	lifecycle.Start("readiness", d.watchReadiness, nil)
	lifecycle.Start("certificates", d.watchEnds, nil)
	lifecycle.Start("watchdog", func(ctx context.Context) error { return d.Manager.Watch(ctx, d.alive) }, nil)
	d.Manager.Ready()
	failure := d.Wait(ctx, lifecycle, o.Reload, func() { d.reload(ctx) })
	if failure == nil {
		d.Log.Info("draining", "budget", d.config.DrainTimeout())
	}

	d.ready.set("draining")
	d.Manager.Stopping()
	d.server.SetReady(false)
	return errors.Join(failure, d.stop(ctx, lifecycle))
}

// stop ends what was started, within the budget.
func (d *daemon) stop(ctx context.Context, lifecycle *process.Lifecycle) error {
	budget, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.config.DrainTimeout())
	defer cancel()
	return lifecycle.Stop(budget)
}

// tellServing says in the log, and to who started the daemon, where agents are served.
func (d *daemon) tellServing(listeners *listeners, ready func(Serving)) {
	d.Log.Info("serving", "agents", process.Address(listeners.agents), "tls", d.certs.Leaf("listen") != nil, "admin", process.Address(listeners.admin),
		"ops", process.Address(listeners.ops), "metadata", process.Address(listeners.metadata), "apps", len(d.apps.all()))
	if ready == nil {
		return
	}
	ready(Serving{
		Agents: listeners.agents.Addr().String(), Admin: listeners.admin.Addr().String(), Ops: process.Address(listeners.ops),
		Metadata: process.Address(listeners.metadata), Instance: d.instance, Relay: d.relay,
	})
}

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
