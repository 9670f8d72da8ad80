package chaos

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"badgerelay/apns/apnstest"
)

// Kind is what happens in a step. Its text is its name in the result.
type Kind string

// The kinds, save the simulated Apple's faults, each of which is one too.
const (
	KillRelay        Kind = "kill_relay"          // SIGKILL, and a new process at once
	KillStarting     Kind = "kill_starting_relay" // the same, and again before it is ready
	StopRelay        Kind = "stop_relay"          // SIGTERM, and a new process when it has drained
	ReloadRelay      Kind = "reload_relay"        // SIGHUP with a configuration that has changed
	PauseRelay       Kind = "pause_relay"         // SIGSTOP for less than a second
	KillSite         Kind = "kill_site"           // SIGKILL of a site's agents, and a new process
	RollKey          Kind = "roll_key"            // an organization signs with its next key; the old one goes
	LoseKey          Kind = "lose_key"            // an organization's only credential is removed; another comes
	Disable          Kind = "disable"             // an organization is disabled, and enabled again
	Flood            Kind = "flood"               // an organization's mailboxes change ten times as often as all did
	Outage           Kind = "outage"              // Apple is gone for a while
	LockRegistry     Kind = "lock_registry"       // somebody else holds the registry's write lock
	SlowRegistry     Kind = "slow_registry"       // somebody else has the write lock again and again
	FillDisk         Kind = "fill_disk"           // the registry's file system is full for a while
	ReadOnly         Kind = "read_only_registry"  // the registry's open files refuse writes for a while
	StepClock        Kind = "step_clock"          // the relay's clock is wrong for a while
	Freeze           Kind = "freeze_relay"        // SIGSTOP for 2 s to 3 min; then it goes on, or is killed
	RollRelays       Kind = "roll_relays"         // every relay is replaced, one after the other
	Partition        Kind = "partition"           // a relay is parted from agents, database or Apple
	DeadAddress      Kind = "dead_address"        // one of the addresses of Apple's name is dead
	WrongTopic       Kind = "wrong_topic"         // the relays are configured with another topic for a while
	WrongEnvironment Kind = "wrong_environment"   // the same with the sandbox, where APNs knows no device
	FailOver         Kind = "fail_over"           // the database's standby takes over
	Twin             Kind = "twin_site"           // a second process of a site's agent
	Leave            Kind = "device_leaves"       // a device unregisters, and registers again
	Move             Kind = "device_moves"        // a device signs in to another mailbox
)

// Step is one thing that happens.
type Step struct {
	At   time.Duration
	Kind Kind
	// Draw decides the step's details: which device, which site, how long.
	Draw uint64

	lasts time.Duration  // of Freeze; 0: drawn
	fault apnstest.Fault // of the simulated Apple, if Kind is none of the above
}

// pace is the mean time between two steps of a kind.
var pace = map[Kind]time.Duration{
	KillRelay: 5 * time.Second, KillStarting: 20 * time.Second, StopRelay: 15 * time.Second, ReloadRelay: 10 * time.Second,
	PauseRelay: 20 * time.Second, KillSite: 6 * time.Second, LockRegistry: 25 * time.Second, SlowRegistry: 20 * time.Second,
	RollKey: 30 * time.Second, LoseKey: 45 * time.Second, Disable: 30 * time.Second, Flood: 15 * time.Second,
	Leave: time.Second, Move: time.Second, DeadAddress: 15 * time.Second, WrongTopic: 60 * time.Second,
}

// Means is what a world offers beyond what each has.
type Means struct {
	SmallDisk bool // the registry is on a file system that can be full and whose files can turn read-only
	OwnClock  bool // the relay's clock can be stepped
	Relays    bool // there are several
	Standby   bool // the database has one
	Mistakes  bool // the app may be misconfigured with the wrong environment
}

