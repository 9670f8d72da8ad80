// Package serve is badgeagent serve: the daemon with its listeners, its log, its
// metrics, and what systemd is told.
//
// It makes the daemon's sources from the configuration, mounts what takes
// requests on the local listener, and reloads secrets. What becomes of counts
// is package daemon's.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/process"
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
	// Reread reads the configuration and its warnings again for a reload. nil: none.
	Reread func() (*config.Config, []*config.Problem, error)
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
	process.Daemon
	options Options
	config  *config.Config

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
	s := &Server{Daemon: process.NewDaemon("badgeagent", o.Version, o.Log, o.Config.Log), options: o, config: o.Config}
	s.local = newLocal(s.Component("local"), s.Metrics)
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
		Left: func(mailbox string) { s.backend.Left(mailbox) }, Logger: s.Log, Registerer: s.Metrics,
	}
	c.Relay.Metrics = prometheus.WrapRegistererWithPrefix("badge", s.All) // its names begin with "agent_"
	s.daemon, err = daemon.New(c)
	return err
}

// buildMetadata reads the certificate of the metadata listener, if there is one.
func (s *Server) buildMetadata() (err error) {
	if s.config.Metadata.Address == "" {
		return nil
	}
	if s.metadata, err = s.certificates.Load("metadata", s.config.Metadata.TLS); err == nil && s.metadata == nil {
		err = errors.New("metadata.tls: the metadata document is not served without it")
	}
	return err
}

// Run serves until ctx is done, then drains. It returns nil after an orderly
// stop; every goroutine it started has ended then, save HTTP handlers that had
// to be cut.
func (s *Server) Run(ctx context.Context) (err error) {
	s.Log.Info("starting", "version", s.options.Version, "go", runtime.Version(), "relays", s.options.Relay.Addresses,
		"agent_id", s.options.Relay.AgentID)
	s.Warn(s.options.Warnings)
	open, err := listen(s.config)
	if err != nil {
		return err
	}
	defer open.Close()
	defer func() { err = errors.Join(err, s.daemon.Close()) }()
	lifecycle := process.NewLifecycle(s.Log)
	s.StartOps(lifecycle, open.ops, process.Ops{Ready: s.ready}, s.config.OpsHosts())
	lifecycle.Start("daemon", s.daemon.Run, s.daemon.Drain)
	if len(open.local) > 0 {
		lifecycle.Start("local", func(ctx context.Context) error { return s.local.serve(ctx, open.local) }, nil)
	}
	s.StartMetadata(lifecycle, open.metadata, s.daemon.Keys().Handler(), s.metadata)
	lifecycle.Start("watchdog", func(ctx context.Context) error { return s.Manager.Watch(ctx, s.daemon.Alive) }, nil)

	s.Manager.Ready()
	s.Log.Info("serving", "ops", process.Address(open.ops), "local", open.localAddresses(), "sources", s.sourceNames())
	if s.options.Ready != nil {
		s.options.Ready(Serving{Ops: process.Address(open.ops), Local: open.localAddresses(), Metadata: process.Address(open.metadata)})
	}
	ctx, disable := context.WithCancelCause(ctx)
	defer disable(nil)
	go s.watchEnabled(ctx, disable) // ends with ctx; where the proxy's state is on a file system that is away, with the process
	failure := s.Wait(ctx, lifecycle, s.options.Reload, s.reload)
	switch {
	case failure != nil:
	case errors.Is(context.Cause(ctx), errDisabled):
		s.Log.Info("push notification proxy disabled; draining", "budget", s.config.DrainTimeout())
	default:
		s.Log.Info("draining", "budget", s.config.DrainTimeout())
	}

	s.stopping.Store(true)
	s.Manager.Stopping()
	budget, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.DrainTimeout())
	defer cancel()
	err = errors.Join(failure, lifecycle.Stop(budget))
	s.Log.Info("stopped", "unsettled", s.daemon.Unsettled())
	return err
}

// enabledInterval is how late it is noticed that the proxy was disabled. Ours:
// for people.
const enabledInterval = 10 * time.Second

var errDisabled = errors.New("the push notification proxy is disabled")

// watchEnabled ends ctx when the proxy has been disabled.
func (s *Server) watchEnabled(ctx context.Context, end context.CancelCauseFunc) {
	look := time.NewTicker(enabledInterval)
	defer look.Stop()
	for s.options.Enabled != nil {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		enabled, err := s.options.Enabled()
		switch {
		case err != nil:
			s.Log.Debug("state of the proxy not known", "error", err)
		case !enabled:
			end(errDisabled)
			return
		}
	}
}

// ready says why the badges may be wrong.
func (s *Server) ready(context.Context) (reason, detail string) {
	if s.stopping.Load() {
		return "draining", ""
	}
	return s.daemon.Ready()
}
