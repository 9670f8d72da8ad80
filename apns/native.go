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

// Errors that end a link.
var (
	errPingTimeout  = errors.New("no answer to PING")
	errNoSettings   = errors.New("no SETTINGS after connecting")
	errWriteStalled = errors.New("peer takes no bytes")
)

// nativeLink is one connection of the native engine. Two goroutines own it:
// run reads, write writes; what both touch is atomic or under mu.
type nativeLink struct {
	pool  *Pool
	nc    net.Conn
	cred  Credential
	table streamTable
	linkState

	kicks  chan struct{} // one slot; wakes the writer
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
	streamCredits []streamCredit // WINDOW_UPDATEs for parked streams
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

func newNativeLink(p *Pool, nc net.Conn, cred Credential) *nativeLink {
	l := &nativeLink{
		pool: p, nc: nc, cred: cred,
		table:  newStreamTable(p.config.MaxStreams),
		kicks:  make(chan struct{}, 1),
		closed: make(chan struct{}),
		peer: peerSettings{
			maxStreams:    math.MaxUint32,
			initialWindow: initialWindow,
			headerTable:   defaultHPACKTable,
		},
	}
	l.began = time.Now()
	l.opened.Store(1)
	l.credit.Store(initialWindow)
	l.lastGood.Store(math.MaxUint32)
	host, _, err := net.SplitHostPort(p.config.Addr)
	if err != nil {
		host = p.config.Addr
	}
	l.w = nativeWriter{
		l:       l,
		guard:   guardOf(nc),
		headers: newHeaderEncoder(host, p.config.Topic),
		nextID:  1,
		window:  initialWindow,
		batch:   make([]Request, maxBatch),
		buf:     make([]byte, 0, 32<<10),
	}
	l.r = nativeReader{l: l, br: bufio.NewReaderSize(nc, readBufferSize), recvWindow: connWindow, peerWindow: initialWindow}
	l.r.framer = http2.NewFramer(nil, l.r.br)
	l.r.framer.SetMaxReadFrameSize(maxFrameSize)
	l.r.decoder = hpack.NewDecoder(defaultHPACKTable, l.r.field)
	l.r.decoder.SetMaxStringLength(maxHeaderList)
	return l
}

func (l *nativeLink) state() *linkState { return &l.linkState }

func (l *nativeLink) kick() {
	select {
	case l.kicks <- struct{}{}:
	default:
	}
}

func (l *nativeLink) drain() {
	if first, woken := l.leave(); first {
		if woken {
			l.pool.Wake()
		}
		l.pool.wakeManager() // the place is free, whatever it knows of demand
	}
	l.kick()
}

// note keeps the first reason to end.
func (l *nativeLink) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure == nil {
		l.failure = err
	}
}

// fail notes why the link ends and cuts the connection.
func (l *nativeLink) fail(err error) {
	l.note(err)
	l.leave()
	if isSilent(err) {
		l.pool.replaceIdle(time.Now()) // before the pushes that were lost look for another
	}
	closeConn(l.nc, err)
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

// run reads until the connection ends, and sweeps up after the writer.
func (l *nativeLink) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.fail(context.Cause(ctx)) })
	defer stop()
	var writing sync.WaitGroup
	writing.Go(l.w.loop) // ends when the connection is closed; run waits below
	l.fail(l.r.loop())
	close(l.closed)
	writing.Wait()
	err := l.cause()
	l.sweep(0, ReasonConnectionLost, err)
	l.granted.Store(0)
	if errors.Is(err, errDrained) {
		return nil
	}
	return err
}

// sweep returns every push on streams above last. Both goroutines may sweep at
// once, but only when nothing is opened any more.
func (l *nativeLink) sweep(last uint32, reason Reason, cause error) {
	var results []Result
	for i := range l.table.slots {
		s := &l.table.slots[i]
		id := s.id.Load()
		if id == slotFree || id == slotClaimed || id <= last || !s.claim(id) {
			continue
		}
		results = append(results, Result{Tag: s.tag, Err: transportError(reason, cause), WrittenAt: l.at(s.written)})
	}
	if len(results) > 0 {
		l.lost.Add(int64(len(results)))
		l.ended.Add(int64(len(results)))
		l.inFlight.Add(-int64(len(results)))
		l.pool.finish(results)
	}
}
