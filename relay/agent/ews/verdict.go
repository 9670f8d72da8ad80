package ews

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"badgerelay/relay/agent/internal/backoff"
	"badgerelay/relay/agent/source"
)

// verdict is what a mailbox's failure says, and so what is to be done.
type verdict uint8

const (
	done             verdict = iota // it did not fail
	ending                          // the source ends
	serverTrouble                   // the server's: the gate is closed, and it is tried when that opens
	mailboxBusy                     // the server asks to leave the mailbox alone
	mailboxRefused                  // it is not there, or not for us
	mailboxElsewhere                // on another server
	mailboxFull                     // it can't have a subscription more: it is counted now and then
	mailboxBroken                   // anything else
)

// judge says what err is, and tells the gate. Each time that the gate let a
// request in, it is called once.
func (s *Source) judge(ctx context.Context, mailbox string, err error) verdict {
	var refused *UnauthorizedError
	var said *Error
	switch {
	case err == nil:
		s.answered()
		return done
	case ctx.Err() != nil:
		s.gate.leave()
		return ending
	case errors.As(err, &refused):
		pause, first := s.gate.refused(err)
		s.log.Log(ctx, level(first, slog.LevelError), "Exchange lets nobody in; check the credentials", "error", err, "again", pause)
		return serverTrouble
	case errors.Is(err, source.ErrMailbox):
		s.answered()
		return verdictOn(err)
	case !errors.As(err, &said):
		if pause, first := s.gate.failed(mailbox, err); pause > 0 {
			s.log.Log(ctx, level(first, slog.LevelWarn), "Exchange can't be reached", "error", err, "again", pause)
			return serverTrouble
		}
		return mailboxBroken
	case isBusy(err) && !isCode(err, codeConnections, codeSubscriptions):
		return s.busy(ctx, mailbox, said)
	}
	s.answered()
	return verdictOn(err)
}

// verdictOn is what an answer says of its mailbox.
func verdictOn(err error) verdict {
	switch {
	case errors.Is(err, source.ErrMailbox), isCode(err, mailboxCodes...):
		return mailboxRefused
	case isCode(err, movedCodes...):
		return mailboxElsewhere
	case isCode(err, codeSubscriptions):
		return mailboxFull
	}
	return mailboxBroken
}

// busy: the server asks to be left alone. With impersonation the mailbox is
// charged, and others are asked on; unless several of them are told so, or the
// server as a whole says it.
func (s *Source) busy(ctx context.Context, mailbox string, e *Error) verdict {
	s.metrics.backOffs.Inc()
	s.mu.Lock()
	s.busyRow[mailbox] = struct{}{}
	several := len(s.busyRow) >= inARow
	s.mu.Unlock()
	if s.config.access() == Impersonation && e.Code != "" && !several {
		s.gate.leave()
		return mailboxBusy
	}
	pause, first := s.gate.busy(e.BackOff)
	s.log.Log(ctx, level(first, slog.LevelWarn), "Exchange is busy and asks to be left alone", "error", e, "again", pause)
	return serverTrouble
}

// answered notes that the server answers.
func (s *Source) answered() {
	again := s.gate.answered()
	s.mu.Lock()
	clear(s.busyRow)
	if again {
		now := time.Now()
		for _, b := range s.boxes { // what they failed of may be mended
			if b.failures > 0 && b.mine && !b.busy {
				b.failures, b.notBefore = 0, time.Time{}
				s.enqueue(b, initial, now)
			}
		}
	}
	s.mu.Unlock()
	if !again {
		return
	}
	notify(s.wake)
	s.log.Info("Exchange answers again")
	if sink := s.sink.Load(); sink != nil {
		(*sink).Recovered()
	}
}

// level is that of what is told once, and counted then.
func level(first bool, once slog.Level) slog.Level {
	if first {
		return once
	}
	return slog.LevelDebug
}

// finish takes a mailbox back from a worker.
func (s *Source) finish(b *box, v verdict, err error) {
	s.mu.Lock()
	b.busy = false
	if b.class == failing {
		s.failingNow--
	}
	first := s.settle(b, v, err, time.Now())
	s.mu.Unlock()
	notify(s.wake)
	if first {
		s.log.Warn("mailbox not counted; it is tried again", "mailbox", b.mailbox, "error", err)
	}
}

// settle says when b is worked on next. It returns whether its failure is the
// first in a row, and worth telling. The caller holds mu.
func (s *Source) settle(b *box, v verdict, err error, now time.Time) (first bool) {
	if b.gone || v == ending {
		b.answer(answer{err: errGone})
		return false
	}
	failed := b.failures
	switch v {
	case done:
		b.failures, b.notBefore, b.failure = 0, time.Time{}, nil
	case serverTrouble:
		b.recount = b.recount || b.again // it is asked as it would have been
		s.enqueue(b, b.class, now)
		b.answer(answer{err: err})
		return false
	case mailboxBusy:
		e, _ := errors.AsType[*Error](err)
		b.notBefore = now.Add(or(e.BackOff, busyUnsaid))
	case mailboxRefused:
		b.fail(now, refusedMin, refusedMax, false)
	case mailboxElsewhere:
		s.leave(b)
		if b.generation++; b.generation%maxGenerations == 0 || s.config.Autodiscover != "" && b.generation > 1 {
			b.fail(now, brokenMin, brokenMax, false)
		} // until then it is looked for at once
	case mailboxFull:
		b.unstreamed = true // and counted instead
		b.recount = true
		s.log.Warn("Exchange allows the mailbox no more subscriptions; it is counted now and then", "mailbox", b.mailbox, "error", err)
	case mailboxBroken:
		b.fail(now, brokenMin, brokenMax, true)
		if b.failures > 1 { // where it is may be what is wrong
			s.leave(b)
		}
	}
	if v != done && v != mailboxFull {
		b.failure = wrap(v, err)
		b.answer(answer{err: b.failure})
	}
	if s.hasWork(b) {
		c := initial
		if b.again || len(b.waiters) > 0 {
			c = news
		}
		b.again = false
		s.enqueue(b, c, now)
	}
	if b.unstreamed && !b.recount { // the next look
		b.recount, b.unstreamed = true, false
		s.enqueue(b, initial, now.Add(s.config.interval()))
	}
	return b.failures > 0 && failed == 0
}

// wrap says by the source's errors what a failure says of other mailboxes.
func wrap(v verdict, err error) error {
	switch {
	case isCode(err, absentCodes...):
		return fmt.Errorf("%w: %w", source.ErrElsewhere, err)
	case v == mailboxRefused && !errors.Is(err, source.ErrMailbox):
		return fmt.Errorf("%w: %w", source.ErrMailbox, err)
	case v == mailboxBusy || v == mailboxElsewhere || v == mailboxFull || v == mailboxBroken:
		return fmt.Errorf("%w: %w", source.ErrUnavailable, err)
	}
	return err
}

// fail notes a failure. The caller holds Source.mu.
func (b *box) fail(now time.Time, least, most time.Duration, mine bool) {
	b.notBefore = now.Add(backoff.Jittered(backoff.Doubled(b.failures, least, most)))
	b.failures++
	b.mine = mine
}

// hasWork says whether there is something to do for b. The caller holds mu.
func (s *Source) hasWork(b *box) bool {
	return b.group == nil || b.subscription == "" && !b.unstreamed || b.recount || b.again
}
