package apns_test

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

// sink accepts every push over TLS on a loopback socket, with as little work as
// can be: it looks at frame headers only.
func sink(tb testing.TB) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { // ends when the listener is closed
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { swallow(nc) }) // ends with the connection
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

func swallow(raw net.Conn) {
	defer raw.Close()
	nc := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{testKeys().server}, NextProtos: []string{"h2"},
		DynamicRecordSizingDisabled: true})
	br := bufio.NewReaderSize(nc, 64<<10)
	if _, err := br.Discard(len(http2.ClientPreface)); err != nil {
		return
	}
	f := http2.NewFramer(nc, br)
	if f.WriteSettings(streams(1000)) != nil {
		return
	}
	var out []byte
	unsaid := 0
	for {
		if br.Buffered() == 0 && len(out) > 0 {
			if _, err := nc.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		h, err := f.ReadFrameHeader()
		if err != nil {
			return
		}
		if _, err := br.Discard(int(h.Length)); err != nil {
			return
		}
		switch {
		case h.Type == http2.FrameData && h.Flags.Has(http2.FlagDataEndStream):
			id := h.StreamID
			out = append(out, 0, 0, 1, byte(http2.FrameHeaders), 5, byte(id>>24), byte(id>>16), byte(id>>8), byte(id), 0x88)
			if unsaid += int(h.Length); unsaid > 20000 {
				out = append(out, 0, 0, 4, byte(http2.FrameWindowUpdate), 0, 0, 0, 0, 0, byte(unsaid>>24), byte(unsaid>>16), byte(unsaid>>8), byte(unsaid))
				unsaid = 0
			}
		case h.Type == http2.FrameSettings && h.Flags == 0:
			out = append(out, 0, 0, 0, byte(http2.FrameSettings), 1, 0, 0, 0, 0)
		}
	}
}

// endless hands out n pushes and counts the answers.
type endless struct {
	left, done atomic.Int64
	finished   chan struct{}
	devices    []apns.DeviceToken
}

func (e *endless) Take(dst []apns.Request) (n, more int) {
	left := e.left.Load()
	n = int(min(int64(len(dst)), left))
	for !e.left.CompareAndSwap(left, left-int64(n)) {
		left = e.left.Load()
		n = int(min(int64(len(dst)), left))
	}
	for i := range dst[:n] {
		dst[i] = apns.Request{Device: e.devices[(int(left)+i)&1023], Badge: uint32(i), Priority: apns.PriorityImmediate, Tag: e}
	}
	return n, int(left) - n
}

func (e *endless) Done(results []apns.Result) {
	if e.done.Add(-int64(len(results))) == 0 {
		e.finished <- struct{}{}
	}
}
