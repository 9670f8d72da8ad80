package main

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"badgerelay/apns/apnstest"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry/postgrestest"
)

// TestAgentMovesFromHalfOpenConnection leaves a relay with a count that APNs
// wants to see later, over a connection that the relay can't know to be dead.
// The agent goes to another relay, with a newer count: the older one must not
// follow it.
func TestAgentMovesFromHalfOpenConnection(t *testing.T) {
	const hold = time.Second // the least; it is 15 minutes by default
	database := postgrestest.Start(t)
	s, running := newSwap(t, 2, 0, fmt.Sprintf("relay: {coalescing_window: 0s, retry_after_server_error: %v}\nregistry: {url: %q}",
		hold, database.URL(database.Database())))
	s.subscribe(t, mailboxName(0), 0)
	wire := newWire(t, s.addresses[0])
	s.runAgent(t, []string{wire.address, s.addresses[1]})
	s.set(t, 0, 1)
	s.settle(t)

	s.sim.NextFor(numberedDevice(t, 0), apnstest.Answer{Status: 503, Reason: "ServiceUnavailable"})
	s.set(t, 0, 2)
	soon(t, "the first relay holds a count back", func() bool { return s.sim.Scripted() == 0 && s.ledger(t).GetPending() == 1 })
	began := time.Now()
	wire.cut()
	s.set(t, 0, 3)
	soon(t, "the second relay has the newer count shown", func() bool {
		d, _ := s.sim.Device(numberedDevice(t, 0))
		return d.Badge == 3
	})
	soon(t, "the first relay has given up what it held", func() bool {
		for _, o := range s.ledger(t).GetOutcomes() {
			if o.GetOutcome() == "abandoned" && o.GetCount() == 1 {
				return s.ledger(t).GetPending() == 0
			}
		}
		return false
	})
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %v: the first relay was not told, and found out by itself", took)
	}
	time.Sleep(2 * hold) // until the first relay would have tried again: a real process, not a bubble
	s.settle(t)
	for _, relay := range running {
		if relay.ProcessState != nil {
			t.Errorf("a relay ended: %v", relay.ProcessState)
		}
	}
}

// set sets a mailbox's count at the first agent, with a clock on it.
func (s *swap) set(t *testing.T, mailbox int, count uint32) {
	t.Helper()
	s.mu.Lock()
	s.due[mailbox], s.newest[mailbox] = append(s.due[mailbox], dueCount{count, time.Now()}), count
	s.mu.Unlock()
	if err := s.agents[0].Set(mailboxName(mailbox), count, 0, 0); err != nil {
		t.Fatal(err)
	}
}

// ledger asks the first relay what became of events.
func (s *swap) ledger(t *testing.T) *pb.Ledger {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+s.Admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // nothing more comes
	answer, err := pb.NewAdminServiceClient(conn).GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetLedger()
}

// wire carries TCP connections to an address until it is cut: then the near
// end sees them break, and the far end nothing at all.
type wire struct {
	address  string
	listener net.Listener

	mu        sync.Mutex // guards what follows
	near, far []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: l.Addr().String(), listener: l}
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the listener
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close() // as if nobody were there
				continue
			}
			w.mu.Lock()
			w.near, w.far = append(w.near, near), append(w.far, far)
			w.mu.Unlock()
			wg.Go(func() { _, _ = io.Copy(far, near) }) // ends with cut, and closes nothing
			wg.Go(func() { _, _ = io.Copy(near, far) })
		}
	})
	t.Cleanup(func() {
		w.cut()
		w.close(w.far)
		wg.Wait()
	})
	return w
}

// cut breaks the wire for good.
func (w *wire) cut() {
	_ = w.listener.Close() // a second time does no harm
	w.close(w.near)
}

func (w *wire) close(conns []net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // a second time does no harm
	}
}
