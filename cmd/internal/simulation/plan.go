package simulation

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"badgerelay/apns/apnstest"
)

// Kind is what happens in a step. Its text is its name in reports.
type Kind string

// The kinds, save the simulated APNs' faults, each of which is one too.
const (
	Change       Kind = "change"               // a mailbox has another count
	Burst        Kind = "burst"                // one mailbox changes many times at once
	Restore      Kind = "restore_mailbox"      // a mailbox's versions begin anew, and it changes
	Join         Kind = "device_joins"         // a device signs in that was on no mailbox
	Move         Kind = "device_moves"         // a device signs in to another mailbox
	MoveUnheard  Kind = "device_moves_unheard" // the same, while a relay does not reach the registry and its old mailbox changes
	Part         Kind = "device_parts"         // a device is taken off its mailbox
	Leave        Kind = "device_leaves"        // a device unregisters with APNs, and registers and signs in again
	Share        Kind = "device_shares"        // a device signs in to a mailbox of another organization as well
	Add          Kind = "device_adds_mailbox"  // a device signs in to another mailbox of its organization, and stays on the others
	Set          Kind = "device_set"           // an organization says all its mailboxes that a device is on
	Unshare      Kind = "device_unshares"      // and leaves it
	KillRelay    Kind = "kill_relay"           // the process is killed; its system closes its connections
	LoseRelay    Kind = "lose_relay"           // the machine stops; nobody is told
	DrainRelay   Kind = "drain_relay"          // an orderly stop; another process follows
	DrainBusy    Kind = "drain_busy"           // the same, while its way to APNs is slow, pushes are pending and mailboxes change
	KillAgent    Kind = "kill_agent"           // and it is started again
	MoveAgent    Kind = "move_agent"           // it stops and goes on elsewhere
	TwinAgent    Kind = "twin_agent"           // a second process of it runs beside it for a while
	StepClock    Kind = "step_clock"           // an agent's clock is set, by up to an hour
	CutAgent     Kind = "cut_agent"            // connections between an agent and a relay are reset
	PartAgent    Kind = "part_agent"           // a partition between an agent and a relay
	OneSided     Kind = "one_sided"            // the same, in one direction
	SlowAgent    Kind = "slow_agent"           // the way between them is slow
	CutAPNs      Kind = "cut_apns"             // connections between a relay and APNs are reset
	PartAPNs     Kind = "part_apns"            // a partition between a relay and APNs
	OneSidedAPNs Kind = "one_sided_apns"       // the same, in one direction
	SlowAPNs     Kind = "slow_apns"            // the way between them is slow
	Outage       Kind = "apns_outage"          // no relay reaches APNs
	Unwell       Kind = "apns_unwell"          // APNs refuses everything for a while, and some mailboxes change
	SlowRegistry Kind = "slow_registry"        // a relay's calls take longer
	FailRegistry Kind = "fail_registry"        // some of a relay's calls fail
	LoseRegistry Kind = "lose_registry"        // a relay does not reach the registry
	DeafRegistry Kind = "deaf_registry"        // notifications come late or not at all
	RollKey      Kind = "roll_key"             // an organization signs with its next key; the old one goes
	Disable      Kind = "disable"              // an organization is disabled, and enabled again
)

// Step is one thing that happens.
type Step struct {
	At   time.Duration // since the beginning
	Kind Kind
	Draw uint64 // decides the details: which device, which relay, how long

	fault apnstest.Fault // of the simulated APNs, if Kind is none of the above
}

// String is the step as a schedule prints it.
func (s *Step) String() string {
	return fmt.Sprintf("%9.3fs %s %x", s.At.Seconds(), s.Kind, s.Draw)
}

// pick draws a number below n; which tells its draws apart.
func (s *Step) pick(which uint, n int) int {
	return int(rand.New(rand.NewPCG(s.Draw, uint64(which))).Int64N(int64(n)))
}

// between draws a duration, short ones more often.
func (s *Step) between(which uint, low, high time.Duration) time.Duration {
	f := rand.New(rand.NewPCG(s.Draw, uint64(which))).Float64()
	return low + time.Duration(f*f*float64(high-low))
}

