package apns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Times of ours.
const (
	backoffFirst = time.Second      // design: jittered, 1 to 60 s
	backoffLast  = 60 * time.Second //
	// scaleAfter is how long work must find every stream taken before another
	// connection is opened: several times the turnaround of a near server, less
	// than what a far one takes.
	scaleAfter = 25 * time.Millisecond
	// trickleFirst and trickleLast bound how often one push tries whether a
	// refused app is accepted again.
	trickleFirst = 5 * time.Second
	trickleLast  = 60 * time.Second
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
	notBefore time.Time // backoff after failures
	lastDial  time.Time
	saturated time.Time // since when work finds no free stream; zero: it does
	trickleAt time.Time // zero: one is due, or was taken just now
	fresh     int64     // of Pool.fresh, what has been seen
	trickle   time.Duration

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
	link  link       // nil while connecting
}

type event struct {
	m     *member
	link  link // up
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
		if c.link != nil {
			c.link.drain()
		}
	}
	late := time.AfterFunc(m.pool.config.DrainTimeout, func() { cancel(errors.New("drain timeout")) })
	defer late.Stop()
	for len(m.members) > 0 {
		if !slices.ContainsFunc(m.members, func(c *member) bool { return c.link != nil }) {
			cancel(ErrClosed) // what is still connecting
		}
		e := <-m.events
		m.on(e)
		if e.link != nil {
			e.link.drain()
		}
	}
	m.running.Wait()
}

// on takes note of a connection that came up or ended.
func (m *manager) on(e event) {
	p := m.pool
	if !e.ended {
		e.m.link, e.m.addr = e.link, e.addr
		m.publish()
		return
	}
	m.members = slices.DeleteFunc(m.members, func(c *member) bool { return c == e.m })
	m.publish()
	proven := e.m.link != nil && e.m.link.state().proven.Load()
	idle := m.endedIdle(e)
	if e.err != nil && !idle {
		p.note(e.err)
	}
	switch {
	case m.cut.Err() != nil:
	case idle:
		p.log.Debug("idle connection to apns ended", "error", e.err)
	case e.err != nil && !proven:
		m.failed.Add(1)
		m.outage.Store(true)
		m.failures++
		m.notBefore = time.Now().Add(m.backoff())
		if gone := (*goAwayError)(nil); !errors.As(e.err, &gone) {
			p.reach.miss(e.m.addr, time.Now()) // it takes connections, and does not speak
		}
		if m.failures == 1 {
			p.log.Warn("connection to apns failed", "error", e.err)
			p.failing.CompareAndSwap(nil, &e.m.began)
		}
	case e.err != nil:
		p.log.Info("connection to apns ended", "error", e.err)
	case !proven && e.m.cred == *p.cred.Load():
		m.failures++ // not one push accepted: no churn
		m.notBefore = time.Now().Add(m.backoff())
	}
	if e.err != nil && e.m.link != nil && e.m.link.state().lost.Load() > 0 && p.refusing.Load() {
		m.trickleAt = time.Time{} // the push that was to try had no answer
		p.trickleDue.Store(true)
	}
	var gone *goAwayError
	if errors.As(e.err, &gone) && gone.reason != "" && ruleOf(400, gone.reason).verdict == VerdictStopApp {
		p.refuse(gone.reason, e.err, nil)
	}
	if !idle || !e.m.link.state().rested.Load() {
		p.Wake() // work that this one was woken for goes to another
	}
}

// endedIdle reports whether a connection was ended because it had no work, by us
// or by its peer or a proxy: that is no failure, and the next push opens another
// at once. While work waits, that it came to nothing right away is one: a peer
// that sends everybody away must not see us come again without a pause.
func (m *manager) endedIdle(e event) bool {
	if e.m.link == nil {
		return false
	}
	s := e.m.link.state()
	if e.err == nil {
		return s.unused()
	}
	return s.inGoodOrder(e.err) && (time.Since(s.began) >= idleAge || !m.pool.wanted.Load())
}

