package apns_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

// effect is what a breach of the protocol has to lead to.
type effect uint8

const (
	endsConnection effect = iota // GOAWAY with the code, every push goes elsewhere
	endsStream                   // RST_STREAM with the code, this one push goes elsewhere
	isIgnored                    // nothing; every push is answered where it was sent
)

// breach is one thing that a server must not do, or that a client must bear.
type breach struct {
	section string // of RFC 9113
	name    string
	effect  effect
	code    http2.ErrCode
	act     func(c *peerConn, stream uint32) // stream is an open one; 1 is closed, 999 idle
}

// rawFrame sends a frame as it is. Stream 0xffff stands for the open stream.
func rawFrame(t http2.FrameType, flags http2.Flags, id uint32, payload string) func(*peerConn, uint32) {
	return func(c *peerConn, open uint32) {
		if id == thatStream {
			id = open
		}
		_ = c.WriteRawFrame(t, flags, id, []byte(payload)) // the client may have hung up
	}
}

const thatStream = 0xffff

// answer sends HEADERS and, unless empty, DATA that ends the stream.
func answer(body string, fields ...string) func(*peerConn, uint32) {
	return func(c *peerConn, id uint32) {
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: body == "", BlockFragment: c.headers(fields...)})
		if body != "" {
			_ = c.WriteData(id, true, []byte(body))
		}
	}
}

// both does one after the other.
func both(acts ...func(*peerConn, uint32)) func(*peerConn, uint32) {
	return func(c *peerConn, id uint32) {
		for _, act := range acts {
			act(c, id)
		}
	}
}