// Plan is everything that a seed decides.
type Plan struct {
	Seed      uint64
	Relays    int
	Alone     bool // the one relay has the registry for itself, as with SQLite
	Mailboxes []mailboxPlan
	Agents    []agentPlan
	Devices   []devicePlan
	// OneOrganization: a device shows the counts of one organization alone.
	OneOrganization bool

	Window    time.Duration // of coalescing; negative: none
	TokenLife time.Duration // of agents' tokens; 0: longer than a run
	Length    time.Duration // of the faults
	Steps     []Step
	Late      Step // after all else is right again; without a kind: nothing
}

type agentPlan struct {
	organization int
	publishes    bool // by unary calls, instead of a stream
}

type mailboxPlan struct {
	name         string
	organization int
	agents       []int // who serve it, each with an id of its own
}

type devicePlan struct {
	organization int
	mailbox      int // where it begins; -1: on none
	also         int // a mailbox of another organization, on which it is as well; -1: none
	beside       int // another mailbox of its own; -1: none
}

// paced is a kind with the mean time between two steps of it.
type paced struct {
	kind  Kind
	every time.Duration
}

// severalPace is of the seeds that have devices on several mailboxes of an organization.
var severalPace = []paced{{Add, 20 * time.Second}, {Set, 20 * time.Second}}

// pace is of the kinds that a seed has or has not.
var pace = []paced{
	{Restore, 30 * time.Second}, {Join, 15 * time.Second}, {Move, 15 * time.Second}, {Part, 30 * time.Second}, {Leave, 20 * time.Second},
	{Share, 15 * time.Second}, {Unshare, 30 * time.Second},
	{KillRelay, 20 * time.Second}, {LoseRelay, 60 * time.Second}, {DrainRelay, 40 * time.Second}, {DrainBusy, 40 * time.Second},
	{KillAgent, 20 * time.Second}, {MoveAgent, 40 * time.Second}, {TwinAgent, 40 * time.Second}, {StepClock, 30 * time.Second},
	{CutAgent, 10 * time.Second}, {PartAgent, 20 * time.Second}, {OneSided, 30 * time.Second}, {SlowAgent, 20 * time.Second},
	{CutAPNs, 15 * time.Second}, {PartAPNs, 30 * time.Second}, {OneSidedAPNs, 30 * time.Second}, {SlowAPNs, 20 * time.Second}, {Outage, 60 * time.Second},
	{Unwell, 60 * time.Second},
	{SlowRegistry, 20 * time.Second}, {FailRegistry, 20 * time.Second}, {LoseRegistry, 40 * time.Second}, {DeafRegistry, 30 * time.Second},
	{RollKey, 60 * time.Second}, {Disable, 60 * time.Second}, {MoveUnheard, 20 * time.Second},
}

// faultPace is the mean time between two faults of the simulated APNs.
const faultPace = 4 * time.Second

// NewPlan returns what happens with a seed.
func NewPlan(seed uint64) *Plan {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := &Plan{Seed: seed, Relays: 1 + rng.IntN(4), Length: time.Duration(20+rng.IntN(70)) * time.Second}
	p.Window = []time.Duration{-1, 300 * time.Millisecond, time.Second}[rng.IntN(3)]
	if rng.IntN(4) == 0 {
		p.TokenLife = time.Minute
	}
	publishers := rng.IntN(4) == 0
	organizations := 1 + rng.IntN(maxOrganizations)
	var count [maxOrganizations]int
	for a := range max(organizations, 2+rng.IntN(5)) {
		p.Agents = append(p.Agents, agentPlan{a % organizations, publishers && rng.IntN(2) == 0})
		for range 1 + rng.IntN(2) {
			// The organizations' mailboxes have the same names.
			name := fmt.Sprintf("mailbox%d", count[a%organizations])
			count[a%organizations]++
			p.Mailboxes = append(p.Mailboxes, mailboxPlan{name, a % organizations, []int{a}})
		}
	}
	p.share(rng)
	shares := rng.IntN(2) == 0
	for m, box := range p.Mailboxes {
		for range rng.IntN(3) {
			at := m
			if rng.IntN(5) == 0 {
				at = -1
			}
			p.Devices = append(p.Devices, devicePlan{box.organization, at, p.elsewhere(rng, box.organization, shares), -1})
		}
	}
	p.schedule(rng)
	more := rand.New(rand.NewPCG(seed, 2))
	p.OneOrganization = more.IntN(5) == 0
	p.several(more)
	p.Late = Step{Kind: lateKinds[rng.IntN(len(lateKinds))], Draw: rng.Uint64()}
	if twoServe := func(m mailboxPlan) bool { return len(m.agents) > 1 }; slices.ContainsFunc(p.Mailboxes, twoServe) && more.IntN(2) == 0 {
		p.Late.Kind = Older
	} else if more.IntN(8) == 0 {
		p.Late.Kind = ReadLate
	}
	p.Alone = p.Relays == 1 && rng.IntN(2) == 0
	return p
}

