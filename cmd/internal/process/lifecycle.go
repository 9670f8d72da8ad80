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

// endTime is how long parts may take to end, all together, when the budget is over, and
// leastEndTime how long each may that has its turn after that. Ours: what has drained, or
// was cut, ends in milliseconds.
const (
	endTime      = 2 * time.Second
	leastEndTime = 100 * time.Millisecond
)

// errHangs is a part that has not ended in time: it waits for something that does not
// come back, such as a file on a file system that is away.
var errHangs = errors.New("has not ended in time")

// Stop ends every part, the last one first. A step that fails, or hangs, does not
// keep the next from its turn: what has not ended endTime after the budget, or in
// leastEndTime where its turn comes later, is left to end with the process. Parts that
// drain share the budget.
func (l *Lifecycle) Stop(budget context.Context) error {
	var errs []error
	stop := stopping{budget: budget}
	for _, s := range slices.Backward(l.steps) {
		began := time.Now()
		if s.drain != nil {
			if err := stop.inTime(func() error { return s.drain(budget) }); err != nil {
				l.logger.Warn("drain incomplete; agents send again what was not settled", "step", s.name, "error", err)
			}
		}
		err := stop.inTime(s.end)
		if err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
		if !errors.Is(err, errHangs) {
			l.logger.Info("stopped part", "step", s.name, "duration", time.Since(began))
		}
	}
	l.steps = nil
	return errors.Join(errs...)
}

// stopping is what the parts that end share.
type stopping struct {
	budget context.Context
	over   time.Time // when what has not ended is left; zero: the budget lasts
}

// inTime returns what do does, or errHangs when its time is over.
func (s *stopping) inTime(do func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- do() }() // ends with do; where that hangs, with the process
	select {
	case err := <-ended:
		return err
	case <-s.budget.Done():
	}
	if s.over.IsZero() {
		s.over = time.Now().Add(endTime)
	}
	late := time.NewTimer(max(time.Until(s.over), leastEndTime))
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		return errHangs
	}
}

// Every calls do at each interval until ctx is done.
func Every(ctx context.Context, interval time.Duration, do func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			do()
		case <-ctx.Done():
			return
		}
	}
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
