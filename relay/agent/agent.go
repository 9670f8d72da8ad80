package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// ErrRunning: Run was called twice.
var ErrRunning = errors.New("agent runs already")

// Agent sends the newest unread count of each mailbox to a relay until it has
// settled. All its methods are safe for concurrent use.
type Agent struct {
	cfg          Config
	log          *slog.Logger
	metrics      *metrics
	tokens       *tokens
	set          *unsettled
	flush        chan struct{} // one slot: do not wait for more to go with what is ready
	tokenChanged chan struct{} // one slot: hand in a fresh token now
	running      atomic.Bool

	instance string // of this process
	opened   uint64 // streams, also those that came to nothing; belongs to Run

	mu      sync.Mutex // guards what follows
	status  Status
	stoodBy bool // and was not told of a takeover since
}

// Status says how an Agent is.
type Status struct {
	Connected   bool
	Address     string    // of the relay it speaks to, or tried last
	Instance    string    // the relay process's name for itself
	Relay       string    // the relay's version
	Since       time.Time // of Connected, as it is
	Standby     bool      // another process with the agent's id is active, and this one waits
	LastFailure *Failure  // nil: none since the last stream was opened
}

// New returns an Agent that Run starts. An error names everything that is
// wrong with cfg, or which metrics are registered already.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("agent configuration: %w", err)
	}
	a := &Agent{
		cfg:          cfg,
		log:          cfg.logger().With("component", "agent"),
		tokens:       newTokens(cfg.Token, cfg.Plaintext),
		set:          newUnsettled(cfg.maxUnsettled()),
		flush:        make(chan struct{}, 1),
		tokenChanged: make(chan struct{}, 1),

		instance: or(cfg.Instance, newInstance(time.Now())),
	}
	var err error
	if a.metrics, err = newMetrics(cfg.Metrics, a); err != nil {
		return nil, fmt.Errorf("register agent metrics: %w", err)
	}
	return a, nil
}

// newInstance names a process that starts now: after those that started before.
func newInstance(now time.Time) string {
	return now.UTC().Format("20060102T150405.000000000Z") + "-" + rand.Text()
}

// Set says that mailbox now has unread messages. It replaces a count of the
// mailbox that has not settled yet, in memory and at the relay.
//
// mailbox is 1 to 256 bytes of UTF-8, unread 0 to 2147483647; 0 removes the
// badge. epoch and version order the counts of different agents (relay.proto,
// message Event); 0 in both: the count has no version. Whatever they are, a later
// Set is the later truth: a caller that is told counts out of order sees to that.
// Set takes a few memory operations and never waits. What it did not take it says:
// ErrInvalid or ErrFull.
func (a *Agent) Set(mailbox string, unread uint32, epoch, version uint64) error {
	return a.SetEvent(Event{Mailbox: mailbox, Unread: unread, Epoch: epoch, Version: version})
}

// SetEvent is Set with the time of observation: when the caller began to count.
// Zero: now.
func (a *Agent) SetEvent(e Event) error {
	if e.ObservedAt.IsZero() {
		e.ObservedAt = time.Now()
	}
	return a.set.set(e)
}

// Subscribed says that a device has come to a mailbox, as Watcher.Subscribed is told:
// call it there. Where there are several relays, what is sent of the mailbox's counts
// in the next time, MaxInFlight of Welcome (relay.proto), is sent once more after it,
// because relays do not learn at the same moment where a device is.
func (a *Agent) Subscribed(mailbox string) { a.set.subscribed(mailbox, time.Now()) }

// Flush sends what is ready without waiting for more to go with it.
func (a *Agent) Flush() { notify(a.flush) }

// RenewToken has a fresh token asked for and handed in on the open stream, as
// when the key that signs tokens has changed: the stream goes on.
func (a *Agent) RenewToken() {
	a.tokens.discard()
	notify(a.tokenChanged)
}

// WaitSettled flushes and waits until every count set before has settled or
// was replaced by a newer one. Its error is ctx's. Meanwhile
// there is no SettlementDelay.
func (a *Agent) WaitSettled(ctx context.Context) error {
	w := a.set.wait()
	select {
	case <-w.done:
		return nil
	default:
		a.Flush()
		notify(a.set.wake) // also where nothing is to be sent, for the settlement delay
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		a.set.forget(w)
		return ctx.Err()
	}
}

// Ledger returns what became of all counts since New.
func (a *Agent) Ledger() Ledger { return a.set.snapshot() }

