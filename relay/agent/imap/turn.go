package imap

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"badgerelay/relay/agent/source"
)

// turn is a mailbox's time on a connection. Its fields belong to the goroutine
// of run, save the channels.
type turn struct {
	source  *Source
	mailbox string
	began   time.Time
	again   bool            // the one before has failed
	ctx     context.Context // ends with the source, or when the mailbox is not watched any more
	cancel  context.CancelFunc

	asks  chan chan source.Count // counts that others ask for
	ended chan struct{}          // closed by run
	err   error                  // why it ended, if the mailbox is to blame; with ended
	sink  source.Sink

	mode     mode
	session  *session
	answered bool // it was counted
	ownFault bool // what failed was the mailbox, not the server or a connection that had held
}

func newTurn(ctx context.Context, s *Source, b *box) *turn {
	t := &turn{source: s, mailbox: b.mailbox, began: time.Now(), again: b.failed > 0, asks: make(chan chan source.Count), ended: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

// run counts the mailbox, and watches it until the turn is over. An error is
// what the mailbox, or its connection, failed with.
func (t *turn) run(sink source.Sink) error {
	defer close(t.ended)
	t.sink = sink
	err := t.watch()
	if err = ofMailbox(err); t.ownFault && (errors.Is(err, source.ErrMailbox) || errors.Is(err, source.ErrUnavailable)) {
		t.err = err
	}
	return err
}

func (t *turn) watch() error {
	n, err := t.source.enter(t.ctx, t.mailbox)
	if err != nil {
		t.ownFault = !errors.Is(err, errLimit) && t.source.gate.state() == troubleNone &&
			(errors.Is(err, source.ErrMailbox) || errors.Is(err, source.ErrElsewhere) || errors.Is(err, source.ErrUnavailable))
		return t.fail(err)
	}
	t.session = n
	began := time.Now()
	defer func() { t.ownFault = time.Since(began) < failedMin || !t.answered }()
	defer n.close()
	if t.mode, err = n.watchBy(t.source.config.watch()); err != nil {
		return t.fail(err)
	}
	t.source.noteFallback(t.mode)
	t.source.metrics.watched(t.mode, 1)
	defer t.source.metrics.watched(t.mode, -1)
	switch t.mode {
	case modeNotify:
		err = t.notified(n)
	case modeIdle:
		err = t.idled(n)
	default:
		err = t.counted(n.count())
	}
	return t.fail(err)
}

// fail logs what is worth a line, and makes nothing of an orderly end.
func (t *turn) fail(err error) error {
	if t.ctx.Err() != nil {
		err = nil // that ended it
	}
	if err != nil && !errors.Is(err, errLimit) && t.source.gate.state() == troubleNone {
		t.source.metrics.failed.Inc()
		level := slog.LevelWarn
		if t.again {
			level = slog.LevelDebug
		}
		t.source.log.Log(t.ctx, level, "mailbox not watched; it is tried again", "mailbox", t.mailbox, "error", err)
	}
	return err
}

func (t *turn) counted(c source.Count, err error) error {
	t.source.noteMissing(c, err)
	if !t.answered {
		t.source.noteTime(t.session, time.Since(c.Asked), err)
	}
	if err == nil {
		t.answered, t.session.timeout = true, t.session.most
		t.sink.Counted(c)
	}
	return err
}

// sharesInterval is how often in a poll interval a turn looks whether it is over:
// how long it may be changes with what waits, and with what the server allows.
const sharesInterval = 40

// notified counts whenever the server pushes a change.
func (t *turn) notified(n *session) error {
	if err := t.counted(n.countPushed()); err != nil {
		return err
	}
	over := time.NewTicker(t.source.config.interval() / sharesInterval)
	defer over.Stop()
	live := time.NewTicker(min(t.source.config.interval(), liveInterval))
	defer live.Stop()
	for {
		var reply chan source.Count
		select {
		case <-n.wire.wake:
			if !n.pushed() {
				continue // the answers to our own questions
			}
		case reply = <-t.asks:
		case <-live.C:
		case <-over.C:
			if t.source.over(t.began) {
				return nil
			}
			continue
		case <-n.client.Closed():
			return errClosed
		case <-t.ctx.Done():
			return nil
		}
		c, err := n.countPushed()
		if err := t.counted(c, err); err != nil {
			return err
		}
		answer(reply, c)
	}
}

var errClosed = errors.New("the server closed the connection")

// idled counts whenever the selected folder changes.
func (t *turn) idled(n *session) error {
	over := time.NewTicker(t.source.config.interval() / sharesInterval)
	defer over.Stop()
	var reply chan source.Count
	for {
		c, err := n.countSelected()
		if err := t.counted(c, err); err != nil {
			return err
		}
		answer(reply, c)
		reply = nil
		done := false
		err = n.idle(func(changed, closed <-chan struct{}) {
			live := time.NewTimer(min(t.source.config.interval(), liveInterval))
			defer live.Stop()
			for {
				select {
				case <-changed:
				case reply = <-t.asks:
				case <-live.C:
				case <-over.C:
					if !t.source.over(t.began) {
						continue
					}
					done = true
				case <-closed:
				case <-t.ctx.Done():
					done = true
				}
				return
			}
		})
		if err != nil || done {
			return err
		}
	}
}

func answer(reply chan<- source.Count, c source.Count) {
	if reply != nil {
		reply <- c // it has a slot
	}
}

// ask has the mailbox counted now. It says false where another connection may do
// better: the turn ended before, and not because of the mailbox.
func (t *turn) ask(ctx context.Context) (source.Count, bool, error) {
	reply := make(chan source.Count, 1)
	select {
	case t.asks <- reply:
	case <-t.ended:
		return source.Count{}, t.err != nil, t.err
	case <-ctx.Done():
		return source.Count{}, true, ctx.Err()
	}
	select {
	case c := <-reply:
		return c, true, nil
	case <-t.ended:
		return source.Count{}, t.err != nil, t.err
	case <-ctx.Done():
		return source.Count{}, true, ctx.Err()
	}
}
