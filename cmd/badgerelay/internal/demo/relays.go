package demo

import (
	"context"
	"sync"

	"badgerelay/cmd/badgerelay/internal/daemon"
)

// relays runs one relay after another at the same addresses.
type relays struct {
	mu      sync.Mutex // guards what follows
	serving daemon.Serving
	cancel  context.CancelFunc // nil: none runs
	ended   chan error
	resent  uint64 // by relays that have ended
}

// start returns when agents are served, or with why they are not.
func (r *relays) start(d *demo) error {
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan daemon.Serving, 1), make(chan error, 1)
	go func() { // ends when the daemon does; stop waits for it
		ended <- daemon.Run(ctx, daemon.Options{
			Config: d.config, Version: d.options.Version, Log: d.options.Log,
			Ready: func(s daemon.Serving) { ready <- s },
		})
	}()
	select {
	case err := <-ended:
		cancel()
		return err
	case serving := <-ready:
		r.mu.Lock()
		r.serving, r.cancel, r.ended = serving, cancel, ended
		r.mu.Unlock()
		return nil
	}
}

// stop drains the relay and waits for its end.
func (r *relays) stop() error {
	r.mu.Lock()
	cancel, ended, serving := r.cancel, r.ended, r.serving
	r.cancel = nil
	r.mu.Unlock()
	if cancel == nil {
		return nil
	}
	cancel()
	err := <-ended
	r.mu.Lock()
	r.resent += serving.Relay.Stats().Resent
	r.mu.Unlock()
	return err
}

// restart replaces the relay by another process's worth of it, at the same
// address.
func (r *relays) restart(d *demo) error {
	if err := r.stop(); err != nil {
		return err
	}
	d.config.Listen.Address, d.config.Ops.Address = r.serving.Agents, r.serving.Ops
	return r.start(d)
}

// allResent returns how many pushes all relays have sent again.
func (r *relays) allResent() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel == nil {
		return r.resent
	}
	return r.resent + r.serving.Relay.Stats().Resent
}

// now returns where the relay can be reached.
func (r *relays) now() daemon.Serving {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.serving
}
