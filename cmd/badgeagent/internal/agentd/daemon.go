package agentd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
	"badgerelay/cmd/internal/sdnotify"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/backend"
	"badgerelay/relay/agent/keyring"
	"badgerelay/relay/agent/source"
)

// Options say what a daemon runs on. Config, Relay, Keys and Log are required.
type Options struct {
	// Config is a validated configuration.
	Config *config.Config
	// Warnings are logged at the start.
	Warnings []*config.Problem
	// Relay says how the relay is reached: addresses, TLS, name and product.
	Relay agent.Config
	// Keys says with which certificates to sign, and for whom: the keyring's
	// Store, Issuer and Organization.
	Keys keyring.Config
	// Reload asks to read secrets and log level again. nil: never.
	Reload <-chan os.Signal
	// Reread reads the configuration again for a reload. nil: none.
	Reread func() (*config.Config, error)
	// Enabled says whether the push notification proxy is still switched on; it
	// is asked each 10 s, and no ends the daemon. nil: it is.
	Enabled func() (bool, error)
	// Version is told in logs and metrics.
	Version string
	// Log takes the log.
	Log io.Writer
	// Ready is called once, when everything has been started. May be nil.
	Ready func(Serving)
}

// Serving is where a daemon can be reached.
type Serving struct {
	Ops   string   // host:port; empty: off
	Local []string // the socket's path, host:port

	Metadata string // host:port; empty: off
}

// Daemon is the running agent. Its fields never change after New, save what
// says otherwise.
type Daemon struct {
	options  Options
	config   *config.Config
	log      *slog.Logger
	level    *slog.LevelVar
	registry *prometheus.Registry
	own      prometheus.Registerer
	metrics  *metrics
	manager  *sdnotify.Notifier

	keys      *keyring.Keyring
	agent     *agent.Agent
	client    *agent.Client
	mailboxes *mailboxes
	local     *Local
	backend   *backend.API
	metadata  *metadata      // nil: not served
	counter   source.Counter // nil: no count can be asked for
	trouble   func() string  // what is wrong with the mail server; nil: nobody knows
	sources   []named
	reloads   []func() error // read the files again that config names

	stopping atomic.Bool
}

// named is a source with the name that metrics and logs give it.
type named struct {
	name   string
	source source.Source
}

// New returns a daemon that Run starts.
func New(o Options) (*Daemon, error) {
	level := new(slog.LevelVar)
	level.Set(o.Config.Log.SlogLevel())
	d := &Daemon{
		options: o, config: o.Config, level: level, log: process.NewLogger(o.Log, level, o.Config.Log),
		registry: prometheus.NewRegistry(),
	}
	d.manager = sdnotify.New(d.log)
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.own = prometheus.WrapRegistererWithPrefix("badgeagent_", d.registry)
	d.own.MustRegister(process.BuildInfo(o.Version))
	d.metrics = newMetrics(d.own)
	d.mailboxes = newMailboxes(o.Config.Resync.Pace(), d.component("mailboxes"), d.metrics)
	d.own.MustRegister(
		gauge("mailboxes", "Mailboxes that have a device.", func() float64 { n, _ := d.mailboxes.numbers(); return float64(n) }),
		gauge("mailboxes_waiting", "Mailboxes whose count is to be asked.", func() float64 { _, n := d.mailboxes.numbers(); return float64(n) }),
	)
	if err := d.newKeyring(); err != nil {
		return nil, err
	}
	if err := d.reachRelay(); err != nil {
		return nil, err
	}
	d.local = newLocal(d.component("local"), d.own)
	if err := errors.Join(d.buildBackend(), d.buildMetadata()); err != nil {
		return nil, err
	}
	if err := d.buildSources(); err != nil {
		return nil, err
	}
	return d, nil
}

// reachRelay makes the agent and the client that speak to the relay.
func (d *Daemon) reachRelay() error {
	c := d.options.Relay
	tokens := &watchedTokens{source: d.keys}
	d.own.MustRegister(tokens.collectors()...)
	c.Token, c.Logger = tokens, d.log
	client, err := agent.NewClient(c)
	if err != nil {
		return err
	}
	c.OnOutcome = d.settled
	c.Metrics = prometheus.WrapRegistererWithPrefix("badge", d.registry) // its names begin with "agent_"
	a, err := agent.New(c)
	if err != nil {
		return err
	}
	d.client, d.agent = client, a
	return nil
}

