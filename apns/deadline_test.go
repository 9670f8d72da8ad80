package apns_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// putUntil queues a push that may go out until a deadline.
func (s *source) putUntil(tag int, due *apns.Deadline) {
	s.mu.Lock()
	r := apns.Request{Device: device(tag), Badge: uint32(tag), Priority: apns.PriorityImmediate, Tag: tag, Deadline: due}
	s.queue = append(s.queue, r)
	s.mu.Unlock()
	s.wake()
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		due := apns.DeadlineIn(time.Second)
		time.Sleep(time.Second - time.Nanosecond)
		if due.Passed() {
			t.Error("it has passed a nanosecond too early")
		}
		time.Sleep(time.Nanosecond)
		if !due.Passed() {
			t.Error("it has not passed in time")
		}
		if (*apns.Deadline)(nil).Passed() {
			t.Error("no deadline has passed")
		}
	})
}

// TestNothingIsWrittenAfterItsDeadline has a push taken too late.
func TestNothingIsWrittenAfterItsDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex // guards seen
		var seen []string
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(1000))
			for r := c.request(); r != nil; r = c.request() {
				mu.Lock()
				seen = append(seen, string(r.body))
				mu.Unlock()
				c.ok(r)
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
		f.putUntil(1, apns.DeadlineIn(time.Second))
		time.Sleep(2 * time.Second)
		f.putUntil(2, apns.DeadlineIn(0))
		time.Sleep(time.Minute)
		f.putUntil(3, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := f.accepted(); got != 2 {
			t.Errorf("%d accepted, want the two that were in time", got)
		}
		if r := f.result(2); r == nil || r.Err.Verdict() != apns.VerdictResend {
			t.Errorf("the late one ended as %v, want it to be sent again", r)
		}
		mu.Lock()
		defer mu.Unlock()
		if all := strings.Join(seen, " "); len(seen) != 2 || strings.Contains(all, ":2}") {
			t.Errorf("the peer has seen %s", all)
		}
	})
}

// TestWriteThatBlocksEndsAtTheDeadline has the peer take no bytes until the
// deadline has passed, and then all that there are.
func TestWriteThatBlocksEndsAtTheDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		read := make(chan struct{})
		var late []byte
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			c.settle(streams(1000))
			c.ok(c.request())
			<-read
			late, _ = io.ReadAll(c.nc) // what comes is what counts
		}))
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1, AnswerTimeout: time.Minute})
		f.putUntil(1, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		began := time.Now()
		f.putUntil(2, apns.DeadlineIn(10*time.Second))
		time.Sleep(10*time.Second - time.Millisecond)
		synctest.Wait()
		if f.result(2) != nil {
			t.Fatalf("the push came back after %v, before its deadline", time.Since(began))
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if r := f.result(2); r == nil || r.Err.Verdict() != apns.VerdictResend {
			t.Fatalf("the push ended as %v at its deadline, want it to be sent again", r)
		}
		close(read)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(late) > 0 {
			t.Errorf("the peer was given %d bytes after the deadline", len(late))
		}
	})
}

// TestSocketTakesNothingAfterTheDeadline is the same on a socket of the system,
// whose write has begun and waits for room when the process is stopped: another
// clock than the writer's tells.
func TestSocketTakesNothingAfterTheDeadline(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var d net.Dialer
	client, err := d.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	due := apns.DeadlineIn(300 * time.Millisecond)
	passed := time.After(300 * time.Millisecond)
	ended := make(chan error, 1)
	go func() { ended <- apns.WriteUntil(client, make([]byte, 64<<20), due) }() // more than the system keeps; ends with the deadline
	<-passed
	read := make(chan int64, 1)
	go func() { // there is room again; ends with the connection
		n, _ := io.Copy(io.Discard, server)
		read <- n
	}()
	if err := <-ended; !errors.Is(err, apns.ErrTooLate) {
		t.Errorf("the write ended with %v, want it too late", err)
	}
	_ = client.Close()
	t.Logf("%d of %d bytes went out in time", <-read, 64<<20)
}

// result returns how a push ended; nil: it has not.
func (s *source) result(tag int) *apns.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.results {
		if s.results[i].Tag == tag {
			return &s.results[i]
		}
	}
	return nil
}
