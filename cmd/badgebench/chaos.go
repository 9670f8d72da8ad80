package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/chaos"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/badgebench/internal/rig"
	"badgerelay/cmd/internal/command"
)

// answerTimeout is the relay's: it gives a push up after three times that, and
// not in the moment in which the simulator's late answers come, after 3 s.
const answerTimeout = 1500 * time.Millisecond

// chaosBench is badgebench chaos.
type chaosBench struct {
	*bench
	setup
	chaos.Config
	organizations int
	shared        float64
	smallDisk     bool
	clockSteps    bool
	log           string
}

// longestOutage is how long Apple is gone at most, unless told otherwise.
const longestOutage = 2 * time.Minute

// How long may pass after the trouble until every device is right. Where several
// relays serve the mailboxes, an agent says once more what it said, when what a
// relay that left may have under way can't arrive any more: after a minute.
const (
	settleAlone    = time.Minute
	settleTogether = 3 * time.Minute
)

func (b *bench) chaosCommand() *cobra.Command {
	x := &chaosBench{bench: b}
	x.agents, x.batch, x.window = 1, 1, 1 // not used: the sites' agents are the library's
	c := &cobra.Command{
		Use: "chaos", Short: "whether every badge is right after everything went wrong",
		Long: `Runs a relay, a simulated Apple and the mail sites of several organizations
with the real agent library, has mailboxes change, and makes trouble on a
schedule that --seed repeats: kills of the relay and of sites, orderly restarts,
reloads and pauses of the relay, every fault of the simulated Apple and an
outage, a locked and a slow registry, key roll-overs and lost keys, organizations
that are disabled or flood, devices that leave and move, an app that is configured
with another topic or environment, dead addresses. With --small-disk the
registry is full and read-only now and then, with --clock-steps the relay's clock
goes wrong, forwards and back. With --relays several relays share a PostgreSQL,
a private one with a synchronous standby if --registry says postgres: relays are
killed, stopped, frozen for up to three minutes and replaced one after the other,
parted from agents, database and Apple, the standby takes over, and agents get a
second process. When the trouble is over, every device has to show
the newest count of its mailbox within --settle, and a device that is shared the
sum of its two.

A wrong badge, another organization's badge, a client fault, a stream that
outlives its right, a relay that ended by itself or with an error, or counters that
do not reconcile are problems: exit code 1. The last line after the table is the result
in short, as JSON.`,
		Example: `  badgebench chaos --seed 1 --duration 5m
  badgebench chaos --relays 3 --registry postgres --seed 1 --duration 4m
  badgebench chaos --seed 1 --duration 5m --small-disk --clock-steps --log relay.log --output json`,
		RunE: func(c *cobra.Command, _ []string) error { return x.run(c) },
	}
	f := c.Flags()
	x.registerWorld(f, 300)
	f.Uint64Var(&x.Seed, "seed", 1, "`number` that the schedule follows from")
	f.DurationVar(&x.Duration, "duration", 2*time.Minute, "how long the trouble lasts")
	f.DurationVar(&x.Settle, "settle", 0, "what may pass after it until every device is right (default 1m; with several relays 3m)")
	f.IntVar(&x.relays, "relays", 1, "`number` of relays that share the registry, which is a database then, a private one by default")
	f.Float64Var(&x.Rate, "rate", 300, "changes of mailboxes a second")
	f.IntVar(&x.organizations, "organizations", 3, "`number` of organizations; each has half of the mailboxes that are left")
	f.IntVar(&x.Sites, "sites", 2, "`number` of each organization's mail sites, each a process with an agent")
	f.DurationVar(&x.Outage, "outage", 0, "how long Apple is gone once (default: a twelfth of the duration, 2m at most)")
	f.DurationVar(&x.RTT, "rtt", 10*time.Millisecond, "`time` that the simulated Apple takes to answer; up to twice that")
	f.Float64Var(&x.shared, "shared", 0.1, "`share` of the devices that are on a mailbox of another organization as well, and show the sum")
	f.DurationVar(&x.coalescing, "coalescing-window", 250*time.Millisecond, "the relay's window")
	f.BoolVar(&x.smallDisk, "small-disk", false, "put the registry on a file system of its own, which is full or read-only now and then; needs root")
	f.BoolVar(&x.clockSteps, "clock-steps", false, "step the relay's clock; builds a relay of its own for that")
	f.BoolVar(&x.WrongEnvironment, "wrong-environment", true, "configure the app for the sandbox now and then, where APNs knows no device; agents watch subscriptions then")
	f.BoolVar(&x.Verbose, "verbose", false, "say each step, and how far behind the worst device is")
	f.StringVar(&x.log, "log", "", "keep the relays' log in this `file`")
	return c
}

func (x *chaosBench) run(c *cobra.Command) error {
	if x.Settle == 0 {
		x.Settle = settleAlone
		if x.relays > 1 {
			x.Settle = settleTogether
		}
	}
	if err := x.check(); err != nil {
		return &command.UsageError{Err: err}
	}
	if x.Outage == 0 {
		x.Outage = min(x.Duration/12, longestOutage)
	}
	if err := x.setup.validate(); err != nil {
		return err
	}
	x.Say = x.say
	var last []byte
	err := x.measure(c, func(ctx context.Context, r *report.Report, _ int) error {
		world, err := x.world(ctx)
		if err != nil {
			return err
		}
		result, err := chaos.Run(ctx, world, x.Config)
		if err := errors.Join(err, world.Close()); err != nil {
			return err
		}
		r.Problems = append(r.Problems, result.Problems...)
		run := &report.Run{}
		addChaos(run, result)
		r.Case("").Add(run)
		last, err = json.Marshal(x.line(result))
		return err
	})
	if last != nil && !x.JSON() { // that is one document
		fmt.Fprintf(x.out, "%s\n", last)
	}
	return err
}

