package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	pb "badgerelay/proto/badgerelay/v1"
)

// snapshot is everything that can be asked, at about one moment.
type snapshot struct {
	readings
	agents load.State
}

func (ps *processes) snapshot(ctx context.Context, last bool) (s snapshot, err error) {
	s.readings, err = ps.read(ctx, last, func() (err error) {
		s.agents, err = ps.agents.State(ctx)
		return err
	})
	return s, err
}

// sample is what happened between two snapshots.
type sample struct{ from, to snapshot }

// measure takes a sample of d under the load that runs.
func (ps *processes) measure(ctx context.Context, d time.Duration) (sp sample, err error) {
	if err := errors.Join(ps.resetPeak(), ps.agents.Reset(ctx)); err != nil {
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

func (sp *sample) seconds() float64 { return sp.to.seconds(&sp.from.readings) }

func (sp *sample) badges() float64 { return sp.to.badges(&sp.from.readings) }

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
	if d := sp.to.database - sp.from.database; d > 0 {
		r.Add("database_cpu_per_event", "us", micros(d)/sp.events())
	}
	r.Add("connections", "", float64(sp.to.apple.Stats.Connections))
	r.Add(report.OtherCPU, "cores", sp.to.otherCPU(&sp.from.readings, g))
}

// relayLatencies adds what the relay says about its own part: from the event's
// receipt until its push was at the socket, and until it had settled.
func (sp *sample) relayLatencies(r *report.Run) {
	sp.to.addQuantiles(r, &sp.from.readings, "relay_push_", "badgerelay_event_push_seconds")
	sp.to.addQuantiles(r, &sp.from.readings, "relay_settle_", "badgerelay_event_settle_seconds")
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