// breachesOfFrames are about single frames: sections 3 to 7.
func breachesOfFrames() []breach {
	const (
		protocol, size, flow, compression = http2.ErrCodeProtocol, http2.ErrCodeFrameSize, http2.ErrCodeFlowControl, http2.ErrCodeCompression

		data, headers, priority, reset = http2.FrameData, http2.FrameHeaders, http2.FramePriority, http2.FrameRSTStream
		settings, promise, ping, away  = http2.FrameSettings, http2.FramePushPromise, http2.FramePing, http2.FrameGoAway
		window, continuation           = http2.FrameWindowUpdate, http2.FrameContinuation
	)
	return []breach{
		{"4.1", "frame of unknown type", isIgnored, 0, rawFrame(0xfa, 0xff, thatStream, "unknown")},
		{"4.1", "frame of unknown type on an idle stream", isIgnored, 0, rawFrame(0xfa, 0xff, 999, "unknown")},
		{"4.1", "unknown flags", isIgnored, 0, rawFrame(ping, 0xfe, 0, "12345678")},
		{"4.1", "reserved bit set", isIgnored, 0, rawFrame(window, 0, 1<<31, "\x00\x00\x00\x01")},
		{"4.2", "DATA too large", endsConnection, size, rawFrame(data, 0, thatStream, strings.Repeat("x", 16385))},
		{"4.2", "HEADERS too large", endsConnection, size, rawFrame(headers, 4, thatStream, strings.Repeat("x", 16385))},
		{"4.3", "header block that breaks off", endsConnection, compression, rawFrame(headers, 5, thatStream, "\x88\x40")},
		{"4.3", "broken integer in a header block", endsConnection, compression, rawFrame(headers, 5, thatStream, "\xff\xff\xff\xff\xff")},
		{"4.3", "index beyond the table", endsConnection, compression, rawFrame(headers, 5, thatStream, "\x88\xfe")},
		{"4.3", "index 0", endsConnection, compression, rawFrame(headers, 5, thatStream, "\x88\x80")},
		{"4.3", "table larger than we allow", endsConnection, compression, rawFrame(headers, 5, thatStream, "\x3f\xe2\x1f\x88")},
		{"4.3", "table size within a block", endsConnection, compression, rawFrame(headers, 5, thatStream, "\x88\x20")},
		{"4.3", "broken block on a closed stream", endsConnection, compression, rawFrame(headers, 5, 1, "\x88\xfe")},
		{"5.1", "HEADERS on an idle stream", endsConnection, protocol, rawFrame(headers, 5, 999, "\x88")},
		{"5.1", "DATA on an idle stream", endsConnection, protocol, rawFrame(data, 0, 999, "x")},
		{"5.1", "late HEADERS on a closed stream", isIgnored, 0, rawFrame(headers, 5, 1, "\x88")},
		{"5.1", "late DATA on a closed stream", isIgnored, 0, rawFrame(data, 1, 1, "late")},
		{"5.1", "late RST_STREAM on a closed stream", isIgnored, 0, rawFrame(reset, 0, 1, "\x00\x00\x00\x08")},
		{"5.1", "late WINDOW_UPDATE on a closed stream", isIgnored, 0, rawFrame(window, 0, 1, "\x00\x00\x00\x08")},
		{"5.1.1", "HEADERS on a stream of the server", endsConnection, protocol, rawFrame(headers, 5, 2, "\x88")},
		{"5.1.1", "DATA on a stream of the server", endsConnection, protocol, rawFrame(data, 0, 2, "x")},
		{"5.5", "unknown frame within a header block", endsConnection, protocol, both(rawFrame(headers, 0, thatStream, "\x88"), rawFrame(0xfa, 0, thatStream, ""))},
		{"6.1", "DATA on stream 0", endsConnection, protocol, rawFrame(data, 0, 0, "x")},
		{"6.1", "DATA with more padding than frame", endsConnection, protocol, rawFrame(data, 8, thatStream, "\xffxx")},
		{"6.1", "DATA without its pad length", endsConnection, size, rawFrame(data, 8, thatStream, "")},
		{"6.2", "HEADERS on stream 0", endsConnection, protocol, rawFrame(headers, 5, 0, "\x88")},
		{"6.2", "HEADERS with more padding than frame", endsConnection, protocol, rawFrame(headers, 0xd, thatStream, "\xff\x88")},
		{"6.2", "HEADERS too short for its priority", endsConnection, size, rawFrame(headers, 0x25, thatStream, "\x88")},
		{"6.2", "PING within a header block", endsConnection, protocol, both(rawFrame(headers, 0, thatStream, "\x88"), rawFrame(ping, 0, 0, "12345678"))},
		{"6.3", "PRIORITY", isIgnored, 0, rawFrame(priority, 0, thatStream, "\x00\x00\x00\x00\x10")},
		{"6.3", "PRIORITY on an idle stream", isIgnored, 0, rawFrame(priority, 0, 999, "\x00\x00\x00\x00\x10")},
		{"6.3", "PRIORITY on stream 0", endsConnection, protocol, rawFrame(priority, 0, 0, "\x00\x00\x00\x00\x10")},
		{"6.3", "PRIORITY of 4 bytes", endsConnection, size, rawFrame(priority, 0, thatStream, "1234")},
		{"6.4", "RST_STREAM on stream 0", endsConnection, protocol, rawFrame(reset, 0, 0, "\x00\x00\x00\x00")},
		{"6.4", "RST_STREAM on an idle stream", endsConnection, protocol, rawFrame(reset, 0, 999, "\x00\x00\x00\x00")},
		{"6.4", "RST_STREAM of 3 bytes", endsConnection, size, rawFrame(reset, 0, thatStream, "\x00\x00\x00")},
		{"6.5", "SETTINGS on a stream", endsConnection, protocol, rawFrame(settings, 0, thatStream, "")},
		{"6.5", "SETTINGS of 5 bytes", endsConnection, size, rawFrame(settings, 0, 0, "12345")},
		{"6.5", "acknowledgment with a payload", endsConnection, size, rawFrame(settings, 1, 0, "123456")},
		{"6.5.2", "unknown setting", isIgnored, 0, rawFrame(settings, 0, 0, "\xfa\xfa\x00\x00\x00\x01")},
		{"6.5.2", "push enabled by a server", endsConnection, protocol, rawFrame(settings, 0, 0, "\x00\x02\x00\x00\x00\x01")},
		{"6.5.2", "ENABLE_PUSH of 2", endsConnection, protocol, rawFrame(settings, 0, 0, "\x00\x02\x00\x00\x00\x02")},
		{"6.5.2", "initial window beyond the maximum", endsConnection, flow, rawFrame(settings, 0, 0, "\x00\x04\xff\xff\xff\xff")},
		{"6.5.2", "frame size below the least", endsConnection, protocol, rawFrame(settings, 0, 0, "\x00\x05\x00\x00\x3f\xff")},
		{"6.5.2", "frame size above the most", endsConnection, protocol, rawFrame(settings, 0, 0, "\x00\x05\x01\x00\x00\x00")},
		{"6.6", "PUSH_PROMISE although push is off", endsConnection, protocol, rawFrame(promise, 4, thatStream, "\x00\x00\x00\x02\x88")},
		{"6.6", "PUSH_PROMISE on stream 0", endsConnection, protocol, rawFrame(promise, 4, 0, "\x00\x00\x00\x02\x88")},
		{"6.7", "PING on a stream", endsConnection, protocol, rawFrame(ping, 0, thatStream, "12345678")},
		{"6.7", "PING of 7 bytes", endsConnection, size, rawFrame(ping, 0, 0, "1234567")},
		{"6.7", "answer to a PING never sent", isIgnored, 0, rawFrame(ping, 1, 0, "\x00\x00\x00\x00\x00\x00\x00\x00")},
		{"6.8", "GOAWAY on a stream", endsConnection, protocol, rawFrame(away, 0, thatStream, "12345678")},
		{"6.8", "GOAWAY of 7 bytes", endsConnection, size, rawFrame(away, 0, 0, "1234567")},
		{"6.9", "WINDOW_UPDATE of 0", endsConnection, protocol, rawFrame(window, 0, 0, "\x00\x00\x00\x00")},
		{"6.9", "WINDOW_UPDATE of 0 on a stream", endsStream, protocol, rawFrame(window, 0, thatStream, "\x00\x00\x00\x00")},
		{"6.9", "WINDOW_UPDATE on an idle stream", endsConnection, protocol, rawFrame(window, 0, 999, "\x00\x00\x00\x01")},
		{"6.9", "WINDOW_UPDATE of 3 bytes", endsConnection, size, rawFrame(window, 0, 0, "\x00\x00\x01")},
		{"6.9.1", "connection window beyond the maximum", endsConnection, flow, rawFrame(window, 0, 0, "\x7f\xff\xff\xff")},
		{"6.9.1", "stream window beyond the maximum", endsStream, flow, rawFrame(window, 0, thatStream, "\x7f\xff\xff\xff")},
		{"6.9.1", "more padding than the stream's window", endsConnection, flow, func(c *peerConn, id uint32) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: c.headers(":status", "400")})
			for range 257 {
				rawFrame(data, 8, id, "\xff"+strings.Repeat("\x00", 255))(c, id)
			}
		}},
		{"6.10", "CONTINUATION alone", endsConnection, protocol, rawFrame(continuation, 4, thatStream, "x")},
		{"6.10", "CONTINUATION after the end of the block", endsConnection, protocol, both(rawFrame(headers, 5, thatStream, "\x88"), rawFrame(continuation, 4, thatStream, "x"))},
		{"6.10", "CONTINUATION on another stream", endsConnection, protocol, both(rawFrame(headers, 1, thatStream, "\x88"), rawFrame(continuation, 4, 1, "x"))},
		{"7", "GOAWAY with an unknown code", isIgnored, 0, rawFrame(away, 0, 0, "\x7f\xff\xff\xff\xde\xad\xbe\xef")},
	}
}

