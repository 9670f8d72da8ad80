package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
	pb "badgerelay/proto/badgerelay/v1"
)

// throughput is the measurement of badgebench relay, and of those that are
// variants of it.
type throughput struct {
	setup
	profiles
	duration, warmup time.Duration
	rate             float64
	cold             bool
}

// gatherFor is how long an agent with a rate gathers events into a batch.
const gatherFor = time.Millisecond

// expected are the outcomes that events may have of which each changes its
// mailbox's count. With a window, the last one within may say by chance what
// the first one said.
func (s *setup) expected() []pb.Outcome {
	all := []pb.Outcome{pb.Outcome_OUTCOME_DELIVERED, pb.Outcome_OUTCOME_SUPERSEDED}
	if s.coalescing > 0 {
		all = append(all, pb.Outcome_OUTCOME_UNCHANGED)
	}
	return all
}

func (b *bench) relayCommand() *cobra.Command {
	t := &throughput{}
	c := &cobra.Command{
		Use: "relay", Short: "what a badge costs the relay under load",
		Long: `Runs a relay with its registry, TLS on both sides and real tokens, and has
agents send events as fast as they settle (a window of unsettled events each),
or at --rate. Each event changes its mailbox's count. The first seconds, in
which every mailbox has its first event, are not measured; with --cold they are
all that is measured.

With --relays the relays share a PostgreSQL and the agents are spread over them.
Their figures stand beside those of one relay on the same database, which has
its turn before theirs; relay_cpu and the like are of all relays together.`,
		Example: `  badgebench relay --mailboxes 100000 --duration 10s --repeat 5
  badgebench relay --batch 1 --cpuprofile cpu.pprof
  badgebench relay --cold --mailboxes 1000000
  badgebench relay --relays 3 --mailboxes 100000`,
		RunE: func(c *cobra.Command, _ []string) error {
			return b.withRig(c, &t.setup, func(ctx context.Context, r *report.Report, world *rig.Rig) error {
				return t.fleets(ctx, r, world)
			})
		},
	}
	f := c.Flags()
	t.registerWorld(f, 10_000)
	command.Count(f, &t.relays, "relays", 1, rig.MaxRelays, 1, "`number` of relays, on PostgreSQL (--registry) where there are several")
	command.Count(f, &t.maxMailboxes, "max-mailboxes", 0, maxMailboxes, 0, "a relay's relay.max_mailboxes (default: the relay's)")
	t.registerLoad(c)
	t.registerRun(f)
	f.BoolVar(&t.cold, "cold", false, "measure the first event of every mailbox after the relay's start, and no other")
	command.Number(f, &t.rate, "rate", 0, maxRate, 0, "events a second of all agents, whether they settle or not (default: as fast as they settle)")
	return c
}

func (t *throughput) registerRun(f *pflag.FlagSet) {
	command.Duration(f, &t.duration, "duration", 0, 10*time.Second, "how long to measure")
	command.Duration(f, &t.warmup, "warmup", 0, 2*time.Second, "how long to load before, at least")
	t.profiles.register(f)
}

// withRig measures on one registry for all runs.
func (b *bench) withRig(c *cobra.Command, s *setup, run func(ctx context.Context, r *report.Report, world *rig.Rig) error) error {
	if err := s.validate(); err != nil {
		return err
	}
	world, _, err := b.newRig(c.Context(), s)
	if err != nil {
		return err
	}
	err = b.measure(c, func(ctx context.Context, r *report.Report, _ int) error { return run(ctx, r, world) })
	return errors.Join(err, world.Close())
}

// single makes one run in each repetition.
func (b *bench) single(c *cobra.Command, s *setup, measure func(ctx context.Context, r *report.Report, run *report.Run, world *rig.Rig) error) error {
	return b.withRig(c, s, func(ctx context.Context, r *report.Report, world *rig.Rig) error {
		run := &report.Run{}
		err := measure(ctx, r, run, world)
		r.Case("").Add(run)
		return err
	})
}

// fleets makes a run with one relay and, where there are to be several, one with
// all of them.
func (t *throughput) fleets(ctx context.Context, r *report.Report, world *rig.Rig) error {
	if t.relays == 1 {
		run, err := t.run(ctx, r, world, 1)
		r.Case("").Add(run)
		return err
	}
	var one float64
	for _, n := range []int{1, t.relays} {
		run, err := t.run(ctx, r, world, n)
		cost := run.Value("relay_cpu_per_badge")
		if n == 1 {
			one = cost
		} else if one > 0 { // a run too short for the system's count has none
			run.Add("relay_cpu_per_badge_to_one_relay", "", cost/one)
		}
		r.Case(fmt.Sprintf("relays: %d", n)).Add(run)
		if err != nil || len(r.Problems) > 0 {
			return err
		}
	}
	return nil
}

// run makes one run. What is wrong with it goes to the report's problems.
func (t *throughput) run(ctx context.Context, r *report.Report, world *rig.Rig, relays int) (*report.Run, error) {
	run := &report.Run{}
	ps, err := t.playOn(ctx, world, relays)
	if err != nil {
		return run, err
	}
	sp, err := t.sample(ctx, ps)
	if err != nil {
		return run, err
	}
	if err := ps.judge(ctx, r, &sp, t.expected()...); err != nil {
		return run, err
	}
	sp.cost(run)
	addSettle(run, sp.to.agents.Latency)
	sp.others(run)
	run.Add("wrong_badges", "", 0) // otherwise there are no figures
	run.Add("client_faults", "", 0)
	return run, ps.end(ctx)
}

// sample takes the sample that counts.
func (t *throughput) sample(ctx context.Context, ps *processes) (sp sample, err error) {
	if t.cold {
		profiled := t.profile(ctx, ps.relays[0], t.duration)
		sp, err = ps.once(ctx)
		return sp, errors.Join(err, profiled())
	}
	if err := ps.agents.Go(ctx, load.Pace{Rate: t.rate, Every: gatherFor}); err != nil {
		return sp, err
	}
	if err := ps.warm(ctx, t.warmup); err != nil {
		return sp, err
	}
	profiled := t.profile(ctx, ps.relays[0], t.duration)
	sp, err = ps.measure(ctx, t.duration)
	return sp, errors.Join(err, profiled())
}

// under plays, warms the relay up at a pace, and takes the sample from there.
func (t *throughput) under(ctx context.Context, r *report.Report, world *rig.Rig, pace load.Pace, expected ...pb.Outcome) (ps *processes, sp sample, err error) {
	if ps, err = t.play(ctx, world); err != nil {
		return nil, sp, err
	}
	if err := ps.agents.Go(ctx, pace); err != nil {
		return nil, sp, err
	}
	if err := ps.warm(ctx, t.warmup); err != nil {
		return nil, sp, err
	}
	sp, err = t.measured(ctx, r, ps, expected...)
	return ps, sp, err
}

// measured is a sample of a run that is under way, with its profile, and judged. An
// error means that nothing was measured.
func (t *throughput) measured(ctx context.Context, r *report.Report, ps *processes, expected ...pb.Outcome) (sp sample, err error) {
	profiled := t.profile(ctx, ps.relays[0], t.duration)
	sp, err = ps.measure(ctx, t.duration)
	if err = errors.Join(err, profiled()); err != nil {
		return sp, err
	}
	return sp, ps.judge(ctx, r, &sp, expected...)
}