// backoff doubles from backoffFirst to backoffLast; a half of it is chance.
func (m *manager) backoff() time.Duration {
	d := min(backoffFirst<<min(m.failures-1, 10), backoffLast)
	return d/2 + time.Duration(m.pool.config.Random(int64(d/2)))
}

// publish makes the connections that are up known to everybody.
func (m *manager) publish() {
	var links []link
	connecting := int32(0)
	for _, c := range m.members {
		if c.link != nil {
			links = append(links, c.link)
		} else {
			connecting++
		}
	}
	m.connecting.Store(connecting)
	m.pool.links.Store(&links)
}

// turn does what is due and returns when it wants to be called again.
func (m *manager) turn(now time.Time) time.Duration {
	clock := m.lookAtClock(now)
	if n := m.pool.fresh.Load(); n != m.fresh {
		// A link was proven, or the credential is new: connect without delay.
		m.fresh, m.failures, m.notBefore = n, 0, time.Time{}
		m.outage.Store(false)
	}
	wait := clock
	if m.pool.refusing.Load() {
		wait = min(wait, m.doTrickle(now))
	} else {
		m.trickle, m.trickleAt = 0, time.Time{}
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

// doTrickle lets one push go from time to time, less and less often. A pause begins when
// the push before it was taken: quiet times make none longer.
func (m *manager) doTrickle(now time.Time) time.Duration {
	p := m.pool
	switch {
	case p.trickleDue.Load(): // until a push is taken, which wakes us
		return time.Hour
	case m.trickleAt.IsZero():
		m.trickle = min(max(2*m.trickle, trickleFirst), trickleLast)
		m.trickleAt = now.Add(m.trickle)
	case !now.Before(m.trickleAt):
		m.trickleAt = time.Time{}
		p.trickleDue.Store(true)
		p.Wake()
		return time.Hour
	}
	return m.trickleAt.Sub(now)
}

// memberCounts is what the members are doing.
type memberCounts struct {
	up         int  // taking work
	proven     int  // of these, with an answer that counts
	connecting int  // not up yet, and not slow
	coming     int  // these, and those up that are not proven yet
	free       bool // one of those up has streams free
}

func (m *manager) memberCounts(now time.Time) (n memberCounts) {
	for _, c := range m.members {
		young := now.Sub(c.began) < slowConnect
		if c.link == nil {
			if young {
				n.connecting++
				n.coming++
			}
			continue
		}
		s := c.link.state()
		switch {
		case s.leaving.Load():
			continue
		case s.proven.Load():
			n.proven++
		case young:
			n.coming++
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
// its share, so several may be on their way at once: as many as are proven, so
// that their number at most doubles meanwhile. As long as none is proven there
// is one: whether Apple takes the credential at all is not to be asked by a
// crowd.
func (m *manager) scale(now time.Time) time.Duration {
	p := m.pool
	// Cleared before looking, not after: what is wanted from now on is seen in
	// the next turn, even if a link that looked free begins to leave.
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
	case n.coming > 0 && n.coming >= n.proven, n.up+n.connecting >= p.config.MaxConns, len(m.members) >= 2*p.config.MaxConns:
		return scaleAfter
	case p.refusing.Load() && !p.trickleDue.Load() && p.direct.waiting.Load() == 0:
		return time.Hour // the trickle wakes us
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
	l, addr, err := p.connect(m.cut, c.cred, used)
	if err != nil {
		m.events <- event{m: c, ended: true, err: err}
		return
	}
	m.events <- event{m: c, link: l, addr: addr}
	err = l.run(m.cut)
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
		if c.link != nil && !c.link.state().leaving.Load() {
			staying++
		}
	}
	if staying < 2 {
		return time.Hour
	}
	next := time.Hour
	for i := len(m.members) - 1; i >= 0 && staying > 1; i-- {
		c := m.members[i]
		if c.link == nil || c.link.state().leaving.Load() || c.link.state().inFlight.Load() > 0 {
			continue
		}
		left := idle - c.link.state().idle(now)
		if left <= 0 {
			c.link.drain()
			staying--
			continue
		}
		next = min(next, left)
	}
	return min(next, idle)
}