// breachesOfMessages are about answers as HTTP: sections 8 and 10.
func breachesOfMessages() []breach {
	const protocol, calm = http2.ErrCodeProtocol, http2.ErrCodeEnhanceYourCalm
	const body = `{"reason":"BadTopic"}` // would stop the app, were it believed
	malformed := func(section, name, body string, fields ...string) breach {
		return breach{section, name, endsStream, protocol, answer(body, fields...)}
	}
	return []breach{
		{"8.1", "DATA before HEADERS", endsStream, protocol, rawFrame(http2.FrameData, 1, thatStream, "x")},
		malformed("8.1", "interim answer that ends the stream", "", ":status", "103"),
		{"8.1", "second final answer", endsStream, protocol, func(c *peerConn, id uint32) {
			for _, end := range []bool{false, true} {
				_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: end, BlockFragment: c.headers(":status", "400")})
			}
		}},
		{"8.1", "trailers that do not end the stream", endsStream, protocol, func(c *peerConn, id uint32) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: c.headers(":status", "400")})
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: c.headers("x", "y")})
		}},
		malformed("8.1.1", "body shorter than its length", body, ":status", "400", "content-length", "22"),
		malformed("8.1.1", "body longer than its length", body, ":status", "400", "content-length", "20"),
		malformed("8.1.1", "two lengths", body, ":status", "400", "content-length", "21", "content-length", "22"),
		malformed("8.1.1", "length that is no number", body, ":status", "400", "content-length", "-1"),
		malformed("8.2.1", "upper case in a name", body, ":status", "400", "X-Upper", "y"),
		malformed("8.2.1", "upper case in a name of an accepted push", "", ":status", "200", "Apns-Id", "y"),
		malformed("8.2.2", "transfer-encoding of an accepted push", "", ":status", "200", "transfer-encoding", "chunked"),
		malformed("8.3", "pseudo-header of an accepted push", "", ":status", "200", ":path", "/"),
		malformed("8.3", "status of an accepted push twice", "", ":status", "200", ":status", "200"),
		malformed("8.2.1", "space in a name", body, ":status", "400", "a b", "y"),
		malformed("8.2.1", "empty name", body, ":status", "400", "", "y"),
		malformed("8.2.1", "line break in a value", body, ":status", "400", "x", "y\r\nz: 1"),
		malformed("8.2.1", "NUL in a value", body, ":status", "400", "x", "y\x00"),
		malformed("8.2.1", "value that begins with a space", body, ":status", "400", "x", " y"),
		malformed("8.2.2", "connection", body, ":status", "400", "connection", "close"),
		malformed("8.2.2", "transfer-encoding", body, ":status", "400", "transfer-encoding", "chunked"),
		malformed("8.3", "unknown pseudo-header", body, ":status", "400", ":reason", "y"),
		malformed("8.3", "pseudo-header of requests", body, ":status", "400", ":path", "/"),
		malformed("8.3", "pseudo-header after others", body, "x", "y", ":status", "400"),
		malformed("8.3", "status twice", body, ":status", "400", ":status", "200"),
		{"8.3", "pseudo-header in trailers", endsStream, protocol, func(c *peerConn, id uint32) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: c.headers(":status", "400")})
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: c.headers(":x", "y")})
		}},
		malformed("8.3.2", "no status", body, "x", "y"),
		malformed("8.3.2", "status of letters", body, ":status", "abc"),
		malformed("8.3.2", "status of four digits", body, ":status", "0400"),
		malformed("8.3.2", "status below 100", body, ":status", "099"),
		malformed("8.6", "switch of protocols", body, ":status", "101"),
		{"10.5.1", "64 KiB of header fields", endsStream, protocol, func(c *peerConn, id uint32) {
			block := c.headers(":status", "400", "x", strings.Repeat("0", 32<<10), "x", strings.Repeat("1", 32<<10))
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true})
			for i := 0; i < len(block); i += 16000 {
				_ = c.WriteContinuation(id, i+16000 >= len(block), block[i:min(i+16000, len(block))])
			}
		}},
		{"10.5", "endless CONTINUATION", endsConnection, calm, endlessBlock("\x88")},
		{"10.5", "endless empty CONTINUATION", endsConnection, calm, endlessBlock("")},
		{"10.5", "header block of a megabyte", endsConnection, calm, endlessBlock(strings.Repeat("\x88", 16384))},
		{"10.5.1", "HPACK bomb", endsStream, protocol, hpackBomb},
	}
}

