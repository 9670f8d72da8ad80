package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
	pb "badgerelay/proto/badgerelay/v1"
)

// throughput is the measurement of badgebench relay and scale.
type throughput struct {
	setup
	cold, half bool
}

func (b *bench) relayCommand() *cobra.Command {
	t := &throughput{}
	c := &cobra.Command{
		Use: "relay", Short: "what a badge costs the relay under load, and how long it takes",
		Long: `Runs a relay with its registry, TLS on both sides and real tokens, and has
agents send events as fast as they settle (a window of unsettled events each),
or at --rate. Each event changes its mailbox's count. The first seconds, in
which every mailbox has its first event, are not measured; with --cold they are
all that is measured.

With --rate events come whether the ones before have settled or not, and their
latency counts from the moment they were to be sent; --half first finds the
greatest rate and then offers half of it. relay_push is the relay's own part,
from an event's receipt until its push was written to the socket; relay_settle
until APNs' answer was taken. Both come from the relay's histograms. settle is
what the agents saw.

With --coalescing-window, more pushes to the devices than one each in a window
are a problem: then there are no figures.

With --devices-per-mailbox 0 nobody is subscribed: events end at once, and
nothing is pushed. What is left is ingest: TLS, gRPC, decoding, the mailbox's
state, and the settlement, which names each of these events.

With --relays the relays share a PostgreSQL and the agents are spread over them.
Their figures stand beside those of one relay on the same database, which has
its turn before theirs; relay_cpu and the like are of all relays together.`,
		Example: `  badgebench relay --mailboxes 100000 --duration 10s --repeat 5
  badgebench relay --batch 1 --cpuprofile cpu.pprof
  badgebench relay --cold --mailboxes 1000000
  badgebench relay --half --duration 20s
  badgebench relay --devices-per-mailbox 0
  badgebench relay --mailboxes 1 --agents 1 --rate 10000 --coalescing-window 1s
  badgebench relay --relays 3 --mailboxes 100000`,
		RunE: func(c *cobra.Command, _ []string) error { return b.onRig(c, &t.setup, t.oneAndAll) },
	}
	f := c.Flags()
	t.registerWorld(c, 10_000, 0)
	command.Count(f, &t.Relays, "relays", 1, rig.MaxRelays, 1, "`number` of relays, on PostgreSQL (--registry) where there are several")
	command.Count(f, &t.MaxMailboxes, "max-mailboxes", 0, maxMailboxes, 0, "a relay's relay.max_mailboxes (default: the relay's)")
	t.registerLoad(c)
	t.registerTime(f, 10*time.Second, 2*time.Second)
	f.BoolVar(&t.cold, "cold", false, "measure the first event of every mailbox after the relay's start, and no other")
	command.Number(f, &t.rate, "rate", 0, maxRate, 0, "events a second of all agents, whether they settle or not (default: as fast as they settle)")
	f.BoolVar(&t.half, "half", false, "offer half of the greatest rate, which is measured before")
	command.AtMostOne(c, "cold", "rate", "half")
	return c
}

// onRig measures on one registry for all runs.
func (b *bench) onRig(c *cobra.Command, s *setup, runs func(ctx context.Context, rep *report.Report, world *rig.Rig) error) error {
	if err := s.validate(); err != nil {
		return err
	}
	world, _, err := b.newRig(c.Context(), s)
	if err != nil {
		return err
	}
	err = b.measure(c, func(ctx context.Context, rep *report.Report) error { return runs(ctx, rep, world) })
	return errors.Join(err, world.Close())
}

// oneAndAll makes a run with one relay and, where there are to be several, one with
// all of them.
func (t *throughput) oneAndAll(ctx context.Context, rep *report.Report, world *rig.Rig) error {
	if t.Relays == 1 {
		_, err := t.measure(ctx, rep, "", world, 1)
		return err
	}
	var one float64
	for _, n := range []int{1, t.Relays} {
		name := fmt.Sprintf("relays: %d", n)
		cost, err := t.measure(ctx, rep, name, world, n)
		if err != nil || len(rep.Problems) > 0 {
			return err
		}
		if n == 1 {
			one = cost
		} else if one > 0 { // a run too short for the system's count has none
			rep.Case(name).Add("relay_cpu_per_badge_to_one_relay", "", cost/one)
		}
	}
	return nil
}

