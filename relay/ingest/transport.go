package ingest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"badgerelay/auth"
)

// Why a connection or a call is refused before anything of ours sees it: the
// reasons of ingest_transport_refusals_total.
const (
	refusedPreface    = "preface"               // TLS finished, and HTTP/2 did not begin, or not in time
	refusedPings      = "too_many_pings"        // GOAWAY with ENHANCE_YOUR_CALM
	refusedSettings   = "too_many_settings"     // beyond maxSettings; gRPC would take any number
	refusedStranger   = "flood_without_token"   // beyond the rates stranger and neighbourhood
	refusedFrames     = "flood_of_frames"       // beyond the rate odd, on a connection with a token
	refusedProtocol   = "protocol_error"        // a rule of HTTP/2 is broken; endless metadata breaks one too
	refusedMetadata   = "metadata_too_large"    // RST_STREAM with FRAME_SIZE_ERROR
	refusedStreams    = "too_many_streams"      // RST_STREAM with REFUSED_STREAM; beyond maxRefused the connection ends
	refusedIdle       = "idle"                  // no call for idleTimeout
	refusedKeepalive  = "keepalive_timeout"     // no answer to a PING, and twice silence is over
	refusedPublic     = "too_many_public_calls" // of health and reflection, which need no token
	refusedMethod     = "unknown_method"        // a call of what is not served
	refusedTooLarge   = "message_too_large"     // beyond service.MaxMessageSize, packed or not
	refusedUnreadable = "message_unreadable"    // cut off, or not packed as it says
	refusedOther      = "other"                 // any other error code of HTTP/2
)

// transportReasons are all of them; never changed.
var transportReasons = []string{
	refusedPreface, refusedPings, refusedSettings, refusedStranger, refusedFrames, refusedProtocol, refusedMetadata, refusedStreams, refusedIdle,
	refusedKeepalive, refusedPublic, refusedMethod, refusedTooLarge, refusedUnreadable, refusedOther,
}

const (
	// maxSettings is how many SETTINGS a connection may send in a minute. Ours:
	// clients send a handful, as their windows grow.
	maxSettings = 1000
	// maxRefused is how many calls of a connection may be ended in a minute
	// because too many are open, or because the client breaks a rule of HTTP/2
	// that concerns one call ("MadeYouReset"). Ours: a client knows how many may
	// be, and has to be told once.
	maxRefused = 1000
)

// errEnough is what reading from a connection ends with beyond its allowance, and
// writing to it beyond maxRefused.
var errEnough = errors.New("the client floods the connection")

// transport counts what gRPC refuses by itself, and bounds what it would take without
// end. It is the server's credentials, and so between gRPC and TLS, where it weighs the
// frames that gRPC reads, and follows those that it writes.
//
// A stats.Handler sees none of these refusals (grpc-go 1.85): it hears of calls that got
// as far as a handler, and of a connection that it has ended, not why. Why is in what
// gRPC writes alone, a RST_STREAM or a GOAWAY. That is followed for PINGs too, which may
// only go between two frames (keepalive).
type transport struct {
	credentials.TransportCredentials
	handshake prometheus.Counter            // handshakes that failed
	refusals  map[string]prometheus.Counter // by reason; never changes
}

// newTransport makes the server's credentials out of those that Config asks for.
func newTransport(c *Config, handshake prometheus.Counter) (*transport, error) {
	t := &transport{insecure.NewCredentials(), handshake, map[string]prometheus.Counter{}}
	if c.TLS != nil {
		t.TransportCredentials = credentials.NewTLS(newHandshakes().guard(c.TLS))
	}
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ingest_transport_refusals_total", Help: "Connections and calls that were ended below the contract, by reason.",
	}, []string{"reason"})
	for _, reason := range transportReasons {
		t.refusals[reason] = refusals.WithLabelValues(reason)
	}
	if c.Registerer == nil {
		return t, nil
	}
	return t, c.Registerer.Register(refusals)
}

// ServerHandshake implements credentials.TransportCredentials. nc is a
// limitedConn.
func (t *transport) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	limited, ok := nc.(*limitedConn)
	if !ok {
		return nil, nil, fmt.Errorf("a connection that did not come through the limiter: %T", nc)
	}
	if !limited.wait() {
		return nil, nil, errSlowed
	}
	plain, info, err := t.TransportCredentials.ServerHandshake(nc)
	limited.endTurn()
	if err != nil {
		t.handshake.Inc()
		return nil, nil, err
	}
	c := &transportConn{Conn: plain, limited: limited, refusals: t.refusals, began: time.Now()}
	c.keepalive.start(c.checkPeer)
	return c, visitor{info, limited}, nil
}

// visitor tells interceptors on which connection a call came.
type visitor struct {
	credentials.AuthInfo
	limited *limitedConn
}

// tokenAccepted notes that a token was accepted on the connection of a call: it
// is no stranger's any more.
func tokenAccepted(ctx context.Context) {
	if _, accepted := auth.PrincipalFrom(ctx); !accepted {
		return // health and reflection want none
	}
	p, _ := peer.FromContext(ctx) // gRPC sets it
	if v, ok := p.AuthInfo.(visitor); ok {
		v.limited.accept()
	}
}

// Clone implements credentials.TransportCredentials.
func (t *transport) Clone() credentials.TransportCredentials {
	return &transport{t.TransportCredentials.Clone(), t.handshake, t.refusals}
}

