package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/fleet"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
)

// maxAgents is what the descriptors of one process and two cores are enough for.
const maxAgents = 10_000

// fleetRun is the measurement of badgebench fleet.
type fleetRun struct {
	setup
	profiles
	size, perAgent, perAddress, organizations int // agents, mailboxes of each, agents of an address, organizations
	rate                                      float64
	duration, warmup                          time.Duration
	idle, reconnect                           bool
}

func (b *bench) fleetCommand() *cobra.Command {
	t := &fleetRun{}
	c := &cobra.Command{
		Use: "fleet", Short: "what thousands of agents with few events cost the relay",
		Long: `Runs a relay with its registry, TLS on both sides and real tokens, and agents
that are the real client library: each has a connection and a stream of its own
and sends --batch events a message. They come from addresses of loopback, some from
each, and belong to several organizations.

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
			return b.single(c, &t.setup, t.run)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	command.Count(f, &t.size, "agents", 1, maxAgents, 1000, "`number` of agents")
	command.Count(f, &t.perAgent, "mailboxes-per-agent", 1, 1000, 10, "`number` of mailboxes of each agent")
	command.Count(f, &t.devices, "devices-per-mailbox", 1, maxDevices, 1, "`number` of devices subscribed to each mailbox")
	command.Count(f, &t.organizations, "organizations", 1, 1000, 10, "`number` of organizations, to which the agents belong")
	command.Count(f, &t.perAddress, "agents-per-address", 1, maxAgents, 100, "`number` of agents that come from one address")
	command.Number(f, &t.rate, "rate", 0, maxRate, 10_000, "events a second of all agents")
	command.Count(f, &t.batch, "batch", 1, 1000, 1, "`number` of events in a message, each of another mailbox of the agent")
	command.Duration(f, &t.rtt, "rtt", 0, 50*time.Millisecond, "`time` that the simulated APNs takes to answer")
	command.Duration(f, &t.coalescing, "coalescing-window", 0, 0, "the relay's window; its own default is 1s")
	f.StringVar(&t.registry, "registry", "", "postgres: a private server; or the `URL` of one, on which a database is made and removed (default: a file)")
	t.registerEngine(c)
	command.Duration(f, &t.duration, "duration", 0, 20*time.Second, "how long to measure")
	command.Duration(f, &t.warmup, "warmup", 0, 10*time.Second, "how long to load before")
	f.BoolVar(&t.idle, "idle", false, "measure connected agents that have nothing to say")
	f.BoolVar(&t.reconnect, "reconnect", false, "measure a restart of the relay")
	t.profiles.register(f)
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
	t.mailboxes = t.size * t.perAgent
	t.agents = 1 // load's, which are not there
	t.sizes = make([]int, t.organizations)
	for i := range t.sizes {
		first, last := i*t.size/t.organizations, (i+1)*t.size/t.organizations
		t.sizes[i] = (last - first) * t.perAgent
	}
	return nil
}

// field is one run's processes.
type field struct {
	system
	*fleetRun
	agents *fleet.Fleet
}

// run makes one run. What is wrong with it goes to the report's problems.
func (t *fleetRun) run(ctx context.Context, r *report.Report, run *report.Run, world *rig.Rig) error {
	f, err := t.play(ctx, world)
	if err != nil {
		return err
	}
	empty, err := f.collected(ctx)
	if err != nil {
		return err
	}
	if err := f.connect(ctx); err != nil {
		return err
	}
	switch {
	case t.idle:
		err = f.measureIdle(ctx, run, empty)
	case t.reconnect:
		err = f.measureReconnect(ctx, r, run)
	default:
		err = f.measureLoad(ctx, r, run, empty)
	}
	if err != nil {
		return err
	}
	f.agents.End()
	return f.end(ctx)
}

func (t *fleetRun) play(ctx context.Context, world *rig.Rig) (*field, error) {
	f := &field{fleetRun: t}
	if err := f.start(ctx, world, t.rtt, 1); err != nil {
		return nil, err
	}
	config := fleet.Config{
		Address: world.AgentsOf(1)[0], CAFile: world.CAFile(),
		Agents: t.size, PerAgent: t.perAgent, Batch: t.batch, PerAddress: t.perAddress,
	}
	for _, o := range world.Organizations {
		config.Organizations = append(config.Organizations, fleet.Organization{Name: o.Name, Store: o.Store, First: o.First, Last: o.First + o.Mailboxes})
	}
	var err error
	if f.agents, err = fleet.Start(ctx, world.Group, config); err != nil {
		return nil, err
	}
	f.watch(append(f.agents.Processes(), f.apple.Process)...) // not the relay, which measureReconnect restarts
	return f, nil
}

// connectsPerSecond is how fast the agents of a new field come.
const connectsPerSecond = 500

// connect has the agents connect, each mailbox send one event where there is
// load, and waits until all has settled.
func (f *field) connect(ctx context.Context) error {
	over := time.Duration(f.size) * time.Second / connectsPerSecond
	if err := f.agents.Connect(ctx, over); err != nil {
		return err
	}
	if err := f.until(ctx, func(s *fleet.State) bool { return s.Connected == f.size }); err != nil {
		return fmt.Errorf("connect the agents: %w", err)
	}
	if f.idle {
		return nil
	}
	if err := f.agents.Once(ctx, max(over, time.Duration(f.mailboxes)*time.Second/5000)); err != nil {
		return err
	}
	if err := f.until(ctx, func(s *fleet.State) bool { return s.Submitted >= uint64(f.mailboxes) && s.Unsettled == 0 }); err != nil {
		return fmt.Errorf("send every mailbox's first event: %w", err)
	}
	return nil
}

// until waits until the agents are as they are to be.
func (f *field) until(ctx context.Context, done func(*fleet.State) bool) error {
	began := time.Now()
	for {
		s, err := f.agents.State(ctx)
		if err != nil || done(&s) {
			return err
		}
		if time.Since(began) > settleTimeout {
			return fmt.Errorf("after %v %d of %d agents are connected, and %d events unsettled", settleTimeout, s.Connected, f.size, s.Unsettled)
		}
		if err := f.wait(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// collected waits until the relay has read its subscriptions, collects, and
// returns its memory.
func (f *field) collected(ctx context.Context) (child.Usage, error) {
	for {
		m, err := f.metrics(ctx)
		if err != nil {
			return child.Usage{}, err
		}
		if m.Sum("badgerelay_mailboxes") >= float64(f.mailboxes) {
			break
		}
		if err := f.wait(ctx, 100*time.Millisecond); err != nil {
			return child.Usage{}, err
		}
	}
	if err := f.collect(ctx); err != nil {
		return child.Usage{}, err
	}
	if err := f.wait(ctx, 3*time.Second); err != nil {
		return child.Usage{}, err
	}
	return f.usage()
}

// fleetSnapshot is what all have used and done at about one moment.
type fleetSnapshot struct {
	readings
	agents fleet.State
}

func (f *field) take(ctx context.Context, last bool) (s fleetSnapshot, err error) {
	s.readings, err = f.read(ctx, last, func() (err error) {
		s.agents, err = f.agents.State(ctx)
		return err
	})
	return s, err
}

// during takes samples around d.
func (f *field) during(ctx context.Context, d time.Duration) (from, to fleetSnapshot, err error) {
	if err = errors.Join(f.agents.Reset(ctx), f.resetPeak()); err != nil {
		return from, to, err
	}
	if from, err = f.take(ctx, false); err != nil {
		return from, to, err
	}
	profiled := f.profile(ctx, f.relays[0], d)
	if err = f.wait(ctx, d); err != nil {
		return from, to, err
	}
	to, err = f.take(ctx, true)
	return from, to, errors.Join(err, profiled())
}

// measureIdle measures agents that are connected and have nothing to say.
func (f *field) measureIdle(ctx context.Context, run *report.Run, empty child.Usage) error {
	if err := f.wait(ctx, f.warmup); err != nil {
		return err
	}
	if _, err := f.collected(ctx); err != nil { // collects, as the runtime does every two minutes by itself
		return err
	}
	from, to, err := f.during(ctx, f.duration)
	if err != nil {
		return err
	}
	run.Add("agents", "", float64(to.agents.Connected))
	run.Add("relay_cpu", "cores", (to.relay.CPU-from.relay.CPU).Seconds()/to.seconds(&from.readings))
	f.memory(run, empty, &to)
	f.others(run, &from, &to)
	return nil
}

func (f *field) memory(run *report.Run, empty child.Usage, to *fleetSnapshot) {
	run.Add("relay_resident_without_agents", "MB", megabytes(empty.Resident))
	run.Add("relay_resident", "MB", megabytes(to.relay.Resident))
	run.Add("relay_peak", "MB", megabytes(to.relay.Peak))
	run.Add("relay_resident_per_agent", "bytes", (float64(to.relay.Resident)-float64(empty.Resident))/float64(f.size))
	run.Add("relay_heap", "MB", to.metrics.Sum("go_memstats_heap_inuse_bytes")/(1<<20))
	run.Add("relay_stacks", "MB", to.metrics.Sum("go_memstats_stack_inuse_bytes")/(1<<20))
	run.Add("relay_goroutines", "", to.metrics.Sum("go_goroutines"))
}

// others adds what the rest of the machine used.
func (f *field) others(run *report.Run, from, to *fleetSnapshot) {
	seconds := to.seconds(&from.readings)
	apns, agents := to.apple.Usage.CPU-from.apple.Usage.CPU, to.agents.Usage.CPU-from.agents.Usage.CPU
	run.Add("apns_cpu", "cores", apns.Seconds()/seconds)
	run.Add("agents_cpu", "cores", agents.Seconds()/seconds)
	run.Add(report.OtherCPU, "cores", to.otherCPU(&from.readings, agents))
}

// measureLoad measures the agents at their rate.
func (f *field) measureLoad(ctx context.Context, r *report.Report, run *report.Run, empty child.Usage) error {
	if err := f.agents.Go(ctx, f.rate); err != nil {
		return err
	}
	if err := f.wait(ctx, f.warmup); err != nil {
		return err
	}
	from, to, err := f.during(ctx, f.duration)
	if err != nil {
		return err
	}
	if err := f.judge(ctx, r); err != nil {
		return err
	}
	seconds, badges := to.seconds(&from.readings), to.badges(&from.readings)
	events := float64(to.agents.Submitted - from.agents.Submitted) // settled or replaced by newer ones
	run.Add("events_per_second", "/s", events/seconds)
	run.Add("badges_per_second", "/s", badges/seconds)
	run.Add("relay_cpu_per_badge", "us", micros(to.relay.CPU-from.relay.CPU)/badges)
	run.Add("relay_cpu", "cores", (to.relay.CPU-from.relay.CPU).Seconds()/seconds)
	run.Add("reads_per_event", "", float64(to.calls.Reads-from.calls.Reads)/events)
	run.Add("writes_per_event", "", float64(to.calls.Writes-from.calls.Writes)/events)
	to.addQuantiles(run, &from.readings, "push_", "badgerelay_event_push_seconds")
	settled, err := f.agents.State(ctx) // by now, not when the measurement ended
	if err != nil {
		return err
	}
	addSettle(run, settled.Latency)
	f.memory(run, empty, &to)
	run.Add("agents_cpu_per_event", "us", micros(to.agents.Usage.CPU-from.agents.Usage.CPU)/events)
	f.others(run, &from, &to)
	run.Add("wrong_badges", "", 0) // otherwise there are no figures
	run.Add("client_faults", "", 0)
	return nil
}

// measureReconnect restarts the relay under load.
func (f *field) measureReconnect(ctx context.Context, r *report.Report, run *report.Run) error {
	if err := f.agents.Go(ctx, f.rate); err != nil {
		return err
	}
	if err := f.wait(ctx, f.warmup); err != nil {
		return err
	}
	before, err := f.agents.State(ctx)
	if err != nil {
		return err
	}
	if err := f.relays[0].Stop(ctx); err != nil {
		return err
	}
	restart := time.Now()
	if f.relays[0], err = f.world.StartRelay(ctx, 0); err != nil {
		return err
	}
	ready := time.Since(restart)
	profiled := f.profile(ctx, f.relays[0], f.duration)
	if err := f.agents.Go(ctx, 0); err != nil { // so that what is unsettled is what the restart left
		return err
	}
	if err := f.until(ctx, func(s *fleet.State) bool { return s.Connected == f.size && s.Unsettled == 0 }); err != nil {
		return fmt.Errorf("come back: %w", err)
	}
	back := time.Since(restart)
	after, err := f.take(ctx, true)
	if err != nil {
		return err
	}
	if err := profiled(); err != nil {
		return err
	}
	if err := f.judge(ctx, r); err != nil {
		return err
	}
	run.Add("start_to_ready", "ms", micros(ready)/1000)
	run.Add("start_to_settled", "s", back.Seconds())
	run.Add("attempts_per_agent", "", float64(after.agents.Failures-before.Failures)/float64(f.size))
	run.Add("refusals", "", float64(after.agents.Refusals-before.Refusals))
	run.Add("connections_refused", "", after.metrics.Sum("badgerelay_ingest_connections_refused_total"))
	run.Add("relay_cpu_per_agent", "us", micros(after.relay.CPU)/float64(f.size))
	run.Add("relay_peak", "MB", megabytes(after.relay.Peak))
	run.Add("relay_resident", "MB", megabytes(after.relay.Resident))
	run.Add("wrong_badges", "", 0)
	run.Add("client_faults", "", 0)
	return nil
}

// judge settles, and notes everything that is wrong with the run.
func (f *field) judge(ctx context.Context, r *report.Report) error {
	if err := f.agents.Go(ctx, 0); err != nil {
		return err
	}
	if err := f.until(ctx, func(s *fleet.State) bool { return s.Unsettled == 0 }); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	problems, err := f.wrong(ctx, f.agents.Versions, f.devices)
	if err != nil {
		return err
	}
	for _, p := range problems {
		r.Fail("%s", p)
	}
	return nil
}
