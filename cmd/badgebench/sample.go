package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/apple"
)

// snapshot is what all have used and done at about one moment.
type snapshot struct {
	relay    child.Usage // of all relays together, as is metrics
	metrics  rig.Metrics
	apple    apple.State
	agents   load.State
	own      child.Usage   // of this process, which is the agents
	database time.Duration // CPU time; 0: not known
	busy     time.Duration // CPU time of the whole machine
}

// snapshot asks everybody. The scrape of the metrics, which costs the relay CPU time,
// falls outside of what lies between the first snapshot and the last.
func (r *processes) snapshot(ctx context.Context, last bool) (s snapshot, err error) {
	if !last {
		if s.metrics, err = r.metrics(ctx); err != nil {
			return s, err
		}
	}
	if s.relay, err = r.usage(); err != nil {
		return s, err
	}
	s.database = r.world.DatabaseCPU()
	s.busy = report.Busy()
	if s.own, err = child.UsageOf(os.Getpid()); err != nil {
		return s, err
	}
	if s.agents, err = r.agents.State(); err != nil {
		return s, err
	}
	if s.apple, err = r.apple.State(ctx); err != nil {
		return s, err
	}
	if last {
		s.metrics, err = r.metrics(ctx)
	}
	return s, err
}

// metrics scrapes the relays.
func (r *processes) metrics(ctx context.Context) (all rig.Metrics, err error) {
	for _, relay := range r.relays {
		m, err := relay.Metrics(ctx)
		if err != nil {
			return all, err
		}
		all = all.With(m)
	}
	return all, nil
}

// usage adds up what the relays used.
func (r *processes) usage() (all child.Usage, err error) {
	for _, relay := range r.relays {
		u, err := relay.Usage()
		if err != nil {
			return all, err
		}
		all.At, all.CPU = u.At, all.CPU+u.CPU
		all.Resident, all.Peak = all.Resident+u.Resident, all.Peak+u.Peak
		all.Reads, all.Writes = all.Reads+u.Reads, all.Writes+u.Writes
	}
	return all, nil
}

// sample is what happened between two snapshots.
type sample struct{ from, to snapshot }

// sample takes a sample of the setup's duration under the load that runs, with its
// profiles.
func (r *processes) sample(ctx context.Context) (sp sample, err error) {
	profiled := r.setup.profile(ctx, r.relays[0], r.setup.duration)
	sp, err = r.sampleOf(ctx, r.setup.duration)
	return sp, errors.Join(err, profiled())
}

// sampleOf takes a sample of d.
func (r *processes) sampleOf(ctx context.Context, d time.Duration) (sp sample, err error) {
	for _, relay := range r.relays {
		if err := relay.ResetPeak(); err != nil {
			return sp, err
		}
	}
	r.agents.Reset()
	if sp.from, err = r.snapshot(ctx, false); err != nil {
		return sp, err
	}
	rig.Wait(ctx, d)
	sp.to, err = r.snapshot(ctx, true)
	return sp, err
}

// sampleFirst has every mailbox send one event, and takes the sample from the first
// until all have settled.
func (r *processes) sampleFirst(ctx context.Context) (sp sample, err error) {
	if sp.from, err = r.snapshot(ctx, false); err != nil {
		return sp, err
	}
	r.agents.Go(load.Pace{Once: true})
	err = rig.Poll(ctx, 100*time.Millisecond, func() (done bool, err error) {
		sp.to, err = r.snapshot(ctx, true)
		return sp.events() >= float64(r.world.Mailboxes), err
	})
	return sp, err
}

// until returns when a gauge of the relay is n, with what was so then.
func (r *processes) until(ctx context.Context, gauge string, n int) (s snapshot, err error) {
	err = rig.Poll(ctx, 100*time.Millisecond, func() (done bool, err error) {
		s, err = r.snapshot(ctx, true)
		return s.metrics.Sum(gauge) >= float64(n), err
	})
	return s, err
}

// collected has the first relay collect its garbage, and returns when its memory does
// not shrink any more: the Go runtime gives memory back bit by bit.
func (r *processes) collected(ctx context.Context) (snapshot, error) {
	for range 2 { // the second collects what the first one's finalizers freed
		if err := r.relays[0].Collect(ctx); err != nil {
			return snapshot{}, err
		}
	}
	least, since := uint64(1<<63), time.Now()
	err := rig.Poll(ctx, 200*time.Millisecond, func() (bool, error) {
		u, err := r.usage()
		if u.Resident < least-least/200 {
			least, since = u.Resident, time.Now()
		}
		return time.Since(since) >= 3*time.Second, err
	})
	if err != nil {
		return snapshot{}, err
	}
	return r.snapshot(ctx, true)
}

