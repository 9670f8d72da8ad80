package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/machine"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/apple"
	pb "badgerelay/proto/badgerelay/v1"
)

// snapshot is everything that can be asked, at about one moment.
type snapshot struct {
	relay    child.Usage // of all relays together, as is metrics
	metrics  rig.Metrics
	apple    apple.State
	agents   load.State
	database time.Duration // CPU time; 0: not known
	busy     time.Duration // CPU time of the whole machine
}

// snapshot asks everybody. The scrape of the metrics, which costs the relay CPU
// time, falls outside of what lies between a first snapshot and a last.
func (ps *processes) snapshot(ctx context.Context, last bool) (s snapshot, err error) {
	if !last {
		if s.metrics, err = ps.metrics(ctx); err != nil {
			return s, err
		}
	}
	if s.relay, err = ps.usage(); err != nil {
		return s, err
	}
	s.database = ps.world.DatabaseCPU()
	s.busy = machine.Busy()
	if s.agents, err = ps.agents.State(ctx); err != nil {
		return s, err
	}
	if s.apple, err = ps.apple.State(ctx); err != nil {
		return s, err
	}
	if last {
		s.metrics, err = ps.metrics(ctx)
	}
	return s, err
}

// metrics scrapes the relays.
func (ps *processes) metrics(ctx context.Context) (all rig.Metrics, err error) {
	for _, r := range ps.relays {
		m, err := r.Metrics(ctx)
		if err != nil {
			return all, err
		}
		all = all.With(m)
	}
	return all, nil
}

// usage adds up what the relays used.
func (ps *processes) usage() (all child.Usage, err error) {
	for _, r := range ps.relays {
		u, err := r.Usage()
		if err != nil {
			return all, err
		}
		all.At, all.CPU = u.At, all.CPU+u.CPU
		all.Resident, all.Peak = all.Resident+u.Resident, all.Peak+u.Peak
	}
	return all, nil
}

// sample is what happened between two snapshots.
type sample struct{ from, to snapshot }

// measure takes a sample of d under the load that runs.
func (ps *processes) measure(ctx context.Context, d time.Duration) (sp sample, err error) {
	for _, r := range ps.relays {
		if err := r.ResetPeak(); err != nil {
			return sp, err
		}
	}
	if err := ps.agents.Reset(ctx); err != nil {
		return sp, err
	}
	if sp.from, err = ps.snapshot(ctx, false); err != nil {
		return sp, err
	}
	if err := ps.wait(ctx, d); err != nil {
		return sp, err
	}
	sp.to, err = ps.snapshot(ctx, true)
	return sp, err
}

// lost says why processes have ended.
type lost chan error

// wait lets time pass, unless one of the processes ends.
func (l lost) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case err := <-l:
		return err
	}
}

