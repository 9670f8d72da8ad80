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
// that have not shown a token, to whom no organization's limits apply, and so
// it counts their calls too.
type doorkeeper struct {
	refused map[string]prometheus.Counter // by reason; never changes

	mu                   sync.Mutex // guards what follows
	maxTotal, maxAddress int        // negative: none
	connections          crowd
	public               crowd // calls of methods that need no token
}

// crowd counts what is inside, all and by the address it came from.
type crowd struct {
	total     int
	addresses map[netip.Addr]int
}

func newDoorkeeper(c *Config) (*doorkeeper, error) {
	k := &doorkeeper{
		refused: map[string]prometheus.Counter{}, connections: crowd{addresses: map[netip.Addr]int{}}, public: crowd{addresses: map[netip.Addr]int{}},
	}
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
	return k.connections.total
}

// enter takes a place for a connection from addr, or says why there is none.
func (k *doorkeeper) enter(addr netip.Addr) (reason string) { return k.admit(&k.connections, addr) }

func (k *doorkeeper) leave(addr netip.Addr) { k.dismiss(&k.connections, addr) }

// enterPublic takes a place for a call that needs no token, if there is one: as
// many as there may be connections, so that each may watch the relay's health,
// and nobody takes the places of others.
func (k *doorkeeper) enterPublic(addr netip.Addr) bool { return k.admit(&k.public, addr) == "" }

func (k *doorkeeper) leavePublic(addr netip.Addr) { k.dismiss(&k.public, addr) }

func (k *doorkeeper) admit(c *crowd, addr netip.Addr) (reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.maxTotal >= 0 && c.total >= k.maxTotal:
		return refusedTotal
	case addr.IsValid() && k.maxAddress >= 0 && c.addresses[addr] >= k.maxAddress:
		return refusedAddress
	}
	c.total++
	if addr.IsValid() {
		c.addresses[addr]++
	}
	return ""
}

func (k *doorkeeper) dismiss(c *crowd, addr netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.total--
	if !addr.IsValid() {
		return
	}
	if c.addresses[addr]--; c.addresses[addr] == 0 {
		delete(c.addresses, addr)
	}
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
		addr := addressOf(nc.RemoteAddr())
		if reason := g.keeper.enter(addr); reason != "" {
			g.keeper.refused[reason].Inc()
			_ = nc.Close() // it was told nothing, and is owed nothing
			continue
		}
		return &guardedConn{Conn: nc, keeper: g.keeper, addr: addr}, nil
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
