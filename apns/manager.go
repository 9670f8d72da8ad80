package apns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Times of ours.
const (
	backoffFirst = time.Second      // design: jittered, 1 to 60 s
	backoffLast  = 60 * time.Second //
	// scaleAfter is how long work must find every stream taken before another
	// connection is opened: several times the turnaround of a near server, less
	// than what a far one takes.
	scaleAfter = 25 * time.Millisecond
	// probeFirst and probeLast bound how often one push tries whether a
	// refused app is accepted again.
	probeFirst = 5 * time.Second
	probeLast  = 60 * time.Second
	// slowConnect is when a connection that is not up yet no longer keeps the
	// next from being opened.
	slowConnect = 3 * time.Second
	// idleAge is how long a connection has stayed whose end may be for want of work
	// although work waits: that has come meanwhile. And how long one has had no
	// work that is replaced because another one is broken.
	idleAge = time.Second
	// lookAtClock is how often a pool whose token was refused looks whether the
	// system's clock has been set.
	lookAtClock = time.Second
)

// manager opens and closes a pool's connections. All its fields belong to the
// goroutine of Pool.Run, save what is marked.
type manager struct {
	pool    *Pool
	running sync.WaitGroup
	cut     context.Context // ends every connection

	members   []*member
	events    chan event
	failures  int
	backoff   backoff.ExponentialBackOff // after failures
	notBefore time.Time                  // a failure keeps the next connection from being opened until then
	lastDial  time.Time
	saturated time.Time // since when work finds no free stream; zero: it does
	fresh     int64     // of Pool.fresh, what has been seen
	probeAt   time.Time // of an app that is refused; zero: a probe is due, or was taken just now
	probes    backoff.ExponentialBackOff

	// For Stats, read by any goroutine.
	connecting atomic.Int32
	connects   atomic.Int64
	failed     atomic.Int64
	outage     atomic.Bool // the last attempts to connect failed
}

// member is one connection, or one on its way.
type member struct {
	began time.Time
	cred  Credential
	addr  netip.Addr // as reported by the dial; zero: not known
	conn  conn       // nil while connecting
}

type event struct {
	m     *member
	conn  conn // up
	addr  netip.Addr
	ended bool
	err   error
}

func (m *manager) run(ctx context.Context) {
	cut, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	m.cut = cut
	m.events = make(chan event)
	m.pool.wanted.Store(true) // the first connection is opened at once
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(m.turn(time.Now()))
		select {
		case <-ctx.Done():
		case <-m.pool.signal:
		case <-timer.C:
		case e := <-m.events:
			m.on(e)
		}
	}
	m.stop(cancel)
}

// stop drains every connection, for at most the drain timeout.
func (m *manager) stop(cancel context.CancelCauseFunc) {
	for _, c := range m.members {
		if c.conn != nil {
			c.conn.drain()
		}
	}
	late := time.AfterFunc(m.pool.config.DrainTimeout, func() { cancel(errors.New("drain timeout")) })
	defer late.Stop()
	for len(m.members) > 0 {
		if !slices.ContainsFunc(m.members, func(c *member) bool { return c.conn != nil }) {
			cancel(ErrClosed) // what is still connecting
		}
		e := <-m.events
		m.on(e)
		if e.conn != nil {
			e.conn.drain()
		}
	}
	m.running.Wait()
}