// Status returns how the agent is.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// Run keeps a stream to one of the relays and returns nil when ctx is done and
// every goroutine it started has ended. Counts that are unsettled then stay
// held, for a later Run. A call while another runs returns ErrRunning.
func (a *Agent) Run(ctx context.Context) error {
	if !a.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer a.running.Store(false)
	var streams sync.WaitGroup // the one that is followed, and those that linger
	defer streams.Wait()
	wait := newRetries(&a.cfg)
	for at := 0; ctx.Err() == nil; {
		failure := a.attempt(ctx, a.cfg.Addresses[at], wait, &streams)
		if ctx.Err() != nil {
			return nil
		}
		wait.next(&failure)
		a.failed(failure)
		if failure.Kind != FailureToken || failure.Again > 0 {
			at = (at + 1) % len(a.cfg.Addresses)
		}
		sleep(ctx, failure.Again)
	}
	return nil
}

// attempt opens a stream to address and follows it until it ends or drains.
func (a *Agent) attempt(ctx context.Context, address string, wait *retries, streams *sync.WaitGroup) Failure {
	s, err := a.open(ctx, address)
	if err != nil {
		return a.judge(address, s, err)
	}
	a.connected(s)
	opened := time.Now()
	streams.Go(s.run) // ends with ctx, or when s ends
	select {
	case <-s.done:
		err = s.err
	case <-s.draining:
	}
	if s.drained() {
		err = errDraining    // however it ended
		streams.Go(s.linger) // ends with s, at the latest when its grace is over
	}
	if s.useful.Load() || time.Since(opened) >= a.cfg.backoffMax() {
		wait.succeeded()
	}
	return a.judge(address, s, err)
}

// judge classifies err and takes a refused token out of use.
func (a *Agent) judge(address string, s *stream, err error) Failure {
	failure := classify(address, err)
	if failure.Kind == FailureToken && s != nil {
		a.tokens.reject(s.bearer().token)
	}
	return failure
}

func (a *Agent) connected(s *stream) {
	a.metrics.opened()
	a.log.Info("stream opened", "address", s.address, "relay", s.relay, "instance", s.instance)
	a.mu.Lock()
	s.roleUnknown = a.stoodBy
	a.status = Status{Connected: true, Address: s.address, Instance: s.instance, Relay: s.relay, Since: time.Now()}
	a.mu.Unlock()
	if s.roleUnknown {
		a.set.begin(s.inFlight.maxInFlight, time.Now())
	}
}

// standby holds everything back: another process of the agent is active.
func (a *Agent) standby(s *stream) {
	s.roleUnknown = false
	a.set.stand(s.inFlight)
	a.setStandby(true)
	a.log.Info("standing by: another process with the agent's id is active", "agent_id", a.cfg.AgentID, "address", s.address)
}

// takeOver sends what is unsettled: the other process is gone.
func (a *Agent) takeOver(s *stream) {
	s.roleUnknown = false
	a.set.takeOver(s.inFlight, time.Now())
	a.setStandby(false)
	a.log.Info("taking over: the other process with the agent's id is gone", "agent_id", a.cfg.AgentID, "address", s.address)
	if a.cfg.OnTakeover != nil {
		a.cfg.OnTakeover()
	}
}

// isActive notes that s is active, and takes over if nobody has told so on another stream.
func (a *Agent) isActive(s *stream) {
	s.roleUnknown = false
	a.mu.Lock()
	stoodBy := a.stoodBy
	a.mu.Unlock()
	if stoodBy {
		a.takeOver(s)
	}
}

func (a *Agent) setStandby(standby bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Standby, a.stoodBy = standby, standby
}

func (a *Agent) failed(f Failure) {
	a.metrics.failed(f.Kind)
	a.mu.Lock()
	if a.status.Connected || a.status.Since.IsZero() {
		a.status.Since = time.Now()
	}
	a.status.Connected, a.status.Standby, a.status.Address, a.status.LastFailure = false, false, f.Address, &f
	a.mu.Unlock()
	a.log.Log(context.Background(), level(f), "stream ended", "address", f.Address, "kind", f.Kind.String(),
		"reason", f.Reason, "error", f.Err, "again", f.Again)
	if a.cfg.OnFailure != nil {
		a.cfg.OnFailure(f)
	}
}

// level makes an error of what a person must mend, once in a row.
func level(f Failure) slog.Level {
	switch {
	case f.Kind == FailureDraining:
		return slog.LevelInfo
	case f.Repeats > 1 || f.Kind != FailureToken && f.Repeats > 0:
		return slog.LevelDebug
	case f.Kind == FailureRefused || f.Kind == FailureProtocol || f.Kind == FailureToken && f.Again > 0:
		return slog.LevelError
	}
	return slog.LevelWarn
}

// Unsettled returns the mailbox's count that has not settled; false: there is none.
func (a *Agent) Unsettled(mailbox string) (unread uint32, pending bool) {
	return a.set.pending(mailbox)
}
