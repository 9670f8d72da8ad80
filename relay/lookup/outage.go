package lookup

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Pauses while the registry fails: doubling, a half of each is chance.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Outage is a run of failures of one operation of the registry. One goroutine uses it.
type Outage struct {
	Operation string // as the log names it
	Logger    *slog.Logger
	Random    func(n int64) int64 // returns a number from 0 to n-1
	Count     *atomic.Uint64      // of failures, of every operation

	failures int
	pauses   *backoff.ExponentialBackOff // nil: it has not paused since End
}

// Note counts a failure, and logs the first of a run.
func (o *Outage) Note(err error) {
	o.Count.Add(1)
	if o.failures == 0 {
		o.Logger.Error("registry failed", "operation", o.Operation, "error", err)
	}
	o.failures++
}

// End notes a success.
func (o *Outage) End() {
	if o.failures > 0 {
		o.Logger.Info("registry is back", "operation", o.Operation, "failures", o.failures)
	}
	o.failures, o.pauses = 0, nil
}

// Pause waits, longer each time until End; ctx's error ends it.
func (o *Outage) Pause(ctx context.Context) error {
	if o.pauses == nil {
		o.pauses = &backoff.ExponentialBackOff{InitialInterval: firstPause, Multiplier: 2, MaxInterval: lastPause}
	}
	wait := o.pauses.NextBackOff()
	timer := time.NewTimer(wait/2 + time.Duration(o.Random(int64(wait/2))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Retry calls f until it succeeds, or returns ctx's error.
func (o *Outage) Retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			o.End()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.Note(err)
		if err := o.Pause(ctx); err != nil {
			return err
		}
	}
}
