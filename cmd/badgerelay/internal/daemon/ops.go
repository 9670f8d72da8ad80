package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readiness is why the relay would not accept work; empty: it would.
type readiness struct{ reason atomic.Pointer[string] }

func (r *readiness) set(reason string) { r.reason.Store(&reason) }

func (r *readiness) get() string {
	if s := r.reason.Load(); s != nil {
		return *s
	}
	return "starting"
}

// notReady returns why the relay would not accept work now. Apple's troubles
// are no reason: events are taken and wait.
func (d *daemon) notReady(ctx context.Context) string {
	if reason := d.ready.get(); reason != "" {
		return reason
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := d.registry.CredentialsByX5T(ctx, [20]byte{}); err != nil {
		return "registry unavailable: " + err.Error()
	}
	return ""
}

// readinessInterval is how late at most gRPC's health service says what readyz
// says. Ours: well below the 30 s in which load balancers look twice.
const readinessInterval = 5 * time.Second

// watchReadiness keeps gRPC's health service in step with readyz.
func (d *daemon) watchReadiness(ctx context.Context) error {
	ticker := time.NewTicker(readinessInterval)
	defer ticker.Stop()
	was := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		reason := d.notReady(ctx)
		if ctx.Err() != nil || reason == was || d.ready.get() != "" {
			continue // the drain speaks for itself
		}
		was = reason
		d.server.SetReady(reason == "")
		if reason != "" {
			d.logger.Error("not ready", "reason", reason)
		} else {
			d.logger.Info("ready again")
		}
	}
}

// alive returns when it has held every lock of the relay, which a deadlock would
// keep it from. A registry or an Apple that is gone is no reason to start anew.
func (d *daemon) alive() { d.relay.Stats() }

// opsHandler serves metrics, health and, for loopback only, profiles.
func (d *daemon) opsHandler(metrics *prometheus.Registry, profiles bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{Registry: d.metrics}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", d.readyz)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "badgerelay "+d.version+"\n/metrics\n/healthz\n/readyz")
	})
	if profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func (d *daemon) readyz(w http.ResponseWriter, r *http.Request) {
	if reason := d.notReady(r.Context()); reason != "" {
		answer(w, http.StatusServiceUnavailable, "not ready: "+reason)
		return
	}
	text := "ready"
	for _, a := range d.apps {
		s := a.pool.Stats()
		text += fmt.Sprintf("\napns %s: %s", a.name, s.State)
	}
	answer(w, http.StatusOK, text)
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) // the caller is gone; nobody is left to tell
}

// serveHTTP serves until ctx is done; answers under way get a moment.
func serveHTTP(ctx context.Context, l net.Listener, tlsConfig *tls.Config, handler http.Handler, logger *slog.Logger) error {
	server := &http.Server{
		Handler: handler, TLSConfig: tlsConfig, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err := server.Shutdown(last)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close() // a profile or an idle reader; they may be cut
		}
		ended <- err
	})
	serve := func() error { return server.Serve(l) }
	if tlsConfig != nil {
		serve = func() error { return server.ServeTLS(l, "", "") }
	}
	err := serve()
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return <-ended
}
