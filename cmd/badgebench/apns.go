package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/apns"
	"badgerelay/cmd/badgebench/internal/pusher"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/apple"
)

const apnsHelp = `Measure a push: a client process alone, which has as much work as it takes or a
given rate of it, against a simulated Apple over TLS with a provider token.

With --engine both, native and apns2 run one after the other against simulators
set alike, and the ratio of their CPU per push is quoted. apns2 pushes a
twentieth of --pushes.

With --offered the pushes come due at that rate, and one pool of up to
--connections connections has to cope; its figures say how much flows, how
soon, and how carefully connections were opened.

  badgebench apns --engine both --repeat 5
  badgebench apns --rtt 50ms --offered 100000 --connections 10`

// apnsBench measures pushes.
type apnsBench struct {
	*bench
	engine            string
	pushes            int64
	connections       int
	devices           int
	rtt               time.Duration
	offered           float64
	duration          time.Duration
	connectsPerSecond float64
	profile           string
}

func (b *bench) apnsCommand() *cobra.Command {
	a := &apnsBench{bench: b}
	c := &cobra.Command{
		Use: "apns", Short: "measure a push: client against simulator", Long: apnsHelp,
		RunE: func(c *cobra.Command, _ []string) error { return a.measureAll(c) },
	}
	f := c.Flags()
	f.SortFlags = false
	command.Choice(c, f, &a.engine, "engine", "", "which of the APNs engines", "both", string(apns.EngineNative), string(apns.EngineReference))
	command.Count(f, &a.pushes, "pushes", 1000, math.MaxInt64, 2_000_000, "`number` of pushes in a run")
	command.Count(f, &a.connections, "connections", 1, 1000, 1, "`number` of connections; with --offered, at most")
	command.Count(f, &a.devices, "devices", 1000, math.MaxInt32, 100_000, "`number` of devices that take turns")
	command.Duration(f, &a.rtt, "rtt", 0, 0, "how far away the simulator is: `time` of a round trip")
	command.Number(f, &a.offered, "offered", 0, maxRate, 0, "pushes a second that come due; 0: as many as go")
	command.Duration(f, &a.duration, "duration", 0, 15*time.Second, "`time` of a run with --offered")
	command.Number(f, &a.connectsPerSecond, "connects-per-second", 0.001, maxRate, 2, "how fast connections may be opened with --offered")
	f.StringVar(&a.profile, "cpuprofile", "", "`file` for a CPU profile of the client in the last run")
	return c
}

func (a *apnsBench) measureAll(c *cobra.Command) error {
	if a.devices < 1000*a.connections {
		return command.Usage("--devices: needs 1000 for each connection, or two pushes are in flight to one")
	}
	program, err := a.program("apnssim", a.apnssim)
	if err != nil {
		return err
	}
	world, err := rig.New(c.Context(), rig.Config{Simulator: program, Mailboxes: a.devices, DevicesPerMailbox: 1})
	if err != nil {
		return err
	}
	err = a.measure(c, func(ctx context.Context, r *report.Report) error { return a.run(ctx, r, world) })
	return errors.Join(err, world.Close())
}

// run is one repetition.
func (a *apnsBench) run(ctx context.Context, r *report.Report, world *rig.Rig) error {
	cpu := map[apns.Engine]float64{} // of a push, in microseconds
	for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
		if a.engine != "both" && a.engine != string(engine) {
			continue
		}
		measure := a.closedLoop
		if a.offered > 0 {
			measure = a.openLoop
		}
		a.say("%s", engine)
		each, err := measure(ctx, r, world, engine)
		if err != nil {
			return fmt.Errorf("measure %s: %w", engine, err)
		}
		cpu[engine] = each
	}
	if a.offered == 0 && a.engine == "both" {
		r.Case("ratio of client_cpu_per_push").Add("native_to_apns2", "", cpu[apns.EngineNative]/cpu[apns.EngineReference])
	}
	return nil
}

// start starts a simulator and its client; c says what the client is like.
func (a *apnsBench) start(ctx context.Context, world *rig.Rig, c pusher.Config) (*apple.Apple, *pusher.Pusher, error) {
	sim, err := world.StartApple(ctx, apple.Config{Fast: true, RTT: a.rtt})
	if err != nil {
		return nil, nil, err
	}
	c.Address, c.CAFile, c.KeyFile = sim.Address, sim.CAFile, sim.KeyFile
	c.Devices, c.Profile = a.devices, a.profile
	client, err := pusher.Start(c)
	return sim, client, err
}

