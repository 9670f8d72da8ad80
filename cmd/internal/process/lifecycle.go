package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Lifecycle holds the steps that have been started, and undoes them in reverse. It
// belongs to one goroutine.
type Lifecycle struct {
	logger *slog.Logger
	steps  []step
	Failed chan error // one slot; the first part that ended by itself
}

// step is one started part.
type step struct {
	name  string
	drain func(context.Context) error // nil: nothing to drain
	end   func() error                // stops it and waits
}

// NewLifecycle returns a Lifecycle without steps.
func NewLifecycle(logger *slog.Logger) *Lifecycle {
	return &Lifecycle{logger: logger, Failed: make(chan error, 1)}
}

// Start runs a part until Stop. drain, if not nil, is called before the part's
// context ends, under the budget of the whole stop.
func (l *Lifecycle) Start(name string, run, drain func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { // ends when run does; Stop waits for it
		err := run(ctx)
		ended <- err
		if ctx.Err() == nil {
			select {
			case l.Failed <- fmt.Errorf("%s ended by itself: %w", name, cmp.Or(err, errEnded)):
			default: // another was first
			}
		}
	}()
	l.steps = append(l.steps, step{name, drain, func() error {
		cancel()
		return <-ended
	}})
}

var errEnded = errors.New("without an error")

// AtEnd has something closed when what was started after it has ended.
func (l *Lifecycle) AtEnd(name string, end func() error) {
	l.steps = append(l.steps, step{name: name, end: end})
}

// Stop ends every part, the last one first. A step that fails does not keep
// the next from its turn. Parts that drain share the budget.
func (l *Lifecycle) Stop(budget context.Context) error {
	var errs []error
	for _, s := range slices.Backward(l.steps) {
		began := time.Now()
		if s.drain != nil {
			if err := s.drain(budget); err != nil {
				l.logger.Warn("drain incomplete; agents send again what was not settled", "step", s.name, "error", err)
			}
		}
		if err := s.end(); err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
		l.logger.Info("stopped part", "step", s.name, "duration", time.Since(began))
	}
	l.steps = nil
	return errors.Join(errs...)
}

// Background runs do beside the caller, and returns what is closed when it has ended.
func Background(do func()) <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends with do; where that hangs, with the process
		defer close(done)
		do()
	}()
	return done
}
