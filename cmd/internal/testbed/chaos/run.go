package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/apple"
	"badgerelay/cmd/internal/rig/wire"
)

// Config says what to do. Every field is required.
type Config struct {
	Seed     uint64
	Duration time.Duration // of the trouble
	Settle   time.Duration // what may pass after it until every device is right
	Rate     float64       // changes of mailboxes a second
	Sites    int           // processes with agents, of each organization
	Outage   time.Duration // how long Apple is gone once
	Say      func(format string, args ...any)

	WrongEnvironment bool // the relays are configured for the sandbox now and then
	Verbose          bool // say each step, and how far behind the worst device is
}

// rtt is how far away Apple is; answers take up to this longer.
const rtt = 10 * time.Millisecond

// Result is what happened.
type Result struct {
	Seed         uint64            `json:"seed"`
	Relays       int               `json:"relays"`
	Seconds      float64           `json:"seconds"`              // of the trouble
	Steps        map[string]int    `json:"steps"`                // what was done, by kind
	Kills        int               `json:"kills"`                // of these, by SIGKILL
	RelayKills   int               `json:"relayKills"`           // of these, of relays
	Struck       map[string]uint64 `json:"struck"`               // faults of the simulated Apple that found their occasion, by kind
	Events       uint64            `json:"events"`               // changes of mailboxes
	Pushes       uint64            `json:"pushes"`               // requests that Apple saw
	Accepted     uint64            `json:"accepted"`             // of these, accepted
	Duplicates   uint64            `json:"duplicates"`           // of these, badges that the device showed already
	Resent       float64           `json:"resent"`               // pushes that a relay sent again, as far as it could still say so
	FailedStarts int               `json:"failedStarts"`         // relays that did not come up and were started again
	Longest      float64           `json:"longestBehindSeconds"` // the longest time a badge stayed behind
	ToRight      float64           `json:"allRightAfterSeconds"` // from the end of the trouble until all were right
	ClientFaults map[string]int    `json:"clientFaults"`
	Wrong        int               `json:"wrongBadges"`   // devices that were wrong in the end
	Foreign      int               `json:"foreignBadges"` // devices that showed a count of another organization at any time
	Shared       int               `json:"sharedDevices"` // devices that are on two mailboxes, and show the sum
	Problems     []string          `json:"problems"`      // why the run has failed; empty: it has not
}

// stage is a run. What has no lock is set before it starts.
type stage struct {
	config   Config
	world    *rig.Rig
	apple    *apple.Apple
	truth    *Truth
	relays   []*relayKeeper
	mistaken sync.Mutex // held while the app is misconfigured
	clock    sync.Mutex // held while the relay's clock is wrong
	registry sync.Mutex // held while the registry is locked, slow or read-only

	organizations []*organization
	sites         []*siteKeeper // of all organizations

	hindered, hindrances atomic.Int32 // relays that are hindered now, and how often any was
	settled              sync.Map     // devices that must not move any more: an attempt was lost

	mu         sync.Mutex // guards what follows
	steps      map[string]int
	kills      int
	relayKills int
	problems   []string
	longest    time.Duration
	began      time.Time
	foreign    map[int]bool // devices
	cutWires   map[*wire.Wire]bool

	// Of watch alone: the client's faults when they were counted last, and which
	// were told.
	faults map[string]int
	told   map[string]bool
}

// Run makes a run on a world whose registry is filled. An error means that it
// could not be made; what went wrong in it, the result says.
func Run(ctx context.Context, world *rig.Rig, c Config) (*Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newStage(world, c)
	if err := s.build(ctx); err != nil {
		return nil, err
	}
	running, end := context.WithCancel(ctx)
	var keepers sync.WaitGroup
	keepers.Go(func() { s.watch(running) })
	for _, relay := range s.relays {
		keepers.Go(func() { relay.run(running) })
	}
	for _, site := range s.sites {
		keepers.Go(func() { site.run(running) })
	}
	err := s.play(ctx)
	var r *Result
	if err == nil {
		r, err = s.judge(ctx)
	}
	end()
	keepers.Wait()
	if err == nil {
		err = s.finish(ctx, r)
	}
	return r, err
}

func newStage(world *rig.Rig, c Config) *stage {
	s := &stage{config: c, world: world, steps: map[string]int{}, foreign: map[int]bool{}, cutWires: map[*wire.Wire]bool{}, told: map[string]bool{}}
	var owner []int // by mailbox
	for _, o := range world.Organizations {
		s.organizations = append(s.organizations, &organization{Organization: o})
		owner = append(owner, slices.Repeat([]int{o.Number}, o.Mailboxes)...)
	}
	s.truth = NewTruth(owner, world.DevicesPerMailbox)
	for device, mailbox := range world.Shared {
		s.truth.Share(device, mailbox)
	}
	return s
}

// organizationOf returns the organization of a mailbox.
func (s *stage) organizationOf(mailbox int) *organization {
	return s.organizations[s.truth.Owner(mailbox)]
}

