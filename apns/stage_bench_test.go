package apns

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// stageToken is a device token of today's size.
func stageToken() DeviceToken { return DeviceToken{string(bytes.Repeat([]byte{0xa5}, 32))} }

// steadyEncoder is an encoder whose constant fields are in the table already.
func steadyEncoder() *headerEncoder {
	e := newHeaderEncoder("push.example", "com.example.mail")
	e.set(fieldAuthorization, "bearer "+string(bytes.Repeat([]byte("x"), 180)))
	e.set(fieldExpiration, "1795000000")
	for range 2 {
		e.appendBlock(nil, stageToken(), PriorityImmediate)
		e.appendBlock(nil, stageToken(), PriorityPower)
	}
	return e
}

// BenchmarkEncode measures the bytes of a push: header block and payload.
func BenchmarkEncode(b *testing.B) {
	e, device := steadyEncoder(), stageToken()
	var buf []byte
	b.ReportAllocs()
	n := uint32(0)
	for b.Loop() {
		n++
		priority := PriorityImmediate
		if n&1 == 1 {
			priority = PriorityPower
		}
		buf = appendPayload(e.appendBlock(buf[:0], device, priority), n%1000)
	}
	b.SetBytes(int64(len(buf)))
}

// answers is an endless stream of accepted pushes with an apns-id each, as
// APNs sends them, on the streams 1, 3, 5, ...
type answers struct {
	frame []byte
	at    int
	next  uint32
}

func (a *answers) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if a.at == 0 {
			binary.BigEndian.PutUint32(a.frame[5:], a.next)
			if a.next += 2; a.next >= 4096 {
				a.next = 1
			}
		}
		c := copy(p[n:], a.frame[a.at:])
		n, a.at = n+c, (a.at+c)%len(a.frame)
	}
	return n, nil
}

// BenchmarkAnswer measures the reading of an accepted push: frame, header
// block, slot.
func BenchmarkAnswer(b *testing.B) {
	block := append([]byte{statusOK, 0, 7}, "apns-id"...)
	block = append(append(block, 36), "eabeae54-14a8-11e5-b60b-1697f925ec7b"...)
	frame := appendFrameHeader(nil, len(block), http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 0)
	c := &nativeConn{table: newStreamTable(2048)}
	c.began = time.Now()
	c.authenticated.Store(true)
	c.opened.Store(1 << 20)
	r := &nativeReader{c: c, br: bufio.NewReaderSize(&answers{frame: append(frame, block...), next: 1}, readBufferSize), settled: true}
	r.framer = http2.NewFramer(io.Discard, r.br)
	r.decoder = hpack.NewDecoder(defaultHPACKTable, r.field)
	id := uint32(1)
	b.ReportAllocs()
	for b.Loop() {
		c.table.at(id).id.Store(id) // as the writer opens it
		if id += 2; id >= 4096 {
			id = 1
		}
		if r.br.Buffered() < 128 {
			_, _ = r.br.Peek(128) // next would deliver, and then wait
		}
		h, err := r.next()
		if err == nil {
			err = r.readInPlace(h)
		}
		if err != nil {
			b.Fatal(err)
		}
		if len(r.results) == maxBatch {
			r.results = r.results[:0]
		}
	}
}

// TestStagesAllocateNothing holds a push's stages to their budget.
func TestStagesAllocateNothing(t *testing.T) {
	e, device := steadyEncoder(), stageToken()
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(1000, func() {
		buf = appendPayload(e.appendBlock(buf[:0], device, PriorityPower), 123)
	}); n != 0 {
		t.Errorf("encoding a push allocates %v times", n)
	}
}
