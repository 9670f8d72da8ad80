package ews

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/relay/agent/source"
)

// Source watches and counts mailboxes over Exchange Web Services. It is a
// source.Source, a source.Watcher and a source.Counter.
type Source struct {
	config    Config
	paths     [][]string
	log       *slog.Logger
	metrics   *metrics
	gate      *gate
	login     atomic.Pointer[login]
	wake      chan struct{}    // one slot: there may be work
	started   chan struct{}    // one slot: there may be a group to start
	publish   chan struct{}    // one slot: there may be a count to hand on
	abandoned chan struct{}    // one slot: there may be a subscription to end
	asking    chan *connection // for mailboxes that are not watched
	slots     *requestSlots
	streams   streamLimit

	discovery discovery

	sink atomic.Pointer[source.Sink] // Run's; nil: it does not run

	mu         sync.Mutex // guards what follows, and every box and group
	boxes      map[string]*box
	queues     [classes]boxes
	failingNow int        // workers at mailboxes that failed last time
	groups     []*group   // those that have a mailbox
	starts     []*group   // of them, those that nothing runs yet
	dirty      []*box     // with a count to hand on
	leftovers  []leftover // subscriptions to end
	busyRow    map[string]struct{}
}

// login is credentials with their number: connections of an older one end.
type login struct {
	credentials Credentials
	number      int
}

// New returns a Source that connects when it is first used. Its error names
// everything that is wrong with config.
func New(config Config) (*Source, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("ews source: %w", err)
	}
	s := &Source{
		config: config, paths: config.paths(), log: config.logger(), gate: newGate(), boxes: make(map[string]*box),
		wake: make(chan struct{}, 1), started: make(chan struct{}, 1), publish: make(chan struct{}, 1), abandoned: make(chan struct{}, 1),
		asking: make(chan *connection, 2), slots: newRequestSlots(config.requests()), busyRow: make(map[string]struct{}),
	}
	s.login.Store(&login{config.Credentials, 1})
	s.config.credentials = func() (Credentials, int) { l := s.login.Load(); return l.credentials, l.number }
	for range cap(s.asking) {
		s.asking <- newConnection(&s.config)
	}
	s.streams.turned = make(chan struct{})
	var err error
	if s.metrics, err = newMetrics(config.Registerer, s); err != nil {
		return nil, fmt.Errorf("register ews metrics: %w", err)
	}
	return s, nil
}

// SetCredentials replaces who the agent is, for requests that begin from now on.
// A server that refused the old ones is asked again at once.
func (s *Source) SetCredentials(c Credentials) {
	old := s.login.Load()
	s.login.Store(&login{c, old.number + 1})
	closeIf(old.credentials)
	s.gate.reopen()
}

// Name implements source.Source.
func (s *Source) Name() string { return "ews" }

// Watch implements source.Watcher.
func (s *Source) Watch(mailbox string) {
	if !isAddress(mailbox) {
		return
	}
	s.mu.Lock()
	if s.boxes[mailbox] == nil {
		b := &box{mailbox: mailbox, index: -1}
		s.boxes[mailbox] = b
		s.enqueue(b, initial, time.Now())
	}
	s.mu.Unlock()
	notify(s.wake)
}

// Unwatch implements source.Watcher.
func (s *Source) Unwatch(mailbox string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[mailbox]
	if b == nil {
		return
	}
	delete(s.boxes, mailbox)
	b.gone = true
	s.dequeue(b)
	s.leave(b)
	b.answer(answer{err: errGone})
}

// errGone: the mailbox is not watched any more.
var errGone = errors.New("mailbox is not watched any more")