// warm waits until every mailbox had its first event, and for d at least. One
// agent may be ahead of another: two events a mailbox are enough for both.
func (ps *processes) warm(ctx context.Context, d time.Duration) error {
	if err := ps.wait(ctx, d); err != nil {
		return err
	}
	for {
		s, err := ps.agents.State(ctx)
		if err != nil || s.Settled() >= 2*uint64(ps.setup.mailboxes) {
			return err
		}
		if err := ps.wait(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (sp *sample) seconds() float64 { return sp.to.relay.At.Sub(sp.from.relay.At).Seconds() }

func (sp *sample) badges() float64 {
	return float64(sp.to.apple.Stats.Accepted - sp.from.apple.Stats.Accepted)
}

func (sp *sample) events() float64 {
	return float64(sp.to.agents.Settled() - sp.from.agents.Settled())
}

// lookups is how many mailboxes' subscriptions were read one by one, and not by
// the warm-up.
func (sp *sample) lookups() float64 {
	const name = "badgerelay_subscription_lookups_total"
	return sp.to.metrics.Sum(name) - sp.from.metrics.Sum(name)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func megabytes(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// cost adds what the relay used.
func (sp *sample) cost(r *report.Run) {
	cpu := micros(sp.to.relay.CPU - sp.from.relay.CPU)
	r.Add("badges_per_second", "/s", sp.badges()/sp.seconds())
	r.Add("events_per_second", "/s", sp.events()/sp.seconds())
	r.Add("relay_cpu_per_badge", "us", cpu/sp.badges())
	r.Add("relay_cpu_per_event", "us", cpu/sp.events())
	r.Add("relay_cpu", "cores", cpu/1e6/sp.seconds())
	r.Add("events_per_push", "", sp.events()/sp.badges())
	if n := sp.lookups(); n > 0 {
		r.Add("lookups_per_event", "", n/sp.events())
		r.Add("lookups_per_second", "/s", n/sp.seconds())
	}
	sp.memory(r)
}

// memory adds what the relay needed and how much it threw away.
func (sp *sample) memory(r *report.Run) {
	r.Add("relay_resident", "MB", megabytes(sp.to.relay.Resident))
	r.Add("relay_peak", "MB", megabytes(sp.to.relay.Peak))
	r.Add("relay_collections", "/s", (sp.to.metrics.Count("go_gc_duration_seconds")-sp.from.metrics.Count("go_gc_duration_seconds"))/sp.seconds())
	allocated := sp.to.metrics.Sum("go_memstats_alloc_bytes_total") - sp.from.metrics.Sum("go_memstats_alloc_bytes_total")
	r.Add("relay_allocated_per_event", "bytes", allocated/sp.events())
}

// others adds what the rest of the machine used, to see what limits.
func (sp *sample) others(r *report.Run) {
	a, g := sp.to.apple.Usage.CPU-sp.from.apple.Usage.CPU, sp.to.agents.Usage.CPU-sp.from.agents.Usage.CPU
	if sp.badges() > 0 {
		r.Add("apns_cpu_per_badge", "us", micros(a)/sp.badges())
	}
	r.Add("agents_cpu_per_event", "us", micros(g)/sp.events())
	d := sp.to.database - sp.from.database
	if d > 0 {
		r.Add("database_cpu_per_event", "us", micros(d)/sp.events())
	}
	r.Add("connections", "", float64(sp.to.apple.Stats.Connections))
	strangers := sp.to.busy - sp.from.busy - a - g - d - (sp.to.relay.CPU - sp.from.relay.CPU)
	r.Add(report.OtherCPU, "cores", max(0, strangers.Seconds()/sp.seconds()))
}

// latencies adds how long it took until events were delivered.
func (sp *sample) latencies(r *report.Run) {
	h := hdrhistogram.Import(sp.to.agents.Latency)
	for _, q := range quantiles {
		r.Add("settle_"+q.name, "ms", float64(h.ValueAtQuantile(q.share*100))/1000)
	}
}

var quantiles = []struct {
	name  string
	share float64
}{{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}}

// relayLatencies adds what the relay says about its own part: from the event's
// receipt until its push was at the socket, and until it had settled.
func (sp *sample) relayLatencies(r *report.Run) {
	for _, of := range []struct{ name, metric string }{
		{"relay_push_", "badgerelay_event_push_seconds"}, {"relay_settle_", "badgerelay_event_settle_seconds"},
	} {
		h := sp.to.metrics.Since(sp.from.metrics, of.metric)
		for _, q := range quantiles {
			r.Add(of.name+q.name, "ms", micros(h.Quantile(q.share))/1000)
		}
	}
}

// unexpected returns what became of events that should not have: all but those
// outcomes that are named.
func (sp *sample) unexpected(expected ...pb.Outcome) (problems []string) {
	for o, count := range sp.to.agents.Outcomes {
		if count > 0 && !slices.Contains(expected, pb.Outcome(o)) {
			problems = append(problems, fmt.Sprintf("%d events ended as %v", count, pb.Outcome(o)))
		}
	}
	if sp.events() == 0 {
		problems = append(problems, "no event settled while it was measured")
	}
	return problems
}