func (sp *sample) seconds() float64 { return sp.to.relay.At.Sub(sp.from.relay.At).Seconds() }

func (sp *sample) badges() float64 {
	return float64(sp.to.apple.Stats.Accepted - sp.from.apple.Stats.Accepted)
}

func (sp *sample) events() float64 { return float64(sp.to.agents.Events - sp.from.agents.Events) }

func (sp *sample) relayCPU() time.Duration { return sp.to.relay.CPU - sp.from.relay.CPU }

// cost is the relay's CPU time of a badge in microseconds; 0: there were none.
func (sp *sample) cost() float64 {
	if sp.badges() == 0 {
		return 0
	}
	return micros(sp.relayCPU()) / sp.badges()
}

// grown is by how much a counter of the relay has.
func (sp *sample) grown(counter string) float64 {
	return sp.to.metrics.Sum(counter) - sp.from.metrics.Sum(counter)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func megabytes(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// addCost adds what the relay did and what that cost.
func (sp *sample) addCost(figures *report.Case) {
	figures.Add("events_per_second", "/s", sp.events()/sp.seconds())
	figures.Add("badges_per_second", "/s", sp.badges()/sp.seconds())
	if sp.badges() > 0 {
		figures.Add("relay_cpu_per_badge", "us", sp.cost())
		figures.Add("events_per_push", "", sp.events()/sp.badges())
	}
	if sp.events() > 0 {
		figures.Add("relay_cpu_per_event", "us", micros(sp.relayCPU())/sp.events())
	}
	figures.Add("relay_cpu", "cores", sp.relayCPU().Seconds()/sp.seconds())
	// Mailboxes whose subscriptions were read one by one, and not by the warm-up.
	if n := sp.grown("badgerelay_subscription_lookups_total"); n > 0 {
		figures.Add("lookups_per_event", "", n/sp.events())
		figures.Add("lookups_per_second", "/s", n/sp.seconds())
	}
}

// addMemory adds what the relay needed and how much it threw away.
func (sp *sample) addMemory(figures *report.Case) {
	figures.Add("relay_resident_before", "MB", megabytes(sp.from.relay.Resident))
	figures.Add("relay_resident", "MB", megabytes(sp.to.relay.Resident))
	figures.Add("relay_peak", "MB", megabytes(sp.to.relay.Peak))
	const collections = "go_gc_duration_seconds"
	figures.Add("relay_collections", "/s", (sp.to.metrics.Count(collections)-sp.from.metrics.Count(collections))/sp.seconds())
	if sp.events() > 0 {
		figures.Add("relay_allocated_per_event", "bytes", sp.grown("go_memstats_alloc_bytes_total")/sp.events())
	}
}

// addOthers adds what the rest of the machine used, to see what limits.
func (sp *sample) addOthers(figures *report.Case) {
	apns, agents := sp.to.apple.Usage.CPU-sp.from.apple.Usage.CPU, sp.to.own.CPU-sp.from.own.CPU
	database := sp.to.database - sp.from.database
	if sp.badges() > 0 {
		figures.Add("apns_cpu_per_badge", "us", micros(apns)/sp.badges())
	}
	if sp.events() > 0 {
		figures.Add("agents_cpu_per_event", "us", micros(agents)/sp.events())
	}
	if sp.events() > 0 && database > 0 {
		figures.Add("database_cpu_per_event", "us", micros(database)/sp.events())
	}
	figures.Add("connections", "", float64(sp.to.apple.Stats.Connections))
	own := agents + apns + database + sp.relayCPU()
	figures.Add(report.OtherCPU, "cores", max(0, (sp.to.busy-sp.from.busy-own).Seconds()/sp.seconds()))
}

var quantiles = []struct {
	name  string
	share float64
}{{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}}

// addRelayLatencies adds what the relay says about its own part: from the event's
// receipt until its push was at the socket, and until it had settled.
func (sp *sample) addRelayLatencies(figures *report.Case) {
	for _, part := range []string{"push", "settle"} {
		h := sp.to.metrics.Since(sp.from.metrics, "badgerelay_event_"+part+"_seconds")
		for _, q := range quantiles {
			figures.Add("relay_"+part+"_"+q.name, "ms", micros(h.Quantile(q.share))/1000)
		}
	}
}

// addSettle adds how long it took until events had settled, as their agents saw it.
func addSettle(figures *report.Case, h *hdrhistogram.Histogram) {
	for _, q := range quantiles {
		figures.Add("settle_"+q.name, "ms", float64(h.ValueAtQuantile(q.share*100))/1000)
	}
}
