package ingest

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestHandshakesTakeTurns has more clients come than may compute at once: those that
// have begun keep nobody waiting while they say nothing, the others wait for those
// that compute, in order, and one whose time is over leaves.
func TestHandshakesTakeTurns(t *testing.T) {
	certificate, _ := serverCertificate()
	synctest.Test(t, func(t *testing.T) {
		computing := make(chan struct{}) // ends the work of one handshake
		c := Config{TLS: &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			<-computing
			return &certificate, nil
		}}}
		limiter, err := newConnLimiter(&c)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := newTransport(&c, limiter.refused[refusedHandshake])
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan int, 100) // the numbers of those whose handshake the client has ended
		connect := func(number int, speak bool) net.Conn {
			t.Helper()
			client, there := net.Pipe()
			server := &limitedConn{Conn: there, limiter: limiter, gone: make(chan struct{})}
			limiter.enter(server, time.Now())
			_ = server.SetDeadline(time.Now().Add(connectTime)) // as gRPC does; a pipe has deadlines
			go func() {                                         // ends with the connection
				if _, _, err := tr.ServerHandshake(server); err != nil {
					_ = server.Close()
				}
			}()
			if speak {
				go func() { // ends with the connection
					if tls.Client(client, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).HandshakeContext(context.Background()) == nil { //nolint:gosec // who answers is not the question
						done <- number
					}
				}()
			}
			synctest.Wait()
			return client
		}
		turns := runtime.GOMAXPROCS(0)
		var open []net.Conn
		compute := sync.OnceFunc(func() { close(computing) })
		defer func() {
			compute()
			for _, nc := range open {
				_ = nc.Close()
			}
		}()
		for range 3 * turns {
			open = append(open, connect(-1, false)) // says nothing
		}
		for i := range turns + 2 {
			open = append(open, connect(i, true))
		}
		leaves := connect(-1, true)
		last := connect(turns+2, true)
		open = append(open, last)
		_ = leaves.Close()

		for i := range turns + 1 {
			select {
			case computing <- struct{}{}:
			default:
				t.Fatalf("the handshake of number %d does not compute", i)
			}
			synctest.Wait()
			if n := len(done); n != i+1 {
				t.Fatalf("%d handshakes are done after %d computed", n, i+1)
			}
		}
		for i := range turns {
			if number := <-done; number >= turns {
				t.Errorf("number %d was done as the %d., before those that came first", number, i)
			}
		}
		if number := <-done; number != turns {
			t.Errorf("number %d was done after the first %d, want %d", number, turns, turns)
		}
		time.Sleep(turnTime + time.Millisecond)
		synctest.Wait()
		compute()
		synctest.Wait()
		if n := len(done); n > 0 {
			t.Errorf("%d handshakes were made whose time was over", n)
		}
	})
}

// TestWhoWaitsInVainIsNotSlowed has an address's clients wait for turns that do not
// come, or give their places to others meanwhile, and then as many that say nothing.
func TestWhoWaitsInVainIsNotSlowed(t *testing.T) {
	certificate, _ := serverCertificate()
	synctest.Test(t, func(t *testing.T) {
		c := Config{TLS: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}}}
		limiter, err := newConnLimiter(&c)
		if err != nil {
			t.Fatal(err)
		}
		turns := newHandshakes()
		for range cap(turns.turns) {
			turns.turns <- struct{}{} // all are taken
		}
		guarded := turns.guard(c.TLS)
		addr := netip.MustParseAddr("192.0.2.1")
		visit := func(client func(net.Conn), until time.Duration) {
			for range 100 {
				near, there := net.Pipe()
				server := &limitedConn{Conn: there, limiter: limiter, addr: addr, gone: make(chan struct{})}
				limiter.enter(server, time.Now())
				_ = server.SetDeadline(time.Now().Add(connectTime)) // a pipe has deadlines
				go client(near)                                     // ends with the connection
				time.AfterFunc(until, func() { _ = server.Close() })
				go func() { // ends with its time
					if tls.Server(server, guarded).HandshakeContext(context.Background()) == nil {
						t.Error("a handshake was made without a turn")
					}
					_ = server.Close()
				}()
			}
			time.Sleep(turnTime + time.Second)
		}
		for _, until := range []time.Duration{time.Hour, 2 * halfOpenTime} {
			visit(func(nc net.Conn) {
				_ = tls.Client(nc, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(context.Background()) //nolint:gosec // it does not come to that
			}, until)
			if limiter.at(addr, time.Now()).slowed(time.Now()) {
				t.Errorf("the address is slowed, whose clients waited for the relay for up to %v", until)
			}
		}
		visit(func(net.Conn) {}, time.Hour)
		if !limiter.at(addr, time.Now()).slowed(time.Now()) {
			t.Error("the address is not slowed, whose clients said nothing")
		}
	})
}

// TestTurnThatComesLate has a client wait for its turn for longer than a handshake may
// take, and then take its time.
func TestTurnThatComesLate(t *testing.T) {
	certificate, _ := serverCertificate()
	for _, c := range []struct {
		turn, slow time.Duration // when the turn comes, and how long the client says nothing after it
		done       bool
	}{
		{0, 0, true}, {0, connectTime + time.Second, false},
		{turnTime - time.Second, 0, true}, {turnTime - time.Second, connectTime - time.Second, true},
		{turnTime - time.Second, connectTime + time.Second, false}, {turnTime + time.Second, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			limiter, err := newConnLimiter(&Config{})
			if err != nil {
				t.Fatal(err)
			}
			turns := newHandshakes()
			for range cap(turns.turns) {
				turns.turns <- struct{}{} // all are taken
			}
			near, there := net.Pipe()
			server := &limitedConn{Conn: there, limiter: limiter, gone: make(chan struct{})}
			limiter.enter(server, time.Now())
			_ = server.SetDeadline(time.Now().Add(connectTime))                                                                           // as gRPC does; a pipe has deadlines
			client := tls.Client(&slowReader{near, c.turn + c.slow}, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) //nolint:gosec // who answers is not the question
			var running sync.WaitGroup                                                                                                    // ends with the connection
			running.Go(func() { _ = client.HandshakeContext(context.Background()) })
			time.AfterFunc(c.turn, func() { <-turns.turns })
			config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}}
			err = tls.Server(server, turns.guard(config)).HandshakeContext(t.Context())
			if (err == nil) != c.done {
				t.Errorf("turn after %v, %v of silence: %v, want it done: %t", c.turn, c.slow, err, c.done)
			}
			_, _ = near.Close(), server.Close()
			running.Wait()
		})
	}
}

// slowReader waits before the first reading.
type slowReader struct {
	net.Conn
	wait time.Duration
}

func (r *slowReader) Read(p []byte) (int, error) {
	time.Sleep(r.wait)
	r.wait = 0
	return r.Conn.Read(p)
}
