package relay

import (
	"time"

	"badgerelay/apns"
)

// Pauses after APNs asked for one (429 TooManyRequests, whose length Apple does
// not document) or refused a token that was registered after the time it
// names: doubling, so that a device that keeps refusing costs next to nothing.
const (
	firstPause = time.Second
	lastPause  = 15 * time.Minute
)

// answer notes what APNs said of the push in flight and moves the device on.
func (d *device) answer(verdict apns.Verdict, res *apns.Result, now int64, r *Relay, fx *effects) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stage = stageIdle
	front := false
	if r.watches.count.Load() > 0 && d.claim != nil {
		d.traced(res, r, fx)
	}
	if verdict != apns.VerdictAccepted {
		d.shownAt = 0 // nobody knows what a push that failed left on the device
	}
	switch verdict {
	case apns.VerdictAccepted:
		d.accepted(now, res, r, fx)
	case apns.VerdictResend, apns.VerdictStopApp:
		front = true
	case apns.VerdictRetryLater:
		d.block(d.sent, now, now+int64(r.jitter(r.serverErrorWait(res.Err))))
	case apns.VerdictPauseDevice, apns.VerdictUnknown:
		d.pause(now, res.Err.RetryAfter, r)
	case apns.VerdictDeviceGone, apns.VerdictDeviceRefused:
		d.refused(res.Err, now, r, fx)
	case apns.VerdictDrop:
		d.dropped(res.Err, fx)
	}
	if d.newer && verdict != apns.VerdictAccepted && d.claim != nil {
		d.want, d.generation = d.newerWant, d.newerGeneration
	}
	d.newer = false
	d.goOn(front, now, r, fx)
}

// accepted notes that the device shows what was sent.
func (d *device) accepted(now int64, res *apns.Result, r *Relay, fx *effects) {
	d.shown, d.shownBy, d.shownAt = d.sent, d.sentBy, now
	d.pausedUntil, d.setbacks = 0, 0
	d.unblock(now, d.sent)
	if d.claim == nil || d.want != d.sent {
		return
	}
	if !res.WrittenAt.IsZero() {
		r.pushLatency.observe(d.pushLatency(res, r))
	}
	fx.results = append(fx.results, linkResult{link: d.claim, generation: d.generation, end: endDelivered})
	d.claim = nil
}

// pushLatency returns the time from the claimed event's acceptance to the push
// at the socket, which is none if an older event's push said the same.
func (d *device) pushLatency(res *apns.Result, r *Relay) int64 {
	return max(0, int64(res.WrittenAt.Sub(r.start))-d.acceptedAt)
}

// traced tells who watches the mailbox whose count was pushed. On a device that
// two organizations share, the claim may be another's than the push was.
func (d *device) traced(res *apns.Result, r *Relay, fx *effects) {
	if d.claim.mailbox.key.Organization != d.sentBy {
		return
	}
	traceID := r.watches.tell(d.claim.mailbox.key, d.app.name, res, fx)
	if traceID != "" && res.Err == nil && d.want == d.sent && !res.WrittenAt.IsZero() {
		r.exemplars.set(traceID, d.pushLatency(res, r))
	}
}

// refused ends the links that the refusal holds for. One that was registered
// after APNs says the token died stays: the app was installed again, and APNs
// is behind. Then the count is tried again after a pause.
func (d *device) refused(err *apns.Error, now int64, r *Relay, fx *effects) {
	stays := false
	for _, l := range d.links {
		if !err.Timestamp.IsZero() && l.registeredAt >= err.Timestamp.UnixMilli() {
			stays = true
			continue
		}
		l.refused = true
		fx.results = append(fx.results, linkResult{
			link: l, generation: d.generation, end: endRefused,
			removal: Removal{
				Key: l.mailbox.key, App: d.app.name, Device: d.token,
				Reason: err.Reason, Timestamp: err.Timestamp,
			},
		})
		if d.claim == l {
			d.claim = nil
		}
	}
	if stays {
		d.pause(now, 0, r)
	}
}

// dropped ends a claim that APNs will not take in any form.
func (d *device) dropped(err *apns.Error, fx *effects) {
	if d.claim == nil {
		return
	}
	fx.results = append(fx.results, linkResult{
		link: d.claim, generation: d.generation, end: endDropped, removal: Removal{Reason: err.Reason},
	})
	d.claim = nil
}

// maxBlocked is how many counts of one device may wait each for its time. Who
// is refused more often in a quarter of an hour waits with every count.
const maxBlocked = 8

// block keeps a count from the device until a time, whatever else APNs accepts
// meanwhile.
func (d *device) block(count uint32, now, until int64) {
	d.unblock(now, count)
	blocked := d.blockedCounts()
	if len(blocked) == maxBlocked {
		d.pausedUntil = max(d.pausedUntil, blocked[0].until)
		blocked = blocked[1:]
	}
	blocked = append(blocked, blockedCount{count, until})
	d.blocked = &blocked
}

// pause keeps every count from the device for a while, and at least as long as
// the answer asked for. The caller holds d.mu.
func (d *device) pause(now int64, asked time.Duration, r *Relay) {
	wait := max(min(firstPause<<d.setbacks, lastPause), asked)
	if d.setbacks < 10 { // 2^10 seconds is beyond lastPause
		d.setbacks++
	}
	d.pausedUntil = now + int64(r.jitter(wait))
}

// goOn puts a device that came back where its claim, if it has one, belongs.
func (d *device) goOn(front bool, now int64, r *Relay, fx *effects) {
	switch {
	case d.claim == nil:
		if len(d.links) == 0 {
			fx.released = append(fx.released, d)
		}
	case d.mayGo(now):
		d.enqueue(front)
		fx.wake(d.app)
	default:
		d.stage = stageWaiting
		r.waits.set(d, d.waitUntil())
	}
}

// jitter returns between wait and a quarter more, so that what failed together
// does not come back together.
func (r *Relay) jitter(wait time.Duration) time.Duration {
	return wait + time.Duration(r.random(int64(wait/4+1)))
}
