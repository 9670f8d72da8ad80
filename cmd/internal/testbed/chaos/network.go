package chaos

import (
	"context"
	"errors"
	"sync"
	"time"

	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/wire"
)

// hinder notes that a relay may not hear of something in time, until the
// function it returns is called.
func (s *stage) hinder() (end func()) {
	s.hindered.Add(1)
	s.hindrances.Add(1)
	return func() { s.hindered.Add(-1) }
}

// partition parts a relay from the agents, the database or Apple for a while.
func (s *stage) partition(ctx context.Context, step *Step) error {
	w := s.world.Wires(int(step.Draw % uint64(len(s.relays))))
	paths := [][]*wire.Wire{{w.Agents}, w.Database, w.Apple[:]}
	path := int(step.Draw >> 8 % uint64(len(paths)))
	how := wire.State(1 + step.Draw>>16%uint64(wire.States-1))
	lasts := step.between(300*time.Millisecond, 8*time.Second)
	if step.Draw>>24%6 == 0 { // beyond keepalives, and sometimes beyond what is given up after
		lasts = step.between(8*time.Second, 40*time.Second)
	}
	s.trace("part relay %d from %s: %s for %v", step.Draw%uint64(len(s.relays)), [...]string{"agents", "database", "apple"}[path], how, lasts)
	defer s.hinder()()
	if path == 2 {
		// What is lost on the way nobody can heed: whoever comes then is new.
		w.NewSource()
		defer w.NewSource()
	}
	return s.cut(ctx, paths[path], how, lasts)
}

// deadAddress has one of the addresses that Apple's name has be dead for a while,
// of IPv4 or of IPv6: nobody answers there.
func (s *stage) deadAddress(ctx context.Context, step *Step) error {
	w := s.world.Wires(int(step.Draw % uint64(len(s.relays))))
	how := wire.Refuse
	if step.Draw>>8&1 == 1 {
		how = wire.Stall
	}
	dead := int(step.Draw >> 9 & 1)
	w.NewSource()
	defer w.NewSource()
	// What the dead address swallows goes again over the other one, where it has to
	// be new as well: connections from before would be the same client's.
	if err := s.cut(ctx, []*wire.Wire{w.Apple[1-dead]}, wire.Refuse, 0); err != nil {
		return err
	}
	return s.cut(ctx, []*wire.Wire{w.Apple[dead]}, how, step.between(time.Second, 20*time.Second))
}

// cut has wires do something else than pass on for a while. Those that do already
// are left alone.
func (s *stage) cut(ctx context.Context, wires []*wire.Wire, how wire.State, lasts time.Duration) error {
	var mine []*wire.Wire
	s.mu.Lock()
	for _, w := range wires {
		if w != nil && !s.cutWires[w] {
			s.cutWires[w] = true
			mine = append(mine, w)
		}
	}
	s.mu.Unlock()
	for _, w := range mine {
		w.Set(how)
	}
	rig.Wait(ctx, lasts)
	for _, w := range mine {
		w.Set(wire.Open)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range mine {
		delete(s.cutWires, w)
	}
	return nil
}

// misconfigure has every relay start with a configuration in which the app has
// another topic or environment, and after a while with the right one again.
func (s *stage) misconfigure(ctx context.Context, step *Step, mistake rig.Mistake) error {
	if !s.mistaken.TryLock() {
		return nil // one mistake at a time
	}
	defer s.mistaken.Unlock()
	s.world.Mistake(mistake)
	err := s.restartAll(ctx)
	rig.Wait(ctx, step.between(2*time.Second, 15*time.Second))
	s.world.Mistake(rig.NoMistake)
	return errors.Join(err, s.restartAll(ctx))
}

// restartAll has every relay replaced, one that is frozen as soon as it goes on.
func (s *stage) restartAll(ctx context.Context) error {
	errs := make([]error, len(s.relays))
	var all sync.WaitGroup
	for i, k := range s.relays {
		all.Go(func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			if ctx.Err() == nil {
				errs[i] = k.stop(ctx)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// failOver has the database's standby take over.
func (s *stage) failOver() error {
	defer s.hinder()()
	return s.world.FailOver()
}