// Run serves until ctx is done, then drains. It returns nil after an orderly
// stop; every goroutine it started has ended then, save HTTP handlers that had
// to be cut.
func (d *Daemon) Run(ctx context.Context) (err error) {
	c := d.config
	d.log.Info("starting", "version", d.options.Version, "go", runtime.Version(), "relays", d.options.Relay.Addresses)
	for _, w := range d.options.Warnings {
		d.log.Warn("doubtful configuration", "problem", w.Error())
	}
	doors, err := openDoors(c)
	if err != nil {
		return err
	}
	defer doors.close()
	defer func() { err = errors.Join(err, d.client.Close()) }()
	life := process.NewLife(d.log)
	defer func() { _ = life.Stop(context.Background()) }() // what a failed start leaves; its own error is the one that matters

	if doors.ops != nil {
		ops := process.Ops{
			Title: "badgeagent " + d.options.Version, Metrics: d.registry, Own: d.own, Ready: d.ready,
			Profiles: configfile.Loopback(doors.ops.Addr().String()),
		}
		life.Start("ops", func(ctx context.Context) error {
			return process.ServeHTTP(ctx, doors.ops, nil, ops.Handler(), d.log)
		}, nil)
	}
	life.Start("relay", d.agent.Run, d.agent.WaitSettled)
	life.Start("keyring", d.keys.Run, nil)
	if d.counter != nil {
		asker := &asker{
			mailboxes: d.mailboxes, counter: d.counter, sink: d.sink(sourceAsked), workers: c.Resync.Workers(),
			log: d.component("asker"), metrics: d.metrics,
		}
		life.Start("asker", asker.run, nil)
	}
	for _, s := range d.sources {
		life.Start(s.name, func(ctx context.Context) error { return s.source.Run(ctx, d.sink(s.name)) }, nil)
	}
	if len(doors.local) > 0 {
		life.Start("local", func(ctx context.Context) error { return d.local.serve(ctx, doors.local) }, nil)
	}
	if doors.metadata != nil {
		life.Start("metadata", func(ctx context.Context) error { return d.serveMetadata(ctx, doors.metadata) }, nil)
	}
	life.Start("watch", d.watchMailboxes, nil)
	life.Start("watchdog", func(ctx context.Context) error { return d.manager.Watch(ctx, d.alive) }, nil)

	d.manager.Ready()
	d.log.Info("serving", "ops", address(doors.ops), "local", doors.localAddresses(), "sources", d.sourceNames())
	if d.options.Ready != nil {
		d.options.Ready(Serving{Ops: address(doors.ops), Local: doors.localAddresses(), Metadata: address(doors.metadata)})
	}
	failure := d.wait(ctx, life)

	d.stopping.Store(true)
	d.manager.Stopping()
	budget, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.DrainTimeout())
	defer cancel()
	err = errors.Join(failure, life.Stop(budget))
	d.log.Info("stopped", "unsettled", d.agent.Ledger().Unsettled)
	return err
}

// wait returns when ctx is done or the proxy disabled, with nil, or with the
// error of a part that ended by itself. Meanwhile it reloads when asked to.
func (d *Daemon) wait(ctx context.Context, life *process.Life) error {
	look := time.NewTicker(enabledInterval)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if d.disabled() {
				d.log.Info("push notification proxy disabled; draining", "budget", d.config.DrainTimeout())
				return nil
			}
		case <-ctx.Done():
			d.log.Info("draining", "budget", d.config.DrainTimeout())
			return nil
		case err := <-life.Failed:
			return err
		case <-d.options.Reload:
			d.manager.Reloading()
			d.reload()
			d.manager.Ready()
		}
	}
}

// enabledInterval is how late it is noticed that the proxy was disabled. Ours:
// for people.
const enabledInterval = 10 * time.Second

func (d *Daemon) disabled() bool {
	if d.options.Enabled == nil {
		return false
	}
	enabled, err := d.options.Enabled()
	if err != nil {
		d.log.Debug("state of the proxy not known", "error", err)
		return false
	}
	return !enabled
}

// watchMailboxes keeps the set of mailboxes that have a device.
func (d *Daemon) watchMailboxes(ctx context.Context) error {
	log := d.component("watch")
	return d.client.Watch(ctx, agent.Watcher{
		Resync: d.mailboxes.resync, Subscribed: d.subscribed,
		Unsubscribed: d.mailboxes.unsubscribed, Complete: d.mailboxes.complete,
		Failed: func(f agent.Failure) {
			d.mailboxes.stale()
			d.metrics.watchEnds[f.Kind].Inc()
			log.Log(ctx, levelOnce(f.Repeats == 0), "watch ended", "kind", f.Kind.String(), "reason", f.Reason, "error", f.Err, "again", f.Again)
		},
	})
}

func (d *Daemon) subscribed(mailbox string) {
	if mailbox != ProbeMailbox {
		d.mailboxes.subscribed(mailbox)
	}
}

// alive returns when it has held the locks that a deadlock would keep.
func (d *Daemon) alive() {
	d.mailboxes.numbers()
	d.agent.Ledger()
}

// ready says why the daemon would not accept work.
func (d *Daemon) ready(context.Context) (reason, detail string) {
	s := d.agent.Status()
	switch {
	case d.stopping.Load():
		return "draining", ""
	case !s.Connected && s.LastFailure != nil:
		return fmt.Sprintf("no stream to a relay since %s: %v", s.Since.UTC().Format(time.RFC3339), s.LastFailure.Err), ""
	case !s.Connected:
		return "starting", ""
	case !d.mailboxes.told():
		return "the relay has not told which mailboxes have a device", ""
	}
	if d.trouble != nil && d.trouble() != "" {
		detail = "\nmail server " + d.trouble()
	}
	known, waiting := d.mailboxes.numbers()
	return "", detail + fmt.Sprintf("\nrelay %s: %s\nmailboxes: %d, %d to be counted", s.Address, s.Relay, known, waiting)
}

func (d *Daemon) component(name string) *slog.Logger { return d.log.With("component", name) }

func (d *Daemon) sourceNames() []string {
	var names []string
	for _, s := range d.sources {
		names = append(names, s.name)
	}
	return names
}