// unknownMethod is the handler of every method that is not served.
func (t *transport) unknownMethod(_ any, s grpc.ServerStream) error {
	t.refusals[refusedMethod].Inc()
	method, _ := grpc.MethodFromServerStream(s) // it is there: gRPC calls
	return status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

// unreadable counts a message that gRPC could not hand over. gRPC has answered the
// call already; how it ends is seen too late.
func (t *transport) unreadable(err error) {
	switch status.Code(err) {
	case codes.ResourceExhausted:
		t.refusals[refusedTooLarge].Inc()
	case codes.Internal:
		t.refusals[refusedUnreadable].Inc()
	}
}

// transportConn is a connection on which gRPC speaks in the clear. It costs a
// few operations a frame, and holds nothing of what goes over it.
type transportConn struct {
	net.Conn
	limited  *limitedConn
	refusals map[string]prometheus.Counter
	began    time.Time
	closed   sync.Once

	// The reader's.
	meter     meter
	allowance allowance

	prefaced atomic.Bool  // the preface was read
	lastRead atomic.Int64 // when bytes came last, in nanoseconds since began, which no step of the clock moves
	over     atomic.Bool  // the peer has gone, or the end is counted

	keepalive keepalive

	writing sync.Mutex // held while something is written; guards what follows
	written frames
	refused perMinute // calls ended because too many are open, or a rule is broken
}

// perMinute counts what happens within a minute.
type perMinute struct {
	minute time.Duration // the number of the minute
	count  int
}

// add counts one that happens so long after the beginning.
func (m *perMinute) add(at time.Duration) {
	if minute := at / time.Minute; minute != m.minute {
		m.minute, m.count = minute, 0
	}
	m.count++
}

// Read implements net.Conn.
func (c *transportConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		now := time.Now()
		at := now.Sub(c.began)
		c.lastRead.Store(int64(at))
		w := c.meter.follow(p[:n])
		if c.meter.begun && !c.prefaced.Swap(true) {
			c.limited.begun()
		}
		if reason := c.allowance.refuse(w, c.limited, at, now); reason != "" {
			return 0, c.enough(reason)
		}
	}
	if err != nil && !timedOut(err) {
		c.over.Store(true)
	}
	return n, err
}

// timedOut says that it was we who did not want to wait any longer.
func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// Write implements net.Conn.
func (c *transportConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.follow(p)
	if c.refused.count > maxRefused {
		return 0, c.enough(refusedStreams)
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		c.over.Store(true)
	}
	return n, err
}

// enough ends the connection, and slows its address; gRPC learns of it from the
// error.
func (c *transportConn) enough(reason string) error {
	c.end(reason)
	c.limited.slow()
	_ = c.Conn.Close() // gRPC closes again
	return errEnough
}

// Close implements net.Conn. gRPC says no word to a peer that breaks HTTP/2, or
// does not answer.
func (c *transportConn) Close() error {
	c.closed.Do(func() {
		c.keepalive.stop()
		switch quiet := c.quiet(); {
		case !c.prefaced.Load():
			c.end(refusedPreface)
		case quiet >= silence:
			c.end(refusedKeepalive)
		default:
			c.end(refusedProtocol)
		}
	})
	return c.Conn.Close()
}

// quiet returns how long ago bytes came last.
func (c *transportConn) quiet() time.Duration {
	return time.Since(c.began) - time.Duration(c.lastRead.Load())
}

// end counts why the connection ends, once, unless the peer has gone.
func (c *transportConn) end(reason string) {
	if !c.over.Swap(true) {
		c.refusals[reason].Inc()
	}
}

// follow walks over what is written, and counts what gRPC refuses with it.
func (c *transportConn) follow(p []byte) {
	for left, found := c.written.next(p); found; left, found = c.written.next(left) {
		c.look()
	}
}

// look looks at a frame's header, or at one whose payload matters together with
// the beginning of that.
func (c *transportConn) look() {
	size, kind, _ := c.written.header()
	payload := c.written.payload()
	if (kind == frameReset || kind == frameGoAway) && len(payload) == 0 && size > 0 {
		c.written.more(size)
		return
	}
	switch {
	case kind == frameReset && len(payload) >= 4:
		c.reset(binary.BigEndian.Uint32(payload))
	case kind == frameGoAway && len(payload) >= 8:
		c.goAway(binary.BigEndian.Uint32(payload[4:]), string(payload[8:]) == idleWord)
	}
	c.written.pass()
}

// reset counts a call that gRPC has ended with an error of HTTP/2.
func (c *transportConn) reset(code uint32) {
	switch code {
	case codeNone, codeCancel: // ended well, or by its own deadline
	case codeFrameSize:
		c.refusals[refusedMetadata].Inc()
	case codeRefusedStream:
		c.refused.add(time.Since(c.began))
		c.refusals[refusedStreams].Inc()
	case codeProtocol, codeFlowControl, codeStreamClosed:
		c.refused.add(time.Since(c.began))
		c.refusals[refusedProtocol].Inc()
	default:
		c.refusals[refusedOther].Inc()
	}
}

// goAway counts a connection that gRPC ends with a word. An orderly end has two
// of them, and is no refusal.
func (c *transportConn) goAway(code uint32, idle bool) {
	switch {
	case code == codeNone && idle:
		c.end(refusedIdle)
	case code == codeNone:
		c.over.Store(true)
	case code == codeCalm:
		c.end(refusedPings)
	case code == codeProtocol:
		c.end(refusedProtocol)
	default:
		c.end(refusedOther)
	}
}
