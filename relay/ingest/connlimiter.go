package ingest

import (
	"container/list"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a connection is turned away, or ends before it can ask for anything.
const (
	refusedTotal     = "total"     // MaxConnections are open
	refusedAddress   = "address"   // MaxAddressConnections of its address are
	refusedHandshake = "handshake" // TLS failed, or took too long
	refusedHalfOpen  = "half_open" // it gave its place to another before it had begun HTTP/2
	refusedSlowed    = "slowed"    // its address is slowed, and too many wait for their turn
)

// halfOpenTime is how long a connection may take to begin HTTP/2 before it has to
// give its place to one that finds none. Ours: an honest one takes some round
// trips. gRPC gives it 10 seconds.
const halfOpenTime = time.Second

// errSlowed is what the handshake of a connection ends with that waited in vain.
var errSlowed = errors.New("the address is slowed")

// connLimiter counts connections, all and by address, and turns away those
// beyond the limits before they cost a TLS handshake. It is what bounds peers
// that have not shown a token, to whom no organization's limits apply, and so
// it counts their calls, and slows addresses from which too much comes.
type connLimiter struct {
	refused map[string]prometheus.Counter // by reason; never changes
	logger  *slog.Logger

	mu                   sync.Mutex // guards what follows
	maxTotal, maxAddress int        // negative: none
	connections, public  int        // open: connections, and calls of methods that need no token
	neighbours           map[netip.Addr]*neighbour
	halfOpen             *list.List // of *limitedConn that have not begun HTTP/2, the oldest first
	closed               bool       // nobody comes in any more
}

// neighbour is what comes from one address. All that have none are one, for which
// no limits apply.
type neighbour struct {
	connections, public int
	accepted            int // connections on which a token was accepted
	spent               bucket
	turn                time.Time // of the next connection while it is slowed

	// slowUntil is read by its connections without the limiter's lock. nil: never.
	slowUntil atomic.Pointer[time.Time]
}

func (n *neighbour) slowed(now time.Time) bool {
	until := n.slowUntil.Load()
	return until != nil && now.Before(*until)
}

// slow has it get less for a while, and reports whether that is new.
func (n *neighbour) slow(now time.Time) (news bool) {
	news = !n.slowed(now)
	until := now.Add(slowTime)
	n.slowUntil.Store(&until)
	return news
}

// quiet says that nothing need be known of it any more.
func (n *neighbour) quiet(now time.Time) bool {
	return n.connections == 0 && n.public == 0 && !n.slowed(now) && n.spent.wait(neighbourhood, neighbourhood.burst, now) == 0
}

func newConnLimiter(c *Config) (*connLimiter, error) {
	k := &connLimiter{refused: map[string]prometheus.Counter{}, logger: c.logger(), neighbours: map[netip.Addr]*neighbour{}, halfOpen: list.New()}
	k.set(c)
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ingest_connections_refused_total", Help: "Connections turned away, or ended by TLS, by reason.",
	}, []string{"reason"})
	for _, reason := range []string{refusedTotal, refusedAddress, refusedHandshake, refusedHalfOpen, refusedSlowed} {
		k.refused[reason] = refused.WithLabelValues(reason)
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ingest_connections", Help: "Connections of agents that are open.",
	}, func() float64 { return float64(k.open()) })
	if c.Registerer == nil {
		return k, nil
	}
	if err := c.Registerer.Register(open); err != nil {
		return nil, err
	}
	return k, c.Registerer.Register(refused)
}

// set changes the limits. Connections beyond a lower one stay open.
func (k *connLimiter) set(c *Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.maxTotal, k.maxAddress = c.maxConnections(), c.maxAddressConnections()
}

func (k *connLimiter) open() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.connections
}

// at returns what comes from addr. Each call forgets up to two neighbours of
// whom nothing need be known.
func (k *connLimiter) at(addr netip.Addr, now time.Time) *neighbour {
	looked := 0
	for other, n := range k.neighbours {
		if looked++; looked > 2 {
			break
		}
		if other != addr && n.quiet(now) {
			delete(k.neighbours, other)
		}
	}
	n := k.neighbours[addr]
	if n == nil {
		n = &neighbour{}
		k.neighbours[addr] = n
	}
	return n
}

// full says which limit is reached; empty: none.
func (k *connLimiter) full(addr netip.Addr, total, here int) (reason string) {
	switch {
	case k.maxTotal >= 0 && total >= k.maxTotal:
		return refusedTotal
	case addr.IsValid() && k.maxAddress >= 0 && here >= k.maxAddress:
		return refusedAddress
	}
	return ""
}