// paceOf returns the mean times that apply to a world.
func paceOf(m Means) map[Kind]time.Duration {
	all := maps.Clone(pace)
	if m.SmallDisk {
		all[FillDisk], all[ReadOnly] = 30*time.Second, 25*time.Second
	}
	if m.OwnClock {
		all[StepClock] = 12 * time.Second
	}
	if m.Mistakes {
		all[WrongEnvironment] = 60 * time.Second
	}
	if m.Relays {
		all[KillRelay] = 3500 * time.Millisecond
		all[Freeze], all[RollRelays], all[Partition], all[Twin] = 40*time.Second, 60*time.Second, 10*time.Second, 15*time.Second
	}
	return all
}

// appleTrouble is the mean time between two faults of the simulated Apple.
const appleTrouble = 400 * time.Millisecond

// Schedule returns what happens within d. The same seed gives the same
// schedule. Each of the simulated Apple's faults comes up before one comes
// again. In the middle a key is rolled over, and then Apple is gone.
func Schedule(seed uint64, d time.Duration, m Means) []Step {
	rng := rand.New(rand.NewPCG(seed, 1))
	var steps []Step
	poisson := func(mean time.Duration, step func() Step) {
		for at := drawGap(rng, mean); at < d; at += drawGap(rng, mean) {
			s := step()
			s.At, s.Draw = at, rng.Uint64()
			steps = append(steps, s)
		}
	}
	means := paceOf(m)
	for _, k := range slices.Sorted(maps.Keys(means)) { // maps have no order that repeats
		poisson(means[k], func() Step { return Step{Kind: k} })
	}
	var deck []apnstest.Fault
	poisson(appleTrouble, func() Step {
		if len(deck) == 0 {
			deck = appleFaults()
			rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		f := deck[0]
		deck = deck[1:]
		return Step{Kind: Kind(f.String()), fault: f}
	})
	steps = append(steps, Step{At: d / 2, Kind: RollKey, Draw: rng.Uint64()}, Step{At: d * 6 / 10, Kind: Outage},
		Step{At: d * 9 / 10, Kind: KillSite, Draw: rng.Uint64()}) // so that short runs have a kill as well
	if m.Relays { // one is frozen for as long as a run allows
		steps = append(steps, Step{At: d / 10, Kind: Freeze, Draw: rng.Uint64(), lasts: min(longestFreeze, d*3/4)})
	}
	if m.Standby {
		steps = append(steps, Step{At: d * 45 / 100, Kind: FailOver, Draw: rng.Uint64()})
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return steps
}

func drawGap(rng *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(rng.ExpFloat64() * float64(mean))
}

// clockSteps are how far clocks go wrong: within what slewing and skews forgive, and
// beyond the lifetimes of provider tokens, of agents' tokens, and of
// certificates.
var clockSteps = [...]time.Duration{
	7 * time.Second, 90 * time.Second, 25 * time.Minute, 70 * time.Minute, 130 * time.Minute, 9 * time.Hour, 400 * 24 * time.Hour,
}

// clockStep draws how far the clock goes wrong, forwards or back.
func (s *Step) clockStep() time.Duration {
	ahead := clockSteps[s.Draw>>8%uint64(len(clockSteps))]
	if s.Draw>>4&1 == 1 {
		return -ahead
	}
	return ahead
}

// longestFreeze is beyond all that relay/doc.go allows for.
const longestFreeze = 3 * time.Minute

// frozen draws how long a relay is frozen.
func (s *Step) frozen() time.Duration {
	if s.lasts > 0 {
		return s.lasts
	}
	return s.between(2*time.Second, 30*time.Second)
}

// between draws a duration in [low, high).
func (s *Step) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.Draw%uint64(high-low))
}

// appleFaults are those that a run sees the end of: a device that is called gone by
// mistake is tried again after 20 minutes.
func appleFaults() []apnstest.Fault {
	return slices.DeleteFunc(apnstest.AllFaults(), func(f apnstest.Fault) bool {
		return f == apnstest.FaultDuplicateGone || f == apnstest.FaultOldTimestamp
	})
}
