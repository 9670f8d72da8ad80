package process

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What may come from one address to a public listener. All are ours: a TLS
// handshake and an answer cost up to two milliseconds of a core, so an address gets a
// fifth of a second at once, and then a fiftieth of a core. Of IPv6 one /64 is one
// address.
const (
	guestConnections = 16 // open
	guestRate        = 10 // a second
	guestBurst       = 100
)

// RefusedGuests counts the connections that the listener of a metadata document turned
// away.
func RefusedGuests() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{
		Name: "metadata_connections_refused_total", Help: "Connections to the metadata document turned away because too many came from their address: it may have 16 open, make 100 at once and 10 a second.",
	})
}

// guests is a listener that closes connections beyond what their address may have,
// before they cost a handshake.
type guests struct {
	net.Listener
	refused prometheus.Counter // nil: nobody counts

	mu    sync.Mutex // guards known
	known map[netip.Addr]*guest
}

// guest is what comes from one address.
type guest struct {
	open int
	left float64   // connections that it may make at once
	at   time.Time // when that was so
}

// refill adds what time has brought.
func (w *guest) refill(now time.Time) {
	w.left = min(guestBurst, w.left+guestRate*now.Sub(w.at).Seconds())
	w.at = now
}

func (g *guests) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address := origin(nc.RemoteAddr())
		if g.enter(address, time.Now()) {
			return &guestConn{Conn: nc, leave: sync.OnceFunc(func() { g.leave(address) })}, nil
		}
		if g.refused != nil {
			g.refused.Inc()
		}
		_ = nc.Close() // it was told nothing, and is owed nothing
	}
}

func (g *guests) enter(address netip.Addr, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(address, now)
	who := g.known[address]
	if who == nil {
		who = &guest{left: guestBurst, at: now}
		g.known[address] = who
	}
	who.refill(now)
	if who.open >= guestConnections || who.left < 1 {
		return false
	}
	who.open++
	who.left--
	return true
}

// forget looks at two addresses with each that comes, and forgets those of which
// nothing need be known.
func (g *guests) forget(but netip.Addr, now time.Time) {
	looked := 0
	for address, who := range g.known {
		if looked++; looked > 2 {
			return
		}
		if who.refill(now); address != but && who.open == 0 && who.left >= guestBurst {
			delete(g.known, address)
		}
	}
}

func (g *guests) leave(address netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known[address].open--
}

// guestConn gives its place back when it is closed.
type guestConn struct {
	net.Conn
	leave func()
}

func (c *guestConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// origin returns the address that counts for a connection; invalid: it has none,
// as on a socket.
func origin(remote net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return netip.Addr{}
	}
	address := ap.Addr().Unmap().WithZone("")
	if !address.Is6() {
		return address
	}
	prefix, err := address.Prefix(64)
	if err != nil {
		return address
	}
	return prefix.Addr()
}