// on takes note of a connection that came up or ended.
func (m *manager) on(e event) {
	p := m.pool
	if !e.ended {
		e.m.conn, e.m.addr = e.conn, e.addr
		m.publish()
		return
	}
	m.members = slices.DeleteFunc(m.members, func(c *member) bool { return c == e.m })
	m.publish()
	authenticated := e.m.conn != nil && e.m.conn.state().authenticated.Load()
	idle := m.endedIdle(e)
	if e.err != nil && !idle {
		p.note(e.err)
	}
	switch {
	case m.cut.Err() != nil:
	case idle:
		p.log.Debug("idle connection to apns ended", "error", e.err)
	case e.err != nil && !authenticated:
		m.failed.Add(1)
		m.outage.Store(true)
		m.failures++
		m.notBefore = e.m.began.Add(m.pause())
		if gone := (*goAwayError)(nil); !errors.As(e.err, &gone) {
			p.reach.miss(e.m.addr, time.Now()) // it takes connections, and does not speak
		}
		if m.failures == 1 {
			p.log.Warn("connection to apns failed", "error", e.err)
			p.failing.CompareAndSwap(nil, &e.m.began)
		}
	case e.err != nil:
		p.log.Info("connection to apns ended", "error", e.err)
	case !authenticated && e.m.cred == *p.cred.Load():
		m.failures++ // not one push accepted: no churn
		m.notBefore = e.m.began.Add(m.pause())
	}
	if e.err != nil && e.m.conn != nil && e.m.conn.state().lost.Load() > 0 && p.refusing.Load() {
		m.probeAt = time.Time{} // the probe had no answer
		p.probeDue.Store(true)
	}
	var gone *goAwayError
	if errors.As(e.err, &gone) && gone.reason != "" && ruleOf(400, gone.reason).verdict == VerdictStopApp {
		p.refuse(gone.reason, e.err, nil)
	}
	if !idle || !e.m.conn.state().wasIdle.Load() {
		p.Wake() // work that this one was woken for goes to another
	}
}

// endedIdle reports whether a connection was ended because it had no work, by us
// or by its peer or a proxy: that is no failure, and the next push opens another
// at once. While work waits, that it came to nothing right away is one: a peer
// that sends everybody away must not see us come again without a pause.
func (m *manager) endedIdle(e event) bool {
	if e.m.conn == nil {
		return false
	}
	s := e.m.conn.state()
	if e.err == nil {
		return s.unused()
	}
	return s.inGoodOrder(e.err) && (time.Since(s.began) >= idleAge || !m.pool.wanted.Load())
}

// doubling returns pauses from first to last, to be jittered.
func doubling(first, last time.Duration) backoff.ExponentialBackOff {
	return backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: last}
}

// pause returns the time between two attempts; a half of it is chance, which comes
// from Config.Random, so that a simulation can be repeated.
func (m *manager) pause() time.Duration {
	d := m.backoff.NextBackOff()
	return d/2 + time.Duration(m.pool.config.Random(int64(d/2)))
}

// publish makes the connections that are up known to everybody.
func (m *manager) publish() {
	var conns []conn
	connecting := int32(0)
	for _, c := range m.members {
		if c.conn != nil {
			conns = append(conns, c.conn)
		} else {
			connecting++
		}
	}
	m.connecting.Store(connecting)
	m.pool.conns.Store(&conns)
}

// turn does what is due and returns when it wants to be called again.
func (m *manager) turn(now time.Time) time.Duration {
	clock := m.lookAtClock(now)
	if n := m.pool.fresh.Load(); n != m.fresh {
		// A connection was authenticated, or the credential is new: connect without delay.
		m.fresh, m.failures, m.notBefore = n, 0, time.Time{}
		m.backoff.Reset()
		m.outage.Store(false)
	}
	wait := clock
	if m.pool.refusing.Load() {
		wait = min(wait, m.probe(now))
	} else {
		m.probeAt = time.Time{}
		m.probes.Reset()
	}
	if d := m.scale(now); d < wait {
		wait = d
	}
	if d := m.shrink(now); d < wait {
		wait = d
	}
	return max(wait, time.Millisecond)
}

// lookAtClock ends the state of being refused when the clock that the refused
// token was signed by has been set.
func (m *manager) lookAtClock(now time.Time) time.Duration {
	if m.pool.refusing.Load() && m.pool.corrected(now) {
		return lookAtClock
	}
	return time.Hour
}

// probe lets one push go from time to time, less and less often. A pause begins when
// the push before it was taken: quiet times make none longer.
func (m *manager) probe(now time.Time) time.Duration {
	p := m.pool
	switch {
	case p.probeDue.Load(): // until a push is taken, which wakes us
		return time.Hour
	case m.probeAt.IsZero():
		m.probeAt = now.Add(m.probes.NextBackOff())
	case !now.Before(m.probeAt):
		m.probeAt = time.Time{}
		p.probeDue.Store(true)
		p.Wake()
		return time.Hour
	}
	return m.probeAt.Sub(now)
}

// memberCounts is what the members are doing.
type memberCounts struct {
	up            int  // taking work
	authenticated int  // of these, with an answer that counts
	connecting    int  // not up yet, and not slow
	pending       int  // these, and those up that are not authenticated yet
	free          bool // one of those up has streams free
}

