package ews

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"badgerelay/relay/agent/internal/backoff"
)

// streamError: the server has refused or ended a stream, and says why.
type streamError struct {
	err  *Error
	lost []string // the subscriptions to blame
}

// Error names the server's code.
func (e *streamError) Error() string { return e.err.Error() }

// Unwrap returns the *Error.
func (e *streamError) Unwrap() error { return e.err }

var errSilent = fmt.Errorf("the stream was silent for %v", silence)

// stream opens the group's streaming connection and hears what it tells, until
// it ends. The error says why.
func (s *Source) stream(ctx context.Context, g *group) error {
	if err := s.gate.enter(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j, subscriptions, ok := s.opening(g, cancel)
	if !ok {
		s.gate.leave()
		return errEmpty
	}
	defer s.ended(g)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	l := newConnection(&s.config)
	defer l.close()
	impersonated := ""
	if s.config.access() == Impersonation {
		impersonated = j.anchor
	}
	answer, err := l.post(ctx, j.url, s.header(j.anchor, j.cookies), soap(impersonated, streamBody(subscriptions, maxStreamMinutes)))
	s.metrics.requested(opStream, err)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			s.gate.leave()
			return cause
		}
		return s.judgeStream(ctx, j.anchor, err)
	}
	defer answer.Body.Close() // what is left of it is of no use
	j.cookies.take(answer)
	if answer.StatusCode != http.StatusOK {
		_, err := read(answer)
		return s.judgeStream(ctx, j.anchor, err)
	}
	s.answered()
	err = s.hear(g, newFrames(answer.Body, maxEnvelope), watchdog)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// judgeStream tells the gate of a stream that could not be opened.
func (s *Source) judgeStream(ctx context.Context, anchor string, err error) error {
	if isCode(err, codeConnections) {
		s.answered()
		return err
	}
	s.judge(ctx, anchor, err)
	return err
}

// opening returns what to open the group's stream with.
func (s *Source) opening(g *group, cancel context.CancelCauseFunc) (job, []string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(g.bySubscription) == 0 {
		return job{}, nil, false
	}
	if anchor := s.boxes[g.anchor]; anchor == nil || anchor.notBefore.After(time.Now()) { // another one of its server
		for _, b := range g.bySubscription {
			if g.anchor = b.mailbox; !b.notBefore.After(time.Now()) {
				break
			}
		}
	}
	subscriptions := slices.Sorted(maps.Keys(g.bySubscription))
	g.open = make(map[string]struct{}, len(subscriptions))
	for _, id := range subscriptions {
		g.open[id] = struct{}{}
	}
	g.opened, g.cancel = time.Now(), cancel
	return job{group: g, url: g.url, anchor: g.anchor, cookies: g.cookies}, subscriptions, true
}

func (s *Source) ended(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.streaming, g.cancel, g.open = false, nil, nil
	s.leftovers = append(s.leftovers, g.abandoned...)
	g.abandoned = nil
	notify(s.abandoned)
	if g.joining != nil {
		g.joining.Stop()
		g.joining = nil
	}
}

// hear reads a stream until it ends.
func (s *Source) hear(g *group, f *frames, watchdog *time.Timer) error {
	for {
		text, err := f.next()
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		watchdog.Reset(silence)
		messages, err := parse(text)
		said, refused := errors.AsType[*Error](err)
		if refused {
			return &streamError{err: said}
		}
		if f.skipped() || err != nil { // what was no envelope may stand for one that is lost
			s.metrics.skipped.Inc()
			s.log.Warn("the stream holds what is not Exchange's; mailboxes are counted anew", "url", g.url)
			s.recountAll(g)
		}
		if err := s.told(g, messages); err != nil {
			return err
		}
	}
}

// told takes what one envelope of a stream says.
func (s *Source) told(g *group, messages []message) error {
	closed := false
	for _, m := range messages {
		if failure := m.failure(); failure != nil {
			return &streamError{err: failure, lost: m.Lost}
		}
		if len(m.Lost) > 0 {
			return &streamError{err: &Error{Code: "ErrorSubscriptionNotFound", Status: http.StatusOK}, lost: m.Lost}
		}
		s.confirm(g)
		for _, n := range m.Notifications {
			s.notified(g, n)
		}
		closed = closed || strings.EqualFold(m.Status, "Closed")
	}
	if closed {
		return errClosed
	}
	return nil
}

// confirm notes that the stream is open: what changed before is counted.
func (s *Source) confirm(g *group) {
	s.mu.Lock()
	first := !g.streaming
	g.streaming = true
	s.mu.Unlock()
	if first {
		s.recountAll(g)
	}
}

