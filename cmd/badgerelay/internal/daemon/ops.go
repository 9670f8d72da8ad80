package daemon

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// readiness is why the relay would not accept work; empty: it would.
type readiness struct {
	reason atomic.Pointer[string]
	unwell atomic.Bool // the last look found a reason that is not the daemon's own
}

func (r *readiness) set(reason string) { r.reason.Store(&reason) }

func (r *readiness) get() string {
	if s := r.reason.Load(); s != nil {
		return *s
	}
	return "starting"
}

// metric is 1 while the relay would accept work, as of the last look.
func (r *readiness) metric() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ready", Help: "1 while the relay would accept work; readyz says why not.",
	}, func() float64 {
		if r.get() != "" || r.unwell.Load() {
			return 0
		}
		return 1
	})
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
		return "degraded, only known mailboxes are served: registry unavailable: " + err.Error()
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
		d.ready.unwell.Store(reason != "")
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

// readiness returns why the relay would not accept work, and how it stands
// with Apple.
func (d *daemon) readiness(ctx context.Context) (reason, detail string) {
	if reason := d.notReady(ctx); reason != "" {
		return reason, ""
	}
	for _, a := range d.apps.all() {
		s := a.pool.Stats()
		detail += fmt.Sprintf("\napns %s: %s", a.name, s.State)
	}
	return "", detail
}
