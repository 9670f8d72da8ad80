package apnstest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What APNs announces in its first SETTINGS: pushy#878 (read 2026-11; rule C2).
const (
	headerTableSize   = 4096
	initialWindow     = 65535
	maxFrameSize      = 16384
	maxHeaderListSize = 8000
)

// lingerFor is how long a connection that the server ended is still read, so
// that unread data does not make TCP drop the GOAWAY. Ours.
const lingerFor = time.Second

// conn is one connection. serve reads it; one more goroutine writes it.
type conn struct {
	sim *Simulator
	id  uint64
	nc  duplex
	raw net.Conn // beneath TLS
	log *slog.Logger

	client string           // Config.BySource: its address; else all are one
	cert   *pushCertificate // nil: provider tokens
	wake   chan struct{}    // one slot: the writer has something to do
	gone   chan struct{}    // closed by abort
	once   sync.Once        // of abort
	why    error            // set by abort before gone is closed
	ended  chan struct{}    // closed when serve has returned

	r reader // the goroutine that runs serve

	halt atomic.Bool // closing or stalled: the reader stops

	mu           sync.Mutex // guards what follows; held for memory operations only
	framer       *http2.Framer
	out          outBuffer // frames to write next
	spare        []byte    // the other buffer, while the writer doesn't use it
	enc          *hpack.Encoder
	encBuf       bytes.Buffer
	streams      map[uint32]*stream
	free         []*stream
	reset        map[uint32]struct{} // streams ended early: what still comes for them is ignored
	queue        queue
	line         line
	late         int // answers on the line, or about to be
	fresh        int // of these, not yet on it
	queued       uint64
	answers      uint64   // ids made up in fast mode
	changed      []Device // to tell watchers
	notes        []note   // to log
	limits       limits
	lastSeen     uint32 // highest stream id seen
	processed    uint32 // highest stream id taken
	goAwayAt     time.Time
	goAwayID     uint32 // streams above are ignored
	window       int64  // what the client lets us send on the connection
	initial      int64  // and on a new stream
	blocked      []*stream
	unacked      int64 // received and not given back by WINDOW_UPDATE
	score        int   // rule C5
	slowed       bool
	settingsSent bool // our first SETTINGS are in out, or beyond
	starved      bool
	noPing       bool
	wedged       bool
	stalled      bool
	halfClose    bool
	serverErrors []serverError // what was said on this connection within lostWithReset
	closing      bool          // write what is there, then end: set by end
	active       time.Time

	goAwayUnheard bool // a fault kept GOAWAY from the client
}

// duplex is a *tls.Conn, or what a fuzz test has in its place.
type duplex interface {
	net.Conn
	CloseWrite() error
}

// outBuffer is a slice that a Framer can write to.
type outBuffer struct{ b []byte }

func (o *outBuffer) Write(p []byte) (int, error) {
	o.b = append(o.b, p...)
	return len(p), nil
}

func newConn(s *Simulator, id uint64, nc duplex, raw net.Conn, cert *pushCertificate, rng *rand.Rand) *conn {
	c := &conn{
		sim: s, id: id, nc: nc, raw: raw, cert: cert, log: s.log.With("connection", id),
		wake: make(chan struct{}, 1), gone: make(chan struct{}), ended: make(chan struct{}),
		streams: map[uint32]*stream{}, reset: map[uint32]struct{}{},
		goAwayID: math.MaxUint32, window: initialWindow, initial: initialWindow, active: time.Now(),
	}
	if s.cfg.BySource {
		c.client = sourceOf(raw)
	}
	c.enc = hpack.NewEncoder(&c.encBuf)
	c.r.init(c, rng)
	c.framer = c.r.framer
	first := uint32(1) // rule C3: until the first valid token was answered
	if c.cert != nil {
		first = s.cfg.streamLimit()
	}
	c.limits.init(first, s.cfg.Strict)
	return c
}

// serve runs the connection to its end and returns why it ended, nil if the
// client closed it in good order.
func (c *conn) serve(fault Fault) error {
	c.mu.Lock()
	if fault == FaultLateSettings {
		c.after(c.sim.plan.Load().hold(), c.announce)
	} else {
		c.announce()
	}
	if c.sim.cfg.IdleTimeout > 0 {
		c.after(c.sim.cfg.IdleTimeout, c.checkIdle)
	}
	c.mu.Unlock()
	var writer sync.WaitGroup
	writer.Go(c.write) // ends when gone is closed; waited for below
	c.signal()
	err := c.r.run()
	if errors.Is(err, errClosing) {
		c.linger()
	}
	c.abort(err)
	writer.Wait()
	c.giveUp()
	if errors.Is(c.why, io.EOF) {
		return nil
	}
	return c.why
}

// abort ends the connection at once. Safe from any goroutine, under any lock.
func (c *conn) abort(why error) {
	c.once.Do(func() {
		c.why = why
		close(c.gone)
		_ = c.raw.Close() // nothing more to say to the client
	})
}

