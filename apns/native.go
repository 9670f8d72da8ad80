package apns

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Sizes of ours, within what RFC 9113 allows.
const (
	maxBatch       = 256       // pushes encoded into one write
	readBufferSize = 64 << 10  // more than a frame of the size we allow
	maxFrameSize   = 16 << 10  // RFC 9113, section 4.2: the least, and what we allow
	connWindow     = 1 << 20   // what the peer may send before we say more
	maxControl     = 64 << 10  // answers to control frames that wait to be written
	maxHeaderBlock = 64 << 10  // compressed size of an answer's header block
	maxHeaderList  = 64 << 10  // and its size uncompressed
	maxWindow      = 1<<31 - 1 // RFC 9113, section 6.9.1
	initialWindow  = 65535     // RFC 9113, section 6.9.2
)

// connError ends a connection with an error code (RFC 9113, section 7).
type connError struct {
	code   http2.ErrCode
	reason string
}

func (e *connError) Error() string { return fmt.Sprintf("http2: %s: %s", e.code, e.reason) }

// goAwayError is why a connection ended that its peer sent away.
type goAwayError struct {
	code   http2.ErrCode
	reason Reason // from JSON debug data
	text   string // other debug data, cleaned
}

func (e *goAwayError) Error() string {
	if e.reason != "" {
		return fmt.Sprintf("apns sent GOAWAY: %s, reason %s", e.code, e.reason)
	}
	return fmt.Sprintf("apns sent GOAWAY: %s %q", e.code, e.text)
}

// Errors that end a connection.
var (
	errPingTimeout  = errors.New("no answer to PING")
	errNoSettings   = errors.New("no SETTINGS after connecting")
	errWriteStalled = errors.New("peer takes no bytes")
)

// nativeConn is one connection of the native engine. Two goroutines own it:
// run reads, write writes; what both touch is atomic or under mu.
type nativeConn struct {
	pool  *Pool
	nc    net.Conn
	cred  Credential
	table streamTable
	connState

	woken  chan struct{} // one slot; wakes the writer
	closed chan struct{} // closed by run when reading has ended

	// What the reader tells the writer.
	opened    atomic.Uint32                 // first id not yet opened: ids below may be answered
	ended     atomic.Int64                  // streams ended since the beginning
	credit    atomic.Int64                  // bytes the peer allowed on the connection, in all
	sent      atomic.Int64                  // DATA bytes written in all
	lastFrame atomic.Int64                  // when bytes last came, nanoseconds since began
	pongs     atomic.Uint64                 // answers to our PINGs
	lastGood  atomic.Uint32                 // last stream id of GOAWAY; MaxUint32: none came
	refusals  atomic.Int64                  // streams refused since one was accepted
	token     atomic.Pointer[providerToken] // what the writer sends; told back

	mu            sync.Mutex // a few memory operations
	control       []byte     // frames that the reader wants written
	peer          peerSettings
	peerChanged   bool
	streamCredits []streamCredit // WINDOW_UPDATEs for streams with blocked bodies
	failure       error          // the first reason to end

	// smallWindows is set as soon as a stream's window may be smaller than a
	// body, so that WINDOW_UPDATEs for streams matter.
	smallWindows atomic.Bool

	w nativeWriter // owned by the writer
	r nativeReader // owned by the reader
}

// peerSettings are the peer's SETTINGS that concern us.
type peerSettings struct {
	received      bool
	maxStreams    uint32
	initialWindow uint32
	headerTable   uint32
	headerList    uint32 // 0: no limit
	acks          int    // SETTINGS frames to acknowledge
}

type streamCredit struct{ id, n uint32 }

