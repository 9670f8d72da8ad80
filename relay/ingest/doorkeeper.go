package ingest

import (
	"net"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a connection is turned away, or ends before it can ask for anything.
const (
	refusedTotal     = "total"     // MaxConnections are open
	refusedAddress   = "address"   // MaxAddressConnections of its address are
	refusedHandshake = "handshake" // TLS failed, or took too long
)

// doorkeeper counts connections, all and by address, and turns away those
// beyond the limits before they cost a TLS handshake. It is what bounds peers
// that have not shown a token, to whom no organization's limits apply.
type doorkeeper struct {
	refused map[string]prometheus.Counter // by reason; never changes

	mu                   sync.Mutex // guards what follows
	maxTotal, maxAddress int        // negative: none
	total                int
	addresses            map[netip.Addr]int
	public               int // calls of methods that need no token
}

func newDoorkeeper(c *Config) (*doorkeeper, error) {
	k := &doorkeeper{refused: map[string]prometheus.Counter{}, addresses: map[netip.Addr]int{}}
	k.set(c)
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ingest_connections_refused_total", Help: "Connections turned away, or ended by TLS, by reason.",
	}, []string{"reason"})
	for _, reason := range []string{refusedTotal, refusedAddress, refusedHandshake} {
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
func (k *doorkeeper) set(c *Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.maxTotal, k.maxAddress = c.maxConnections(), c.maxAddressConnections()
}

func (k *doorkeeper) open() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.total
}

// enter takes a place for a connection from addr, or says why there is none.
func (k *doorkeeper) enter(addr netip.Addr) (reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.maxTotal >= 0 && k.total >= k.maxTotal:
		return refusedTotal
	case addr.IsValid() && k.maxAddress >= 0 && k.addresses[addr] >= k.maxAddress:
		return refusedAddress
	}
	k.total++
	if addr.IsValid() {
		k.addresses[addr]++
	}
	return ""
}

func (k *doorkeeper) leave(addr netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.total--
	if !addr.IsValid() {
		return
	}
	if k.addresses[addr]--; k.addresses[addr] == 0 {
		delete(k.addresses, addr)
	}
}

// enterPublic takes a place for a call that needs no token, if there is one: as
// many as there may be connections, so that each may watch the relay's health.
func (k *doorkeeper) enterPublic() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.maxTotal >= 0 && k.public >= k.maxTotal {
		return false
	}
	k.public++
	return true
}

func (k *doorkeeper) leavePublic() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.public--
}

// guard returns a listener that accepts within the limits.
func (k *doorkeeper) guard(l net.Listener) net.Listener { return &guardedListener{l, k} }

type guardedListener struct {
	net.Listener
	keeper *doorkeeper
}

// Accept implements net.Listener.
func (g *guardedListener) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := addressOf(nc)
		if reason := g.keeper.enter(addr); reason != "" {
			g.keeper.refused[reason].Inc()
			_ = nc.Close() // it was told nothing, and is owed nothing
			continue
		}
		return &guardedConn{Conn: nc, keeper: g.keeper, addr: addr}, nil
	}
}

// addressOf returns where a connection comes from, invalid if not from an IP.
// All of an IPv6 customer's addresses, a /64, are one.
func addressOf(nc net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(nc.RemoteAddr().String())
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

// guardedConn gives its place back when it is closed.
type guardedConn struct {
	net.Conn
	keeper *doorkeeper
	addr   netip.Addr
	left   sync.Once
}

// Close implements net.Conn.
func (c *guardedConn) Close() error {
	c.left.Do(func() { c.keeper.leave(c.addr) })
	return c.Conn.Close()
}
