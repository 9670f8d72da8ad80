package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"badgerelay/relay/agent"
)

// Drain stops the sources, and waits until the relay has settled what they
// found out, until no settlement can come, or until ctx is done. Run goes on until its
// own context ends. An error says what has not settled, and why.
func (d *Daemon) Drain(ctx context.Context) error {
	d.drain.Do(func() { close(d.draining) })
	select {
	case <-d.collected:
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go d.watchDrain(ctx, cancel) // ends with ctx
	err := d.agent.WaitSettled(ctx)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%d unsettled: %w", d.Unsettled(), context.Cause(ctx))
}

// Times of a drain, ours.
const (
	drainSilence  = time.Second     // settlements mostly come within; then it is said what is waited for
	drainInterval = time.Second / 4 // how late it is noticed that nothing can come
	reconnectTime = 2 * time.Second // a stream that ended is back by then, if there is another relay
)

// watchDrain says what a drain waits for, and ends it when that can't come.
func (d *Daemon) watchDrain(ctx context.Context, end context.CancelCauseFunc) {
	ticker := time.NewTicker(drainInterval)
	defer ticker.Stop()
	began, said := time.Now(), false
	for {
		status := d.agent.Status()
		if why := hopeless(&status); why != nil {
			end(why)
			return
		}
		if !said && time.Since(began) >= drainSilence {
			said = true
			what := "the relay, which settles a count when APNs has accepted it"
			if !status.Connected {
				what = "a stream to a relay"
			}
			d.log.Info("waiting for counts to settle", "unsettled", d.Unsettled(), "awaited", what, "address", status.Address)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

var errStandby = errors.New("another process with the agent's id is active, and this one sends nothing")

// hopeless says why no settlement comes in the time of a drain; nil: one may.
func hopeless(s *agent.Status) error {
	switch {
	case s.Standby:
		return errStandby
	case s.Connected || s.LastFailure == nil:
		return nil
	case s.LastFailure.Kind == agent.FailureRefused, time.Since(s.Since) >= reconnectTime:
		return fmt.Errorf("no stream to a relay: %s", s.LastFailure.Text())
	}
	return nil
}
