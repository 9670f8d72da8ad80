package apns_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a push service of frames: a test scripts each connection, so that it
// can misbehave as no library allows.
type peer struct {
	tb     testing.TB
	script func(*peerConn)

	mu    sync.Mutex
	conns int
	wg    sync.WaitGroup
}

func newPeer(tb testing.TB, script func(*peerConn)) *peer {
	p := &peer{tb: tb, script: script}
	tb.Cleanup(p.wg.Wait)
	return p
}

// Dial is for apns.Config.
func (p *peer) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.mu.Lock()
	p.conns++
	n := p.conns
	p.mu.Unlock()
	p.wg.Go(func() { p.serve(server, n) }) // ends when the script returns
	return client, nil
}

func (p *peer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

func (p *peer) serve(nc net.Conn, n int) {
	secure := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{testKeys().server}, NextProtos: []string{"h2"}})
	defer nc.Close()
	if secure.Handshake() != nil {
		return
	}
	c := &peerConn{tb: p.tb, nc: secure, n: n, Framer: http2.NewFramer(secure, secure), autoPong: true}
	c.AllowIllegalWrites = true
	c.decoder = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(secure, preface); err != nil || string(preface) != http2.ClientPreface {
		p.tb.Errorf("preface %q, error %v", preface, err)
		return
	}
	p.script(c)
}

// peerConn is one scripted connection.
//
// A test that writes to it itself, or looks at it, holds mu; so do the methods
// that write.
type peerConn struct {
	*http2.Framer
	mu       sync.Mutex
	tb       testing.TB
	nc       net.Conn
	n        int // which connection, from 1
	decoder  *hpack.Decoder
	encoder  *hpack.Encoder
	block    bytes.Buffer
	pings    int
	autoPong bool
	partial  map[uint32]*peerRequest
	goAway   *http2.ErrCode // what the client sent
	resets   map[uint32]http2.ErrCode
	blockLen int // of the last header block
	acks     int
	settled  bool
	tableMax uint32
}

type peerRequest struct {
	id     uint32
	fields []hpack.HeaderField
	body   []byte
}

func (r *peerRequest) get(name string) string {
	for _, f := range r.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// settle sends SETTINGS.
func (c *peerConn) settle(settings ...http2.Setting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.WriteSettings(settings...)
	c.settled = true
}

func streams(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}
}

// request reads until a push is whole; nil: the connection has ended.
func (c *peerConn) request() *peerRequest {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return nil
		}
		if r := c.on(f); r != nil {
			return r
		}
	}
}

// requestWithin is request that gives up after a time.
func (c *peerConn) requestWithin(d time.Duration) *peerRequest {
	_ = c.nc.SetReadDeadline(time.Now().Add(d))
	defer func() { _ = c.nc.SetReadDeadline(time.Time{}) }() // a dead connection shows at the next read
	return c.request()
}

// on handles a frame, and returns a push that is whole with it.
func (c *peerConn) on(f http2.Frame) *peerRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.partial == nil {
		c.partial = make(map[uint32]*peerRequest)
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			c.acks++
			if c.tableMax != 0 {
				c.decoder.SetAllowedMaxDynamicTableSize(c.tableMax)
			}
		} else if c.settled { // the first frame must be our SETTINGS
			_ = c.WriteSettingsAck()
		}
	case *http2.PingFrame:
		c.pings++
		if c.autoPong && !f.IsAck() {
			_ = c.WritePing(true, f.Data)
		}
	case *http2.HeadersFrame:
		c.blockLen = len(f.HeaderBlockFragment())
		fields, err := c.decoder.DecodeFull(f.HeaderBlockFragment())
		if err != nil {
			c.tb.Errorf("header block: %v", err)
		}
		c.partial[f.StreamID] = &peerRequest{id: f.StreamID, fields: fields}
	case *http2.DataFrame:
		r := c.partial[f.StreamID]
		if r == nil {
			c.tb.Errorf("DATA on stream %d before HEADERS", f.StreamID)
			return nil
		}
		r.body = append(r.body, f.Data()...)
		if f.StreamEnded() {
			delete(c.partial, f.StreamID)
			return r
		}
	case *http2.RSTStreamFrame:
		if c.resets == nil {
			c.resets = make(map[uint32]http2.ErrCode)
		}
		c.resets[f.StreamID] = f.ErrCode
	case *http2.GoAwayFrame:
		code := f.ErrCode
		c.goAway = &code
	}
	return nil
}

// pinged returns how many PINGs came.
func (c *peerConn) pinged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pings
}

// headers encodes a block of name and value pairs.
func (c *peerConn) headers(pairs ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(c.block.Bytes())
}

// ok accepts a push.
func (c *peerConn) ok(r *peerRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: r.id, EndHeaders: true, EndStream: true,
		BlockFragment: c.headers(":status", "200", "apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b")})
}

// refuse refuses a push.
func (c *peerConn) refuse(r *peerRequest, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: r.id, EndHeaders: true, BlockFragment: c.headers(":status", "400")})
	_ = c.WriteData(r.id, true, fmt.Appendf(nil, `{"reason":%q}`, reason))
}

// serveOK accepts everything until the connection ends.
func (c *peerConn) serveOK() {
	for r := c.request(); r != nil; r = c.request() {
		c.ok(r)
	}
}

// drain reads what comes until the connection ends.
func (c *peerConn) drain() {
	for c.request() != nil {
		continue
	}
}
