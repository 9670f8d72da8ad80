package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/testbed/chaos"
)

// answerTimeout is the relay's: it gives a push up after three times that, and
// not in the moment in which the simulator's late answers come, after 3 s.
const answerTimeout = 1500 * time.Millisecond

// longestOutage is how long Apple is gone at most, unless told otherwise.
const longestOutage = 2 * time.Minute

// How long may pass after the trouble until every device is right. Where several
// relays serve the mailboxes, an agent says once more what it said, when what a
// relay that left may have under way can't arrive any more: after a minute.
const (
	settleAlone    = time.Minute
	settleTogether = 3 * time.Minute
)

// chaosRun is testbed chaos.
type chaosRun struct {
	chaos.Config
	world         rig.Config
	bin           string // directory of the programs
	organizations int
}

func chaosCommand(c *Config, t *command.Terminal) *cobra.Command {
	x := &chaosRun{}
	cmd := &cobra.Command{
		Use: "chaos", Short: "whether every badge is right after everything went wrong", Args: cobra.NoArgs,
		Long: `Runs a relay, a simulated Apple and the mail sites of several organizations
with the real agent library, has mailboxes change, and makes trouble on a
schedule that --seed repeats: kills of the relay and of sites, orderly restarts,
reloads and pauses of the relay, every fault of the simulated Apple and an
outage, a locked and a slow registry, key roll-overs and lost keys, organizations
that are disabled or flood, devices that leave and move, an app that is configured
with another topic or environment, dead addresses. With --small-disk the
registry is full and read-only now and then, with --clock-steps the relay's clock
goes wrong, forwards and back. With --relays several relays share a private
PostgreSQL with a synchronous standby: relays are killed, stopped, frozen for up to three minutes and replaced one after the other,
parted from agents, database and Apple, the standby takes over, and agents get a
second process. When the trouble is over, every device has to show
the newest count of its mailbox within --settle, and a device that is shared the
sum of its two.

A wrong badge, another organization's badge, a client fault, a stream that
outlives its right, a relay that ended by itself or with an error, or counters that
do not reconcile are problems: exit code 1. The last line is the result as JSON.`,
		Example: `  testbed chaos --seed 1 --duration 5m
  testbed chaos --relays 3 --seed 1 --duration 4m
  testbed chaos --seed 1 --duration 5m --small-disk --clock-steps --log relay.log`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if x.bin, err = filepath.Abs(c.Bin); err != nil { // a program without a directory would be looked for elsewhere
				return err
			}
			x.Say = func(format string, args ...any) { fmt.Fprintf(t.Err, format+"\n", args...) }
			return x.run(cmd.Context(), t)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	command.Count(f, &x.world.Mailboxes, "mailboxes", 1, 1_000_000, 300, "`number` of mailboxes")
	command.Count(f, &x.world.DevicesPerMailbox, "devices-per-mailbox", 1, 100, 1, "`number` of devices subscribed to each")
	command.Choice(cmd, f, &x.world.Registry, "registry", "", "a file, or postgres: a private server with a standby where there are several relays", rig.File, rig.Postgres)
	command.Count(f, &x.Seed, "seed", 0, math.MaxUint64, 1, "`number` that the schedule follows from")
	command.Duration(f, &x.Duration, "duration", time.Second, 2*time.Minute, "how long the trouble lasts")
	command.Duration(f, &x.Settle, "settle", time.Second, 0, "what may pass after it until every device is right (default 1m; with several relays 3m)")
	command.Count(f, &x.world.Relays, "relays", 1, rig.MaxRelays, 1, "`number` of relays that share the registry, which is a database then")
	command.Number(f, &x.Rate, "rate", 0.001, 1_000_000, 300, "changes of mailboxes a second")
	command.Count(f, &x.organizations, "organizations", 1, 20, 3, "`number` of organizations; each has half of the mailboxes that are left")
	command.Count(f, &x.Sites, "sites", 1, 100, 2, "`number` of each organization's mail sites, each a process with an agent")
	command.Duration(f, &x.Outage, "outage", 0, 0, "how long Apple is gone once (default: a twelfth of the duration, 2m at most)")
	command.Number(f, &x.world.SharedShare, "shared", 0, 1, 0.1, "`share` of the devices that are on a second mailbox, by turns of their own organization and of another, and show the sum")
	f.BoolVar(&x.world.SmallDisk, "small-disk", false, "put the registry on a file system of its own, which is full or read-only now and then; needs root")
	f.BoolVar(&x.world.OwnClock, "clock-steps", false, "step the relay's clock; builds a relay of its own for that")
	f.BoolVar(&x.WrongEnvironment, "wrong-environment", true, "configure the app for the sandbox now and then, where APNs knows no device; agents watch subscriptions then")
	f.BoolVar(&x.Verbose, "verbose", false, "say each step, and how far behind the worst device is")
	f.StringVar(&x.world.LogFile, "log", "", "keep the relays' log in this `file`")
	return cmd
}

func (x *chaosRun) run(ctx context.Context, t *command.Terminal) error {
	if err := x.complete(); err != nil {
		return err
	}
	r, err := x.play(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	if err := t.Line(r); err != nil {
		return err
	}
	if n := len(r.Problems); n > 0 {
		return fmt.Errorf("%d problems", n)
	}
	return nil
}

// play makes the run. It leaves nothing but the log.
func (x *chaosRun) play(ctx context.Context) (r *chaos.Result, err error) {
	c := x.world
	c.Relay, c.Simulator = filepath.Join(x.bin, "badgerelay"), filepath.Join(x.bin, "apnssim")
	if c.OwnClock {
		x.Say("building a relay whose clock can be stepped; the first time, that takes some minutes")
	}
	c.ConnectsPerSecond, c.AnswerTimeout, c.ServerErrorWait = 2, answerTimeout, 2*time.Second
	c.Window = 250 * time.Millisecond
	c.Sizes, c.Wired, c.Standby = x.sizes(), true, c.Relays > 1
	world, err := rig.New(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, world.Close()) }()
	if _, err := world.Fill(ctx); err != nil {
		return nil, err
	}
	return chaos.Run(ctx, world, x.Config)
}

// complete gives what was left out its value, and returns what is wrong with the
// flags.
func (x *chaosRun) complete() error {
	if x.world.Relays > 1 {
		x.world.Registry = rig.Postgres
	}
	if x.Settle == 0 {
		x.Settle = settleAlone
		if x.world.Relays > 1 {
			x.Settle = settleTogether
		}
	}
	if x.Outage == 0 {
		x.Outage = min(x.Duration/12, longestOutage)
	}
	if x.world.Mailboxes < x.Sites<<x.organizations {
		return command.Usage("--mailboxes: %d are not one for each site of the smallest of %d organizations", x.world.Mailboxes, x.organizations)
	}
	if x.world.SmallDisk && x.world.Registry == rig.Postgres {
		return command.Usage("--small-disk is for a registry that is a file")
	}
	return nil
}

// sizes returns how many mailboxes each organization has: half of what is left,
// and the last one the rest.
func (x *chaosRun) sizes() []int {
	sizes := make([]int, x.organizations)
	left := x.world.Mailboxes
	for i := range sizes[1:] {
		sizes[i] = (left + 1) / 2
		left -= sizes[i]
	}
	sizes[len(sizes)-1] = left
	return sizes
}
