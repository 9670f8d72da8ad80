package agentd

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"badgerelay/cmd/badgeagent/internal/source"
)

// How long asking rests after the mail server could not be asked: doubled from
// the first to the last, and jittered. Ours: short enough that nobody waits
// long for a server that restarts, long enough not to bother one in trouble.
const (
	askPauseMin = time.Second
	askPauseMax = time.Minute
)

// asker asks for the counts of mailboxes that need it.
type asker struct {
	mailboxes *mailboxes
	counter   source.Counter
	sink      source.Sink
	workers   int
	log       *slog.Logger
	metrics   *metrics
}

// run asks until ctx is done.
func (a *asker) run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range a.workers {
		workers.Go(func() { a.work(ctx) }) // ends with ctx
	}
	workers.Wait()
	return nil
}

func (a *asker) work(ctx context.Context) {
	for ctx.Err() == nil {
		box, wait := a.mailboxes.take(time.Now())
		if box != nil {
			a.ask(ctx, box)
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
	count, err := a.counter.Count(ctx, box.name)
	switch {
	case err == nil:
		a.metrics.asked(askedCounted)
		a.mailboxes.reachable()
		a.sink.Counted(count)
		a.mailboxes.asked(box, false)
	case errors.Is(err, source.ErrMailbox):
		// Its next change, or the next resync, asks again.
		a.metrics.asked(askedRefused)
		a.mailboxes.reachable()
		a.log.Warn("mailbox not counted", "mailbox", box.name, "error", err)
		a.mailboxes.asked(box, false)
	case ctx.Err() != nil:
		a.mailboxes.asked(box, false)
	default:
		a.metrics.asked(askedUnavailable)
		pause, first := a.mailboxes.unreachable(time.Now())
		a.log.Log(ctx, levelOnce(first), "mail server not asked", "error", err, "again", pause)
		a.mailboxes.asked(box, true)
	}
}

// levelOnce makes a warning of the first of a row.
func levelOnce(first bool) slog.Level {
	if first {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// unreachable pauses asking, for longer each time.
func (m *mailboxes) unreachable(now time.Time) (pause time.Duration, first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Before(m.pause) {
		return m.pause.Sub(now), false // another worker found out as well
	}
	d := min(askPauseMin<<min(m.failures, 10), askPauseMax)
	m.failures++
	pause = d/2 + rand.N(d/2)
	m.pause = now.Add(pause)
	return pause, m.failures == 1
}

func (m *mailboxes) reachable() {
	m.mu.Lock()
	again := m.failures > 0
	m.failures, m.pause = 0, time.Time{}
	m.mu.Unlock()
	if again {
		m.log.Info("mail server asked again")
		notify(m.wake)
	}
}