// endlessBlock never ends its header block.
func endlessBlock(fragment string) func(*peerConn, uint32) {
	return func(c *peerConn, id uint32) {
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}})
		for c.WriteContinuation(id, false, []byte(fragment)) == nil {
			continue
		}
	}
}

// hpackBomb is a header block of 64 KB that stands for 250 MB: one field of
// nearly 4 KB goes into the table, and is named by one byte again and again.
func hpackBomb(c *peerConn, id uint32) {
	block := c.headers(":status", "400", "x", strings.Repeat("y", 4000))
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, BlockFragment: block})
	for i := range 4 {
		_ = c.WriteContinuation(id, i == 3, []byte(strings.Repeat("\xbe", 15_000)))
	}
}

// TestRFC9113 asks for what each breach of the protocol earns: the right error
// code, the right verdict for every push in flight, and a pool that goes on.
// What a client itself has to keep to (sections 3.4, 5.1.2, 6.5.3, 6.8, 6.9) is
// tested by the tests of settings, limits, windows and GOAWAY beside this one.
func TestRFC9113(t *testing.T) {
	for _, b := range append(breachesOfFrames(), breachesOfMessages()...) {
		t.Run(b.section+" "+b.name, func(t *testing.T) { bubble(t, b.test) })
	}
}

func (b *breach) test(t *testing.T) {
	var first *peerConn
	var open []*peerRequest
	p := newPeer(t, onlyFirst(func(c *peerConn) {
		first = c
		c.settle(streams(10))
		c.ok(c.request())
		open = []*peerRequest{c.request(), c.request(), c.request()}
		acted := make(chan struct{})
		go func() { // ends when the client has read it or hung up
			defer close(acted)
			c.mu.Lock()
			b.act(c, open[0].id)
			c.mu.Unlock()
			if b.effect == isIgnored {
				c.ok(open[0])
			}
			if b.effect != endsConnection {
				c.ok(open[1])
				c.ok(open[2])
			}
		}()
		c.drain()
		<-acted
	}))
	f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
	f.resend = true
	f.put(0, 4)
	time.Sleep(5 * time.Second)
	synctest.Wait()

	got := reasons(f.reset())
	delete(got, apns.ReasonNotSent) // taken by a connection that began to leave, and never written
	want := map[effect]apns.Reason{endsConnection: apns.ReasonConnectionLost, endsStream: apns.ReasonBadAnswer}[b.effect]
	lost := map[effect]int{endsConnection: 3, endsStream: 1}[b.effect]
	if b.section == "6.10" && b.name == "CONTINUATION after the end of the block" {
		lost = 2 // the block before was an answer
	}
	if got[""] != 4 || got[want] != lost && want != "" || len(got) > 2 {
		t.Errorf("results %v, want 4 accepted in the end, %d of them after %q", got, lost, want)
	}
	if n := p.connections(); n != 1+min(lost, 1) && b.section != "7" {
		t.Errorf("%d connections", n)
	}
	b.checkCode(t, first, open[0].id)
	if s := f.pool.Stats(); s.State != apns.StateUp {
		t.Errorf("the pool did not recover: %+v", s)
	}
}

