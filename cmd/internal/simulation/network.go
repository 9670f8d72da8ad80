package simulation

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// network carries bytes between hosts. A path is one direction between two
// hosts; what goes over it takes a time that its connection's own chance draws,
// and arrives in order. While a path is blocked nothing arrives, and what was
// sent waits, as TCP sends it again and again.
type network struct {
	events *events
	seed   uint64

	mu     sync.Mutex // guards what follows, and all of every conn
	hosts  map[string]*host
	paths  map[path]*pathState
	dialed map[path]int
	conns  map[*conn]struct{}
}

// path is a direction between two hosts.
type path struct{ from, to string }

type pathState struct {
	blocked bool
	slow    time.Duration // added to everything that goes over it
}

// host is a machine. Its process listens, or nobody does.
type host struct {
	ip       net.IP
	listener *listener
	gone     bool // the machine has stopped: it neither sends nor answers
}

// latency of a path that is well; the half of it at least. Ours.
const latency = 2 * time.Millisecond

// socketBuffer is how many bytes may be on their way or unread before a write
// waits; a quarter of what Linux gives a busy connection.
const socketBuffer = 64 << 10

// connectRetry is how long a connect waits for an answer before it asks again.
const connectRetry = time.Second

func newNetwork(e *events, seed uint64) *network {
	return &network{events: e, seed: seed, hosts: map[string]*host{}, paths: map[path]*pathState{}, dialed: map[path]int{}, conns: map[*conn]struct{}{}}
}

// host returns a machine, made when it is first named; mu must be held.
func (n *network) host(name string) *host {
	h := n.hosts[name]
	if h == nil {
		h = &host{ip: net.IPv4(10, 0, byte(len(n.hosts)>>8), byte(len(n.hosts)+1))}
		n.hosts[name] = h
	}
	return h
}

// path returns the state of a direction; mu must be held.
func (n *network) path(p path) *pathState {
	s := n.paths[p]
	if s == nil {
		s = &pathState{}
		n.paths[p] = s
	}
	return s
}

// block stops or opens one direction between two hosts.
func (n *network) block(p path, blocked bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path(p).blocked = blocked
	if blocked {
		return
	}
	for c := range n.conns {
		if c.out.path == p {
			c.out.pumpLater()
		}
	}
}

// slow makes one direction slower by d.
func (n *network) slow(p path, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path(p).slow = d
}

// listen makes the host's process take connections. A host has one listener.
func (n *network) listen(name string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(name)
	h.gone = false
	h.listener = &listener{network: n, host: name, addr: &net.TCPAddr{IP: h.ip, Port: 443}, backlog: make(chan net.Conn, 1024), closed: make(chan struct{})}
	return h.listener
}

// exit ends the process of a host: the system closes what it had open. What was
// written is still delivered.
func (n *network) exit(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.host == name {
			c.closeLocked(net.ErrClosed)
		}
	}
	n.unlistenLocked(name)
}

// vanish stops a machine: nothing comes from it any more, and nobody is told.
func (n *network) vanish(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.host(name).gone = true
	for c := range n.conns {
		if c.host == name {
			c.vanishLocked()
		}
	}
	n.unlistenLocked(name)
}

// appear starts the machine again.
func (n *network) appear(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.host(name).gone = false
}

func (n *network) unlistenLocked(name string) {
	if l := n.host(name).listener; l != nil {
		l.closeLocked()
	}
}

// cut resets every connection between two hosts, as a middlebox does.
func (n *network) cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.host == a && c.peer.host == b {
			c.resetLocked()
			c.peer.resetLocked()
		}
	}
}

// dial opens a connection. It fails when nobody listens, and waits while the
// path is blocked or the host gone.
func (n *network) dial(ctx context.Context, from, to string) (net.Conn, error) {
	n.mu.Lock()
	p := path{from, to}
	n.dialed[p]++
	number := n.dialed[p]
	n.mu.Unlock()
	d := &dialing{network: n, path: p, number: number, chance: n.chance(p, number), done: make(chan struct{})}
	d.ask()
	select {
	case <-d.done:
		if d.conn == nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: d.err}
		}
		return d.conn, nil
	case <-ctx.Done():
		n.mu.Lock()
		d.given = true
		n.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
}