func (m *manager) memberCounts(now time.Time) (n memberCounts) {
	for _, c := range m.members {
		young := now.Sub(c.began) < slowConnect
		if c.conn == nil {
			if young {
				n.connecting++
				n.pending++
			}
			continue
		}
		s := c.conn.state()
		switch {
		case s.leaving.Load():
			continue
		case s.authenticated.Load():
			n.authenticated++
		case young:
			n.pending++
		}
		n.up++
		if s.waiting.Load() == waitWork || s.inFlight.Load() < s.granted.Load() {
			n.free = true
		}
	}
	return n
}

// scale opens a connection when work waits that no other can take.
//
// Over a distance a connection takes a good part of a second until it carries
// its share, so several may be on their way at once: as many as are authenticated, so
// that their number at most doubles meanwhile. As long as none is authenticated there
// is one: whether Apple takes the credential at all is not to be asked by a
// crowd.
func (m *manager) scale(now time.Time) time.Duration {
	p := m.pool
	// Cleared before looking, not after: what is wanted from now on is seen in
	// the next turn, even if a connection that looked free begins to leave.
	if !p.wanted.Swap(false) {
		m.saturated = time.Time{}
		return time.Hour
	}
	n := m.memberCounts(now)
	if n.free {
		m.saturated = time.Time{}
		return time.Hour
	}
	p.wanted.Store(true)
	switch {
	case n.up >= p.config.MaxConns:
		// wanted stays set, so that further calls of Wake don't come here: the
		// writers look for work by themselves when streams come free.
		return time.Hour
	case n.pending > 0 && n.pending >= n.authenticated, n.up+n.connecting >= p.config.MaxConns, len(m.members) >= 2*p.config.MaxConns:
		return scaleAfter
	case p.refusing.Load() && !p.probeDue.Load() && p.direct.waiting.Load() == 0:
		return time.Hour // the next probe wakes us
	}
	if n.up > 0 {
		if m.saturated.IsZero() {
			m.saturated = now
		}
		if d := scaleAfter - now.Sub(m.saturated); d > 0 {
			return d
		}
	}
	gap := time.Duration(float64(time.Second) / p.config.ConnectsPerSecond)
	if d := latest(m.notBefore, m.lastDial.Add(gap)).Sub(now); d > 0 {
		return d
	}
	m.open(now)
	return scaleAfter
}

// open starts one connection.
func (m *manager) open(now time.Time) {
	m.lastDial, m.saturated = now, time.Time{}
	m.connects.Add(1)
	c := &member{began: now, cred: *m.pool.cred.Load()}
	m.members = append(m.members, c)
	m.publish()
	used := make(map[netip.Addr]int)
	for _, o := range m.members {
		used[o.addr]++
	}
	m.running.Go(func() { m.serve(c, used) }) // ends with m.cut; stop waits
}

// serve connects and runs one connection.
func (m *manager) serve(c *member, used map[netip.Addr]int) {
	p := m.pool
	opened, addr, err := p.connect(m.cut, c.cred, used)
	if err != nil {
		m.events <- event{m: c, ended: true, err: err}
		return
	}
	m.events <- event{m: c, conn: opened, addr: addr}
	err = opened.run(m.cut)
	m.events <- event{m: c, ended: true, err: err}
}

// shrink closes connections without use, as long as one is left.
func (m *manager) shrink(now time.Time) time.Duration {
	idle := m.pool.config.IdleTimeout
	if idle < 0 {
		return time.Hour
	}
	staying := 0
	for _, c := range m.members {
		if c.conn != nil && !c.conn.state().leaving.Load() {
			staying++
		}
	}
	if staying < 2 {
		return time.Hour
	}
	next := time.Hour
	for i := len(m.members) - 1; i >= 0 && staying > 1; i-- {
		c := m.members[i]
		if c.conn == nil || c.conn.state().leaving.Load() || c.conn.state().inFlight.Load() > 0 {
			continue
		}
		left := idle - c.conn.state().idle(now)
		if left <= 0 {
			c.conn.drain()
			staying--
			continue
		}
		next = min(next, left)
	}
	return min(next, idle)
}
