package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"badgerelay/relay/agent/internal/backoff"
	"badgerelay/relay/agent/source"
)

// How long a source is not asked that could not be asked for several mailboxes:
// doubled from the first to the last, and jittered. Ours: short enough that nobody
// waits long for a server that restarts, long enough not to bother one in trouble.
const (
	askPauseMin = time.Second
	askPauseMax = time.Minute
	// unavailableInARow is how many mailboxes must become impossible to ask a source
	// for, without an answer between them, before its server seems to be in trouble.
	unavailableInARow = 3
)

// A mailbox that does not answer holds up no other. Ours: servers answer within
// milliseconds.
const (
	// slowAfter is when a worker turns to the next mailbox, and the answer is waited
	// for beside it.
	slowAfter = 2 * time.Second
	// firstAnswer is how long the answer is waited for at first, where others wait
	// to be asked. A mailbox that has failed has the source's whole time, when those
	// that have not were asked.
	firstAnswer = 8 * time.Second
)

// counter is a source that can be asked. Its numbers belong to mailboxes.mu.
type counter struct {
	source.Counter
	name     string
	pause    time.Time // it is not asked before
	failures int       // pauses in a row
	row      int       // mailboxes that it could not be asked for any more since it answered
}

// asker asks for the counts of mailboxes that need it.
type asker struct {
	mailboxes *mailboxes
	sink      source.Sink
	workers   int
	log       *slog.Logger
	metrics   *metrics

	running sync.WaitGroup // workers and asks
}

// run asks until ctx is done.
func (a *asker) run(ctx context.Context) error {
	for range a.workers {
		a.running.Go(func() { a.work(ctx) }) // ends with ctx
	}
	a.running.Wait()
	return nil
}

func (a *asker) work(ctx context.Context) {
	for ctx.Err() == nil {
		box, wait := a.mailboxes.take(time.Now())
		if box != nil {
			done := make(chan struct{})
			a.running.Go(func() { // ends with ctx, or soon
				a.ask(ctx, box)
				close(done)
			})
			select {
			case <-done:
			case <-time.After(slowAfter):
			}
			continue
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-a.mailboxes.wake:
		case <-timer:
		case <-ctx.Done():
		}
	}
}

func (a *asker) ask(ctx context.Context, box *mailbox) {
	count, by, err := firstCount(a.mailboxes.counters, box.by, func(c *counter) (source.Count, error) { return a.count(ctx, c, box) })
	result := askedUnreachable
	switch {
	case err == nil:
		result = askedCounted
		a.sink.Counted(count)
	case errors.Is(err, source.ErrMailbox):
		result = askedRefused
	case errors.Is(err, source.ErrUnavailable):
		result = askedUnavailable
	case ctx.Err() != nil:
		return // the daemon ends
	}
	a.metrics.asked(result)
	name := a.mailboxes.asked(box, time.Now(), answer{result, by, errors.Is(err, errPaused)})
	if err != nil {
		a.log.Log(ctx, levelOnce(name), "mailbox not counted; it is tried again", "mailbox", box.name, "error", err)
	}
}

// firstCount asks one source after the other until one has the mailbox's count, and says
// which: one that is away, or refuses the mailbox, may not be the one whose it is. Where
// none has it, the error is the first that is not ErrElsewhere. While the one that counted
// it last, if any, is away no later one is asked: what is left of the mailbox there, after
// a move, may be old.
func firstCount(counters []*counter, last *counter, ask func(*counter) (source.Count, error)) (source.Count, *counter, error) {
	var failure error
	for _, c := range counters {
		count, err := ask(c)
		if err == nil {
			return count, c, nil
		}
		if failure == nil && !errors.Is(err, source.ErrElsewhere) {
			failure = err
		}
		if c == last && !errors.Is(err, source.ErrElsewhere) && !errors.Is(err, source.ErrMailbox) {
			break
		}
	}
	return source.Count{}, nil, or(failure, errNowhere)
}

// errNowhere: no source has the mailbox.
var errNowhere = fmt.Errorf("%w: no configured mail server has it", source.ErrMailbox)

// count asks one source, if it is not left alone, and notes how its server is.
func (a *asker) count(ctx context.Context, c *counter, box *mailbox) (source.Count, error) {
	if a.mailboxes.paused(c, time.Now()) {
		return source.Count{}, errPaused
	}
	count, err := a.countInTime(ctx, c, box)
	switch {
	case ctx.Err() != nil || errors.Is(err, source.ErrElsewhere) || errors.Is(err, errOthersWait): // that says nothing of the server
	case err == nil || errors.Is(err, source.ErrMailbox) || errors.Is(err, source.ErrUnavailable):
		a.mailboxes.reachable(c)
	default:
		if pause, began := a.mailboxes.unreachable(c, box.first, time.Now()); pause > 0 {
			a.log.Log(ctx, levelOnce(began), "mail server not asked for a while", "source", c.name, "error", err, "again", pause)
			err = fmt.Errorf("%w: %w", errPaused, err)
		}
	}
	return count, err
}

// errPaused: the source is left alone, as the log has told.
var errPaused = errors.New("mail server not asked for a while")

// countInTime asks a source, and does not wait long for a mailbox that has not failed.
func (a *asker) countInTime(ctx context.Context, c *counter, box *mailbox) (source.Count, error) {
	if !box.first {
		return c.Count(ctx, box.name)
	}
	first, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(firstAnswer, func() { // ends with first
		for first.Err() == nil {
			if a.mailboxes.othersWait() {
				cancel(errOthersWait)
			}
			select {
			case <-time.After(time.Second):
			case <-first.Done():
			}
		}
	})
	defer timer.Stop()
	count, err := c.Count(first, box.name)
	if err != nil && context.Cause(first) == errOthersWait { //nolint:errorlint // it is set here
		err = errOthersWait
	}
	return count, err
}

// errOthersWait: the answer did not come in time.
var errOthersWait = fmt.Errorf("%w: no answer within %v, and others wait", source.ErrUnavailable, firstAnswer)

// levelOnce makes a warning of the first of a row.
func levelOnce(first bool) slog.Level {
	if first {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// paused says whether a source is left alone.
func (m *mailboxes) paused(c *counter, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return now.Before(c.pause)
}

// allPaused returns for how long every source is left alone. The caller holds mu.
func (m *mailboxes) allPaused(now time.Time) (wait time.Duration) {
	for _, c := range m.counters {
		if !now.Before(c.pause) {
			return 0
		}
		wait = sooner(wait, c.pause.Sub(now))
	}
	return wait
}

// unreachable: a source could not be asked for a mailbox. Where it could not for
// several in a row, it is left alone, for longer each time; began says that this is
// the first. One mailbox that fails on and on counts once: it says nothing about the
// server.
func (m *mailboxes) unreachable(c *counter, first bool, now time.Time) (pause time.Duration, began bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if first {
		c.row++
	}
	if c.row < unavailableInARow {
		return 0, false
	}
	if now.Before(c.pause) {
		return c.pause.Sub(now), false // another worker found out as well
	}
	pause = backoff.Jittered(backoff.Doubled(c.failures, askPauseMin, askPauseMax))
	c.failures++
	c.pause = now.Add(pause)
	return pause, c.failures == 1
}

// reachable: the source's server has answered.
func (m *mailboxes) reachable(c *counter) {
	m.mu.Lock()
	again := c.failures > 0
	c.failures, c.row, c.pause = 0, 0, time.Time{}
	m.mu.Unlock()
	if again {
		m.log.Info("mail server asked again", "source", c.name)
		m.retryMailboxes()
	}
}