func newNativeConn(p *Pool, nc net.Conn, cred Credential) *nativeConn {
	c := &nativeConn{
		pool: p, nc: nc, cred: cred,
		table:  newStreamTable(p.config.MaxStreams),
		woken:  make(chan struct{}, 1),
		closed: make(chan struct{}),
		peer: peerSettings{
			maxStreams:    math.MaxUint32,
			initialWindow: initialWindow,
			headerTable:   defaultHPACKTable,
		},
	}
	c.began = time.Now()
	c.opened.Store(1)
	c.credit.Store(initialWindow)
	c.lastGood.Store(math.MaxUint32)
	host, _, err := net.SplitHostPort(p.config.Addr)
	if err != nil {
		host = p.config.Addr
	}
	c.w = nativeWriter{
		c:       c,
		guard:   guardOf(nc),
		headers: newHeaderEncoder(host, p.config.Topic),
		nextID:  1,
		window:  initialWindow,
		batch:   make([]Request, maxBatch),
		buf:     make([]byte, 0, 32<<10),
	}
	c.r = nativeReader{c: c, br: bufio.NewReaderSize(nc, readBufferSize), recvWindow: connWindow, peerWindow: initialWindow}
	c.r.framer = http2.NewFramer(nil, c.r.br)
	c.r.framer.SetMaxReadFrameSize(maxFrameSize)
	c.r.decoder = hpack.NewDecoder(defaultHPACKTable, c.r.field)
	c.r.decoder.SetMaxStringLength(maxHeaderList)
	return c
}

func (c *nativeConn) state() *connState { return &c.connState }

func (c *nativeConn) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

func (c *nativeConn) drain() {
	if first, woken := c.leave(); first {
		if woken {
			c.pool.Wake()
		}
		c.pool.wakeManager() // the place is free, whatever it knows of demand
	}
	c.wake()
}

// note keeps the first reason to end.
func (c *nativeConn) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure == nil {
		c.failure = err
	}
}

// fail notes why the connection ends and cuts the connection.
func (c *nativeConn) fail(err error) {
	c.note(err)
	c.leave()
	if isSilent(err) {
		c.pool.replaceIdle(time.Now()) // before the pushes that were lost look for another
	}
	closeConn(c.nc, err)
}

// isSilent reports whether a connection ended because nothing comes from its peer.
func isSilent(cause error) bool {
	return errors.Is(cause, errPingTimeout) || errors.Is(cause, errWriteStalled) || errors.Is(cause, errTooLate)
}

// closeConn closes a connection; without good order it does not wait for the peer
// to take TLS's farewell. Of a peer that is silent the system forgets what it
// has not sent yet: it would go on trying for minutes, and the peer, back again,
// would take a badge to a device that shows a newer one by then.
func closeConn(nc net.Conn, cause error) {
	if secure, ok := nc.(*tls.Conn); ok && !errors.Is(cause, errDrained) {
		nc = secure.NetConn()
	}
	if tcp, ok := nc.(interface{ SetLinger(sec int) error }); ok && isSilent(cause) {
		_ = tcp.SetLinger(0) // a plain close is what remains without
	}
	_ = nc.Close() // why it is closed is noted already
}

// run reads until the connection ends, and fails what the writer left.
func (c *nativeConn) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })
	defer stop()
	var writing sync.WaitGroup
	writing.Go(c.w.loop) // ends when the connection is closed; run waits below
	c.fail(c.r.loop())
	close(c.closed)
	writing.Wait()
	err := c.cause()
	c.failStreams(0, ReasonConnectionLost, err)
	c.granted.Store(0)
	if errors.Is(err, errDrained) {
		return nil
	}
	return err
}

// failStreams returns every push on streams above last. Both goroutines may call it at
// once, but only when nothing is opened any more.
func (c *nativeConn) failStreams(last uint32, reason Reason, cause error) {
	var results []Result
	for i := range c.table.slots {
		s := &c.table.slots[i]
		id := s.id.Load()
		if id == slotFree || id == slotClaimed || id <= last || !s.claim(id) {
			continue
		}
		results = append(results, Result{Tag: s.tag, Err: transportError(reason, cause), WrittenAt: c.at(s.written)})
	}
	if len(results) > 0 {
		c.lost.Add(int64(len(results)))
		c.ended.Add(int64(len(results)))
		c.inFlight.Add(-int64(len(results)))
		c.pool.finish(results)
	}
}
