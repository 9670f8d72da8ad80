package imap

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/relay/agent/internal/backoff"
	"badgerelay/relay/agent/source"
)

// How long a mailbox is left alone after it failed while others did not:
// doubled up to the last, and jittered.
const (
	failedMin = 10 * time.Second
	failedMax = 30 * time.Minute
	// lost is how long it is left alone where not the mailbox is to blame: its
	// connection was lost, or the server is in trouble, and then the gate waits.
	lost = time.Second
)

// goneAfter is how long a server may count a connection that has ended.
const goneAfter = 100 * time.Millisecond

// Source watches and counts mailboxes over IMAP. It is a source.Source, a
// source.Watcher and a source.Counter; all methods are safe for concurrent use.
type Source struct {
	config   Config
	folders  []string
	logins   atomic.Pointer[func(string) (Login, error)]
	sink     atomic.Pointer[source.Sink] // Run's; nil: it was not called yet
	log      *slog.Logger
	metrics  *metrics
	gate     *gate
	limit    *limit
	missing  missing
	fallback fallback
	asking   slots         // connections that count for others
	wake     chan struct{} // one slot: there may be a turn to begin

	mu      sync.Mutex // guards what follows
	boxes   map[string]*box
	waiting boxes // those that have no turn
	turns   int   // under way
}

// box is a mailbox to watch. Its fields belong to Source.mu, save what a turn
// says is its own.
type box struct {
	mailbox string
	due     time.Time // when its next turn may begin
	index   int       // in waiting; -1: not there
	failed  int       // turns in a row
	turn    *turn     // nil: it has none
	gone    bool      // Unwatch was called
}

// New returns a Source that connects when it is first used. Its error names
// everything that is wrong with config.
func New(config Config) (*Source, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("imap source: %w", err)
	}
	s := &Source{
		config: config, folders: config.folders(), log: config.logger(), gate: newGate(),
		limit: newLimit(config.connections()), wake: make(chan struct{}, 1), boxes: make(map[string]*box),
	}
	s.logins.Store(&config.Login)
	var err error
	if s.metrics, err = newMetrics(config.Registerer, s); err != nil {
		return nil, fmt.Errorf("register imap metrics: %w", err)
	}
	return s, nil
}

// SetLogin replaces how to log in, for connections that are made from now on.
// The server, and mailboxes that were refused, are tried again at once.
func (s *Source) SetLogin(login func(string) (Login, error)) {
	s.logins.Store(&login)
	s.gate.reopen()
	s.gate.pardon()
	s.forgive()
}

func (s *Source) login() func(string) (Login, error) { return *s.logins.Load() }

// Name implements source.Source.
func (s *Source) Name() string { return "imap" }

// Watch implements source.Watcher.
func (s *Source) Watch(mailbox string) {
	s.gate.watch(mailbox)
	if s.config.watch() == "off" {
		return
	}
	s.mu.Lock()
	if s.boxes[mailbox] == nil {
		// In no order, so that mailboxes that fail are not all the first.
		b := &box{mailbox: mailbox, due: time.Now().Add(-rand.N(time.Minute))}
		s.boxes[mailbox] = b
		heap.Push(&s.waiting, b)
	}
	s.mu.Unlock()
	notify(s.wake)
}

// Unwatch implements source.Watcher.
func (s *Source) Unwatch(mailbox string) {
	s.gate.forget(mailbox)
	s.missing.forget(mailbox)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[mailbox]
	if b == nil {
		return
	}
	delete(s.boxes, mailbox)
	b.gone = true
	if b.index >= 0 && b.turn == nil {
		heap.Remove(&s.waiting, b.index)
	}
	if b.turn != nil {
		b.turn.cancel()
	}
}