func (s *stage) build(ctx context.Context) (err error) {
	s.apple, err = s.world.StartApple(ctx, apple.Config{
		RTT: rtt, Jitter: rtt, Seed: s.config.Seed,
		ServerErrorWait: s.world.ServerErrorWait, BySource: true,
		// What the relays may open, and one or two for each that was killed.
		ConnectsPerMinute: int(60*s.world.ConnectsPerSecond) + 120,
	})
	if err != nil {
		return err
	}
	for i := range max(1, s.world.Relays) {
		k := &relayKeeper{stage: s, number: i}
		if err := k.start(ctx); err != nil {
			return err
		}
		s.relays = append(s.relays, k)
	}
	for _, o := range s.organizations {
		for i := range s.config.Sites {
			site := &siteKeeper{stage: s, organization: o, number: i, dirty: map[int]struct{}{}}
			if err := site.start(ctx); err != nil {
				return err
			}
			o.sites, s.sites = append(o.sites, site), append(s.sites, site)
		}
	}
	return nil
}

// quietFor is how much more rarely two thirds of the mailboxes change.
const quietFor = 50

// play changes mailboxes and makes trouble, and returns when what it began has
// ended.
func (s *stage) play(ctx context.Context) error {
	steps := Schedule(s.config.Seed, s.config.Duration, Means{
		SmallDisk: s.world.SmallDisk, OwnClock: s.world.OwnClock, Relays: len(s.relays) > 1, Standby: s.world.Standby,
		Mistakes: s.config.WrongEnvironment,
	})
	s.config.Say("%d steps within %v, seed %d", len(steps), s.config.Duration, s.config.Seed)
	began := time.Now()
	s.mu.Lock()
	s.began = began
	s.mu.Unlock()
	for mailbox := range s.world.Mailboxes { // so that each has something to show
		s.truth.Change(mailbox)
		s.tell(mailbox)
	}
	changing, stop := context.WithCancel(ctx)
	var acts sync.WaitGroup
	defer acts.Wait()
	defer stop()
	acts.Go(func() { // ends with changing
		s.change(changing, s.config.Rate, s.config.Seed, func(rng *rand.Rand) int {
			m := rng.IntN(s.world.Mailboxes)
			if m%3 > 0 && rng.IntN(quietFor) > 0 {
				m -= m % 3 // the others change once in a while: what is late to them stays to be seen
			}
			return m
		})
	})
	for i := range steps {
		rig.Wait(ctx, time.Until(began.Add(steps[i].At)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		acts.Go(func() { // ends by itself, or with ctx
			if err := s.act(ctx, &steps[i]); err != nil && ctx.Err() == nil {
				s.problem("%s: %v", steps[i].Kind, err)
			}
		})
	}
	rig.Wait(ctx, time.Until(began.Add(s.config.Duration)))
	return ctx.Err()
}

// change changes so many mailboxes a second, each drawn at random, until ctx is
// done.
func (s *stage) change(ctx context.Context, rate float64, seed uint64, draw func(*rand.Rand) int) {
	const tick = 5 * time.Millisecond
	rng := rand.New(rand.NewPCG(seed, 2))
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	due := 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for due += rate * tick.Seconds(); due >= 1; due-- {
			mailbox := draw(rng)
			s.truth.Change(mailbox)
			s.tell(mailbox)
		}
	}
}

// tell has the mailbox's site say what it holds now.
func (s *stage) tell(mailbox int) { s.organizationOf(mailbox).siteOf(mailbox).tell(mailbox) }

// problem notes why the run has failed, and when within the run.
func (s *stage) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	if !s.began.IsZero() {
		text = fmt.Sprintf("at %.3f s: %s", time.Since(s.began).Seconds(), text)
	}
	if len(s.problems) < 100 { // more of them say no more
		s.problems = append(s.problems, text)
	}
	s.mu.Unlock()
	s.config.Say("PROBLEM %s", text)
}

// trace says what only who searches for a fault wants to know.
func (s *stage) trace(format string, args ...any) {
	if !s.config.Verbose {
		return
	}
	s.mu.Lock()
	since := time.Since(s.began)
	s.mu.Unlock()
	s.config.Say("%s %8.3f s: %s", time.Now().UTC().Format("15:04:05.000"), since.Seconds(), fmt.Sprintf(format, args...))
}

// count notes a step that is done.
func (s *stage) count(k Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps[string(k)]++
	switch k {
	case KillSite:
		s.kills++
	case KillRelay, KillStarting:
		n := map[Kind]int{KillRelay: 1, KillStarting: 2}[k]
		s.kills, s.relayKills = s.kills+n, s.relayKills+n
	}
}

// countKill notes a kill of a relay beside those of the kinds that kill.
func (s *stage) countKill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kills, s.relayKills = s.kills+1, s.relayKills+1
}

var errNoRelay = errors.New("no relay comes up")