// notified takes what the stream says of one mailbox.
func (s *Source) notified(g *group, n notification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := g.bySubscription[n.Subscription]
	if b == nil {
		return // it has left, or was subscribed anew
	}
	counted, unsure := false, n.More == "true"
	for _, e := range n.Events {
		if !e.isEvent() || e.XMLName.Local == "StatusEvent" {
			continue
		}
		s.metrics.events.Inc()
		count, ok := unread(e.Unread)
		if _, known := b.unread[e.Folder.ID]; !ok || !known {
			unsure = true // an item, or a folder whose count it does not say
			continue
		}
		b.unread[e.Folder.ID] = count
		counted, unsure = true, n.More == "true"
	}
	if counted {
		b.overtaken = b.busy
		s.counted(b)
	}
	if unsure {
		b.recount = true
		s.enqueue(b, news, time.Now())
		notify(s.wake)
	}
}

// streamEnded does what the end of a stream asks for, and says how long to wait
// before it is opened anew. early is how many in a row have ended soon.
func (s *Source) streamEnded(ctx context.Context, g *group, err error, early int) (wait time.Duration) {
	var ended *streamError
	lost := []string(nil)
	if errors.As(err, &ended) {
		lost = ended.lost
	}
	said, _ := errors.AsType[*Error](err)
	reason := endOther
	switch {
	case errors.Is(err, errClosed):
		reason = endClosed
	case errors.Is(err, errJoin) || errors.Is(err, errEmpty):
		reason = endJoin
	case errors.Is(err, errSilent):
		reason = endSilent
	case said == nil:
		reason = endBroken
	case said.Code == codeConnections:
		reason, wait = endLimit, s.tooMany(ctx, g)
	case isBusy(err):
		reason, wait = endBusy, or(said.BackOff, busyUnsaid)
		s.spareAnchor(g, wait)
	case len(lost) > 0:
		reason = endLost
		s.resubscribe(g, lost, isCode(err, movedCodes...))
	case isCode(err, movedCodes...) || isCode(err, mailboxCodes...):
		reason = endMoved
		s.relocate(g)
	case isCode(err, subscriptionCodes...) || early%2 == 1: // whichever it is: only new subscriptions are sure to be heard
		reason = endLost
		if !isCode(err, subscriptionCodes...) { // the server may have the old ones
			s.abandonAll(g)
		}
		s.resubscribe(g, nil, false)
	}
	s.metrics.streamEnds[reason].Inc()
	s.log.Debug("stream ended", "url", g.url, "reason", reason.String(), "error", err, "again", wait)
	return wait
}

// tooMany: the server allows no more streaming connections.
func (s *Source) tooMany(ctx context.Context, g *group) time.Duration {
	if s.config.access() == Delegate { // the account is charged
		limit, first := s.streams.exceeded(time.Now())
		s.log.Log(ctx, level(first, slog.LevelWarn), "Exchange allows no more streaming connections; the other mailboxes are counted now and then",
			"connections", limit, "interval", s.config.interval())
		return joinDelay
	}
	s.mu.Lock() // the anchor is charged: another one may be free
	defer s.mu.Unlock()
	for _, b := range g.bySubscription {
		if b.mailbox != g.anchor {
			g.anchor = b.mailbox
			g.turns++
			break
		}
	}
	if g.turns%anchorTurns != 0 {
		return joinDelay
	}
	return backoff.Jittered(relearn)
}

// spareAnchor leaves the anchor alone for a while: it is charged for the stream.
func (s *Source) spareAnchor(g *group, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.boxes[g.anchor]; b != nil && s.config.access() == Impersonation {
		b.notBefore = time.Now().Add(d)
		if b.index >= 0 {
			s.dequeue(b)
			s.enqueue(b, b.class, time.Now())
		}
	}
}

// anchorTurns is how many anchors a group tries before it waits.
const anchorTurns = 3

// abandonAll has the group's subscriptions ended.
func (s *Source) abandonAll(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range g.bySubscription {
		s.abandon(b)
	}
}

// resubscribe has subscriptions made anew: those that are lost; nil: all of the
// group's. Where their mailboxes have moved, they are looked for.
func (s *Source) resubscribe(g *group, lost []string, moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lost == nil {
		lost = slices.Collect(maps.Keys(g.bySubscription))
		g.cookies = new(cookies) // they may lead to a server that does not answer any more
	}
	now := time.Now()
	for _, id := range lost {
		b := g.bySubscription[id]
		if b == nil {
			continue
		}
		delete(g.bySubscription, id)
		b.subscription, b.recount = "", true
		if moved {
			s.leave(b)
		}
		s.enqueue(b, news, now)
	}
	notify(s.wake)
}

// relocate has every mailbox of the group looked for anew.
func (s *Source) relocate(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for b := range g.members {
		s.leave(b)
		b.recount = true
		s.enqueue(b, news, now)
	}
	notify(s.wake)
}