// Run implements source.Source.
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	var turns sync.WaitGroup
	defer turns.Wait()
	s.sink.Store(&sink)
	if s.config.watch() == "off" {
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		b, wait := s.next(ctx, time.Now())
		if b != nil {
			turns.Go(func() { s.finish(b, b.turn.run(sink)) }) // ends with ctx, or with its turn
			continue
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-s.wake:
		case <-timer:
		case <-ctx.Done():
		}
	}
	return nil
}

// next begins the turn of the mailbox that has waited longest. Where there is
// none, wait says when there will be; 0: when something happens.
func (s *Source) next(ctx context.Context, now time.Time) (b *box, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil, 0
	}
	if s.turns >= s.watchers() {
		raised := s.limit.raise(now)
		switch {
		case s.turns < s.watchers(): // now it may
		case raised.IsZero():
			return nil, 0
		default:
			return nil, max(raised.Sub(now), time.Millisecond)
		}
	}
	if b = s.waiting[0]; b.due.After(now) {
		return nil, b.due.Sub(now)
	}
	heap.Pop(&s.waiting)
	s.turns++
	b.turn = newTurn(ctx, s, b)
	return b, 0
}

// watchers is how many connections may watch.
func (s *Source) watchers() int {
	allowed := s.limit.now()
	return allowed - s.askers(allowed)
}

// askers is how many of the allowed connections are kept for counts that are
// asked for; fewer where the server allows less than is configured.
func (s *Source) askers(allowed int) int {
	n := s.config.askers(allowed)
	if s.config.watch() != "off" && allowed < s.config.connections() {
		return min(n, 2)
	}
	return n
}

// fewerAskers keeps one of them for other mailboxes.
func (s *Source) fewerAskers(allowed int) int { return max(s.askers(allowed)-1, 1) }

// share is how long a turn may last where others wait: so long that all have had
// one within the poll interval. The caller holds mu.
func (s *Source) share() time.Duration {
	interval := s.config.interval()
	watchers := s.watchers()
	if len(s.boxes) <= watchers {
		return interval
	}
	return interval * time.Duration(watchers) / time.Duration(len(s.boxes))
}

// over says whether a turn that has begun then is to end: others wait.
func (s *Source) over(began time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	watchers := s.watchers()
	return time.Since(began) >= s.share() && s.turns >= watchers && len(s.waiting) > 0 && !s.waiting[0].due.After(time.Now())
}

// finish takes the mailbox of a turn back.
func (s *Source) finish(b *box, err error) {
	s.mu.Lock()
	b.turn.cancel()
	polled, ownFault := b.turn.mode == modePoll, b.turn.ownFault
	b.turn = nil
	s.turns--
	b.due = time.Now()
	switch {
	case err != nil && ownFault:
		b.due = b.due.Add(backoff.Jittered(backoff.Doubled(b.failed, failedMin, failedMax)))
		b.failed++
		if again := s.gate.again(b.mailbox); b.due.Before(again) {
			b.due = again
		}
	case err != nil:
		b.due = b.due.Add(backoff.Jittered(lost))
		b.failed = 0
	default:
		b.failed = 0
		if polled {
			b.due = b.due.Add(s.config.interval())
		}
	}
	if !b.gone {
		heap.Push(&s.waiting, b)
	}
	s.mu.Unlock()
	notify(s.wake)
}

// Count implements source.Counter: on the connection that watches the mailbox,
// or else on one of its own. It waits neither for a server in trouble nor for a
// mailbox that is left alone for now.
func (s *Source) Count(ctx context.Context, mailbox string) (source.Count, error) {
	if c, ok, err := s.askTurn(ctx, mailbox); ok {
		return c, err
	}
	if err := s.mayAsk(mailbox); err != nil {
		return source.Count{}, err
	}
	askers := s.askers
	if s.gate.wasLate(mailbox) {
		askers = s.fewerAskers
	}
	if err := s.asking.take(ctx, s.limit, askers); err != nil {
		return source.Count{}, err
	}
	defer s.asking.give(s.limit)
	n, err := s.enter(ctx, mailbox)
	if err != nil {
		return source.Count{}, err
	}
	defer n.close()
	began := time.Now()
	c, err := n.count()
	s.noteMissing(c, err)
	s.noteTime(n, time.Since(began), err)
	return c, ofMailbox(err)
}

