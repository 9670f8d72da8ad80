package ingest

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
)

// answerPings reads until the relay ends the connection, answers PINGs, and tells
// when they came.
func (p *rawPeer) answerPings() <-chan time.Time {
	came := make(chan time.Time, 1000)
	go func() { // ends with the connection
		for {
			frame, err := p.ReadFrame()
			if err != nil {
				close(came)
				return
			}
			if ping, ok := frame.(*http2.PingFrame); ok && !ping.IsAck() {
				came <- time.Now()
				_ = p.WritePing(true, ping.Data) // the end shows when reading
			}
		}
	}()
	return came
}

// TestQuietPeersArePingedTogether has two peers that came at different moments, and
// one that says something now and then.
func TestQuietPeersArePingedTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		peer := func() *rawPeer { return newRawPeer(t, w.listener, http2.ClientPreface, "") }
		time.Sleep(3 * time.Millisecond)
		first := peer()
		defer first.Close()
		atFirst := first.answerPings()
		time.Sleep(40 * time.Millisecond)
		second := peer()
		defer second.Close()
		atSecond := second.answerPings()
		busy := peer()
		defer busy.Close()
		atBusy := busy.answerPings()
		began := time.Now()
		for time.Since(began) < 10*time.Minute {
			busy.must(busy.WriteWindowUpdate(0, 1))
			time.Sleep(pingAfter - time.Millisecond)
		}
		synctest.Wait()
		if n := len(atBusy); n > 0 {
			t.Errorf("a peer that goes on talking was pinged %d times", n)
		}
		if n := len(atFirst); n < 39 || n > 40 || n != len(atSecond) {
			t.Errorf("quiet peers were pinged %d and %d times in ten minutes, want each 15 s", n, len(atSecond))
		}
		for len(atFirst) > 0 && len(atSecond) > 0 {
			if one, other := <-atFirst, <-atSecond; !one.Equal(other) {
				t.Fatalf("one was pinged at %v, the other at %v, want both at once", one, other)
			}
		}
	})
}

// TestPeerThatTakesNoPingIsGivenUp has a PING find no room on its way to a peer that
// reads nothing and says nothing.
func TestPeerThatTakesNoPingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe() // holds nothing: a write waits for its reader
		defer there.Close()
		metrics := prometheus.NewRegistry()
		tr, err := newTransport(&Config{Registerer: metrics}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &transportConn{Conn: here, began: time.Now(), refusals: tr.refusals}
		c.prefaced.Store(true)
		c.keepalive.start(c.checkPeer)
		time.Sleep(2*silence + keepaliveTick)
		synctest.Wait()
		if n, err := there.Read(make([]byte, 64)); !errors.Is(err, io.EOF) {
			t.Errorf("read %d bytes and %v after %v, want the end of the connection", n, err, 2*silence)
		}
		wantTransportRefusals(t, metrics, "", map[string]float64{refusedKeepalive: 1})
	})
}

// TestPingWaitsForTheRestOfAFrame has a PING come between two frames, and not
// within one that gRPC has written a part of.
func TestPingWaitsForTheRestOfAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		c := &transportConn{Conn: here, began: time.Now()}
		c.prefaced.Store(true)
		var got [64]byte
		read := func() []byte {
			t.Helper()
			synctest.Wait()
			_ = there.SetReadDeadline(time.Now().Add(time.Millisecond)) // a pipe has one
			n, _ := there.Read(got[:])                                  // nothing: it is over
			return got[:n]
		}
		write := func(p ...byte) {
			go func() { _, _ = c.Write(p) }() // ends when it is read
			if n := len(read()); n != len(p) {
				t.Fatalf("%d bytes came of %d", n, len(p))
			}
		}
		write(0, 0, 2, frameData, 0, 0, 0, 0, 1, 'a')
		if c.ping() {
			t.Error("a PING within a frame")
		}
		write('b')
		write(0, 0)
		if c.ping() {
			t.Error("a PING within a frame's header")
		}
		write(0, frameSettings, flagACK, 0, 0, 0, 0)
		go c.ping() // ends when it is read
		if p := read(); len(p) != len(pingFrame) || p[3] != framePing {
			t.Errorf("got %v between two frames, want a PING", p)
		}
		go func() { _, _ = c.Write([]byte{0}) }() // nobody reads it
		synctest.Wait()
		if c.ping() {
			t.Error("a PING while gRPC writes")
		}
		_ = there.Close() // ends the write
	})
}
