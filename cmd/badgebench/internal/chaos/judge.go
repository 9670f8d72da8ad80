package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

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
			s.problem("%d badges are wrong %v after the trouble, the worst: %s", r.Wrong, s.config.Settle, v.Example)
			for _, each := range v.Each {
				s.problem("%s", each)
			}
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
	r.ClientFaults, r.Struck = state.ClientFaults, state.Stats.Injected
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
	accepted, settled, pending := m.Books()
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
	r.Steps, r.Kills, r.RelayKills, r.Longest, r.Problems = maps.Clone(s.steps), s.kills, s.relayKills, s.longest, s.problems
	r.Foreign = len(s.foreign)
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
