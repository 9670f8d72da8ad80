package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"badgerelay/cmd/badgebench/internal/apple"
	"badgerelay/cmd/badgebench/internal/rig"
)

// Config says what to do. Every field is required.
type Config struct {
	Seed     uint64
	Duration time.Duration // of the trouble
	Settle   time.Duration // what may pass after it until every device is right
	Rate     float64       // changes of mailboxes a second
	Sites    int           // processes with agents
	RTT      time.Duration // to Apple; answers take up to this longer
	Say      func(format string, args ...any)
	Verbose  bool // say each step, and how far behind the worst device is
}

// Result is what happened.
type Result struct {
	Steps        map[string]int // what was done, by kind
	Kills        int            // of these, by SIGKILL
	Events       uint64         // changes of mailboxes
	Pushes       uint64         // requests that Apple saw
	Accepted     uint64         // of these, accepted
	Duplicates   uint64         // of these, badges that the device showed already
	Resent       float64        // pushes that a relay sent again, as far as it could still say so
	FailedStarts int            // relays that did not come up and were started again
	Longest      time.Duration  // the longest time a badge stayed behind
	ToRight      time.Duration  // from the end of the trouble until all were right
	ClientFaults map[string]int
	Wrong        int      // devices that were wrong in the end
	Problems     []string // why the run has failed; empty: it has not
}

// stage is a run. What has no lock is set before it starts.
type stage struct {
	config Config
	world  *rig.Rig
	apple  *apple.Apple
	truth  *Truth
	relay  *relayKeeper
	sites  []*siteKeeper
	rolls  sync.Mutex // one roll-over at a time

	mu       sync.Mutex // guards what follows
	steps    map[string]int
	kills    int
	problems []string
	longest  time.Duration
	began    time.Time
}

// Run makes a run on a world whose registry is filled. An error means that it
// could not be made; what went wrong in it, the result says.
func Run(ctx context.Context, world *rig.Rig, c Config) (*Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &stage{config: c, world: world, truth: NewTruth(world.Mailboxes, world.DevicesPerMailbox), steps: map[string]int{}}
	if err := s.build(ctx); err != nil {
		return nil, err
	}
	running, end := context.WithCancel(ctx)
	var keepers sync.WaitGroup
	keepers.Go(func() { s.watch(running) })
	keepers.Go(func() { s.relay.run(running) })
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

func (s *stage) build(ctx context.Context) (err error) {
	s.apple, err = s.world.StartApple(ctx, apple.Config{
		RTT: s.config.RTT, Jitter: s.config.RTT, Seed: s.config.Seed,
		ServerErrorWait: s.world.ServerErrorWait,
		// What the relays may open, and one or two for each that was killed.
		ConnectsPerMinute: int(60*s.world.ConnectsPerSecond) + 120,
	})
	if err != nil {
		return err
	}
	s.relay = &relayKeeper{stage: s}
	if err := s.relay.start(ctx); err != nil {
		return err
	}
	for i := range s.config.Sites {
		site := &siteKeeper{stage: s, number: i, dirty: map[int]struct{}{}}
		if err := site.start(ctx); err != nil {
			return err
		}
		s.sites = append(s.sites, site)
	}
	return nil
}

// play changes mailboxes and makes trouble, and returns when what it began has
// ended.
func (s *stage) play(ctx context.Context) error {
	steps := Schedule(s.config.Seed, s.config.Duration, s.world.SmallDisk)
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
	acts.Go(func() { s.change(changing) }) // ends with changing
	for i := range steps {
		pause(ctx, time.Until(began.Add(steps[i].At)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		acts.Go(func() { // ends by itself, or with ctx
			if err := s.act(ctx, &steps[i]); err != nil && ctx.Err() == nil {
				s.problem("%s: %v", steps[i].Kind, err)
			}
		})
	}
	pause(ctx, time.Until(began.Add(s.config.Duration)))
	return ctx.Err()
}

// change changes mailboxes, drawn at random, until ctx is done.
func (s *stage) change(ctx context.Context) {
	const tick = 5 * time.Millisecond
	rng := rand.New(rand.NewPCG(s.config.Seed, 2))
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	due := 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for due += s.config.Rate * tick.Seconds(); due >= 1; due-- {
			mailbox := rng.IntN(s.world.Mailboxes)
			s.truth.Change(mailbox)
			s.tell(mailbox)
		}
	}
}

// tell has the mailbox's site say what it holds now.
func (s *stage) tell(mailbox int) { s.sites[mailbox%len(s.sites)].tell(mailbox) }

// watch looks at the devices all the time.
func (s *stage) watch(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, 100*time.Millisecond)
		v, err := s.look(ctx)
		if err != nil {
			return // the simulator's end is told by others, and ctx's is none
		}
		s.mu.Lock()
		before := s.longest.Truncate(time.Second)
		s.longest = max(s.longest, v.Longest)
		s.mu.Unlock()
		if v.Longest.Truncate(time.Second) > before {
			s.trace("%d behind, the worst: %s", v.Wrong, v.Example)
		}
	}
}