// checkCode looks at what the client told its peer.
func (b *breach) checkCode(t *testing.T, c *peerConn, id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	code, wasReset := c.resets[id]
	switch b.effect {
	case endsConnection:
		if c.goAway == nil || *c.goAway != b.code {
			t.Errorf("the client's GOAWAY: %v, want %v", c.goAway, b.code)
		}
	case endsStream:
		if !wasReset || code != b.code || c.goAway != nil && *c.goAway != http2.ErrCodeNo {
			t.Errorf("the client's RST_STREAM: %v, %t, want %v; GOAWAY %v", code, wasReset, b.code, c.goAway)
		}
	case isIgnored:
		if wasReset || c.goAway != nil && *c.goAway != http2.ErrCodeNo {
			t.Errorf("the client's RST_STREAM: %v, %t; GOAWAY %v; want neither", code, wasReset, c.goAway)
		}
	}
}

// TestFirstFrame begins a connection with anything but SETTINGS (section 3.4).
func TestFirstFrame(t *testing.T) {
	for _, test := range []struct {
		name  string
		code  http2.ErrCode
		start func(*peerConn)
	}{
		{"PING", http2.ErrCodeProtocol, func(c *peerConn) { _ = c.WritePing(false, [8]byte{}) }},
		{"acknowledgment", http2.ErrCodeProtocol, func(c *peerConn) { _ = c.WriteSettingsAck() }},
		{"unknown frame", http2.ErrCodeProtocol, func(c *peerConn) { _ = c.WriteRawFrame(0xfa, 0, 0, nil) }},
		{"HTTP/1.1", http2.ErrCodeFrameSize, func(c *peerConn) { _, _ = c.nc.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var first *peerConn
				p := newPeer(t, onlyFirst(func(c *peerConn) {
					first = c
					go test.start(c) // ends when it is read
					c.drain()
				}))
				f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
				f.put(0, 2)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if first.goAway == nil || *first.goAway != test.code {
					t.Errorf("the client's GOAWAY: %v, want %v", first.goAway, test.code)
				}
				if f.accepted() != 2 || p.connections() != 2 {
					t.Errorf("%d of 2 accepted through %d connections", f.accepted(), p.connections())
				}
			})
		})
	}
}