// elsewhere returns a mailbox of another organization for every other device, in
// some seeds; -1: none.
func (p *Plan) elsewhere(rng *rand.Rand, organization int, shares bool) int {
	m := rng.IntN(len(p.Mailboxes))
	if !shares || p.Mailboxes[m].organization == organization {
		return -1
	}
	return m
}

// several has devices on several mailboxes of their organization, in half of the seeds.
func (p *Plan) several(rng *rand.Rand) {
	if rng.IntN(2) == 0 {
		return
	}
	for i := range p.Devices {
		d := &p.Devices[i]
		if m := rng.IntN(len(p.Mailboxes)); m != d.mailbox && p.Mailboxes[m].organization == d.organization {
			d.beside = m
		}
	}
	for _, k := range severalPace {
		p.poisson(rng, k.every, func() (Kind, apnstest.Fault) { return k.kind, apnstest.NoFault })
	}
	p.sort()
}

// share gives mailboxes a second agent in some seeds.
func (p *Plan) share(rng *rand.Rand) {
	if rng.IntN(3) > 0 {
		return
	}
	for i := range p.Mailboxes {
		m := &p.Mailboxes[i]
		if other := rng.IntN(len(p.Agents)); other != m.agents[0] && p.Agents[other].organization == m.organization {
			m.agents = append(m.agents, other)
		}
	}
}

// has reports whether there is a step of one of the kinds.
func (p *Plan) has(kinds ...Kind) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return slices.Contains(kinds, s.Kind) })
}

// schedule draws the steps. Each seed has some of the kinds only, so that what
// many of them hide together is seen in another.
func (p *Plan) schedule(rng *rand.Rand) {
	poisson := func(mean time.Duration, kind func() (Kind, apnstest.Fault)) { p.poisson(rng, mean, kind) }
	plain := func(k Kind) func() (Kind, apnstest.Fault) {
		return func() (Kind, apnstest.Fault) { return k, apnstest.NoFault }
	}
	poisson(time.Duration(300+rng.IntN(2000))*time.Millisecond, plain(Change))
	poisson(20*time.Second, plain(Burst))
	share := rng.Float64()
	for _, k := range pace {
		if rng.Float64() < share {
			poisson(k.every, plain(k.kind))
			if k.kind == DrainBusy { // what comes after puts much right
				p.Steps = append(p.Steps, Step{At: p.Length - time.Second, Kind: DrainBusy, Draw: rng.Uint64()})
			}
		}
	}
	if rng.Float64() < share {
		faults := apnstest.AllFaults()
		rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		faults = faults[:1+rng.IntN(len(faults))]
		poisson(faultPace, func() (Kind, apnstest.Fault) {
			f := faults[rng.IntN(len(faults))]
			return Kind(f.String()), f
		})
	}
	p.sort()
}

// poisson adds steps, so long apart on average.
func (p *Plan) poisson(rng *rand.Rand, mean time.Duration, kind func() (Kind, apnstest.Fault)) {
	for at := gap(rng, mean); at < p.Length; at += gap(rng, mean) {
		k, f := kind()
		p.Steps = append(p.Steps, Step{At: at, Kind: k, Draw: rng.Uint64(), fault: f})
	}
}

func (p *Plan) sort() {
	slices.SortStableFunc(p.Steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
}

func gap(rng *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(rng.ExpFloat64() * float64(mean))
}