// mayAsk says why a mailbox is not to be asked for on a connection of its own; nil: it
// may be.
func (s *Source) mayAsk(mailbox string) error {
	now := time.Now()
	return cmp.Or(s.gate.may(mailbox, now), s.gate.closed(now))
}

// askTurn has a mailbox counted on the connection that watches it. It says false where
// there is none, or another connection may do better.
func (s *Source) askTurn(ctx context.Context, mailbox string) (c source.Count, ok bool, err error) {
	s.mu.Lock()
	var t *turn
	if b := s.boxes[mailbox]; b != nil {
		t = b.turn
	}
	s.mu.Unlock()
	if t == nil {
		return source.Count{}, false, nil
	}
	c, ok, err = t.ask(ctx)
	return c, ok, ofMailbox(err)
}

// ofMailbox marks an answer that did not come as the mailbox's own affair: it was
// let in.
func ofMailbox(err error) error {
	if errors.Is(err, errTimeout) && !errors.Is(err, source.ErrUnavailable) {
		return fmt.Errorf("%w: %w", source.ErrUnavailable, err)
	}
	return err
}

// awaited says whether mailboxes wait for a connection.
func (s *Source) awaited() bool {
	if s.asking.awaited() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) > 0 && s.turns >= s.watchers() && !s.waiting[0].due.After(time.Now())
}

// noteTime notes whether a mailbox that was let in answered in its time.
func (s *Source) noteTime(n *session, took time.Duration, err error) {
	switch {
	case errors.Is(err, errTimeout):
		s.gate.late(n.mailbox, n.timeout, s.config.timeout())
	case err == nil:
		s.gate.inTime(n.mailbox, took)
	}
}

// noteMissing tells of configured folders that a mailbox does not have.
func (s *Source) noteMissing(c source.Count, err error) {
	if err != nil {
		return
	}
	for _, folder := range s.missing.note(c) {
		s.log.Warn("a configured folder is missing; the others are counted", "folder", folder, "mailbox", c.Mailbox)
	}
	if !s.gate.watched(c.Mailbox) { // Unwatch was called meanwhile
		s.missing.forget(c.Mailbox)
	}
}

// noteFallback tells, once for each, of a way to watch that is not the one that
// is configured.
func (s *Source) noteFallback(m mode) {
	if text := lacks(s.config.watch(), m, s.config.interval()); s.fallback.note(text) {
		s.log.Warn("mail server can't watch mailboxes as configured", "address", s.config.Address, "watch", s.config.watch(), "reason", text)
	}
}