// measure makes one run, whose figures are those of the case of this name, and returns
// the CPU time of a badge. What is wrong with it goes to the report's problems.
func (t *throughput) measure(ctx context.Context, rep *report.Report, name string, world *rig.Rig, relays int) (float64, error) {
	figures := rep.Case(name)
	r, err := t.startLoad(ctx, world, relays)
	if err != nil {
		return 0, err
	}
	sp, err := t.sample(ctx, r, figures)
	if err != nil {
		return 0, err
	}
	if err := r.judgeLoad(ctx, rep, &sp, t.expected()...); err != nil {
		return 0, err
	}
	if most := t.mostPushes(&sp, world.Devices()); t.Window > 0 && sp.badges() > most {
		rep.Fail("%.0f pushes to %d devices are more than one each in a window of %v", sp.badges(), world.Devices(), t.Window)
	}
	sp.addCost(figures)
	if sp.badges() > 0 {
		sp.addRelayLatencies(figures)
		addSettle(figures, r.agents.Latency())
	}
	sp.addMemory(figures)
	sp.addOthers(figures)
	return sp.cost(), r.stop(ctx)
}

// sample takes the sample that counts.
func (t *throughput) sample(ctx context.Context, r *processes, figures *report.Case) (sp sample, err error) {
	if t.cold {
		profiled := t.profile(ctx, r.relays[0], t.duration)
		sp, err = r.sampleFirst(ctx)
		return sp, errors.Join(err, profiled())
	}
	// One agent may be ahead of another: two events a mailbox are enough for both.
	if err := r.load(ctx, load.Pace{Rate: t.rate}, t.warmup, 2*uint64(r.world.Mailboxes)); err != nil {
		return sp, err
	}
	if t.half {
		if err := t.offerHalf(ctx, r, figures); err != nil {
			return sp, err
		}
	}
	return r.sample(ctx)
}

// offerHalf measures the greatest rate, and has the agents send at half of it.
func (t *throughput) offerHalf(ctx context.Context, r *processes, figures *report.Case) error {
	sp, err := r.sampleOf(ctx, 3*time.Second)
	if err != nil {
		return err
	}
	rate := sp.events() / sp.seconds() / 2
	figures.Add("offered", "/s", rate)
	if err := r.agents.Stop(ctx, settleTimeout); err != nil {
		return err
	}
	return r.load(ctx, load.Pace{Rate: rate}, time.Second, 0)
}

// expected are the outcomes that events may have of which each changes its
// mailbox's count. With a window, the last one within may say by chance what
// the first one said.
func (t *throughput) expected() []pb.Outcome {
	if t.DevicesPerMailbox == 0 {
		return []pb.Outcome{pb.Outcome_OUTCOME_NO_SUBSCRIPTION}
	}
	all := []pb.Outcome{pb.Outcome_OUTCOME_DELIVERED, pb.Outcome_OUTCOME_SUPERSEDED}
	if t.Window > 0 {
		all = append(all, pb.Outcome_OUTCOME_UNCHANGED)
	}
	return all
}

// mostPushes is how many pushes the coalescing window allows: one a device more than
// there are windows, since both ends may fall upon a push.
func (t *throughput) mostPushes(sp *sample, devices int) float64 {
	within := sp.to.apple.Usage.At.Sub(sp.from.apple.Usage.At)
	return (within.Seconds()/t.Window.Seconds() + 1) * float64(devices)
}

// startLoad starts a run whose agents are load's, spread over the relays.
func (s *setup) startLoad(ctx context.Context, world *rig.Rig, relays int) (*processes, error) {
	r, err := s.start(ctx, world, relays)
	if err != nil {
		return nil, err
	}
	issuer, err := world.Organizations[0].Issuer()
	if err != nil {
		return nil, err
	}
	token, _, err := issuer.Token(ctx, "")
	if err != nil {
		return nil, err
	}
	r.agents, err = load.Start(ctx, load.Config{
		Addresses: world.AgentsOf(relays), CAFile: world.CAFile(), Token: token,
		Mailboxes: world.Mailboxes, Agents: s.agents, Batch: min(s.batch, s.unsettled()), Window: s.unsettled(),
	})
	return r, err
}

// judgeLoad is judge, and wants of every event that it had one of the outcomes that are
// expected, and that the relays took it.
func (r *processes) judgeLoad(ctx context.Context, rep *report.Report, sp *sample, expected ...pb.Outcome) error {
	if err := r.judge(ctx, rep); err != nil {
		return err
	}
	for o, count := range sp.to.agents.Outcomes {
		if count > 0 && !slices.Contains(expected, pb.Outcome(o)) {
			rep.Fail("events that ended as %v: %d", pb.Outcome(o), count)
		}
	}
	if sp.events() == 0 {
		rep.Fail("no event settled while it was measured")
	}
	m, err := r.metrics(ctx)
	if err != nil {
		return err
	}
	sent, err := r.agents.State()
	if taken, _, _ := m.Counters(); err == nil && taken != float64(sent.Sent) {
		rep.Fail("the relays took %v events, the agents sent %d", taken, sent.Sent)
	}
	return err
}
