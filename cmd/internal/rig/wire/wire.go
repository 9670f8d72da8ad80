// Package wire carries connections between the processes of a run, and keeps
// them from it: a network between processes of one machine that can be cut, and
// that can stall in one direction or both.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// State is what a wire does with what it is given.
type State int

// The states. The zero value is Open.
const (
	Open      State = iota
	Refuse          // connections are reset, and new ones too
	Stall           // nothing arrives, of ends of connections neither; what waits arrives later
	StallUp         // the same, towards the server only
	StallDown       // the same, towards the client only
	States          // how many there are
)

// String returns the state's name in traces.
func (s State) String() string {
	return [...]string{"open", "refuse", "stall", "stall_up", "stall_down"}[s]
}

// passes reports whether what goes up, towards the server, or down arrives.
func (s State) passes(up bool) bool {
	return s == Open || s == StallUp && !up || s == StallDown && up
}

const (
	chunk = 16 << 10
	// depth is how many chunks a direction holds: about what kernels do.
	depth = 32
	// dialTimeout bounds a connect to a process of this machine.
	dialTimeout = 10 * time.Second
)

// Wire passes on what connects to its address. Safe for concurrent use.
type Wire struct {
	listener net.Listener
	dial     func(ctx context.Context) (net.Conn, error)
	wg       sync.WaitGroup
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc

	mu      sync.Mutex // guards what follows
	state   State
	changed chan struct{} // closed when state changes
	conns   map[net.Conn]struct{}
}

// New makes a wire from an address to what dial returns. The caller closes it.
func New(network, address string, dial func(ctx context.Context) (net.Conn, error)) (*Wire, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("make a wire: %w", err)
	}
	w := &Wire{listener: l, dial: dial, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.wg.Go(w.accept) // ends with the listener
	return w, nil
}

// Address returns where the wire begins.
func (w *Wire) Address() string { return w.listener.Addr().String() }

// Set changes the state. Refuse resets what is connected.
func (w *Wire) Set(s State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	close(w.changed)
	w.changed = make(chan struct{})
	if s == Refuse {
		for c := range w.conns {
			reset(c)
		}
	}
}

// Close ends the wire and all its connections.
func (w *Wire) Close() {
	w.cancel()
	_ = w.listener.Close() // nobody is told
	w.Set(Refuse)
	w.wg.Wait()
}

func (w *Wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.serve(near) }) // ends with its connections
	}
}

// serve carries one connection.
func (w *Wire) serve(near net.Conn) {
	if !w.add(near) {
		return
	}
	defer w.remove(near)
	if !w.await(true) {
		return
	}
	ctx, cancel := context.WithTimeout(w.ctx, dialTimeout)
	far, err := w.dial(ctx)
	cancel()
	if err != nil || !w.add(far) {
		reset(near)
		return
	}
	defer w.remove(far)
	var both sync.WaitGroup
	end := func(clean bool) {
		for _, c := range []net.Conn{near, far} {
			if clean {
				_ = c.Close() // it ends either way
			} else {
				reset(c)
			}
		}
	}
	both.Go(func() { w.carry(far, near, true, end) })
	both.Go(func() { w.carry(near, far, false, end) })
	both.Wait()
}

// carry passes on in one direction until either end is gone.
func (w *Wire) carry(to, from net.Conn, up bool, end func(clean bool)) {
	waiting, over := make(chan []byte, depth), make(chan struct{})
	var clean bool
	w.wg.Go(func() { // ends with from, which end closes
		defer close(waiting)
		defer close(over)
		for {
			b := make([]byte, chunk)
			n, err := from.Read(b)
			if n > 0 {
				select {
				case waiting <- b[:n]:
				case <-w.ctx.Done():
					return
				}
			}
			if err != nil {
				clean = errors.Is(err, io.EOF)
				return
			}
		}
	})
	for b := range waiting {
		if lost := !w.passes(up) && !w.awaitOr(up, over); lost {
			break // the sender is gone, and nobody sends again what did not arrive
		}
		if _, err := to.Write(b); err != nil {
			break
		}
	}
	if w.await(up) { // a stalled wire does not tell of an end
		select {
		case <-over:
			end(clean)
		default:
			end(false)
		}
	} else {
		end(false)
	}
	for range waiting { // so that the reader ends
	}
}

func (w *Wire) passes(up bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.passes(up)
}

// await waits until the direction is open. It reports false when the wire is
// closed or refuses.
func (w *Wire) await(up bool) bool { return w.awaitOr(up, nil) }

// awaitOr is await that reports false too once over is closed.
func (w *Wire) awaitOr(up bool, over <-chan struct{}) bool {
	for {
		w.mu.Lock()
		state, changed := w.state, w.changed
		w.mu.Unlock()
		switch {
		case state == Refuse || w.ctx.Err() != nil:
			return false
		case state.passes(up):
			return true
		}
		select {
		case <-changed:
		case <-over:
			return false
		case <-w.ctx.Done():
			return false
		}
	}
}

// add takes a connection, unless the wire refuses.
func (w *Wire) add(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == Refuse || w.ctx.Err() != nil {
		reset(c)
		return false
	}
	w.conns[c] = struct{}{}
	return true
}

func (w *Wire) remove(c net.Conn) {
	w.mu.Lock()
	delete(w.conns, c)
	w.mu.Unlock()
	_ = c.Close() // it has ended
}

// reset ends a connection as a crash does; of a Unix socket that is a close.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // then Close resets
	}
	_ = c.Close() // whoever uses it notices
}
