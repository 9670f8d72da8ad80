package chaos

import (
	"context"
	"sync"
	"time"

	"badgerelay/cmd/internal/rig"
)

// startTimeout bounds the time in which a relay has to come up, with a
// registry that may be locked or away and starts that may fail.
const startTimeout = time.Minute

// relayKeeper keeps one of the relays running, whatever happens to it. Its
// methods, save metrics and run, are called with mu held (stage.lockRelay).
type relayKeeper struct {
	stage  *stage
	number int

	mu           sync.Mutex // guards what follows; held while something happens to the relay
	relay        *rig.Relay
	resent       float64 // by this relay, when it was asked last
	resentBefore float64 // by those before
	failedStarts int
}

// lockRelay returns the relay that draw says, with its mu held; nil: something happens
// to it already, and the step need not be.
func (s *stage) lockRelay(draw uint64, needed bool) *relayKeeper {
	k := s.relays[draw%uint64(len(s.relays))]
	if needed {
		k.mu.Lock()
	} else if !k.mu.TryLock() {
		return nil
	}
	return k
}

// start starts a relay; one that does not come up is started again, as a
// service manager does.
func (k *relayKeeper) start(ctx context.Context) error {
	k.resentBefore, k.resent = k.resentBefore+k.resent, 0
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		k.wires().NewSource()
		relay, err := k.stage.world.StartRelay(ctx, k.number)
		if err == nil {
			k.relay = relay
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		k.failedStarts++
		k.stage.config.Say("relay %d did not start: %v", k.number, err)
		rig.Wait(ctx, 100*time.Millisecond)
	}
}

func (k *relayKeeper) wires() *rig.Wires { return k.stage.world.Wires(k.number) }

func (k *relayKeeper) kill(ctx context.Context) error {
	k.relay.Kill()
	return k.start(ctx)
}

func (k *relayKeeper) killTwice(ctx context.Context, after time.Duration) error {
	k.relay.Kill()
	k.wires().NewSource()
	relay, err := k.stage.world.LaunchRelay(k.number)
	if err != nil {
		return err
	}
	rig.Wait(ctx, after)
	relay.Kill()
	return k.start(ctx)
}

// stop has the relay drain, and starts another. A relay that does not end in
// good order is a problem.
func (k *relayKeeper) stop(ctx context.Context) error {
	stopped := k.relay.Stop(ctx)
	if err := k.start(ctx); err != nil {
		return err
	}
	return stopped
}

// freeze stops the relay's threads for d. Then they go on, or the relay is killed.
func (k *relayKeeper) freeze(ctx context.Context, d time.Duration, thenKill bool) error {
	if err := k.relay.Freeze(); err != nil {
		return err
	}
	rig.Wait(ctx, d)
	if thenKill {
		return k.kill(ctx)
	}
	return k.relay.Thaw()
}

func (k *relayKeeper) metrics(ctx context.Context) (rig.Metrics, error) {
	k.mu.Lock()
	relay := k.relay
	k.mu.Unlock()
	return relay.Metrics(ctx)
}

// run asks the relay for its figures now and then, and starts another where
// one has ended that nobody ended: a problem.
func (k *relayKeeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		rig.Wait(ctx, 200*time.Millisecond)
		if !k.mu.TryLock() {
			continue
		}
		err := k.check(ctx)
		k.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			k.stage.problem("%v: %v", errNoRelay, err)
			return
		}
	}
}

func (k *relayKeeper) check(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	select {
	case <-k.relay.Done():
		k.stage.problem("%v", k.relay.Failure())
		return k.start(ctx)
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if m, err := k.relay.Metrics(ctx); err == nil { // a relay that is too busy is asked again
		k.resent = m.Sum("badgerelay_pushes_resent_total")
	}
	return nil
}
