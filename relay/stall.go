package relay

import (
	"sync/atomic"
	"time"

	"badgerelay/apns"
)

// stallAfter is how long pushes of an app wait without an answer of APNs until this
// relay counts as cut off, and how long it then tries with one device. Ours: longer
// than a connection takes to open, and far shorter than an outage.
const stallAfter = 10 * time.Second

// stallRest is how long it tries with none after that, so that others, who look
// every second, take the device that it has left. Ours.
const stallRest = 5 * time.Second

// stall says whether what an app pushes from this relay gets nowhere: APNs refuses
// the app, or does not answer. Another relay may have a good key, or a way to APNs.
// Then this one leaves the shared devices to others, all but one at a time, with
// which it finds out when the stall is over.
type stall struct {
	answeredAt atomic.Int64 // when APNs last said something about a device; 0: never
	refused    atomic.Bool  // it has refused the app since

	// Owned by exchanger.run.
	stalled bool
	looked  int64 // when this relay looked last
	since   int64 // pushes have waited since; while not stalled
	probe   DeviceKey
	probeAt int64 // while stalled: since when it is the probe, or the stall began
}

// note takes answers.
func (s *stall) note(results []apns.Result, now int64) {
	refused := false
	for i := range results {
		switch results[i].Err.Verdict() {
		case apns.VerdictStopApp:
			refused = true
		case apns.VerdictResend, apns.VerdictRetryLater, apns.VerdictUnknown:
		default:
			s.end(now)
			return
		}
	}
	if refused {
		s.refused.Store(true)
	}
}

// end notes that pushes arrive, or may again.
func (s *stall) end(now int64) {
	s.answeredAt.Store(now)
	if s.refused.Load() {
		s.refused.Store(false)
	}
}

// update looks whether the app is stalled, and reports whether that has changed.
func (s *stall) update(waiting int, now int64) (changed bool) {
	was := s.stalled
	if at := s.answeredAt.Load(); at > s.since {
		s.since, s.stalled = at, false
	}
	if !s.stalled && (waiting == 0 || now-s.looked >= int64(stallAfter)) {
		s.since = now
	}
	s.looked = now
	s.stalled = s.stalled || s.refused.Load() || now-s.since >= int64(stallAfter)
	if s.stalled && !was {
		s.probe, s.probeAt = DeviceKey{}, now // others first, who may reach APNs
	}
	return s.stalled != was
}

// isProbe reports whether this relay, stalled, tries with the device.
func (s *stall) isProbe(key DeviceKey, now int64) bool {
	return s.probe == key && now-s.probeAt < int64(stallAfter)
}

// try makes a device the probe of a stalled relay, if none was for a while.
func (s *stall) try(key DeviceKey, now int64) bool {
	if now-s.probeAt < int64(stallAfter+stallRest) {
		return s.isProbe(key, now)
	}
	s.probe, s.probeAt = key, now
	return true
}

// updateStalls looks which apps are stalled, where another relay may push instead.
func (e *exchanger) updateStalls() {
	r := e.relay
	if r.maxInFlight == 0 {
		return
	}
	for _, a := range r.apps.all() {
		if !a.stall.update(a.queue.State().Waiting, r.now()) || r.devices.sharedCount.Load() == 0 {
			continue
		}
		if a.stall.stalled {
			r.logger.Warn("shared devices are left to other relays: APNs takes no push of the app from this one", "app", a.name)
		} else {
			r.logger.Info("shared devices are pushed to again", "app", a.name)
		}
	}
}

// mayYield reports whether the device may be left to another relay. Nothing is in
// flight to it then, and APNs has not asked us to wait. The caller holds d.mu.
func (d *device) mayYield(now int64) bool {
	return d.stage != stageInFlight && d.setback.Over() <= now
}
