package apnstest

import (
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What follows appends frames to the buffer that the writer takes next. The
// connection's mutex must be held; writing into memory does not fail.

// field codes one field of an answer into encBuf.
func (c *conn) field(name, value string) {
	_ = c.enc.WriteField(hpack.HeaderField{Name: name, Value: value}) // into memory
}

// writeBlock sends encBuf as HEADERS, with CONTINUATION frames where needed:
// one per piece bytes if piece is not 0.
func (c *conn) writeBlock(id uint32, end bool, piece int) {
	if piece == 0 {
		piece = maxFrameSize
	}
	block := c.encBuf.Bytes()
	frag := block[:min(piece, len(block))]
	block = block[len(frag):]
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: frag, EndStream: end, EndHeaders: len(block) == 0})
	for len(block) > 0 {
		frag, block = block[:min(piece, len(block))], block[min(piece, len(block)):]
		_ = c.framer.WriteContinuation(id, len(block) == 0, frag)
	}
}

func (c *conn) writeSettings(settings ...http2.Setting) {
	_ = c.framer.WriteSettings(settings...)
}

// goAway sends GOAWAY and takes no stream above last from now on. The
// connection ends when those up to last are answered.
func (c *conn) goAway(last uint32, code http2.ErrCode, debug []byte) {
	_ = c.framer.WriteGoAway(last, code, debug)
	c.sim.counters.goAways.Add(1)
	if c.goAwayAt.IsZero() {
		c.goAwayAt, c.goAwayUnheard = time.Now(), c.halfClose || c.stalled
	}
	c.goAwayID = min(c.goAwayID, last)
	c.signal()
}

// giveBack lets the client send what it has sent once more.
func (c *conn) giveBack() {
	if c.unacked > 0 {
		_ = c.framer.WriteWindowUpdate(0, uint32(c.unacked))
		c.unacked = 0
	}
}

// reasonJSON is the debug data of a GOAWAY: Apple, "Sending notification
// requests to APNs" (read 2026-11).
func reasonJSON(reason string) []byte { return []byte(`{"reason":"` + reason + `"}`) }
