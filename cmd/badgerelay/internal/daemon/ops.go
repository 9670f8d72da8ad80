package daemon

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/cmd/internal/process"
)

// readiness is why the relay would not accept work; empty: it would.
type readiness struct {
	reason  atomic.Pointer[string]
	failing atomic.Bool // the last look found a reason that is not the daemon's own
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
		if r.get() != "" || r.failing.Load() {
			return 0
		}
		return 1
	})
}

// notReady returns why the relay would not accept work now; empty: it would. The
// reason is for everybody, the cause for the log: it may name the database's host
// and user. Apple's troubles are no reason: events are taken and wait.
func (d *daemon) notReady(ctx context.Context) (reason string, cause error) {
	if reason := d.ready.get(); reason != "" {
		return reason, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := d.registry.CredentialsByX5T(ctx, [20]byte{}); err != nil {
		return "degraded, only known mailboxes are served: registry unavailable", err
	}
	if d.file != nil {
		if err := d.file.InPlace(); err != nil {
			return "the registry's file was replaced or removed, and registrations will be lost: restart the relay", err
		}
	}
	return "", nil
}

// readinessInterval is how late at most gRPC's health service says what readyz
// says. Ours: well below the 30 s in which load balancers look twice.
const readinessInterval = 5 * time.Second

// watchReadiness keeps gRPC's health service in step with readyz.
func (d *daemon) watchReadiness(ctx context.Context) error {
	was := ""
	process.Every(ctx, readinessInterval, func() {
		now, cause := d.notReady(ctx)
		if ctx.Err() != nil || now == was || d.ready.get() != "" {
			return // the drain speaks for itself
		}
		was = now
		d.ready.failing.Store(was != "")
		d.server.SetReady(was == "")
		if was != "" {
			d.Log.Error("not ready", "reason", now, "error", cause)
		} else {
			d.Log.Info("ready again")
		}
	})
	return nil
}

// alive returns when it has held every lock of the relay, which a deadlock would
// keep it from. A registry or an Apple that is gone is no reason to start anew.
func (d *daemon) alive() { d.relay.Stats() }

// readiness returns why the relay would not accept work, and how it stands
// with Apple and, where that is not well, with the registry.
func (d *daemon) readiness(ctx context.Context) (reason, detail string) {
	if reason, _ := d.notReady(ctx); reason != "" {
		return reason, ""
	}
	if !d.registry.TakesChanges() { // no reason to turn agents away: the badges of what is registered go on
		detail = "\nregistry: the last change failed"
	}
	for _, a := range d.apps.all() {
		s := a.pool.Stats()
		detail += fmt.Sprintf("\napns %s: %s", a.name, s.State)
	}
	return "", detail
}
