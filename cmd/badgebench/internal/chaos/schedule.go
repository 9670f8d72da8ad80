package chaos

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"badgerelay/apns/apnstest"
)

// Kind is what happens in a step. Its text is its name in the result.
type Kind string

// The kinds, save the simulated Apple's faults, each of which is one too.
const (
	KillRelay    Kind = "kill_relay"          // SIGKILL, and a new process at once
	KillStarting Kind = "kill_starting_relay" // the same, and again before it is ready
	StopRelay    Kind = "stop_relay"          // SIGTERM, and a new process when it has drained
	ReloadRelay  Kind = "reload_relay"        // SIGHUP with a configuration that has changed
	PauseRelay   Kind = "pause_relay"         // SIGSTOP for less than a second
	KillSite     Kind = "kill_site"           // SIGKILL of a site's agents, and a new process
	RollKey      Kind = "roll_key"            // the organization signs with its next key; the old one goes
	Outage       Kind = "outage"              // Apple is gone for a while
	LockRegistry Kind = "lock_registry"       // somebody else holds the registry's write lock
	FillDisk     Kind = "fill_disk"           // the registry's file system is full for a while
	Leave        Kind = "device_leaves"       // a device unregisters, and registers again
	Move         Kind = "device_moves"        // a device signs in to another mailbox
)

// Step is one thing that happens.
type Step struct {
	At   time.Duration
	Kind Kind
	// Draw decides the step's details: which device, which site, how long.
	Draw uint64

	fault apnstest.Fault // of the simulated Apple, if Kind is none of the above
}

// pace is the mean time between two steps of a kind.
var pace = map[Kind]time.Duration{
	KillRelay: 5 * time.Second, KillStarting: 20 * time.Second, StopRelay: 15 * time.Second, ReloadRelay: 10 * time.Second,
	PauseRelay: 20 * time.Second, KillSite: 6 * time.Second, LockRegistry: 25 * time.Second,
	Leave: time.Second, Move: time.Second,
}

// appleTrouble is the mean time between two faults of the simulated Apple.
const appleTrouble = 400 * time.Millisecond

// Schedule returns what happens within d. The same seed gives the same
// schedule. Each of the simulated Apple's faults comes up before one comes
// again. In the middle the key is rolled over, and Apple is gone for a
// twelfth of the time, two minutes at most.
func Schedule(seed uint64, d time.Duration, smallDisk bool) []Step {
	rng := rand.New(rand.NewPCG(seed, 1))
	var steps []Step
	poisson := func(mean time.Duration, step func() Step) {
		for at := drawGap(rng, mean); at < d; at += drawGap(rng, mean) {
			s := step()
			s.At, s.Draw = at, rng.Uint64()
			steps = append(steps, s)
		}
	}
	kinds := make([]Kind, 0, len(pace))
	for k := range pace {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds) // maps have no order that repeats
	for _, k := range kinds {
		poisson(pace[k], func() Step { return Step{Kind: k} })
	}
	if smallDisk {
		poisson(30*time.Second, func() Step { return Step{Kind: FillDisk} })
	}
	var deck []apnstest.Fault
	poisson(appleTrouble, func() Step {
		if len(deck) == 0 {
			deck = apnstest.AllFaults()
			rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		f := deck[0]
		deck = deck[1:]
		return Step{Kind: Kind(f.String()), fault: f}
	})
	for at := d / 4; at < d; at += max(d/4, time.Minute) {
		steps = append(steps, Step{At: at, Kind: RollKey, Draw: rng.Uint64()})
	}
	steps = append(steps, Step{At: d * 6 / 10, Kind: Outage})
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return steps
}

func drawGap(rng *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(rng.ExpFloat64() * float64(mean))
}

// outageTime is how long Apple is gone in a run of d.
func outageTime(d time.Duration) time.Duration { return min(d/12, 2*time.Minute) }

// between draws a duration in [low, high).
func (s *Step) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.Draw%uint64(high-low))
}
