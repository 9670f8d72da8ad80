package imap

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

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

// Source watches and counts mailboxes over IMAP. It is a source.Source, a
// source.Watcher and a source.Counter; all methods are safe for concurrent use.
type Source struct {
	config  Config
	folders []string
	logins  atomic.Pointer[func(string) (Login, error)]
	sink    atomic.Pointer[source.Sink] // Run's; nil: it was not called yet
	log     *slog.Logger
	metrics *metrics
	gate    *gate
	asking  chan struct{} // a slot for each connection that counts for others
	wake    chan struct{} // one slot: there may be a turn to begin

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
		asking: make(chan struct{}, config.askers()), wake: make(chan struct{}, 1), boxes: make(map[string]*box),
	}
	s.logins.Store(&config.Login)
	var err error
	if s.metrics, err = newMetrics(config.Registerer, s); err != nil {
		return nil, fmt.Errorf("register imap metrics: %w", err)
	}
	return s, nil
}

// SetLogin replaces how to log in, for connections that are made from now on.
func (s *Source) SetLogin(login func(string) (Login, error)) { s.logins.Store(&login) }

func (s *Source) login() func(string) (Login, error) { return *s.logins.Load() }

// Name implements source.Source.
func (s *Source) Name() string { return "imap" }

// Watch implements source.Watcher.
func (s *Source) Watch(mailbox string) {
	if s.config.watch() == "off" {
		return
	}
	s.mu.Lock()
	if s.boxes[mailbox] == nil {
		b := &box{mailbox: mailbox, due: time.Now()}
		s.boxes[mailbox] = b
		heap.Push(&s.waiting, b)
	}
	s.mu.Unlock()
	notify(s.wake)
}

// Unwatch implements source.Watcher.
func (s *Source) Unwatch(mailbox string) {
	s.gate.forget(mailbox)
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
	if len(s.waiting) == 0 || s.turns >= s.config.watchers() {
		return nil, 0
	}
	if b = s.waiting[0]; b.due.After(now) {
		return nil, b.due.Sub(now)
	}
	heap.Pop(&s.waiting)
	s.turns++
	b.turn = newTurn(ctx, s, b, s.share())
	return b, 0
}

// share is how long a turn may last where others wait: so long that all have had
// one within the poll interval. The caller holds mu.
func (s *Source) share() time.Duration {
	interval := s.config.interval()
	if len(s.boxes) <= s.config.watchers() {
		return interval
	}
	return interval * time.Duration(s.config.watchers()) / time.Duration(len(s.boxes))
}

// crowded says whether a mailbox waits for a connection.
func (s *Source) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turns >= s.config.watchers() && len(s.waiting) > 0 && !s.waiting[0].due.After(time.Now())
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
		b.due = b.due.Add(jitter(min(failedMin<<min(b.failed, 10), failedMax)))
		b.failed++
	case err != nil:
		b.due = b.due.Add(jitter(lost))
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
// or else on one of its own.
func (s *Source) Count(ctx context.Context, mailbox string) (source.Count, error) {
	s.mu.Lock()
	var t *turn
	if b := s.boxes[mailbox]; b != nil {
		t = b.turn
	}
	s.mu.Unlock()
	if t != nil {
		if c, ok := t.ask(ctx); ok {
			return c, nil
		}
	}
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return source.Count{}, ctx.Err()
	}
	n, err := s.enter(ctx, mailbox)
	if err != nil {
		return source.Count{}, err
	}
	defer n.close()
	return n.count()
}

// enter opens a session when the server may be bothered, and notes what that
// says about the server.
func (s *Source) enter(ctx context.Context, mailbox string) (*session, error) {
	if err := s.gate.enter(ctx); err != nil {
		return nil, err
	}
	n, err := s.open(ctx, mailbox)
	switch {
	case err == nil:
		s.metrics.connected(connectDone)
		if s.gate.reached(mailbox) {
			s.log.Info("mail server lets us in again", "address", s.config.Address)
			s.forgive()
			s.recovered()
		}
	case ctx.Err() != nil:
		s.gate.leave()
	case errors.Is(err, errRefused):
		s.metrics.connected(connectRefused)
		if pause, first := s.gate.refuse(mailbox); first {
			s.log.Error("mail server refuses every login; check the credentials", "address", s.config.Address, "error", err, "again", pause)
		}
	case errors.Is(err, source.ErrMailbox), errors.Is(err, source.ErrElsewhere):
		s.gate.leave() // not even asked
	default:
		s.metrics.connected(connectFailed)
		if pause, first := s.unavailable(mailbox, err); first {
			s.log.Warn("mail server can't be reached", "address", s.config.Address, "error", err, "again", pause)
		}
	}
	return n, err
}

// unavailable notes a failure that is not a refusal: where the server has
// answered, it may be this mailbox's alone.
func (s *Source) unavailable(mailbox string, err error) (pause time.Duration, first bool) {
	if errors.Is(err, errLogin) {
		return s.gate.broken(mailbox)
	}
	return s.gate.unreachable()
}

// Status implements source.Source.
func (s *Source) Status() source.Status {
	switch s.gate.state() {
	case troubleUnreachable:
		return source.Status{Trouble: "can't be reached"}
	case troubleRefused:
		return source.Status{Trouble: "refuses every login"}
	}
	return source.Status{}
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
			b.failed, b.due = 0, time.Now().Add(jitter(failedMin))
		}
	}
	heap.Init(&s.waiting)
	notify(s.wake)
}

// jitter returns between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }

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
