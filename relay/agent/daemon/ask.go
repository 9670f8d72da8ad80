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

// How long a mailbox that could not be asked waits, and how long asking waits
// when several could not: doubled from the first to the last, and jittered.
// Ours: short enough that nobody waits long for a server that restarts, long
// enough not to bother one in trouble.
const (
	askPauseMin = time.Second
	askPauseMax = time.Minute
	// unavailableInARow is how many mailboxes must become impossible to ask,
	// and none be counted, before the server seems to be in trouble.
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

// asker asks for the counts of mailboxes that need it.
type asker struct {
	mailboxes *mailboxes
	counters  []source.Counter
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
	count, err := a.countInTime(ctx, box)
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
	now := time.Now()
	first := a.mailboxes.asked(box, now, result)
	if result != askedUnreachable {
		a.mailboxes.reachable()
	} else if pause, began := a.mailboxes.unreachable(first, now); pause > 0 {
		a.log.Log(ctx, levelOnce(began), "mail server not asked for a while", "error", err, "again", pause)
		return
	}
	if err != nil {
		a.log.Log(ctx, levelOnce(first), "mailbox not counted; it is tried again", "mailbox", box.name, "error", err)
	}
}

// countInTime is count, and does not wait long for a mailbox that has not failed.
func (a *asker) countInTime(ctx context.Context, box *mailbox) (source.Count, error) {
	if !box.first {
		return a.count(ctx, box.name)
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
	count, err := a.count(first, box.name)
	if err != nil && context.Cause(first) == errOthersWait { //nolint:errorlint // it is set here
		err = errOthersWait
	}
	return count, err
}

// errOthersWait: the answer did not come in time.
var errOthersWait = fmt.Errorf("%w: no answer within %v, and others wait", source.ErrUnavailable, firstAnswer)

// count asks the first source that has the mailbox.
func (a *asker) count(ctx context.Context, mailbox string) (source.Count, error) {
	for _, counter := range a.counters {
		count, err := counter.Count(ctx, mailbox)
		if !errors.Is(err, source.ErrElsewhere) {
			return count, err
		}
	}
	return source.Count{}, errNowhere
}

// errNowhere: no source has the mailbox.
var errNowhere = fmt.Errorf("%w: no configured mail server has it", source.ErrMailbox)

// levelOnce makes a warning of the first of a row.
func levelOnce(first bool) slog.Level {
	if first {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// unreachable: a mailbox could not be asked. Where several could not in a row,
// asking pauses, for longer each time; began says that this is the first. One
// mailbox that fails on and on counts once: it says nothing about the server.
func (m *mailboxes) unreachable(first bool, now time.Time) (pause time.Duration, began bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if first {
		m.row++
	}
	if m.row < unavailableInARow {
		return 0, false
	}
	if now.Before(m.pause) {
		return m.pause.Sub(now), false // another worker found out as well
	}
	pause = backoff.Jittered(backoff.Doubled(m.failures, askPauseMin, askPauseMax))
	m.failures++
	m.pause = now.Add(pause)
	return pause, m.failures == 1
}

// reachable: the server has answered.
func (m *mailboxes) reachable() {
	m.mu.Lock()
	again := m.failures > 0
	m.failures, m.row, m.pause = 0, 0, time.Time{}
	m.mu.Unlock()
	if again {
		m.log.Info("mail server asked again")
		m.retry()
	}
}
