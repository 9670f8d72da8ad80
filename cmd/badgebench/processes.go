package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"badgerelay/apns"
	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
	pb "badgerelay/proto/badgerelay/v1"
)

// settleTimeout bounds the wait for the last events to settle: several times
// what a relay needs whose window is a second.
const settleTimeout = time.Minute

// The most that is measured with. Ours.
const (
	maxMailboxes = 10_000_000
	maxDevices   = 100 // of a mailbox
	maxRate      = 1_000_000
)

// setup is what a measurement runs on: the flags that its commands share.
type setup struct {
	mailboxes, devices int
	agents, batch      int
	window             int // unsettled events of an agent; 0: as many as its mailboxes are good for
	rtt, coalescing    time.Duration
	engine             string
	registry           string // as rig.Config has it
	relays             int    // 0: one
	sizes              []int  // mailboxes of each organization; nil: one has all
	maxMailboxes       int
}

// registerWorld adds the flags of what exists.
func (s *setup) registerWorld(f *pflag.FlagSet, mailboxes int) {
	f.SortFlags = false
	command.Count(f, &s.mailboxes, "mailboxes", 1, maxMailboxes, mailboxes, "`number` of mailboxes")
	command.Count(f, &s.devices, "devices-per-mailbox", 1, maxDevices, 1, "`number` of devices subscribed to each")
	f.StringVar(&s.registry, "registry", "", "postgres: a private server; or the `URL` of one, on which a database is made and removed (default: a file)")
}

// registerLoad adds the flags of what happens. The defaults of agents and
// the coalescing window are what s has.
func (s *setup) registerLoad(c *cobra.Command) {
	f := c.Flags()
	command.Count(f, &s.agents, "agents", 1, 100, cmp.Or(s.agents, 2), "`number` of agents, each with a connection and a stream of its own")
	command.Count(f, &s.batch, "batch", 1, 10_000, 256, "most events in a message")
	command.Duration(f, &s.rtt, "rtt", 0, 0, "`time` that the simulated Apple takes to answer")
	command.Duration(f, &s.coalescing, "coalescing-window", 0, s.coalescing, "the relay's window; its own default is 1s")
	s.registerEngine(c)
}

func (s *setup) registerEngine(c *cobra.Command) {
	command.Choice(c, c.Flags(), &s.engine, "engine", "", "the relay's APNs engine", string(apns.EngineNative), string(apns.EngineReference))
}

func (s *setup) validate() error {
	if s.agents > s.mailboxes {
		return command.Usage("--agents: %d have only %d mailboxes", s.agents, s.mailboxes)
	}
	if err := rig.CheckRegistry(s.registry); err != nil {
		return command.Usage("--registry: %w", err)
	}
	if s.relays > 1 {
		s.registry = cmp.Or(s.registry, rig.Postgres)
		s.agents = max(s.agents, s.relays)
	}
	return nil
}

// unsettled is the window of unsettled events of an agent: half of its
// mailboxes, so that no event meets another of its mailbox under way.
func (s *setup) unsettled() int {
	if s.window > 0 {
		return s.window
	}
	return min(max(s.mailboxes/s.agents/2, 1), 8192)
}

// room is a relay's relay.max_mailboxes: unless it is set, all mailboxes are to
// be in memory, and some more, because each shard of the relay has its share.
func (s *setup) room() int {
	const enough = 3_500_000 // for which the relay's default has room
	if s.maxMailboxes > 0 || s.mailboxes <= enough {
		return s.maxMailboxes
	}
	return s.mailboxes + s.mailboxes/10
}

