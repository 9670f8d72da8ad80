package ingest

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Why a connection or a call ends before anything of ours sees it.
const (
	endedPreface    = "preface"               // TLS finished, and HTTP/2 did not begin, or not in time
	endedPings      = "too_many_pings"        // GOAWAY with ENHANCE_YOUR_CALM
	endedSettings   = "too_many_settings"     // beyond maxSettings; gRPC would take any number
	endedProtocol   = "protocol_error"        // a rule of HTTP/2 is broken; endless metadata breaks one too
	endedMetadata   = "metadata_too_large"    // RST_STREAM with FRAME_SIZE_ERROR
	endedStreams    = "too_many_streams"      // RST_STREAM with REFUSED_STREAM; beyond maxRefused the connection ends
	endedIdle       = "idle"                  // no call for idleTimeout
	endedKeepalive  = "keepalive_timeout"     // no answer to a PING within silence
	endedPublic     = "too_many_public_calls" // of health and reflection, which need no token
	endedMethod     = "unknown_method"        // a call of what is not served
	endedTooLarge   = "message_too_large"     // beyond maxMessageSize, packed or not
	endedUnreadable = "message_unreadable"    // cut off, or not packed as it says
	endedOther      = "other"                 // any other error code of HTTP/2
)

const (
	// maxSettings is how many SETTINGS a connection may send in its life. Ours:
	// clients send a handful, as their windows grow.
	maxSettings = 1000
	// maxRefused is how many calls of a connection may be refused because too many
	// are open. Ours: a client knows how many may be, and has to be told once.
	maxRefused = 1000
	// prefaceSize is the least that a client says first: the magic, and a
	// SETTINGS frame. RFC 9113, section 3.4.
	prefaceSize = 24 + frameHeader
	frameHeader = 9 // RFC 9113, section 4.1
	// goAwayTold is how much of a frame's payload is looked at: of a GOAWAY the
	// last stream, the error code, and the word that gRPC has for an idle
	// connection. RFC 9113, section 6.8.
	goAwayTold = 4 + 4 + len(idleWord)
	idleWord   = "max_idle"
)

// Types, flags and error codes of frames. RFC 9113, sections 6 and 7.
const (
	frameReset    = 0x3
	frameSettings = 0x4
	frameGoAway   = 0x7
	flagACK       = 0x1

	codeNone          = 0x0
	codeProtocol      = 0x1
	codeFlowControl   = 0x3
	codeStreamClosed  = 0x5
	codeFrameSize     = 0x6
	codeRefusedStream = 0x7
	codeCancel        = 0x8
	codeCalm          = 0xb
)

// errEnough is what writing to a connection ends with beyond maxSettings and maxRefused.
var errEnough = errors.New("the client floods the connection")

// eavesdropper counts what gRPC refuses by itself, for which it has no hook. It
// is the server's credentials, and so between gRPC and TLS, where it follows
// the frames that gRPC writes.
type eavesdropper struct {
	credentials.TransportCredentials
	handshake prometheus.Counter            // handshakes that failed
	ended     map[string]prometheus.Counter // by reason; never changes
}

// newEavesdropper makes the server's credentials out of those that Config asks for.
func newEavesdropper(c *Config, handshake prometheus.Counter) (*eavesdropper, error) {
	e := &eavesdropper{insecure.NewCredentials(), handshake, map[string]prometheus.Counter{}}
	if c.TLS != nil {
		e.TransportCredentials = credentials.NewTLS(c.TLS)
	}
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ingest_transport_refusals_total", Help: "Connections and calls that were ended below the contract, by reason.",
	}, []string{"reason"})
	for _, reason := range []string{endedPreface, endedPings, endedSettings, endedProtocol, endedMetadata,
		endedStreams, endedIdle, endedKeepalive, endedPublic, endedMethod, endedTooLarge, endedUnreadable, endedOther} {
		e.ended[reason] = ended.WithLabelValues(reason)
	}
	if c.Registerer == nil {
		return e, nil
	}
	return e, c.Registerer.Register(ended)
}

// ServerHandshake implements credentials.TransportCredentials.
func (e *eavesdropper) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	plain, info, err := e.TransportCredentials.ServerHandshake(nc)
	if err != nil {
		e.handshake.Inc()
		return nil, nil, err
	}
	return &overheardConn{Conn: plain, ended: e.ended}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (e *eavesdropper) Clone() credentials.TransportCredentials {
	return &eavesdropper{e.TransportCredentials.Clone(), e.handshake, e.ended}
}

