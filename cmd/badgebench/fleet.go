package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
)

// maxAgents is what the descriptors of one process and two cores are enough for.
const maxAgents = 10_000

// fleetRun is the measurement of badgebench fleet.
type fleetRun struct {
	setup
	size, perAgent, organizations int // agents, mailboxes of each, and to how many they belong
	idle, reconnect               bool
}

func (b *bench) fleetCommand() *cobra.Command {
	t := &fleetRun{}
	c := &cobra.Command{
		Use: "fleet", Short: "what thousands of agents with few events cost the relay",
		Long: `Runs a relay with its registry, TLS on both sides and real tokens, and agents
that are the real client library: each has a connection and a stream of its own
and sends --batch events a message. They come from addresses of loopback, a hundred
from each, and belong to --organizations organizations.

relay_resident_per_agent is what the relay's memory has grown by since it had
read its subscriptions and no agent was there, over the number of agents. reads
and writes are system calls, those included that found nothing to read.

--idle leaves the agents connected with nothing to say. --reconnect restarts the
relay under the load, and tells how long it takes until all are back and every
count has settled.`,
		Example: `  badgebench fleet --agents 1000 --rate 10000
  badgebench fleet --agents 10000 --idle
  badgebench fleet --agents 10000 --rate 1000 --reconnect`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := t.check(); err != nil {
				return err
			}
			return b.onRig(c, &t.setup, t.measure)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	command.Count(f, &t.size, "agents", 1, maxAgents, 1000, "`number` of agents")
	command.Count(f, &t.perAgent, "mailboxes-per-agent", 1, 1000, 10, "`number` of mailboxes of each agent")
	command.Count(f, &t.organizations, "organizations", 1, 1000, 10, "`number` of organizations to which the agents belong, at most one for each agent")
	command.Number(f, &t.rate, "rate", 1, maxRate, 10_000, "events a second of all agents")
	command.Count(f, &t.batch, "batch", 1, 1000, 1, "`number` of events in a message, each of another mailbox of the agent")
	t.registerRelay(c, 50*time.Millisecond)
	t.registerRegistry(c)
	t.registerTime(f, 20*time.Second, 10*time.Second)
	f.BoolVar(&t.idle, "idle", false, "measure connected agents that have nothing to say")
	f.BoolVar(&t.reconnect, "reconnect", false, "measure a restart of the relay")
	command.AtMostOne(c, "idle", "reconnect")
	return c
}

// check completes the setup, and says what is wrong with the flags that are
// fleet's own.
func (t *fleetRun) check() error {
	if t.organizations > t.size {
		return command.Usage("--organizations: %d have only %d agents", t.organizations, t.size)
	}
	if t.batch > t.perAgent {
		return command.Usage("--batch: %d events are of as many mailboxes, and --mailboxes-per-agent is %d", t.batch, t.perAgent)
	}
	t.Mailboxes, t.DevicesPerMailbox = t.size*t.perAgent, 1
	t.agents = 1 // load's, which are not there
	t.Sizes = make([]int, t.organizations)
	for i := range t.Sizes {
		first, last := i*t.size/len(t.Sizes), (i+1)*t.size/len(t.Sizes)
		t.Sizes[i] = (last - first) * t.perAgent
	}
	return nil
}

// measure makes one run. What is wrong with it goes to the report's problems.
func (t *fleetRun) measure(ctx context.Context, rep *report.Report, world *rig.Rig) error {
	r, err := t.start(ctx, world, 1)
	if err != nil {
		return err
	}
	agents, err := load.NewFleet(ctx, load.FleetConfig{
		Address: world.AgentsOf(1)[0], CAFile: world.CAFile(), Organizations: world.Organizations, PerAgent: t.perAgent, Batch: t.batch,
	})
	if err != nil {
		return err
	}
	r.agents = agents
	if _, err := r.until(ctx, "badgerelay_mailboxes", t.Mailboxes); err != nil {
		return err
	}
	empty, err := r.collected(ctx)
	if err != nil {
		return err
	}
	if err := t.connect(ctx, r, agents); err != nil {
		return err
	}
	figures := rep.Case("")
	switch {
	case t.idle:
		err = t.measureIdle(ctx, r, figures, &empty)
	case t.reconnect:
		err = t.measureReconnect(ctx, rep, r, figures)
	default:
		err = t.measureLoad(ctx, rep, r, figures, &empty)
	}
	if err != nil {
		return err
	}
	return r.stop(ctx)
}

// How fast the agents of a new fleet come, and their mailboxes' first events, a second.
const (
	connectsPerSecond = 500
	firstPerSecond    = 5000
)

// connect has the agents connect, each mailbox send one event where there is
// load, and waits until all has settled.
func (t *fleetRun) connect(ctx context.Context, r *processes, agents *load.Fleet) error {
	agents.Connect(time.Duration(t.size) * time.Second / connectsPerSecond)
	if err := t.connected(ctx, r); err != nil || t.idle {
		return err
	}
	first := min(firstPerSecond, float64(connectsPerSecond*t.perAgent))
	if err := r.load(ctx, load.Pace{Once: true, Rate: first}, 0, uint64(t.Mailboxes)); err != nil {
		return err
	}
	return r.agents.Stop(ctx, settleTimeout)
}

// connected waits until every agent is.
func (t *fleetRun) connected(ctx context.Context, r *processes) error {
	began := time.Now()
	return rig.Poll(ctx, 20*time.Millisecond, func() (bool, error) {
		s, err := r.agents.State()
		if err == nil && s.Connected < t.size && time.Since(began) > settleTimeout {
			err = fmt.Errorf("after %v %d of %d agents are connected", settleTimeout, s.Connected, t.size)
		}
		return s.Connected == t.size, err
	})
}

// measureIdle measures agents that are connected and have nothing to say.
func (t *fleetRun) measureIdle(ctx context.Context, r *processes, figures *report.Case, empty *snapshot) error {
	rig.Wait(ctx, t.warmup)
	if _, err := r.collected(ctx); err != nil { // as the runtime does every two minutes by itself
		return err
	}
	sp, err := r.sample(ctx)
	if err != nil {
		return err
	}
	figures.Add("agents", "", float64(sp.to.agents.Connected))
	figures.Add("relay_cpu", "cores", sp.relayCPU().Seconds()/sp.seconds())
	t.addMemory(figures, &sp, empty)
	sp.addOthers(figures)
	return nil
}

// addMemory adds what the relay needed, and what of it is the agents'.
func (t *fleetRun) addMemory(figures *report.Case, sp *sample, empty *snapshot) {
	sp.addMemory(figures)
	figures.Add("relay_resident_without_agents", "MB", megabytes(empty.relay.Resident))
	figures.Add("relay_resident_per_agent", "bytes", (float64(sp.to.relay.Resident)-float64(empty.relay.Resident))/float64(t.size))
	figures.Add("relay_heap", "MB", sp.to.metrics.Sum("go_memstats_heap_inuse_bytes")/(1<<20))
	figures.Add("relay_stacks", "MB", sp.to.metrics.Sum("go_memstats_stack_inuse_bytes")/(1<<20))
	figures.Add("relay_goroutines", "", sp.to.metrics.Sum("go_goroutines"))
}

// measureLoad measures the agents at their rate.
func (t *fleetRun) measureLoad(ctx context.Context, rep *report.Report, r *processes, figures *report.Case, empty *snapshot) error {
	if err := r.load(ctx, load.Pace{Rate: t.rate}, t.warmup, 0); err != nil {
		return err
	}
	sp, err := r.sample(ctx)
	if err != nil {
		return err
	}
	if err := r.judge(ctx, rep); err != nil {
		return err
	}
	sp.addCost(figures)
	figures.Add("reads_per_event", "", float64(sp.to.relay.Reads-sp.from.relay.Reads)/sp.events())
	figures.Add("writes_per_event", "", float64(sp.to.relay.Writes-sp.from.relay.Writes)/sp.events())
	sp.addRelayLatencies(figures)
	addSettle(figures, r.agents.Latency()) // of what has settled by now, not when the sample ended
	t.addMemory(figures, &sp, empty)
	sp.addOthers(figures)
	return nil
}

// measureReconnect restarts the relay under load.
func (t *fleetRun) measureReconnect(ctx context.Context, rep *report.Report, r *processes, figures *report.Case) error {
	if err := r.load(ctx, load.Pace{Rate: t.rate}, t.warmup, 0); err != nil {
		return err
	}
	before, err := r.agents.State()
	if err != nil {
		return err
	}
	if err := r.relays[0].Stop(ctx); err != nil {
		return err
	}
	restart := time.Now()
	if r.relays[0], err = r.world.StartRelay(ctx, 0); err != nil {
		return err
	}
	profiled := t.profile(ctx, r.relays[0], t.duration)
	if err := r.agents.Stop(ctx, settleTimeout); err != nil { // what is unsettled is what the restart left
		return fmt.Errorf("come back: %w", err)
	}
	if err := t.connected(ctx, r); err != nil {
		return fmt.Errorf("come back: %w", err)
	}
	back := time.Since(restart)
	after, err := r.snapshot(ctx, true)
	if err != nil {
		return err
	}
	if err := profiled(); err != nil {
		return err
	}
	if err := r.judge(ctx, rep); err != nil {
		return err
	}
	figures.Add("start_to_ready", "ms", micros(r.relays[0].ToReady)/1000)
	figures.Add("start_to_settled", "s", back.Seconds())
	figures.Add("attempts_per_agent", "", float64(after.agents.Failures-before.Failures)/float64(t.size))
	figures.Add("refusals", "", float64(after.agents.Refusals-before.Refusals))
	figures.Add("connections_refused", "", after.metrics.Sum("badgerelay_ingest_connections_refused_total"))
	figures.Add("relay_cpu_per_agent", "us", micros(after.relay.CPU)/float64(t.size))
	figures.Add("relay_peak", "MB", megabytes(after.relay.Peak))
	figures.Add("relay_resident", "MB", megabytes(after.relay.Resident))
	return nil
}