// newRig makes the rig, and fills the registry with the relay's own commands.
// The time is that of the import.
func (b *bench) newRig(ctx context.Context, s *setup) (*rig.Rig, []rig.Imported, error) {
	relay, err := b.program("badgerelay", b.relay)
	if err != nil {
		return nil, nil, err
	}
	simulator, err := b.program("apnssim", b.apnssim)
	if err != nil {
		return nil, nil, err
	}
	r, err := rig.New(rig.Config{
		Relay: relay, Simulator: simulator, Mailboxes: s.mailboxes, DevicesPerMailbox: s.devices, Window: s.coalescing,
		Engine: s.engine, Relays: s.relays, Registry: s.registry, Sizes: s.sizes, MaxMailboxes: s.room(),
	})
	if err != nil {
		return nil, nil, err
	}
	b.say("registering %d mailboxes with %d devices", s.mailboxes, r.Devices())
	parts, err := r.Fill(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return r, parts, nil
}

// processes are those of one run.
type processes struct {
	system
	setup  *setup
	agents *load.Agents
}

// play starts a simulated Apple, a relay and agents, anew for each run.
func (s *setup) play(ctx context.Context, r *rig.Rig) (*processes, error) { return s.playOn(ctx, r, 1) }

// playOn is play with some relays, over which the agents are spread.
func (s *setup) playOn(ctx context.Context, r *rig.Rig, relays int) (*processes, error) {
	ps := &processes{setup: s}
	if err := ps.start(ctx, r, s.rtt, relays); err != nil {
		return nil, err
	}
	if err := ps.startAgents(ctx, r); err != nil {
		return nil, err
	}
	all := []*child.Process{ps.apple.Process, ps.agents.Process}
	for _, r := range ps.relays {
		all = append(all, r.Process)
	}
	ps.watch(all...)
	return ps, nil
}

func (ps *processes) startAgents(ctx context.Context, r *rig.Rig) error {
	token, err := r.Token(ctx)
	if err != nil {
		return err
	}
	ps.agents, err = load.Start(ctx, r.Group, load.Config{
		Addresses: r.AgentsOf(len(ps.relays)), CAFile: r.CAFile(), Token: token,
		Mailboxes: r.Mailboxes, Agents: ps.setup.agents, Batch: min(ps.setup.batch, ps.setup.unsettled()), Window: ps.setup.unsettled(),
	})
	return err
}

// judge settles and notes everything that is wrong with the run: with the
// badges, the client's manners, and the outcomes that are not expected.
func (ps *processes) judge(ctx context.Context, r *report.Report, sp *sample, expected ...pb.Outcome) error {
	problems, err := ps.settle(ctx)
	if err != nil {
		return err
	}
	for _, p := range append(problems, sp.unexpected(expected...)...) {
		r.Fail("%s", p)
	}
	return nil
}

// end stops the run's processes in the order of the data.
func (ps *processes) end(ctx context.Context) error {
	ps.agents.End()
	return ps.system.end(ctx)
}

// settle stops the load, waits until all has settled, and compares what the
// devices show with the newest counts. It returns what was wrong.
func (ps *processes) settle(ctx context.Context) (problems []string, err error) {
	if err := ps.agents.Stop(ctx, settleTimeout); err != nil {
		return nil, err
	}
	if problems, err = ps.wrong(ctx, ps.agents.Versions, ps.setup.devices); err != nil {
		return nil, err
	}
	wrong, err := ps.counters(ctx)
	return append(problems, wrong...), err
}

// counters checks that every relay has ended every event it took, and that all
// relays together took what the agents sent.
func (ps *processes) counters(ctx context.Context) (problems []string, err error) {
	var taken float64
	for i, r := range ps.relays {
		m, err := r.Metrics(ctx)
		if err != nil {
			return nil, err
		}
		accepted, settled, pending := m.Counters()
		if accepted != settled || pending != 0 || accepted == 0 {
			problems = append(problems, fmt.Sprintf("relay %d's counters: %v accepted, %v settled, %v pending", i+1, accepted, settled, pending))
		}
		taken += accepted
	}
	sent, err := ps.agents.State(ctx)
	if err == nil && taken != float64(sent.Sent) {
		problems = append(problems, fmt.Sprintf("the relays took %v events, the agents sent %d", taken, sent.Sent))
	}
	return problems, err
}
