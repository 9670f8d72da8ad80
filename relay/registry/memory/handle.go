package memory

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Config says how a handle reaches its database. The zero value reaches it well.
type Config struct {
	// Reach is called before each call of the database, named as in "lookup",
	// and between a transaction's last statement and its commit, as "commit". It
	// may take time; its error is what became of the call, and nothing was
	// changed. nil: the call arrives.
	Reach func(ctx context.Context, call string) error

	// Return is called when the database has done its part of a call, before the
	// caller knows. It may take time. nil: the answer arrives at once.
	Return func(call string)

	// Carry brings a notification to another handle by calling deliver, now or
	// later, or never. nil: now.
	Carry func(to *Handle, deliver func())

	// Poll is how often the change log is read without a notification. 0: a second.
	Poll time.Duration

	// Logger takes what an operator has to know. nil: nothing is logged.
	Logger *slog.Logger
}

// maxInbox bounds the notifications of streams that wait to be heard.
const maxInbox = 1000

// Handle is how one relay sees a Database. It implements registry.Registry and
// ingest.Peers. All methods are safe for concurrent use.
type Handle struct {
	database *Database
	reach    func(ctx context.Context, call string) error
	answer   func(call string)
	carry    func(to *Handle, deliver func())
	poll     time.Duration
	log      *slog.Logger

	wake  chan struct{}              // one slot: the change log has grown
	inbox chan registry.StreamChange // what other relays tell
	turn  chan struct{}              // one slot: held by who reads the change log and tells
	at    registry.Position          // in the change log; belongs to who holds turn

	mu        sync.Mutex // guards what follows
	closed    bool
	listeners []*listener
	hear      func(registry.StreamChange)
	sums      func()
}

type listener struct {
	fn    func([]registry.Change)
	ended bool // guarded by Handle.mu
}

var _ registry.Registry = (*Handle)(nil)

// Open returns a handle of the database.
func (d *Database) Open(c Config) *Handle {
	h := &Handle{
		database: d, reach: c.Reach, answer: c.Return, carry: c.Carry, poll: c.Poll, log: c.Logger,
		wake: make(chan struct{}, 1), inbox: make(chan registry.StreamChange, maxInbox), turn: make(chan struct{}, 1),
		at: d.log.position(),
	}
	if h.reach == nil {
		h.reach = func(context.Context, string) error { return nil }
	}
	if h.answer == nil {
		h.answer = func(string) {}
	}
	if h.carry == nil {
		h.carry = func(_ *Handle, deliver func()) { deliver() }
	}
	if h.poll == 0 {
		h.poll = time.Second
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	d.mu.Lock()
	d.handles = append(d.handles, h)
	d.mu.Unlock()
	return h
}

// TakesChanges implements registry.Registry.
func (h *Handle) TakesChanges() bool { return true }

// Close implements registry.Registry.
func (h *Handle) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	d := h.database
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, other := range d.handles {
		if other == h {
			d.handles = append(d.handles[:i:i], d.handles[i+1:]...)
			break
		}
	}
	return nil
}