// enter takes a place for a connection, or says why there is none. Where one that
// is half open holds a place for too long, that one is to be closed, and enter
// to be asked again.
func (k *connLimiter) enter(c *limitedConn, now time.Time) (reason string, late *limitedConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.at(c.addr, now)
	if reason = k.full(c.addr, k.connections, n.connections); reason != "" {
		return reason, k.late(c.addr, reason == refusedAddress, now)
	}
	k.connections++
	n.connections++
	c.near, c.entered = n, now
	c.waiting = k.halfOpen.PushBack(c)
	return "", nil
}

// late returns the connection that has been half open for longest, and for too
// long; here: of those from addr. nil: there is none.
func (k *connLimiter) late(addr netip.Addr, here bool, now time.Time) *limitedConn {
	for e := k.halfOpen.Front(); e != nil; e = e.Next() {
		c := e.Value.(*limitedConn)
		if now.Sub(c.entered) < halfOpenTime {
			return nil
		}
		if !here || c.addr == addr {
			return c
		}
	}
	return nil
}

// leave gives the place of a connection back. One on which no token was accepted
// has cost a handshake all the same, unless it waited in the queue of handshakes: agents
// that come back, all at once, are not to be slowed because the relay is slow.
func (k *connLimiter) leave(c *limitedConn) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.connections--
	c.near.connections--
	k.begun(c)
	if c.accepted.Load() {
		c.near.accepted--
	} else if c.addr.IsValid() && !c.queued.Load() && !c.near.spent.take(neighbourhood, workVisit, now) {
		c.near.slow(now)
	}
}

// begun notes that a connection is no longer half open.
func (k *connLimiter) begun(c *limitedConn) {
	if c.waiting != nil {
		k.halfOpen.Remove(c.waiting)
		c.waiting = nil
	}
}

// enterPublic takes a place for a call that needs no token, if there is one: as
// many as there may be connections, so that each may watch the relay's health,
// and nobody takes the places of others.
func (k *connLimiter) enterPublic(addr netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.at(addr, time.Now())
	if k.full(addr, k.public, n.public) != "" {
		return false
	}
	k.public++
	n.public++
	return true
}

func (k *connLimiter) leavePublic(addr netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.public--
	k.at(addr, time.Now()).public--
}

// closeHalfOpen ends what is half open, now and later: nobody waits for it at the end.
func (k *connLimiter) closeHalfOpen() {
	k.mu.Lock()
	k.closed = true
	var left []*limitedConn
	for e := k.halfOpen.Front(); e != nil; e = e.Next() {
		left = append(left, e.Value.(*limitedConn))
	}
	k.mu.Unlock()
	for _, c := range left {
		_ = c.Close() // it was told nothing, and is owed nothing
	}
}

func (k *connLimiter) isClosed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.closed
}

// limit returns a listener that accepts within the limits.
func (k *connLimiter) limit(l net.Listener) net.Listener { return &limitedListener{l, k} }

type limitedListener struct {
	net.Listener
	limiter *connLimiter
}

// Accept implements net.Listener.
func (g *limitedListener) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		if err != nil {
			return nil, err // gRPC tries again, with growing pauses up to a second
		}
		c := &limitedConn{Conn: nc, limiter: g.limiter, addr: addressOf(nc.RemoteAddr()), gone: make(chan struct{})}
		if g.admit(c) {
			return c, nil
		}
		_ = nc.Close() // it was told nothing, and is owed nothing
	}
}

// admit takes a place for a connection, if need be that of one that is late.
func (g *limitedListener) admit(c *limitedConn) bool {
	for {
		reason, late := g.limiter.enter(c, time.Now())
		switch {
		case reason == "":
			if g.limiter.isClosed() {
				_ = c.Close() // it came at the end
			}
			return true
		case late == nil:
			g.limiter.refused[reason].Inc()
			return false
		}
		g.limiter.refused[refusedHalfOpen].Inc()
		_ = late.Close() // which gives its place back
	}
}

// addressOf returns the IP address of a connection's other end, invalid if it
// has none. All of an IPv6 customer's addresses, a /64, are one.
func addressOf(remote net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return netip.Addr{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is6() {
		prefix, err := addr.Prefix(64)
		if err != nil {
			return addr
		}
		return prefix.Addr()
	}
	return addr
}