// unknownMethod is the handler of every method that is not served.
func (e *eavesdropper) unknownMethod(_ any, s grpc.ServerStream) error {
	e.ended[endedMethod].Inc()
	method, _ := grpc.MethodFromServerStream(s) // it is there: gRPC calls
	return status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

// unreadable counts a message that gRPC could not hand over, and returns the
// error. gRPC has answered the call already; how it ends is seen too late.
func (e *eavesdropper) unreadable(err error) error {
	if e == nil {
		return err
	}
	switch status.Code(err) {
	case codes.ResourceExhausted:
		e.ended[endedTooLarge].Inc()
	case codes.Internal:
		e.ended[endedUnreadable].Inc()
	}
	return err
}

// overheardConn is a connection on which gRPC speaks in the clear. It costs a
// few operations a frame, and holds nothing of what goes over it.
type overheardConn struct {
	net.Conn
	ended  map[string]prometheus.Counter
	closed sync.Once

	heard    int          // bytes read, up to prefaceSize; the reader's
	prefaced atomic.Bool  // prefaceSize bytes were read
	lastRead atomic.Int64 // when bytes came last, in Unix nanoseconds
	over     atomic.Bool  // the peer has gone, or the end is counted

	// The writer's, of which there is one at a time.
	told     [frameHeader + goAwayTold]byte // the frame's header, and the beginning of its payload
	have     int                            // bytes of told
	want     int                            // bytes of told that are to come before it is looked at; 0: frameHeader
	skip     int                            // bytes of payload that nobody looks at
	settings int                            // SETTINGS acknowledged
	refused  int                            // calls refused because too many are open
}

// Read implements net.Conn.
func (c *overheardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.lastRead.Store(time.Now().UnixNano())
	}
	if c.heard < prefaceSize {
		if c.heard += n; c.heard >= prefaceSize {
			c.prefaced.Store(true)
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
func (c *overheardConn) Write(p []byte) (int, error) {
	c.follow(p)
	if c.settings > maxSettings {
		return 0, c.enough(endedSettings)
	}
	if c.refused > maxRefused {
		return 0, c.enough(endedStreams)
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		c.over.Store(true)
	}
	return n, err
}

// enough ends the connection; gRPC learns of it from the error.
func (c *overheardConn) enough(reason string) error {
	c.end(reason)
	_ = c.Conn.Close() // gRPC closes again
	return errEnough
}

// Close implements net.Conn. gRPC says no word to a peer that breaks HTTP/2, or
// does not answer.
func (c *overheardConn) Close() error {
	c.closed.Do(func() {
		switch quiet := time.Since(time.Unix(0, c.lastRead.Load())); {
		case !c.prefaced.Load():
			c.end(endedPreface)
		case quiet >= silence:
			c.end(endedKeepalive)
		default:
			c.end(endedProtocol)
		}
	})
	return c.Conn.Close()
}

// end counts why the connection ends, once, unless the peer has gone.
func (c *overheardConn) end(reason string) {
	if !c.over.Swap(true) {
		c.ended[reason].Inc()
	}
}

// follow walks over what is written, frame by frame, wherever it is cut.
func (c *overheardConn) follow(p []byte) {
	for {
		skipped := min(c.skip, len(p))
		c.skip -= skipped
		p = p[skipped:]
		if len(p) == 0 {
			return
		}
		want := max(c.want, frameHeader)
		n := copy(c.told[c.have:want], p)
		c.have += n
		p = p[n:]
		if c.have == want {
			c.look()
		}
	}
}

// look looks at a frame's header, or at one whose payload matters together with
// the beginning of that.
func (c *overheardConn) look() {
	size := int(c.told[0])<<16 | int(c.told[1])<<8 | int(c.told[2])
	payload := c.told[frameHeader:c.have]
	kind, flags := c.told[3], c.told[4]
	if (kind == frameReset || kind == frameGoAway) && len(payload) == 0 && size > 0 {
		c.want = frameHeader + min(size, goAwayTold)
		return
	}
	switch {
	case kind == frameSettings && flags&flagACK != 0:
		c.settings++
	case kind == frameReset && len(payload) >= 4:
		c.reset(binary.BigEndian.Uint32(payload))
	case kind == frameGoAway && len(payload) >= 8:
		c.goAway(binary.BigEndian.Uint32(payload[4:]), string(payload[8:]) == idleWord)
	}
	c.have, c.want, c.skip = 0, 0, size-len(payload)
}

// reset counts a call that gRPC has ended with an error of HTTP/2.
func (c *overheardConn) reset(code uint32) {
	switch code {
	case codeNone, codeCancel: // ended well, or by its own deadline
	case codeFrameSize:
		c.ended[endedMetadata].Inc()
	case codeRefusedStream:
		c.refused++
		c.ended[endedStreams].Inc()
	case codeProtocol, codeFlowControl, codeStreamClosed:
		c.ended[endedProtocol].Inc()
	default:
		c.ended[endedOther].Inc()
	}
}

// goAway counts a connection that gRPC ends with a word. An orderly end has two
// of them, and is no refusal.
func (c *overheardConn) goAway(code uint32, idle bool) {
	switch {
	case code == codeNone && idle:
		c.end(endedIdle)
	case code == codeNone:
		c.over.Store(true)
	case code == codeCalm:
		c.end(endedPings)
	case code == codeProtocol:
		c.end(endedProtocol)
	default:
		c.end(endedOther)
	}
}
