package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"badgerelay/cmd/badgebench/internal/machine"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/apple"
	"badgerelay/cmd/internal/rig/names"
)

// system is what every run consists of beside its agents.
type system struct {
	world  *rig.Rig
	apple  *apple.Apple
	relays []*rig.Relay // one at least
	lost

	watching sync.WaitGroup // for what watch began; end waits
}

func (y *system) start(ctx context.Context, world *rig.Rig, rtt time.Duration, relays int) (err error) {
	y.world = world
	if y.apple, err = world.StartApple(ctx, apple.Config{Fast: true, RTT: rtt}); err != nil {
		return err
	}
	y.relays, err = world.StartRelays(ctx, relays)
	return err
}

// watch sees to it that wait returns when one of the processes ends.
func (y *system) watch(all ...*child.Process) {
	y.lost = make(lost, len(all))
	for _, p := range all {
		y.watching.Go(func() { // ends with the process
			<-p.Done()
			y.lost <- p.Failure()
		})
	}
}

// end stops the relays and the simulated Apple. The agents have ended.
func (y *system) end(ctx context.Context) (err error) {
	for _, r := range y.relays {
		err = errors.Join(err, r.Stop(ctx))
	}
	y.apple.End()
	y.watching.Wait()
	return err
}

// lost says why processes have ended.
type lost chan error

// wait lets time pass, unless one of the processes ends.
func (l lost) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case err := <-l:
		return err
	}
}

// metrics scrapes the relays.
func (y *system) metrics(ctx context.Context) (all rig.Metrics, err error) {
	for _, r := range y.relays {
		m, err := r.Metrics(ctx)
		if err != nil {
			return all, err
		}
		all = all.With(m)
	}
	return all, nil
}

// usage adds up what the relays used.
func (y *system) usage() (all child.Usage, err error) {
	for _, r := range y.relays {
		u, err := r.Usage()
		if err != nil {
			return all, err
		}
		all.At, all.CPU = u.At, all.CPU+u.CPU
		all.Resident, all.Peak = all.Resident+u.Resident, all.Peak+u.Peak
	}
	return all, nil
}

// resetPeak begins anew with the most memory that each relay has had.
func (y *system) resetPeak() error {
	for _, r := range y.relays {
		if err := r.ResetPeak(); err != nil {
			return err
		}
	}
	return nil
}

// collect has the first relay collect its garbage.
func (y *system) collect(ctx context.Context) error {
	for range 2 { // the second collects what the first one's finalizers freed
		if err := y.relays[0].Collect(ctx); err != nil {
			return err
		}
	}
	return nil
}

// readings are what the processes have used and done at about one moment.
type readings struct {
	relay    child.Usage // of all relays together, as is metrics
	calls    child.Calls // of the first relay
	metrics  rig.Metrics
	apple    apple.State
	database time.Duration // CPU time; 0: not known
	busy     time.Duration // CPU time of the whole machine
}

// read asks everybody, among them the agents. The scrape of the metrics, which costs
// the relay CPU time, falls outside of what lies between first readings and last.
func (y *system) read(ctx context.Context, last bool, agents func() error) (r readings, err error) {
	if !last {
		if r.metrics, err = y.metrics(ctx); err != nil {
			return r, err
		}
	}
	if r.relay, err = y.usage(); err != nil {
		return r, err
	}
	if r.calls, err = y.relays[0].Calls(); err != nil {
		return r, err
	}
	r.database = y.world.DatabaseCPU()
	r.busy = machine.Busy()
	if err = agents(); err != nil {
		return r, err
	}
	if r.apple, err = y.apple.State(ctx); err != nil {
		return r, err
	}
	if last {
		r.metrics, err = y.metrics(ctx)
	}
	return r, err
}

func (r *readings) seconds(from *readings) float64 { return r.relay.At.Sub(from.relay.At).Seconds() }

func (r *readings) badges(from *readings) float64 {
	return float64(r.apple.Stats.Accepted - from.apple.Stats.Accepted)
}

// otherCPU is how many cores processes took that are not the run's. agents is the CPU
// time of its agents.
func (r *readings) otherCPU(from *readings, agents time.Duration) float64 {
	own := agents + r.relay.CPU - from.relay.CPU + r.apple.Usage.CPU - from.apple.Usage.CPU + r.database - from.database
	return max(0, (r.busy-from.busy-own).Seconds()/r.seconds(from))
}

var quantiles = []struct {
	name  string
	share float64
}{{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}}

// addQuantiles adds those of one of the relays' histograms.
func (r *readings) addQuantiles(run *report.Run, from *readings, prefix, metric string) {
	h := r.metrics.Since(from.metrics, metric)
	for _, q := range quantiles {
		run.Add(prefix+q.name, "ms", micros(h.Quantile(q.share))/1000)
	}
}

// addSettle adds how long it took until events had settled, as their agents saw it.
func addSettle(run *report.Run, latency *hdrhistogram.Snapshot) {
	h := hdrhistogram.Import(latency)
	for _, q := range quantiles {
		run.Add("settle_"+q.name, "ms", float64(h.ValueAtQuantile(q.share*100))/1000)
	}
}

// wrong compares what the devices show with the newest versions of the mailboxes, and
// asks the simulated Apple what it holds against the relay. It returns what was wrong.
func (y *system) wrong(ctx context.Context, newest func(context.Context) ([]uint32, error), devices int) (problems []string, err error) {
	versions, err := newest(ctx)
	if err != nil {
		return nil, err
	}
	badges, err := y.apple.Badges(ctx)
	if err != nil {
		return nil, err
	}
	if wrong, example := wrongBadges(badges, versions, devices); wrong > 0 {
		problems = append(problems, fmt.Sprintf("%d of %d badges are wrong: %s", wrong, len(badges), example))
	}
	state, err := y.apple.State(ctx)
	if err != nil {
		return nil, err
	}
	if n := state.Faults(); n > 0 {
		problems = append(problems, fmt.Sprintf("%d client faults: %v", n, state.ClientFaults))
	}
	return problems, nil
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
