package serve

import (
	"context"
	"crypto/tls"
	"errors"
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
	"badgerelay/relay/agent/daemon"
	"badgerelay/relay/agent/diagnosis"
	"badgerelay/relay/agent/keyring"
	"badgerelay/relay/agent/source"
)

// Options say what a server runs on. Config, Relay, Keys and Log are required.
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
	// is asked each 10 s, and no ends the server. nil: it is.
	Enabled func() (bool, error)
	// Version is told in logs and metrics.
	Version string
	// Log takes the log.
	Log io.Writer
	// Ready is called once, when everything has been started. May be nil.
	Ready func(Serving)
}

// Serving is where a server can be reached.
type Serving struct {
	Ops   string   // host:port; empty: off
	Local []string // the socket's path, host:port

	Metadata string // host:port; empty: off
}

// Server is the daemon with its listeners, logs and metrics. Its fields never
// change after New, save what says otherwise.
type Server struct {
	options  Options
	config   *config.Config
	log      *slog.Logger
	level    *slog.LevelVar
	registry *prometheus.Registry
	own      prometheus.Registerer
	manager  *sdnotify.Notifier

	daemon   *daemon.Daemon
	local    *Local
	backend  *backend.API
	metadata *tls.Config // nil: not served
	sources  []source.Source
	reloads  []func() error // read the files again that config names

	certificates process.Certificates // of local and metadata

	stopping atomic.Bool
}

// New returns a server that Run starts.
func New(o Options) (*Server, error) {
	level := new(slog.LevelVar)
	level.Set(o.Config.Log.SlogLevel())
	s := &Server{
		options: o, config: o.Config, level: level, log: process.NewLogger(o.Log, level, o.Config.Log),
		registry: prometheus.NewRegistry(),
	}
	s.manager = sdnotify.New(s.log)
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.own = prometheus.WrapRegistererWithPrefix("badgeagent_", s.registry)
	s.own.MustRegister(process.BuildInfo(o.Version), process.DroppedLines(o.Log))
	s.local = newLocal(s.component("local"), s.own)
	if err := s.local.secure(o.Config.Local, &s.certificates); err != nil {
		return nil, err
	}
	if err := s.buildSources(); err != nil {
		return nil, err
	}
	if err := s.buildDaemon(); err != nil {
		return nil, err
	}
	if err := errors.Join(s.buildBackend(), s.local.Handle(diagnosis.Path, "", diagnosis.Handler(s.daemon.Report)), s.buildMetadata()); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) buildDaemon() (err error) {
	c := daemon.Config{
		Relay: s.options.Relay, Keys: s.options.Keys, Sources: s.sources,
		CaseSensitive:   s.config.Mailboxes.CaseSensitive,
		CountsPerSecond: s.config.Resync.CountsPerSecond, Concurrency: s.config.Resync.Concurrency,
		Left: func(mailbox string) { s.backend.Left(mailbox) }, Logger: s.log, Registerer: s.own,
	}
	c.Relay.Metrics = prometheus.WrapRegistererWithPrefix("badge", s.registry) // its names begin with "agent_"
	s.daemon, err = daemon.New(c)
	return err
}

// Run serves until ctx is done, then drains. It returns nil after an orderly
// stop; every goroutine it started has ended then, save HTTP handlers that had
// to be cut.
func (s *Server) Run(ctx context.Context) (err error) {
	s.log.Info("starting", "version", s.options.Version, "go", runtime.Version(), "relays", s.options.Relay.Addresses,
		"agent_id", s.options.Relay.AgentID)
	for _, w := range s.options.Warnings {
		s.log.Warn("configuration warning", "problem", w.Error())
	}
	open, err := listen(s.config)
	if err != nil {
		return err
	}
	defer open.Close()
	defer func() { err = errors.Join(err, s.daemon.Close()) }()
	lifecycle := process.NewLifecycle(s.log)
	if open.ops != nil {
		ops := process.Ops{
			Title: "badgeagent " + s.options.Version, Metrics: s.registry, Own: s.own, Ready: s.ready,
			Profiles: configfile.Loopback(open.ops.Addr().String()),
		}
		lifecycle.Start("ops", func(ctx context.Context) error {
			return process.HTTP{Handler: process.KnownHosts(ops.Handler(), s.config.OpsHosts()...), Logger: s.log, Connections: 64}.Serve(ctx, open.ops)
		}, nil)
	}
	lifecycle.Start("daemon", s.daemon.Run, s.daemon.Drain)
	if len(open.local) > 0 {
		lifecycle.Start("local", func(ctx context.Context) error { return s.local.serve(ctx, open.local) }, nil)
	}
	if open.metadata != nil {
		lifecycle.Start("metadata", func(ctx context.Context) error { return s.serveMetadata(ctx, open.metadata) }, nil)
	}
	lifecycle.Start("watchdog", func(ctx context.Context) error { return s.manager.Watch(ctx, s.daemon.Alive) }, nil)

	s.manager.Ready()
	s.log.Info("serving", "ops", process.Address(open.ops), "local", open.localAddresses(), "sources", s.sourceNames())
	if s.options.Ready != nil {
		s.options.Ready(Serving{Ops: process.Address(open.ops), Local: open.localAddresses(), Metadata: process.Address(open.metadata)})
	}
	failure := s.wait(ctx, lifecycle)

	s.stopping.Store(true)
	s.manager.Stopping()
	budget, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.DrainTimeout())
	defer cancel()
	err = errors.Join(failure, lifecycle.Stop(budget))
	s.log.Info("stopped", "unsettled", s.daemon.Unsettled())
	return err
}

// wait returns when ctx is done or the proxy disabled, with nil, or with the
// error of a part that ended by itself. Meanwhile it reloads when asked to: a file
// that can't be read in time, on a file system that is away, must not keep the
// server from its end.
func (s *Server) wait(ctx context.Context, lifecycle *process.Lifecycle) error {
	look := time.NewTicker(enabledInterval)
	defer look.Stop()
	reload, enabled := s.options.Reload, look.C // nil while what they ask for is under way
	var reloaded, looked <-chan struct{}
	var disabled bool // once looked is closed
	for {
		select {
		case <-ctx.Done():
			s.log.Info("draining", "budget", s.config.DrainTimeout())
			return nil
		case err := <-lifecycle.Failed:
			return err
		case <-enabled:
			enabled, looked = nil, process.Background(func() { disabled = s.disabled() })
		case <-looked:
			if disabled {
				s.log.Info("push notification proxy disabled; draining", "budget", s.config.DrainTimeout())
				return nil
			}
			enabled, looked = look.C, nil
		case <-reload:
			s.manager.Reloading()
			reload, reloaded = nil, process.Background(s.reload)
		case <-reloaded:
			s.manager.Ready()
			reload, reloaded = s.options.Reload, nil
		}
	}
}

// enabledInterval is how late it is noticed that the proxy was disabled. Ours:
// for people.
const enabledInterval = 10 * time.Second

func (s *Server) disabled() bool {
	if s.options.Enabled == nil {
		return false
	}
	enabled, err := s.options.Enabled()
	if err != nil {
		s.log.Debug("state of the proxy not known", "error", err)
		return false
	}
	return !enabled
}

// ready says why the badges may be wrong.
func (s *Server) ready(context.Context) (reason, detail string) {
	if s.stopping.Load() {
		return "draining", ""
	}
	return s.daemon.Ready()
}

func (s *Server) component(name string) *slog.Logger { return s.log.With("component", name) }
