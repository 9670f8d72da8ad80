package apns

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is returned by Push when the pool's Run has ended or is ending.
var ErrClosed = errors.New("pool is closed")

// Pool pushes the badges of one app. Make one with NewPool and run it once.
type Pool struct {
	config Config
	log    *slog.Logger
	count  *reasonCounters

	cred  atomic.Pointer[Credential]
	roots atomic.Pointer[x509.CertPool] // nil: the system's
	conns atomic.Pointer[[]conn]        // replaced by the manager, read by all

	signal chan struct{} // one slot; wakes the manager
	wanted atomic.Bool   // work waits and no connection could take it

	// What happened, for the manager.
	fresh    atomic.Int64              // times that a connection was authenticated or the credential replaced
	refusing atomic.Bool               // APNs refuses the credential or topic
	failing  atomic.Pointer[time.Time] // since when connections fail, as the log says; nil: they don't
	probeDue atomic.Bool               // while refusing: one push may go
	foreign  atomic.Bool               // another than APNs has answered, as the log says

	direct directQueue
	reach  reach

	mu           sync.Mutex // a few memory operations
	lastError    error
	refusedAs    Reason
	refusedSince time.Time
	refusedToken *providerToken // the one that was refused, if it was one, or what followed it in its time
	stopped      bool

	m manager // owned by Run
}

// NewPool checks the configuration and starts nothing.
func NewPool(config Config) (*Pool, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("make pool of %s: %w", config.App, err)
	}
	p := &Pool{
		config: config.withDefaults(),
		signal: make(chan struct{}, 1),
	}
	p.log = p.config.Logger
	p.count = config.Metrics.reasons(config.App)
	p.cred.Store(&Credential{config.Token, config.Certificate})
	p.roots.Store(config.RootCAs)
	p.conns.Store(new([]conn))
	p.m.pool, p.m.backoff, p.m.probes = p, doubling(backoffFirst, backoffLast), doubling(probeFirst, probeLast)
	return p, nil
}

// Run opens connections as work asks for them and pushes until ctx is done.
// Then it takes no more, waits up to Config.DrainTimeout for the answers that
// are due, closes the connections and returns nil. Every Request taken has been
// returned, and every goroutine has ended, when it returns. It must be called
// once.
func (p *Pool) Run(ctx context.Context) error {
	p.config.Metrics.add(p)
	defer p.config.Metrics.remove(p)
	p.m.run(ctx)
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.direct.fail(transportError(ReasonNotSent, ErrClosed))
	return nil
}

// Wake says that there is work. It never blocks and costs a few atomic reads.
// It may be called from any goroutine, from Source.Done too.
func (p *Pool) Wake() {
	for _, c := range *p.conns.Load() {
		if s := c.state(); s.wakeForWork() {
			c.wake()
			return
		}
	}
	p.demand()
}

// demand tells the manager that work waits which no connection can take now.
func (p *Pool) demand() {
	if p.wanted.Load() {
		return // it knows
	}
	p.wanted.Store(true)
	p.wakeManager()
}

func (p *Pool) wakeManager() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

// SetCredential replaces what the pool proves itself with. Connections with
// the old one take no more, and end when their answers are in. A credential
// that was refused is forgotten, and the pool takes up work at full speed.
func (p *Pool) SetCredential(c Credential) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("set credential of %s: %w", p.config.App, err)
	}
	old := p.cred.Swap(&c)
	if old.Token == c.Token && old.Certificate == c.Certificate {
		return nil
	}
	if was, ended := p.endRefusal(); ended {
		p.log.Info("another credential: whether apns takes it will show", "reason", was)
	}
	// An old connection belongs to the team and the key of its first push.
	for _, c := range *p.conns.Load() {
		c.drain()
	}
	p.fresh.Add(1)
	p.demand()
	p.wakeManager()
	return nil
}

// SetRootCAs replaces what the server's certificate must chain to; nil: the
// system's. Connections that are open stay; those that are opened from now on have
// to chain to it.
func (p *Pool) SetRootCAs(roots *x509.CertPool) {
	if old := p.roots.Swap(roots); old == roots || old != nil && roots != nil && old.Equal(roots) {
		return
	}
	p.demand() // it may be what kept connections from opening
}

// take fills dst for a connection.
func (p *Pool) take(dst []Request) (n, more int) {
	if p.direct.waiting.Load() > 0 {
		if n = p.direct.take(dst); n > 0 {
			return n, 1
		}
	}
	if p.config.Source == nil {
		return 0, 0
	}
	probe := p.refusing.Load()
	if probe {
		if !p.probeDue.CompareAndSwap(true, false) {
			return 0, 0
		}
		dst = dst[:1]
	}
	n, more = p.config.Source.Take(dst)
	switch {
	case probe && n == 0:
		p.probeDue.Store(true) // for the next that comes
	case probe:
		p.wakeManager() // the pause until the next one begins
	}
	if bad := p.rejectInvalid(dst[:n]); bad > 0 {
		n -= bad
		if n == 0 {
			return p.take(dst)
		}
	}
	return n, more
}

// rejectInvalid returns requests that can't be sent, and moves the others to
// the front.
func (p *Pool) rejectInvalid(requests []Request) (bad int) {
	for i := range requests {
		if r := &requests[i]; r.Device.IsZero() || r.Badge > MaxBadge {
			p.finish([]Result{{Tag: r.Tag, Err: transportError(ReasonInvalidRequest, nil)}})
			bad++
		} else if bad > 0 {
			requests[i-bad] = *r
		}
	}
	return bad
}