// blame fails the report if a push was refused or the simulator found fault
// with its client.
func blame(r *report.Report, engine apns.Engine, state *apple.State, p *pusher.Pushed) {
	if n := state.Faults(); n > 0 {
		r.Fail("%s: the simulator counted client faults (%d): %v", engine, n, state.ClientFaults)
	}
	if p.Refused > 0 {
		r.Fail("%s: pushes that were refused: %d, the last: %s", engine, p.Refused, p.Failure)
	}
}

// closedLoop pushes as fast as it goes, on connections each of a pool of its
// own, so that their number is as asked for.
func (a *apnsBench) closedLoop(ctx context.Context, r *report.Report, world *rig.Rig, engine apns.Engine) (each float64, err error) {
	sim, client, err := a.start(ctx, world, pusher.Config{Engine: engine, Pools: a.connections, Connections: 1, ConnectsPerSecond: 100})
	if err != nil {
		return 0, err
	}
	defer sim.End()
	defer client.Close()
	pushes := a.pushes
	if engine == apns.EngineReference {
		pushes /= 20
	}
	if err := client.WarmUp(ctx, max(pushes/10, 1000)); err != nil {
		return 0, err
	}
	before, err := sim.State(ctx)
	if err != nil {
		return 0, err
	}
	busy := report.Busy()
	p, err := client.Push(ctx, pushes)
	if err != nil {
		return 0, err
	}
	busy = report.Busy() - busy
	after, err := sim.State(ctx)
	if err != nil {
		return 0, err
	}
	blame(r, engine, &after, &p)
	each = microsEach(p.CPU, p.Accepted)
	apple := after.Usage.CPU - before.Usage.CPU
	figures := r.Case(string(engine))
	figures.Add("pushes_per_second", "/s", float64(p.Accepted)/p.Elapsed.Seconds())
	figures.Add("client_cpu_per_push", "us", each)
	figures.Add("allocations_per_push", "", float64(p.Allocations)/float64(p.Accepted))
	figures.Add("written_per_push", "bytes", float64(p.Written)/float64(p.Accepted))
	figures.Add("pushes_per_write", "", float64(p.Accepted)/float64(p.Writes))
	figures.Add("apns_cpu_per_push", "us", microsEach(apple, p.Accepted))
	figures.Add("client_cpu", "cores", p.CPU.Seconds()/p.Elapsed.Seconds())
	figures.Add("apns_cpu", "cores", apple.Seconds()/p.Elapsed.Seconds())
	figures.Add(report.OtherCPU, "cores", max(0, (busy-apple-p.CPU).Seconds()/p.Elapsed.Seconds()))
	return each, nil
}

func microsEach(cpu time.Duration, pushes int64) float64 { return micros(cpu) / float64(pushes) }

// openLoop offers pushes at a rate to one pool that has to open connections
// for them.
func (a *apnsBench) openLoop(ctx context.Context, r *report.Report, world *rig.Rig, engine apns.Engine) (each float64, err error) {
	sim, client, err := a.start(ctx, world, pusher.Config{Engine: engine, Pools: 1, Connections: a.connections, ConnectsPerSecond: a.connectsPerSecond})
	if err != nil {
		return 0, err
	}
	defer sim.End()
	defer client.Close()
	flow, err := client.Offer(ctx, a.offered, a.duration)
	if err != nil {
		return 0, err
	}
	state, err := sim.State(ctx)
	if err != nil {
		return 0, err
	}
	p := &flow.Pushed
	blame(r, engine, &state, p)
	each = microsEach(p.CPU, p.Accepted)
	last := flow.Samples[len(flow.Samples)-1]
	figures := r.Case(string(engine))
	figures.Add("offered", "/s", a.offered)
	figures.Add("flowing", "/s", flow.Rate(a.duration/2, a.duration))
	figures.Add("flowing_share", "%", 100*flow.Rate(a.duration/2, a.duration)/a.offered)
	if at, ok := flow.Reached(0.9 * a.offered); ok {
		figures.Add("flowing_after", "s", at.Seconds())
	}
	figures.Add("connections", "", float64(last.Connections))
	figures.Add("streams_granted", "", float64(last.Granted))
	figures.Add("connects", "", float64(last.Connects))
	figures.Add("connects_within_a_second", "", float64(flow.MostConnects(time.Second)))
	figures.Add("client_cpu_per_push", "us", each)
	figures.Add("client_cpu", "cores", p.CPU.Seconds()/p.Elapsed.Seconds())
	figures.Add("apns_cpu_per_push", "us", microsEach(state.Usage.CPU, p.Accepted))
	return each, nil
}