// call brings a call to the database.
func (h *Handle) call(ctx context.Context, name string) error {
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return fmt.Errorf("%s: %w: closed", name, registry.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.reach(ctx, name)
}

// read runs fn on one state of the database.
func (h *Handle) read(ctx context.Context, name string, fn func(*Database) error) error {
	if err := h.call(ctx, name); err != nil {
		return err
	}
	h.database.mu.Lock()
	err := fn(h.database)
	h.database.mu.Unlock()
	h.answer(name)
	return err
}

// transaction is what a call changes.
type transaction struct {
	*Database
	at      time.Time
	changes []registry.Change
}

// write runs fn in a transaction that holds the rows of the organizations; an
// error of it changes nothing and comes back. Listeners have been told when it
// returns.
func (h *Handle) write(ctx context.Context, name string, fn func(*transaction) error, ids ...relay.OrganizationID) error {
	if err := h.call(ctx, name); err != nil {
		return err
	}
	d := h.database
	number := d.log.begin()
	unlock, ok := h.lock(ctx.Done(), ids...)
	if !ok {
		d.log.end(number, 0, nil)
		return ctx.Err()
	}
	id := d.log.draw()
	if err := h.reach(ctx, "commit"); err != nil {
		d.log.end(number, id, nil)
		unlock()
		return err
	}
	t := &transaction{Database: d, at: d.now()}
	d.mu.Lock()
	err := fn(t)
	if err != nil {
		t.changes = nil
	}
	d.log.end(number, id, t.changes)
	others := append([]*Handle(nil), d.handles...)
	d.mu.Unlock()
	unlock()
	h.answer(name)
	if err != nil || len(t.changes) == 0 {
		return err
	}
	h.tell(ctx, number, id, t.changes)
	for _, other := range others {
		if other != h {
			h.carry(other, other.notice)
		}
	}
	return nil
}

// notice wakes the reader of the change log.
func (h *Handle) notice() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// tell tells listeners of a commit and of what came before it. What can't be
// read up to it is told beforehand, and once more when it can.
func (h *Handle) tell(ctx context.Context, transaction, id int64, changes []registry.Change) {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	if h.at.Told(id, transaction) {
		return
	}
	if err := h.follow(ctx); err != nil {
		h.publish(changes)
	}
}

// follow tells listeners what is new in the change log. The caller holds turn.
func (h *Handle) follow(ctx context.Context) error {
	if err := h.call(ctx, "changes"); err != nil {
		return err
	}
	found, next := h.database.log.read(h.at)
	h.at = next
	for _, r := range found {
		h.publish(r.Changes)
	}
	return nil
}

// publish calls the listeners, in the order they came. The caller holds turn.
func (h *Handle) publish(changes []registry.Change) {
	h.mu.Lock()
	listeners := h.listeners[:len(h.listeners):len(h.listeners)]
	h.mu.Unlock()
	for _, l := range listeners {
		h.mu.Lock()
		ended := l.ended
		h.mu.Unlock()
		if !ended {
			l.fn(append([]registry.Change(nil), changes...))
		}
	}
}

// OnChange implements registry.Registry.
func (h *Handle) OnChange(fn func([]registry.Change)) (cancel func()) {
	l := &listener{fn: fn}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners = append(h.listeners, l)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		l.ended = true
	}
}

// StreamChanged implements ingest.Peers.
func (h *Handle) StreamChanged(s registry.StreamChange) {
	h.database.mu.Lock()
	handles := append([]*Handle(nil), h.database.handles...)
	h.database.mu.Unlock()
	for _, to := range handles {
		h.carry(to, func() {
			select {
			case to.inbox <- s:
			default: // it may be lost
			}
		})
	}
}

// OnStreamChanged implements ingest.Peers.
func (h *Handle) OnStreamChanged(fn func(registry.StreamChange)) (cancel func()) {
	h.setHear(fn)
	return func() { h.setHear(nil) }
}

func (h *Handle) setHear(fn func(registry.StreamChange)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hear = fn
}

// Run implements registry.Registry: it reads the change log when notified and
// at every poll, hears what other relays tell of streams, and purges.
func (h *Handle) Run(ctx context.Context) error {
	poll, purge := time.NewTicker(h.poll), time.NewTicker(purgeInterval)
	defer poll.Stop()
	defer purge.Stop()
	hearing := make(chan struct{})
	go func() { // ends with ctx; Run waits for it
		defer close(hearing)
		h.listen(ctx)
	}()
	defer func() { <-hearing }()
	for {
		select {
		case h.turn <- struct{}{}:
			if err := h.follow(ctx); err != nil && ctx.Err() == nil {
				h.log.Debug("changes can't be read", "error", err)
			}
			<-h.turn
		case <-ctx.Done():
			return nil
		}
		select {
		case <-h.wake:
		case <-poll.C:
		case <-purge.C:
			h.purge(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *Handle) listen(ctx context.Context) {
	for {
		select {
		case s := <-h.inbox:
			h.mu.Lock()
			fn := h.hear
			h.mu.Unlock()
			if fn != nil {
				fn(s)
			}
		case <-ctx.Done():
			return
		}
	}
}
