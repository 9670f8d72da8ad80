package main

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"badgerelay/apns"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
)

// The most that is measured with. Ours.
const (
	maxMailboxes = 10_000_000
	maxDevices   = 100 // of a mailbox
	maxRate      = 1_000_000
)

// setup is what a measurement runs on and how it is made: the flags that commands
// share.
type setup struct {
	rig.Config // save the programs

	agents, batch           int
	limit                   int // unsettled events of an agent; 0: as many as its mailboxes are good for
	rtt                     time.Duration
	rate                    float64
	duration, warmup        time.Duration
	cpuProfile, heapProfile string // files for what a relay profiles of itself; empty: none
}

// registerWorld adds the flags of what exists.
func (s *setup) registerWorld(c *cobra.Command, mailboxes, leastDevices int) {
	f := c.Flags()
	f.SortFlags = false
	command.Count(f, &s.Mailboxes, "mailboxes", 1, maxMailboxes, mailboxes, "`number` of mailboxes")
	command.Count(f, &s.DevicesPerMailbox, "devices-per-mailbox", leastDevices, maxDevices, 1, "`number` of devices subscribed to each")
	s.registerRegistry(c)
}

func (s *setup) registerRegistry(c *cobra.Command) {
	command.Choice(c, c.Flags(), &s.Registry, "registry", "", "a file, or postgres: a private server", rig.File, rig.Postgres)
}

// registerLoad adds the flags of what happens.
func (s *setup) registerLoad(c *cobra.Command) {
	f := c.Flags()
	command.Count(f, &s.agents, "agents", 1, 100, 2, "`number` of agents, each with a connection and a stream of its own")
	command.Count(f, &s.batch, "batch", 1, 10_000, 256, "most events in a message")
	s.registerRelay(c, 0)
}

// registerRelay adds the flags of the relay and of where it pushes to.
func (s *setup) registerRelay(c *cobra.Command, rtt time.Duration) {
	f := c.Flags()
	command.Duration(f, &s.rtt, "rtt", 0, rtt, "`time` that the simulated Apple takes to answer")
	command.Duration(f, &s.Window, "coalescing-window", 0, 0, "the relay's window; its own default is 1s")
	command.Choice(c, f, &s.Engine, "engine", "", "the relay's APNs engine", string(apns.EngineNative), string(apns.EngineReference))
}

// registerTime adds the flags of how long to measure, and the profiles of that time.
func (s *setup) registerTime(f *pflag.FlagSet, duration, warmup time.Duration) {
	command.Duration(f, &s.duration, "duration", 0, duration, "how long to measure")
	command.Duration(f, &s.warmup, "warmup", 0, warmup, "how long to load before, at least")
	f.StringVar(&s.cpuProfile, "cpuprofile", "", "write the relay's CPU profile under load to this `file`")
	f.StringVar(&s.heapProfile, "heapprofile", "", "write what the relay's memory holds under load to this `file`")
}

func (s *setup) validate() error {
	if s.agents > s.Mailboxes {
		return command.Usage("--agents: %d have only %d mailboxes", s.agents, s.Mailboxes)
	}
	if s.Relays > 1 {
		s.Registry = rig.Postgres
		s.agents = max(s.agents, s.Relays)
	}
	return nil
}

// unsettled is the window of unsettled events of an agent: half of its
// mailboxes, so that no event meets another of its mailbox under way.
func (s *setup) unsettled() int {
	return cmp.Or(s.limit, min(max(s.Mailboxes/s.agents/2, 1), 8192))
}

// profile has the relay profile itself during d; the function waits for it.
func (s *setup) profile(ctx context.Context, relay *rig.Relay, d time.Duration) func() error {
	var wg sync.WaitGroup
	var err error
	if s.cpuProfile != "" {
		wg.Go(func() { err = relay.CPUProfile(ctx, d-time.Second, s.cpuProfile) }) // ends with its time
	}
	return func() error {
		wg.Wait()
		if s.heapProfile != "" {
			err = errors.Join(err, relay.HeapProfile(ctx, s.heapProfile))
		}
		return err
	}
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
	c := s.Config
	c.Relay, c.Simulator = relay, simulator
	const enough = 3_500_000 // for which the relay's default has room
	if c.MaxMailboxes == 0 && c.Mailboxes > enough {
		// All are to be in memory, and there is room for some more, because each shard of
		// the relay has its share.
		c.MaxMailboxes = c.Mailboxes + c.Mailboxes/10
	}
	r, err := rig.New(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	b.say("registering %d mailboxes with %d devices", r.Mailboxes, r.Devices())
	parts, err := r.Fill(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return r, parts, nil
}
