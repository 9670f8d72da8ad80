package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/apple"
	"badgerelay/cmd/internal/rig/names"
)

// settleTimeout bounds the wait for the last events to settle: several times
// what a relay needs whose window is a second.
const settleTimeout = time.Minute

// agents send the events of a run.
type agents interface {
	Go(pace load.Pace)
	Stop(ctx context.Context, timeout time.Duration) error // waits until all has settled
	State() (load.State, error)
	Reset() // forgets the latencies
	Latency() *hdrhistogram.Histogram
	Versions() []uint32
	End()
}

// processes are those of one run, anew for each, and the agents.
type processes struct {
	setup  *setup
	world  *rig.Rig
	apple  *apple.Apple
	relays []*rig.Relay // one at least
	agents agents
}

// start starts a simulated Apple and some relays.
func (s *setup) start(ctx context.Context, world *rig.Rig, relays int) (*processes, error) {
	r := &processes{setup: s, world: world}
	var err error
	if r.apple, err = world.StartApple(ctx, apple.Config{Fast: true, RTT: s.rtt}); err != nil {
		return nil, err
	}
	r.relays, err = world.StartRelays(ctx, relays)
	return r, err
}

// load has the agents send, and returns after d, when there were so many events at
// least.
func (r *processes) load(ctx context.Context, pace load.Pace, d time.Duration, events uint64) error {
	r.agents.Go(pace)
	rig.Wait(ctx, d)
	return rig.Poll(ctx, 20*time.Millisecond, func() (bool, error) {
		s, err := r.agents.State()
		return s.Events >= events, err
	})
}

// judge stops the load, waits until all has settled, and notes what is wrong with the
// run: what the devices show, what the simulated Apple holds against its client, and
// counters that do not reconcile.
func (r *processes) judge(ctx context.Context, rep *report.Report) error {
	if err := r.agents.Stop(ctx, settleTimeout); err != nil {
		return err
	}
	badges, err := r.apple.Badges(ctx)
	if err != nil {
		return err
	}
	if wrong, example := wrongBadges(badges, r.agents.Versions(), r.world.DevicesPerMailbox); wrong > 0 {
		rep.Fail("%d of %d badges are wrong: %s", wrong, len(badges), example)
	}
	state, err := r.apple.State(ctx)
	if err != nil {
		return err
	}
	if n := state.Faults(); n > 0 {
		rep.Fail("client faults (%d): %v", n, state.ClientFaults)
	}
	for i, relay := range r.relays {
		m, err := relay.Metrics(ctx)
		if err != nil {
			return err
		}
		if accepted, settled, pending := m.Counters(); accepted != settled || pending != 0 {
			rep.Fail("relay %d's counters: %v accepted, %v settled, %v pending", i+1, accepted, settled, pending)
		}
	}
	return nil
}

// wrongBadges compares what the devices show with the newest versions of their
// mailboxes; each mailbox has so many devices.
func wrongBadges(badges, versions []uint32, devices int) (wrong int, example string) {
	for i, shown := range badges {
		mailbox := i / devices
		if want := names.Unread(mailbox, versions[mailbox]); shown != want {
			wrong++
			example = fmt.Sprintf("device %d, of %s, shows %d, want %d", i, names.Mailbox(mailbox), shown, want)
		}
	}
	return wrong, example
}

// stop stops the run's processes in the order of the data.
func (r *processes) stop(ctx context.Context) (err error) {
	r.agents.End()
	for _, relay := range r.relays {
		err = errors.Join(err, relay.Stop(ctx))
	}
	r.apple.End()
	return err
}
