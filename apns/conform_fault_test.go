package apns_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// TestConformFaults lets each passing fault strike in the middle of a load, and
// wants every badge on its device in the end.
func TestConformFaults(t *testing.T) {
	for _, fault := range apnstest.AllFaults() {
		switch fault {
		case apnstest.FaultServerError, apnstest.FaultUnavailable, apnstest.FaultShuttingDown, apnstest.FaultTooMany,
			apnstest.FaultDuplicateGone, apnstest.FaultOldTimestamp, apnstest.FaultWedge, apnstest.FaultTokenExpired:
			continue // answers that are not to be repeated at once
		}
		t.Run(fault.String(), func(t *testing.T) {
			conform(t, apnstest.Config{}, apns.Config{MaxConns: 3}, func(t *testing.T, s *simulation) {
				if fault == apnstest.FaultStallSocket && s.engine == apns.EngineReference {
					// http2.ClientConn holds a mutex while it writes, and fake
					// time stands still while somebody waits for a mutex.
					return
				}
				s.resend = true
				s.sim.Inject(fault, 2)
				s.put(0, 20)
				settle()
				s.sim.Inject(fault, 1)
				s.put(20, 60)
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				if open, queued := s.took(); open+queued != 0 || s.accepted() != 80 {
					t.Errorf("%d of 80 accepted, %d open, %d queued; results %v, stats %+v", s.accepted(), open, queued,
						reasons(s.reset()), s.pool.Stats())
				}
				for i := range 80 {
					if d, ok := s.sim.Device(device(i)); !ok || d.Badge != uint32(i) {
						t.Fatalf("device %d shows %d, %t", i, d.Badge, ok)
					}
				}
			})
		})
	}
}

// TestConformLowRate runs a long load under the faults that the simulator has
// switched on for people.
func TestConformLowRate(t *testing.T) {
	conform(t, apnstest.Config{Faults: apnstest.LowRate(), Seed: 7}, apns.Config{MaxConns: 3}, func(t *testing.T, s *simulation) {
		s.resend = true
		for i := range 10 {
			s.put(i*100, 100)
			settle()
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if open, queued := s.took(); open+queued != 0 {
			t.Errorf("%d open, %d queued; stats %+v", open, queued, s.pool.Stats())
		}
		if got := s.accepted(); got < 950 {
			t.Errorf("%d of 1000 accepted: %v", got, reasons(s.reset()))
		}
	})
}

// idleConnections opens three connections, with a hundred pushes, and lets them rest.
func (s *simulation) idleConnections(t *testing.T) {
	t.Helper()
	s.sim.Next(slices.Repeat([]apnstest.Answer{{Delay: 100 * time.Millisecond}}, 100)...)
	s.put(0, 100)
	time.Sleep(20 * time.Second)
	synctest.Wait()
	if got := s.sim.Stats().Connections; got != 3 || s.accepted() != 100 {
		t.Fatalf("%d connections, %d accepted; want 3 idle ones", got, s.accepted())
	}
	s.reset()
}

// TestConformBrokenConnections has three idle connections answer 500 to everything
// from now on: a push meets one of them, and the next a connection that is new.
func TestConformBrokenConnections(t *testing.T) {
	conform(t, apnstest.Config{StreamLimit: 1}, apns.Config{MaxConns: 3}, func(t *testing.T, s *simulation) {
		s.idleConnections(t)
		s.sim.Trigger(apnstest.FaultWedge)
		s.put(100, 1)
		settle()
		s.want(t, map[apns.Reason]int{apns.ReasonInternalServerError: 1})
		time.Sleep(15 * time.Minute)
		for i := range 3 {
			s.put(101+i, 1)
			settle()
		}
		s.want(t, map[apns.Reason]int{"": 3})
	})
}

// TestConformSilentConnections has three idle connections say nothing any more: a
// push waits for the answer to a PING of one of them.
func TestConformSilentConnections(t *testing.T) {
	conform(t, apnstest.Config{StreamLimit: 1}, apns.Config{MaxConns: 3}, func(t *testing.T, s *simulation) {
		if s.engine == apns.EngineReference {
			return // see TestConformFaults
		}
		s.resend = true
		s.idleConnections(t)
		s.sim.Trigger(apnstest.FaultStallSocket)
		s.put(100, 1)
		time.Sleep(35 * time.Second) // what a write may take, or AnswerTimeout, a look and PingTimeout
		synctest.Wait()
		s.want(t, map[apns.Reason]int{apns.ReasonConnectionLost: 1, "": 1})
	})
}
