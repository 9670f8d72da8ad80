package process

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"badgerelay/cmd/internal/configfile"
)

// How many connections listeners have open at once.
const (
	OpsConnections      = 64
	MetadataConnections = 128
)

// Daemon is what daemons have in common.
type Daemon struct {
	Log     *slog.Logger
	Level   *slog.LevelVar        // of Log
	All     *prometheus.Registry  // every metric of the process
	Metrics prometheus.Registerer // for those of the program, before which its name is put
	Manager *Notifier

	title string
}

// NewDaemon returns what a daemon of the program has, with a log that goes to w.
func NewDaemon(program, version string, w io.Writer, c configfile.Log) Daemon {
	d := Daemon{Level: new(slog.LevelVar), All: prometheus.NewRegistry(), title: program + " " + version}
	d.Level.Set(c.SlogLevel())
	d.Log = NewLogger(w, d.Level, c)
	d.Manager = &Notifier{log: d.Log}
	d.All.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.Metrics = prometheus.WrapRegistererWithPrefix(program+"_", d.All)
	d.Metrics.MustRegister(DroppedLines(w), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "build_info", Help: "1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	}, func() float64 { return 1 }))
	return d
}

// Component returns the log of a part.
func (d *Daemon) Component(name string) *slog.Logger { return d.Log.With("component", name) }

// Warn tells what is odd about a configuration that is in force.
func (d *Daemon) Warn(warnings []*configfile.Problem) {
	for _, w := range warnings {
		d.Log.Warn("configuration warning", "problem", w.Error())
	}
}

// StartOps serves operators on l, who ask for it by one of the names in hosts; nil:
// nobody is served.
func (d *Daemon) StartOps(lifecycle *Lifecycle, l net.Listener, o Ops, hosts []string) {
	if l == nil {
		return
	}
	o.Title, o.Metrics, o.Own, o.Profiles = d.title, d.All, d.Metrics, configfile.Loopback(l.Addr().String())
	handler := KnownHosts(o.Handler(), hosts...)
	lifecycle.Start("ops", func(ctx context.Context) error {
		return HTTP{Handler: handler, Logger: d.Log, Connections: OpsConnections}.Serve(ctx, l)
	}, nil)
}

// StartMetadata serves a metadata document to everybody on l; nil: nobody is served.
func (d *Daemon) StartMetadata(lifecycle *Lifecycle, l net.Listener, document http.Handler, c *tls.Config) {
	if l == nil {
		return
	}
	refused := RefusedGuests()
	d.Metrics.MustRegister(refused)
	lifecycle.Start("metadata", func(ctx context.Context) error {
		h := HTTP{Handler: document, TLS: c, Logger: d.Component("metadata"), Connections: MetadataConnections, Public: true, Refused: refused}
		return h.Serve(ctx, l)
	}, nil)
}

// Wait returns when ctx is done, with nil, or with the error of a part that ended by
// itself. Meanwhile it reloads when asked to: a file that can't be read in time, on a file
// system that is away, must not keep the daemon from its end.
func (d *Daemon) Wait(ctx context.Context, lifecycle *Lifecycle, ask <-chan os.Signal, reload func()) error {
	asked := ask // nil while a reload is under way
	var reloaded <-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-lifecycle.Failed:
			return err
		case <-asked:
			d.Manager.Reloading()
			asked, reloaded = nil, Background(reload)
		case <-reloaded:
			d.Manager.Ready()
			asked, reloaded = ask, nil
		}
	}
}