// chance is what a connection draws its times from, whatever others do.
func (n *network) chance(p path, number int) *rand.Rand {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s %s %d", p.from, p.to, number) // a hash does not fail
	return rand.New(rand.NewPCG(n.seed, h.Sum64()))
}

// dialing is a connect that is under way.
type dialing struct {
	network *network
	path    path
	number  int
	chance  *rand.Rand
	given   bool // up; guarded by network.mu
	done    chan struct{}
	conn    *conn
	err     error
}

// delay draws how long a packet takes.
func (n *network) delay(p path, chance *rand.Rand) time.Duration {
	return latency/2 + time.Duration(chance.Int64N(int64(latency))) + n.path(p).slow
}

func (d *dialing) ask() {
	d.network.mu.Lock()
	wait := d.network.delay(d.path, d.chance)
	d.network.mu.Unlock()
	d.network.events.after(wait, d.arrive)
}

// arrive is the connect's arrival at the other host.
func (d *dialing) arrive() {
	n := d.network
	n.mu.Lock()
	defer n.mu.Unlock()
	to, from := n.host(d.path.to), n.host(d.path.from)
	back := path{d.path.to, d.path.from}
	switch {
	case d.given || from.gone:
		return
	case n.path(d.path).blocked || n.path(back).blocked || to.gone:
		n.events.after(connectRetry+time.Duration(d.chance.Int64N(int64(time.Millisecond))), d.arrive)
		return
	}
	wait := n.delay(back, d.chance)
	if to.listener == nil {
		n.events.after(wait, func() { d.err = syscall.ECONNREFUSED; close(d.done) })
		return
	}
	near, far := n.pair(d)
	select {
	case to.listener.backlog <- far:
	default:
		n.events.after(wait, func() { d.err = syscall.ECONNREFUSED; close(d.done) })
		return
	}
	n.events.after(wait, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if d.given || n.host(d.path.from).gone {
			near.closeLocked(net.ErrClosed)
			return
		}
		d.conn = near
		close(d.done)
	})
}

// pair makes a connection; mu must be held.
func (n *network) pair(d *dialing) (near, far *conn) {
	back := path{d.path.to, d.path.from}
	near, far = newConn(n, d.path.from), newConn(n, d.path.to)
	near.peer, far.peer = far, near
	near.out = direction{network: n, path: d.path, chance: d.chance, to: far, from: near}
	far.out = direction{network: n, path: back, chance: n.chance(back, -d.number), to: near, from: far}
	near.local, near.remote = &net.TCPAddr{IP: n.host(d.path.from).ip, Port: 20000 + d.number%40000}, &net.TCPAddr{IP: n.host(d.path.to).ip, Port: 443}
	far.local, far.remote = near.remote, near.local
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

// listener takes a host's connections.
type listener struct {
	network *network
	host    string
	addr    net.Addr
	backlog chan net.Conn
	closed  chan struct{}
	ended   bool // guarded by network.mu
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	l.closeLocked()
	return nil
}

func (l *listener) closeLocked() {
	if l.ended {
		return
	}
	l.ended = true
	close(l.closed)
	if h := l.network.host(l.host); h.listener == l {
		h.listener = nil
	}
	for {
		select {
		case c := <-l.backlog:
			c.(*conn).resetLocked()
		default:
			return
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

var errTimedOut = &timeoutError{}

// timeoutError is what a deadline that has passed makes of a call.
type timeoutError struct{}

func (*timeoutError) Error() string   { return "i/o timeout" }
func (*timeoutError) Timeout() bool   { return true }
func (*timeoutError) Temporary() bool { return true }

var errReset = errors.New("connection reset by peer")