// Run implements source.Source.
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	var running sync.WaitGroup
	defer func() {
		running.Wait() // no stream is open any more
		s.unsubscribeAll(context.WithoutCancel(ctx))
	}()
	s.sink.Store(&sink)
	for range s.slots.most() {
		running.Go(func() { s.work(ctx) }) // ends with ctx
	}
	running.Go(func() { s.handOn(ctx, sink) }) // ends with ctx
	running.Go(func() { s.endLeftovers(ctx) }) // ends with ctx
	for {
		for _, g := range s.toStart() {
			running.Go(func() { s.runGroup(ctx, g) }) // ends with ctx, or with the group's last mailbox
		}
		select {
		case <-s.started:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Source) toStart() []*group {
	s.mu.Lock()
	defer s.mu.Unlock()
	starts := s.starts
	s.starts = nil
	return starts
}

// handOn hands counts on, one after the other and the newest of each mailbox:
// EWS has no version that would order them later.
func (s *Source) handOn(ctx context.Context, sink source.Sink) {
	for {
		s.mu.Lock()
		var count *source.Count
		if len(s.dirty) > 0 {
			b := s.dirty[0]
			s.dirty = s.dirty[1:]
			b.dirty = false
			count = &source.Count{Mailbox: b.mailbox, Unread: b.total()}
		}
		s.mu.Unlock()
		if count != nil {
			sink.Counted(*count)
			continue
		}
		select {
		case <-s.publish:
		case <-ctx.Done():
			return
		}
	}
}

// counted notes that a mailbox's count is known anew. The caller holds mu.
func (s *Source) counted(b *box) {
	if b.gone || b.dirty {
		return
	}
	b.dirty = true
	s.dirty = append(s.dirty, b)
	notify(s.publish)
}

// answer is what those get who asked for a mailbox's count.
type answer struct {
	count source.Count
	err   error
}

// answer tells those who asked for the count. The caller holds mu.
func (b *box) answer(a answer) {
	for _, w := range b.waiters {
		w <- a // has room for it
	}
	b.waiters = nil
}

// Count implements source.Counter. A watched mailbox is counted by those who
// watch it, so that it is asked for once at a time. It waits neither for a server
// in trouble nor for a mailbox that is left alone for now.
func (s *Source) Count(ctx context.Context, mailbox string) (source.Count, error) {
	if err := s.mayAsk(mailbox, time.Now()); err != nil {
		return source.Count{}, err
	}
	s.mu.Lock()
	b := s.boxes[mailbox]
	if b == nil || s.sink.Load() == nil {
		s.mu.Unlock()
		return s.Peek(ctx, mailbox)
	}
	done := make(chan answer, 1)
	b.waiters = append(b.waiters, done)
	b.recount = true
	s.enqueue(b, news, time.Now())
	s.mu.Unlock()
	notify(s.wake)
	select {
	case a := <-done:
		return a.count, a.err
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		b.waiters = slices.DeleteFunc(b.waiters, func(w chan<- answer) bool { return w == done })
		select {
		case a := <-done: // it came meanwhile, and nobody else has it
			return a.count, a.err
		default:
			return source.Count{}, ctx.Err() // the source hands it on
		}
	}
}

// isAddress says whether a mailbox's name can be an SMTP address.
func isAddress(mailbox string) bool {
	local, domain, ok := strings.Cut(mailbox, "@")
	return ok && local != "" && domain != "" && !strings.ContainsFunc(mailbox, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// Status implements source.Source.
func (s *Source) Status() source.Status {
	var status source.Status
	switch t, detail := s.gate.state(); t {
	case troubleUnreachable:
		status.Trouble = "can't be reached: " + detail
	case troubleRefused:
		status.Trouble = "lets nobody in: " + detail
	case troubleBusy:
		status.Trouble = detail
	}
	streamed, polled, failed := s.numbers()
	if limit := s.streams.now(); limit > 0 && polled > 0 {
		status.Notes = append(status.Notes, fmt.Sprintf("streaming connections that Exchange allows: %d; mailboxes streamed: %d, counted every %v: %d", limit, streamed, s.config.interval(), polled))
	}
	if limit := s.streams.now(); limit == 0 && polled > 0 {
		status.Notes = append(status.Notes, fmt.Sprintf("mailboxes without a stream now, counted every %v: %d", s.config.interval(), polled))
	}
	if failed > 0 {
		status.Notes = append(status.Notes, fmt.Sprintf("mailboxes that Exchange refuses or fails: %d; the log names them", failed))
	}
	return status
}

// numbers returns how many mailboxes are streamed, counted now and then only,
// and failing.
func (s *Source) numbers() (streamed, polled, failed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.boxes {
		switch {
		case b.failures > 0:
			failed++
		case b.group != nil && b.group.streaming && b.group.tells(b):
			streamed++
		default:
			polled++
		}
	}
	return streamed, polled, failed
}
