package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"badgerelay/cmd/internal/rig"
)

// watch looks at the devices all the time.
func (s *stage) watch(ctx context.Context) {
	for ctx.Err() == nil {
		rig.Wait(ctx, 100*time.Millisecond)
		v, err := s.look(ctx)
		if err != nil {
			return // the simulator's end is told by others, and ctx's is none
		}
		s.mu.Lock()
		before := s.longest.Truncate(time.Second)
		s.longest = max(s.longest, v.Longest)
		s.mu.Unlock()
		s.seeForeign(v.Foreign)
		s.seeFaults(ctx)
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

// lookEvery is how often the end of a run is looked at.
const lookEvery = 50 * time.Millisecond

// judge ends the trouble, waits until every device is right, and returns what
// happened. The relay and the sites still run.
func (s *stage) judge(ctx context.Context) (*Result, error) {
	if err := s.apple.Calm(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	s.config.Say("the trouble is over")
	r := &Result{Seed: s.config.Seed, Relays: len(s.relays), Seconds: s.config.Duration.Seconds()}
	var toRight time.Duration
	err := rig.Poll(ctx, lookEvery, func() (bool, error) {
		v, err := s.look(ctx)
		if err != nil {
			return false, err
		}
		since := time.Since(began)
		if r.Wrong = v.Wrong + v.Unknown; r.Wrong == 0 {
			return since > toRight+s.stays(), nil
		}
		toRight = since
		if since <= s.config.Settle {
			return false, nil
		}
		s.problem("%d badges are wrong %v after the trouble, the worst: %s", r.Wrong, s.config.Settle, v.Example)
		for _, each := range v.Each {
			s.problem("%s", each)
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	r.ToRight = toRight.Seconds()
	for _, step := range []func(context.Context) error{s.settle, s.counters} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	state, err := s.apple.State(ctx)
	if err != nil {
		return nil, err
	}
	r.Events, r.Pushes, r.Accepted, r.Duplicates = s.truth.Events(), state.Stats.Requests, state.Stats.Accepted, state.Stats.Repeated
	r.ClientFaults, r.Struck = state.ClientFaults, state.Stats.Injected
	if n := state.Faults(); n > 0 {
		s.problem("%d client faults: %v", n, state.ClientFaults)
	}
	return r, nil
}

// stays is for how long everything has to stay right: what several relays have
// under way, one that the others don't know of may deliver late.
func (s *stage) stays() time.Duration {
	if len(s.relays) > 1 {
		return 10 * time.Second
	}
	return 0
}

// settle waits until every site's counts have settled.
func (s *stage) settle(ctx context.Context) error {
	began := time.Now()
	return rig.Poll(ctx, lookEvery, func() (bool, error) {
		var held uint64
		for _, site := range s.sites {
			n, err := site.unsettled(ctx)
			if err != nil {
				return false, err
			}
			held += n
		}
		if held > 0 && time.Since(began) > s.config.Settle {
			s.problem("%d counts have not settled %v after every device was right", held, s.config.Settle)
			return true, nil
		}
		return held == 0, nil
	})
}

// counters checks that each relay's counters reconcile.
func (s *stage) counters(ctx context.Context) error {
	for i, k := range s.relays {
		m, err := k.metrics(ctx)
		if err != nil {
			return err
		}
		accepted, settled, pending := m.Counters()
		if accepted != settled+pending {
			s.problem("the counters of relay %d do not reconcile: %v accepted, %v settled, %v pending", i, accepted, settled, pending)
		}
	}
	return nil
}

// finish ends the processes in good order and completes the result.
func (s *stage) finish(ctx context.Context, r *Result) error {
	for _, site := range s.sites {
		site.site.End()
	}
	for i, k := range s.relays {
		if err := k.relay.Stop(ctx); err != nil {
			s.problem("the end of relay %d: %v", i, err)
		}
		r.Resent += k.resentBefore + k.resent
		r.FailedStarts += k.failedStarts
	}
	s.apple.End()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Steps, r.Kills, r.RelayKills, r.Longest, r.Problems = maps.Clone(s.steps), s.kills, s.relayKills, s.longest.Seconds(), s.problems
	r.Foreign, r.Shared = len(s.foreign), len(s.world.Shared)
	return nil
}

// seeForeign notes devices that show another organization's count.
func (s *stage) seeForeign(devices []int) {
	for _, d := range devices {
		s.mu.Lock()
		known := s.foreign[d]
		s.foreign[d] = true
		s.mu.Unlock()
		if !known {
			s.problem("device %d shows a count of another organization than its own", d)
		}
	}
}

// seeFaults notes what the client did wrong since it was asked last.
func (s *stage) seeFaults(ctx context.Context) {
	state, err := s.apple.State(ctx)
	if err != nil {
		return // the simulator's end is told by others
	}
	for _, fault := range slices.Sorted(maps.Keys(state.ClientFaults)) {
		n := state.ClientFaults[fault]
		if n <= s.faults[fault] {
			continue
		}
		about := fault
		if device, ok := state.FaultDevices[fault]; ok {
			about = fmt.Sprintf("%s with device %d", fault, device)
		}
		if !s.told[about] { // the sum is told in the end
			s.told[about] = true
			s.problem("client fault %s", about)
		}
	}
	s.faults = state.ClientFaults
}