func (s *stage) look(ctx context.Context) (Verdict, error) {
	badges, err := s.apple.Badges(ctx)
	if err != nil {
		return Verdict{}, err
	}
	return s.truth.Judge(badges), nil
}

// judge ends the trouble, waits until every device is right, and returns what
// happened. The relay and the sites still run.
func (s *stage) judge(ctx context.Context) (*Result, error) {
	if err := s.apple.Calm(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	s.config.Say("the trouble is over")
	r := &Result{}
	for {
		v, err := s.look(ctx)
		if err != nil {
			return nil, err
		}
		r.Wrong, r.ToRight = v.Wrong+v.Unknown, time.Since(began)
		if r.Wrong == 0 {
			break
		}
		if r.ToRight > s.config.Settle {
			s.problem("%d badges are wrong %v after the trouble: %s", r.Wrong, s.config.Settle, v.Example)
			break
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if err := s.books(ctx); err != nil {
		return nil, err
	}
	state, err := s.apple.State(ctx)
	if err != nil {
		return nil, err
	}
	r.Events, r.Pushes, r.Accepted, r.Duplicates = s.truth.Events(), state.Stats.Requests, state.Stats.Accepted, state.Stats.Repeated
	r.ClientFaults = state.ClientFaults
	if n := state.Faults(); n > 0 {
		s.problem("%d client faults: %v", n, state.ClientFaults)
	}
	return r, nil
}

// books waits until every site's counts have settled, and checks that the
// relay's books balance.
func (s *stage) books(ctx context.Context) error {
	began := time.Now()
	for {
		var held uint64
		for _, site := range s.sites {
			n, err := site.unsettled(ctx)
			if err != nil {
				return err
			}
			held += n
		}
		if held == 0 {
			break
		}
		if time.Since(began) > s.config.Settle {
			s.problem("%d counts have not settled %v after every device was right", held, s.config.Settle)
			break
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	m, err := s.relay.metrics(ctx)
	if err != nil {
		return err
	}
	accepted, settled, pending := m.Sum("badgerelay_events_accepted_total"), m.Sum("badgerelay_events_settled_total"), m.Sum("badgerelay_events_pending")
	if accepted != settled+pending {
		s.problem("the relay's books do not balance: %v accepted, %v settled, %v pending", accepted, settled, pending)
	}
	return nil
}

// finish ends the processes in good order and completes the result.
func (s *stage) finish(ctx context.Context, r *Result) error {
	for _, site := range s.sites {
		site.site.End()
	}
	if err := s.relay.relay.Stop(ctx); err != nil {
		s.problem("the last relay's end: %v", err)
	}
	s.apple.End()
	r.Resent, r.FailedStarts = s.relay.resentBefore+s.relay.resent, s.relay.failedStarts
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Steps, r.Kills, r.Longest, r.Problems = maps.Clone(s.steps), s.kills, s.longest, s.problems
	return nil
}

// problem notes why the run has failed.
func (s *stage) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.config.Say("PROBLEM: %s", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < 100 { // more of them say no more
		s.problems = append(s.problems, text)
	}
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

func (s *stage) count(k Kind, kills int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps[string(k)]++
	s.kills += kills
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

var errNoRelay = errors.New("no relay comes up")