// enter opens a session when the server may be bothered, and notes what that
// says about the server.
func (s *Source) enter(ctx context.Context, mailbox string) (*session, error) {
	if err := s.gate.may(mailbox, time.Now()); err != nil {
		return nil, err
	}
	if err := s.gate.enter(ctx); err != nil {
		return nil, err
	}
	s.limit.begin()
	n, err := s.open(ctx, mailbox)
	if err == nil {
		n.ended = sync.OnceFunc(func() {
			if s.limit.limited() {
				time.Sleep(goneAfter)
			}
			s.limit.ended()
		})
		s.admitted(mailbox)
		return n, nil
	}
	defer s.limit.failed()
	switch {
	case ctx.Err() != nil:
		s.gate.leave()
	case isLimit(err, s.limit.others()):
		s.gate.leave()
		s.metrics.connected(connectLimited)
		if allowed, news := s.limit.refused(time.Now()); news {
			s.log.Warn("mail server allows fewer connections than configured; mailboxes take turns",
				"address", s.config.Address, "allowed", allowed, "configured", s.config.connections(), "error", err)
		}
		err = fmt.Errorf("%w: %w", errLimit, err)
	case errors.Is(err, errRefused):
		s.metrics.connected(connectRefused)
		if pause, first := s.gate.refuse(mailbox, err); first {
			s.log.Error("mail server refuses every login; check the credentials", "address", s.config.Address, "error", err, "again", pause)
		}
	case errors.Is(err, source.ErrMailbox), errors.Is(err, source.ErrElsewhere):
		s.gate.leave() // not even asked
	case errors.Is(err, errTimeout) && !errors.Is(err, errGreeting) && s.gate.late(mailbox, s.gate.timeout(mailbox, s.config.timeout()), s.config.timeout()):
		s.gate.leave()
		s.metrics.connected(connectFailed)
		err = fmt.Errorf("%w: %w", source.ErrUnavailable, err)
	case errors.Is(err, errLogin) && !errors.Is(err, errGreeting):
		s.metrics.connected(connectFailed)
		if pause, first := s.gate.broken(mailbox); first {
			s.log.Warn("mail server lets nobody in", "address", s.config.Address, "error", err, "again", pause)
		}
		err = fmt.Errorf("%w: %w", source.ErrUnavailable, err) // this mailbox's, as far as it goes
	default:
		s.metrics.connected(connectFailed)
		if pause, first := s.gate.unreachable(); first {
			s.log.Warn("mail server can't be reached", "address", s.config.Address, "error", err, "again", pause)
		}
	}
	return nil, err
}

// admitted notes that a login was accepted.
func (s *Source) admitted(mailbox string) {
	s.limit.accepted()
	s.metrics.connected(connectDone)
	if s.gate.reached(mailbox) {
		s.log.Info("mail server lets us in again", "address", s.config.Address)
		s.gate.pardon()
		s.forgive()
		s.recovered()
	}
}

// Status implements source.Source.
func (s *Source) Status() source.Status {
	status := source.Status{Trouble: s.gate.state().String()}
	allowed := s.limit.told()
	if configured := s.config.connections(); allowed < configured {
		status.Notes = append(status.Notes, fmt.Sprintf("connections: the mail server allows %d, configured are %d", allowed, configured))
	}
	s.mu.Lock()
	boxes := len(s.boxes)
	s.mu.Unlock()
	if watchers := s.watchers(); boxes > watchers {
		status.Notes = append(status.Notes, fmt.Sprintf("%d mailboxes take turns on the connections (%d); a change is seen within %v", boxes, watchers, s.config.interval()))
	}
	if n := s.gate.refusedAccounts(); n > 0 {
		status.Notes = append(status.Notes, fmt.Sprintf("mailboxes whose login is refused: %d", n))
	}
	status.Notes = append(status.Notes, s.missing.notes()...)
	if note := s.fallback.now(); note != "" {
		status.Notes = append(status.Notes, note)
	}
	return status
}

// recovered tells the daemon, once there is one, that the server is well again.
func (s *Source) recovered() {
	if sink := s.sink.Load(); sink != nil {
		(*sink).Recovered()
	}
}

// forgive has those that failed tried soon: it was the server's fault.
func (s *Source) forgive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.waiting {
		if b.failed > 0 {
			b.failed, b.due = 0, time.Now().Add(backoff.Jittered(failedMin))
		}
	}
	heap.Init(&s.waiting)
	notify(s.wake)
}

// boxes is a heap: the one that is due first comes first.
type boxes []*box

func (b boxes) Len() int           { return len(b) }
func (b boxes) Less(i, j int) bool { return b[i].due.Before(b[j].due) }
func (b boxes) Swap(i, j int)      { b[i], b[j] = b[j], b[i]; b[i].index, b[j].index = i, j }

// Push implements heap.Interface.
func (b *boxes) Push(x any) {
	box := x.(*box)
	box.index = len(*b)
	*b = append(*b, box)
}

// Pop implements heap.Interface.
func (b *boxes) Pop() any {
	last := len(*b) - 1
	box := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	box.index = -1
	return box
}
