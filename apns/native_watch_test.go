package apns_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

func TestLateAnswersAndPing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var conn *peerConn
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			conn = c
			c.settle(streams(10))
			c.ok(c.request())
			c.drain()
		}))
		f := startPool(t, apns.Config{Dial: p.Dial, AnswerTimeout: 4 * time.Second, PingTimeout: 2 * time.Second, MaxConns: 1})
		f.put(0, 2)
		time.Sleep(3999 * time.Millisecond)
		synctest.Wait()
		if conn.pinged() != 0 {
			t.Error("PING before an answer was overdue")
		}
		time.Sleep(1001 * time.Millisecond) // the writer looks once a second
		synctest.Wait()
		if conn.pinged() != 1 {
			t.Errorf("%d PINGs when an answer was overdue, want 1", conn.pinged())
		}
		f.reset()
		time.Sleep(8 * time.Second) // PINGs are answered: the push is given up after 12 s
		synctest.Wait()
		if got := reasons(f.reset()); got[apns.ReasonTimeout] != 1 {
			t.Errorf("results %v, want one timeout", got)
		}
		if p.connections() != 2 {
			t.Errorf("%d connections: one that lost a stream is replaced", p.connections())
		}
	})
}

func TestDeadPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			c.settle(streams(10))
			c.ok(c.request())
			c.autoPong = false
			c.drain()
		}))
		var forgot atomic.Int64
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := p.Dial(ctx, network, address)
			return &lingerer{Conn: c, forgot: &forgot}, err
		}
		f := startPool(t, apns.Config{Dial: dial, AnswerTimeout: 4 * time.Second, PingTimeout: 2 * time.Second, MaxConns: 1})
		f.resend = true
		f.put(0, 3)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := f.accepted(); got != 1 {
			t.Errorf("%d accepted early", got)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if got := f.accepted(); got != 3 {
			t.Errorf("%d of 3 accepted after the dead connection was left", got)
		}
		if n := forgot.Load(); n != 1 {
			t.Errorf("the system was told %d times to forget what it has not sent, want once, of the dead connection", n)
		}
	})
}

// lingerer notes that a connection is to be closed without its unsent data.
type lingerer struct {
	net.Conn
	forgot *atomic.Int64
}

func (l *lingerer) SetLinger(sec int) error {
	if sec == 0 {
		l.forgot.Add(1)
	}
	return nil
}

func TestStalledSocket(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			c.settle(streams(1000))
			c.ok(c.request())
			<-release // reads no more
		}))
		f := startPool(t, apns.Config{Dial: p.Dial, AnswerTimeout: 4 * time.Second, PingTimeout: 2 * time.Second, MaxConns: 1})
		f.resend = true
		f.put(0, 300)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := f.accepted(); got != 300 {
			t.Errorf("%d of 300 accepted", got)
		}
		close(release)
	})
}

func TestIdlePing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var conn *peerConn
		p := newPeer(t, func(c *peerConn) {
			conn = c
			c.settle(streams(10))
			c.serveOK()
		})
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.put(0, 1)
		time.Sleep(time.Hour - time.Millisecond)
		synctest.Wait()
		if conn.pinged() != 0 {
			t.Errorf("%d PINGs before an hour of silence", conn.pinged())
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if conn.pinged() != 1 {
			t.Errorf("%d PINGs after an hour of silence, want 1", conn.pinged())
		}
		if p.connections() != 1 {
			t.Errorf("%d connections", p.connections())
		}
	})
}