// line is the result in short.
func (x *chaosBench) line(r *chaos.Result) any {
	return struct {
		Seed          uint64  `json:"seed"`
		Relays        int     `json:"relays"`
		Seconds       float64 `json:"seconds"`
		Kills         int     `json:"relayKills"`
		Events        uint64  `json:"events"`
		Pushes        uint64  `json:"pushes"`
		Wrong         int     `json:"wrongBadges"`
		Foreign       int     `json:"foreignBadges"`
		Shared        int     `json:"sharedDevices"`
		ClientFaults  int     `json:"clientFaults"`
		LongestBehind float64 `json:"longestBehindSeconds"`
		Problems      int     `json:"problems"`
	}{x.Seed, x.relays, x.Duration.Seconds(), r.RelayKills, r.Events, r.Pushes, r.Wrong, r.Foreign, r.Shared, faultsOf(r), r.Longest.Seconds(), len(r.Problems)}
}

func faultsOf(r *chaos.Result) (n int) {
	for _, count := range r.ClientFaults {
		n += count
	}
	return n
}

// check returns what is wrong with the flags.
func (x *chaosBench) check() error {
	switch {
	case x.Duration < time.Second || x.Settle < time.Second || x.Rate <= 0 || x.Outage < 0:
		return errors.New("--duration and --settle want a second at least, --rate something, and --outage nothing negative")
	case x.organizations < 1 || x.organizations > 20 || x.Sites < 1 || x.mailboxes < x.Sites<<x.organizations:
		return errors.New("--organizations wants 1 to 20, --sites one at least, and --mailboxes one for each site of the smallest organization")
	case x.shared < 0 || x.shared > 1:
		return errors.New("--shared wants a share from 0 to 1")
	case x.smallDisk && (x.registry != "" || x.relays > 1):
		return errors.New("--small-disk is for a registry that is a file")
	case x.clockSteps && x.relay != "":
		return errors.New("--clock-steps builds a relay whose clock can be stepped; --badgerelay names another")
	}
	return nil
}

// sizes returns how many mailboxes each organization has: half of what is left,
// and the last one the rest.
func (x *chaosBench) sizes() []int {
	sizes := make([]int, x.organizations)
	left := x.mailboxes
	for i := range sizes[1:] {
		sizes[i] = (left + 1) / 2
		left -= sizes[i]
	}
	sizes[len(sizes)-1] = left
	return sizes
}

// program is the relay's.
func (x *chaosBench) program(ctx context.Context) (string, error) {
	if x.clockSteps {
		return x.steppedProgram(ctx)
	}
	return x.relayProgram(ctx)
}

// world is a rig whose relay waits for nothing longer than a run lasts.
func (x *chaosBench) world(ctx context.Context) (*rig.Rig, error) {
	program, err := x.program(ctx)
	if err != nil {
		return nil, err
	}
	world, err := rig.New(rig.Config{
		Relay: program, Mailboxes: x.mailboxes, DevicesPerMailbox: x.devices, SharedShare: x.shared, Window: x.coalescing,
		ConnectsPerSecond: 2, AnswerTimeout: answerTimeout, ServerErrorWait: 2 * time.Second, DrainBudget: 5 * time.Second,
		Sizes: x.sizes(), Relays: x.relays, Registry: x.registry, Wired: true, Standby: x.relays > 1 && x.registry == rig.Postgres,
		SmallDisk: x.smallDisk, OwnClock: x.clockSteps, LogFile: x.log,
	})
	if err != nil {
		return nil, err
	}
	if _, err := fill(ctx, world); err != nil {
		return nil, errors.Join(err, world.Close())
	}
	return world, nil
}

func addChaos(run *report.Run, r *chaos.Result) {
	run.Add("events", "", float64(r.Events))
	run.Add("pushes", "", float64(r.Pushes))
	run.Add("accepted", "", float64(r.Accepted))
	run.Add("duplicates", "", float64(r.Duplicates))
	run.Add("resent", "", r.Resent)
	run.Add("kills", "", float64(r.Kills))
	run.Add("relay_kills", "", float64(r.RelayKills))
	run.Add("failed_starts", "", float64(r.FailedStarts))
	run.Add("longest_behind", "s", r.Longest.Seconds())
	run.Add("all_right_after", "s", r.ToRight.Seconds())
	run.Add("client_faults", "", float64(faultsOf(r)))
	run.Add("wrong_badges", "", float64(r.Wrong))
	run.Add("foreign_badges", "", float64(r.Foreign))
	run.Add("shared_devices", "", float64(r.Shared))
	for _, kind := range slices.Sorted(maps.Keys(r.Steps)) {
		run.Add("step_"+kind, "", float64(r.Steps[kind]))
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Struck)) {
		run.Add("struck_"+kind, "", float64(r.Struck[kind]))
	}
}
