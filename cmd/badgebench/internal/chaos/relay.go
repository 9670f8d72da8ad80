package chaos

import (
	"context"
	"sync"
	"time"

	"badgerelay/cmd/badgebench/internal/rig"
)

// startPatience bounds the time in which a relay has to come up, with a
// registry that may be locked and starts that may fail.
const startPatience = time.Minute

// relayKeeper keeps a relay running, whatever happens to it.
type relayKeeper struct {
	stage *stage

	mu           sync.Mutex // guards what follows; held while one relay replaces another
	relay        *rig.Relay
	resent       float64 // by this relay, when it was asked last
	resentBefore float64 // by those before
	failedStarts int
}

// start starts a relay; one that does not come up is started again, as a
// service manager does. mu must be held, or nobody else be there yet.
func (k *relayKeeper) start(ctx context.Context) error {
	k.resentBefore, k.resent = k.resentBefore+k.resent, 0
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		if err := k.stage.apple.NewClient(ctx); err != nil {
			return err
		}
		relay, err := k.stage.world.StartRelay(ctx)
		if err == nil {
			k.relay = relay
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		k.failedStarts++
		k.stage.config.Say("a relay did not start: %v", err)
		pause(ctx, 100*time.Millisecond)
	}
}

func (k *relayKeeper) kill(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.relay.Kill()
	return k.start(ctx)
}

func (k *relayKeeper) killTwice(ctx context.Context, after time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.relay.Kill()
	if err := k.stage.apple.NewClient(ctx); err != nil {
		return err
	}
	relay, err := k.stage.world.LaunchRelay()
	if err != nil {
		return err
	}
	pause(ctx, after)
	relay.Kill()
	return k.start(ctx)
}

// stop has the relay drain, and starts another. A relay that does not end in
// good order is a problem.
func (k *relayKeeper) stop(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	stopped := k.relay.Stop(ctx)
	if err := k.start(ctx); err != nil {
		return err
	}
	return stopped
}

func (k *relayKeeper) reload() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stage.world.Reload(k.relay)
}

func (k *relayKeeper) pause(ctx context.Context, d time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.relay.Freeze(); err != nil {
		return err
	}
	pause(ctx, d)
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
		pause(ctx, 200*time.Millisecond)
		if err := k.check(ctx); err != nil && ctx.Err() == nil {
			k.stage.problem("%v: %v", errNoRelay, err)
			return
		}
	}
}

func (k *relayKeeper) check(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
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
