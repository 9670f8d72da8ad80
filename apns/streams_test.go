package apns

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/net/http2"
)

// TestStreamIDsRunOut starts a connection near the end of its ids. It takes no
// more there, answers what it has, and ends in good order.
func TestStreamIDsRunOut(t *testing.T) {
	source := &ledger{left: 100, back: make(map[any]int)}
	c, server := idleConn(t, source)
	const first = lastStreamID - 8
	c.w.nextID = first
	c.opened.Store(first)
	served := make(chan []uint32)
	go func() { served <- serveFrames(server, 5) }() // ends with the connection; received below
	if err := c.run(t.Context()); err != nil {
		t.Errorf("run returned %v", err)
	}
	ids := <-served
	if len(ids) != 5 || ids[0] != first || ids[4] != first+8 {
		t.Errorf("streams %v", ids)
	}
	if source.given != 5 || len(source.back) != 5 {
		t.Errorf("%d pushes taken, %d came back, want 5", source.given, len(source.back))
	}
}

// idleConn returns a connection that nobody runs yet, and its other end.
func idleConn(t *testing.T, source Source) (*nativeConn, net.Conn) {
	t.Helper()
	pool, err := NewPool(Config{App: "mail", Topic: "com.example.mail", Certificate: new(tls.Certificate), Source: source,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	return newNativeConn(pool, client, *pool.cred.Load()), server
}

// serveFrames grants so many streams, accepts every push and returns their
// streams when the connection has ended.
func serveFrames(nc net.Conn, streams uint32) (ids []uint32) {
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return nil
	}
	f := http2.NewFramer(nc, nc)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streams})
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return ids
		}
		if d, ok := frame.(*http2.DataFrame); ok {
			ids = append(ids, d.StreamID)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: d.StreamID, BlockFragment: []byte{statusOK}, EndHeaders: true, EndStream: true})
		}
	}
}

// TestStragglerSkipsIDs goes around the ring while one push is never answered:
// its slot is left alone.
func TestStragglerSkipsIDs(t *testing.T) {
	table := newStreamTable(8)
	if len(table.slots) != 16 {
		t.Fatalf("%d slots for 8 streams", len(table.slots))
	}
	table.at(1).id.Store(1)
	w := nativeWriter{c: &nativeConn{table: table, pool: &Pool{}}, headers: newHeaderEncoder("a", "b"), nextID: 31,
		window: 1 << 20, stream: initialWindow}
	device, err := DeviceTokenFromBytes(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	w.open(&Request{Device: device}, 0)
	w.open(&Request{Device: device}, 0)
	if a, b := table.at(31).id.Load(), table.at(35).id.Load(); a != 31 || b != 35 || w.nextID != 37 {
		t.Errorf("streams %d and %d, next %d; want 31, 35 and 37", a, b, w.nextID)
	}
	if !table.at(1).claim(1) || table.at(1).claim(1) {
		t.Error("the straggler can't be claimed exactly once")
	}
}

// TestStreamThatComesFreeWhileTheWriterSaysItWaits has the only stream end after
// the writer has found none free and before it says that it waits for one: the
// reader saw a busy writer and did not wake it. The writer has to notice, or work
// that comes later wakes nobody.
func TestStreamThatComesFreeWhileTheWriterSaysItWaits(t *testing.T) {
	c, _ := idleConn(t, &ledger{back: make(map[any]int)})
	w := &c.w
	w.settled, w.limit, w.started = true, 1, 1
	w.announce()
	if w.announcedWrong() {
		t.Error("a writer whose streams are taken looks again and again")
	}
	c.ended.Add(1)
	if !w.announcedWrong() {
		t.Fatal("the writer goes on to wait for a stream although one is free")
	}
	w.announce()
	if w.announcedWrong() {
		t.Error("the writer looks again and again")
	}
	c.pool.conns.Store(&[]conn{c})
	c.pool.Wake()
	select {
	case <-c.woken:
	default:
		t.Error("work wakes nobody")
	}
}
