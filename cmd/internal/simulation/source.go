package simulation

import (
	"net/http"
	"sync"
	"time"

	"badgerelay/apns"
)

// sourceTap is between a relay and its pool, and sees to it that no device has
// two pushes in flight, of several relays where it is shared, and that no count comes again too soon after a 5xx. The
// simulated APNs asks the same of all its clients together, which several relays
// cannot keep: none knows what another was answered.
type sourceTap struct {
	apns.Source
	process *relayProcess

	mu       sync.Mutex // guards what follows
	inFlight map[apns.DeviceToken]int
	requests map[any]apns.Request
	unwell   map[unwellCount]time.Time
}

// unwellCount is a count of a device that was answered with a 5xx.
type unwellCount struct {
	device apns.DeviceToken
	badge  uint32
}

func newSourceTap(p *relayProcess) *sourceTap {
	return &sourceTap{
		Source: p.relay.Source(appName), process: p, inFlight: map[apns.DeviceToken]int{}, requests: map[any]apns.Request{},
		unwell: map[unwellCount]time.Time{},
	}
}

// Take implements apns.Source.
func (s *sourceTap) Take(dst []apns.Request) (n, more int) {
	s.mu.Lock() // Take and Done don't block
	defer s.mu.Unlock()
	n, more = s.Source.Take(dst)
	w, now := s.process.host.world, time.Now()
	for _, r := range dst[:n] {
		s.requests[r.Tag] = r
		w.trace.add("%s pushes %d to %s", s.process.name, r.Badge, r.Device.Hex()[56:])
		if s.inFlight[r.Device]++; s.inFlight[r.Device] > 1 {
			w.problem("%s: two pushes in flight to device %s", s.process.name, r.Device.Hex()[56:])
		}
		w.pushes(s.process, r.Device, 1)
		if at, was := s.unwell[unwellCount{r.Device, r.Badge}]; was && now.Sub(at) < serverErrorWait && !w.signedInSince(r.Device, at) {
			w.problem("%s: device %s has the same count again %v after a 5xx", s.process.name, r.Device.Hex()[56:], now.Sub(at))
		}
	}
	return n, more
}

// signedInSince reports whether a device may have registered anew since: then it is
// served at once, whatever it was refused before.
func (w *world) signedInSince(d apns.DeviceToken, at time.Time) bool {
	until, ok := w.signIns.Load(d)
	return ok && until.(time.Time).After(at)
}

// Done implements apns.Source.
func (s *sourceTap) Done(results []apns.Result) {
	s.mu.Lock()
	now := time.Now()
	for _, r := range results {
		request, taken := s.requests[r.Tag]
		if !taken || s.inFlight[request.Device] == 0 {
			s.process.host.world.problem("%s: a result of a push that was not taken", s.process.name)
			continue
		}
		s.inFlight[request.Device]--
		s.process.host.world.pushes(s.process, request.Device, -1)
		s.process.host.world.trace.add("%s has its answer for %s: %v", s.process.name, request.Device.Hex()[56:], r.Err)
		if r.Err == nil {
			s.process.host.world.accepted(s.process.host, request.Device, request.Badge, now)
		}
		if r.Err != nil && r.Err.Status == http.StatusGone {
			s.process.host.world.refused(request.Device)
			s.process.host.world.calledGone(request.Device, now)
		}
		if r.Err != nil && r.Err.Status >= 500 {
			s.unwell[unwellCount{request.Device, request.Badge}] = now
			s.process.host.world.noteStrike(now)
		}
	}
	s.mu.Unlock()
	s.Source.Done(results)
}