// handBack returns requests that a connection took and can't send.
func (p *Pool) handBack(requests []Request) {
	results := make([]Result, len(requests))
	for i := range requests {
		results[i] = Result{Tag: requests[i].Tag, Err: transportError(ReasonNotSent, errDrained)}
	}
	p.finish(results)
}

// finish counts results and gives them back to where the requests came from.
func (p *Pool) finish(results []Result) {
	accepted := 0
	for i := range results {
		if results[i].Err == nil {
			accepted++
		} else {
			p.count.refused(results[i].Err.Reason)
		}
	}
	p.count.accepted(accepted)
	if accepted > 0 && (p.refusing.Load() || p.foreign.Load()) {
		p.accept()
	}
	if p.direct.open.Load() > 0 {
		results = p.direct.done(results)
	}
	if len(results) > 0 && p.config.Source != nil {
		p.config.Source.Done(results)
	}
}

// noteAuthenticated notes that a connection got its first answer that counts.
func (p *Pool) noteAuthenticated() {
	if since := p.failing.Swap(nil); since != nil {
		p.log.Info("connected to apns again", "failing_for", time.Since(*since).Round(time.Second))
	}
	p.fresh.Add(1)
	p.wakeManager()
}

// accept notes that APNs is content.
func (p *Pool) accept() {
	if p.foreign.Swap(false) {
		p.log.Info("apns answers by itself again")
	}
	if was, ended := p.endRefusal(); ended {
		p.log.Info("apns takes the app's credential and topic again", "reason", was)
	}
}

// endRefusal ends the state of being refused, if it is on.
func (p *Pool) endRefusal() (was Reason, ended bool) {
	p.mu.Lock()
	was = p.refusedAs
	p.refusedAs, p.refusedToken, p.refusedSince = "", nil, time.Time{}
	p.mu.Unlock()
	if ended = p.refusing.Swap(false); ended {
		p.Wake()
		p.wakeManager()
	}
	return was, ended
}

// refuse begins the state of being refused: a single push goes out from time to time
// until APNs accepts a push, the credential is replaced, or the clock is set
// by which the token was signed. used is nil if it is not the token's fault.
func (p *Pool) refuse(reason Reason, err error, used *providerToken) {
	p.mu.Lock()
	p.refusedAs, p.refusedToken = reason, used
	if p.refusedSince.IsZero() {
		p.refusedSince = time.Now()
	}
	p.lastError = err
	p.mu.Unlock()
	if !p.refusing.Swap(true) {
		p.probeDue.Store(false)
		p.log.Error("apns refuses the app's credential or topic: nothing is pushed until an operator acts",
			"reason", reason, "topic", p.config.Topic)
		p.wakeManager()
	}
}

// refusal acts on what a refusal says about the credential, and reports
// whether the connection that got it has to be replaced.
func (p *Pool) refusal(e *Error, cred Credential, used *providerToken, now time.Time) (replace bool) {
	line := ruleOf(e.Status, e.Reason)
	current := *p.cred.Load() == cred
	switch {
	case e.Reason == ReasonInvalidProviderToken && used != nil && current:
		// Apple says so too of a token that seems to come from the future.
		if !cred.Token.correct(used, now) {
			p.refuse(e.Reason, e, used)
		}
	case line.verdict == VerdictStopApp && current:
		p.refuse(e.Reason, e, nil)
	case e.Reason == ReasonExpiredProviderToken && used != nil && current:
		if !cred.Token.renew(used, now) {
			// A young token, and expired: the clocks differ.
			p.refuse(e.Reason, e, used)
		}
	case e.Reason == ReasonTooManyProviderTokenUpdates && used != nil:
		cred.Token.keepOlder(used, now)
	case e.Reason == ReasonForeignAnswer && !p.foreign.Swap(true):
		p.log.Error("something else answers in the place of apns: pushes are repeated until apns does",
			"address", p.config.Addr, "proxy", p.config.Proxy != nil, "error", e.Cause)
	case e.Reason == ReasonInternalServerError:
		p.replaceIdle(now)
	}
	if line.replace {
		p.note(e)
	}
	return line.replace
}

// replaceIdle drains the connections that have had nothing to do for a while,
// because one was found broken: what broke it, such as a firewall that forgot all
// that were idle, may have broken others beside it. A push that meets one after
// the other would wait each time: for the answer to a PING, or, where a connection says
// InternalServerError for good, for a quarter of an hour. Those at work show by
// themselves how they are.
func (p *Pool) replaceIdle(now time.Time) {
	for _, c := range *p.conns.Load() {
		if s := c.state(); s.inFlight.Load() == 0 && s.idle(now) >= idleAge {
			c.drain()
		}
	}
}

// corrected ends the state of being refused if there is another token because
// the clock was set. It reports whether that may still come. A token that was
// renewed in its time, here or for another app, proves nothing new: the next
// probe shows whether APNs takes it.
func (p *Pool) corrected(now time.Time) (mayCome bool) {
	cred := *p.cred.Load()
	p.mu.Lock()
	refused := p.refusedToken
	p.mu.Unlock()
	if cred.Token == nil || refused == nil {
		return false
	}
	current, clockSet := cred.Token.afterRefused(refused, now)
	if !clockSet {
		p.mu.Lock()
		if p.refusedToken == refused {
			p.refusedToken = current
		}
		p.mu.Unlock()
		return true
	}
	if was, ended := p.endRefusal(); ended {
		p.log.Info("the system's clock was set: apns is shown a new provider token", "reason", was)
	}
	p.fresh.Add(1)
	p.demand()
	return false
}

// note keeps an error for Stats.
func (p *Pool) note(err error) {
	p.mu.Lock()
	p.lastError = err
	p.mu.Unlock()
}