// signal tells the writer that there is something to do.
func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// after does something later, on the writer's goroutine with mu held, as it
// must be now.
func (c *conn) after(d time.Duration, do func()) {
	c.queued++
	c.queue.push(later{due: time.Now().Add(d), seq: c.queued, do: do})
}

// write is the writer: each turn writes all frames that have gathered at once.
func (c *conn) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		out, wait, last := c.turn()
		if len(out) > 0 {
			c.sim.counters.writes.Add(1)
			if _, err := c.nc.Write(out); err != nil {
				c.abort(err)
				return
			}
			c.recycle(out)
			if !last {
				continue // more may have gathered meanwhile
			}
		}
		if last {
			c.closeWrite()
			return
		}
		timer.Reset(wait)
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.gone:
			return
		}
	}
}

// turn does what is due and takes what is to be written. wait is the time
// until something is due; last says that nothing is to be written after this.
func (c *conn) turn() (out []byte, wait time.Duration, last bool) {
	now := time.Now()
	c.mu.Lock()
	select {
	case <-c.gone: // nobody hears of what is due, so it doesn't happen
		c.mu.Unlock()
		return nil, time.Hour, false
	default:
	}
	for {
		e, ok := c.queue.pop(now)
		if !ok {
			break
		}
		if e.st == nil {
			e.do()
		} else if c.streams[e.st.id] == e.st {
			c.finish(e.st, now)
		}
	}
	wait = time.Hour
	if len(c.queue) > 0 {
		wait = c.queue[0].due.Sub(now)
	}
	if !c.goAwayAt.IsZero() && len(c.streams) == 0 {
		c.end()
	}
	if c.stalled {
		c.mu.Unlock()
		return nil, wait, false // what was read before is processed in its time; nobody hears of it
	}
	if !c.settingsSent && !c.closing {
		c.mu.Unlock()
		return nil, wait, false // nothing may precede SETTINGS: announce
	}
	if c.sim.cfg.RoundTrip > 0 {
		wait = min(wait, c.holdBack(now))
	}
	if len(c.out.b) > 0 {
		out, c.out.b, c.spare = c.out.b, c.spare[:0], nil
	}
	last = (c.closing || c.halfClose) && len(c.line.chunks) == 0
	changed, notes := c.takeNews()
	c.mu.Unlock()
	c.spread(changed, notes)
	return out, wait, last
}

// note is a log line that waits for mu to be free.
type note struct {
	text string
	args []any
}

// debug logs at debug level once mu is free. mu must be held.
func (c *conn) debug(text string, args ...any) {
	if c.log.Enabled(context.Background(), slog.LevelDebug) {
		c.notes = append(c.notes, note{text, args})
	}
}

// takeNews returns what watchers and the log have to learn. mu must be held.
func (c *conn) takeNews() (changed []Device, notes []note) {
	changed, notes = c.changed, c.notes
	c.changed, c.notes = nil, nil
	return changed, notes
}

// spread tells watchers and the log. mu must not be held.
func (c *conn) spread(changed []Device, notes []note) {
	for _, d := range changed {
		c.sim.devices.tell(d)
	}
	for _, n := range notes {
		c.log.Debug(n.text, n.args...) //nolint:sloglint // every note's text is a constant; notes only wait for the lock to go
	}
}

// recycle keeps a written buffer for the turn after the next.
func (c *conn) recycle(out []byte) {
	if cap(out) > 1<<20 {
		return // after a flood: let it go
	}
	c.mu.Lock()
	c.spare = out[:0]
	if c.out.b == nil {
		c.out.b, c.spare = c.spare, nil
	}
	c.mu.Unlock()
}

// closeWrite ends our direction in good order and, unless that was a fault,
// makes the reader stop after lingering.
func (c *conn) closeWrite() {
	_ = c.nc.CloseWrite() // the client may have gone first
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.CloseWrite() // likewise
	}
	c.mu.Lock()
	closing := c.closing
	c.mu.Unlock()
	if closing {
		_ = c.raw.SetReadDeadline(time.Now().Add(lingerFor)) // at worst the reader ends with the client
	}
}

// linger waits until the client has closed too, or for a moment.
func (c *conn) linger() {
	c.signal()
	_ = c.raw.SetReadDeadline(time.Now().Add(lingerFor)) // at worst Copy ends with the client
	_, _ = io.Copy(io.Discard, c.raw)                    // any end will do
}

// end makes the connection end once everything is written. mu must be held.
func (c *conn) end() {
	c.closing = true
	c.halt.Store(true)
}

// checkIdle ends a connection that is idle (rule C6).
func (c *conn) checkIdle() {
	limit := c.sim.cfg.IdleTimeout
	idle := time.Since(c.active)
	if len(c.streams) > 0 {
		idle = 0
	}
	if idle < limit {
		c.after(limit-idle, c.checkIdle)
		return
	}
	c.sim.counters.refused("IdleTimeout", RuleIdle)
	c.goAway(c.processed, http2.ErrCodeNo, reasonJSON("IdleTimeout"))
}

// giveUp records what was never answered.
func (c *conn) giveUp() {
	c.mu.Lock()
	for _, st := range c.streams {
		c.drop(st, "the connection ended first")
	}
	c.mu.Unlock()
}
