package relay

import (
	"slices"
	"time"

	"badgerelay/apns"
)

// answer notes what APNs said of the push in flight and moves the device on.
func (d *device) answer(verdict apns.Verdict, res *apns.Result, now int64, r *Relay, acts *actions) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stage = stageIdle
	front := false
	if r.watches.count.Load() > 0 && d.wanted() {
		d.traced(res, r, acts)
	}
	if verdict != apns.VerdictAccepted {
		d.shownAt = 0 // nobody knows what a push that failed left on the device
	}
	if d.shared != nil {
		d.endSharedPush(r)
		if verdict != apns.VerdictAccepted {
			d.shared.windowEnds = 0 // a push that failed opens no window
		}
	}
	if refusesDevice(verdict) && !d.app.sentInGeneration(res) {
		verdict = apns.VerdictResend // it was refused with what the app pushed with before
	}
	switch verdict {
	case apns.VerdictAccepted:
		d.accepted(now, res, r, acts)
	case apns.VerdictResend, apns.VerdictStopApp:
		front = true
	case apns.VerdictRetryLater:
		d.setback = d.setback.Block(d.sent, res.Err.Reason, now, r.serverErrorWait(res.Err), r.random)
	case apns.VerdictPauseDevice, apns.VerdictUnknown:
		d.setback = d.setback.Pause(res.Err.Reason, now, res.Err.RetryAfter, r.random)
	case apns.VerdictDeviceGone, apns.VerdictDeviceRefused:
		front = true // of those that registered anew meanwhile
		d.refused(res, acts)
	case apns.VerdictDrop:
		d.setback = d.setback.Drop(res.Err.Reason, now)
		d.dropped(res.Err, acts)
	}
	if d.newer && verdict != apns.VerdictAccepted && d.desired != nil {
		d.want, d.event, d.receivedAt = d.newerWant, d.newerEvent, d.newerReceivedAt
	}
	d.newer = false
	if d.shared != nil {
		d.shared.sentBefore = targetResult{}
	}
	d.goOn(front, now, r, acts)
}

// accepted notes that the device shows what was sent.
func (d *device) accepted(now int64, res *apns.Result, r *Relay, acts *actions) {
	d.shown, d.shownBy, d.shownAt = d.sent, d.sentBy, now
	d.setback = d.setback.Accepted(now, d.sent)
	d.taken(now, r, acts)
	if d.shared != nil {
		d.acceptedShared(res, r, acts)
		return
	}
	if d.desired == nil || d.want != d.sent {
		return
	}
	if !res.WrittenAt.IsZero() {
		r.pushLatency.observe(d.pushLatency(res, r))
	}
	acts.results = append(acts.results, targetResult{target: d.desired, event: d.event, end: d.desired.endAccepted(d.sent, now)})
	d.desired = nil
}

// pushLatency returns the time from the wanted event's receipt to the push
// at the socket, which is none if an older event's push said the same.
func (d *device) pushLatency(res *apns.Result, r *Relay) int64 {
	return max(0, int64(res.WrittenAt.Sub(r.start))-d.receivedAt)
}

// traced tells who watches the mailbox whose count was pushed. The desired
// count may be another mailbox's than the push's was.
func (d *device) traced(res *apns.Result, r *Relay, acts *actions) {
	if d.shared != nil {
		d.tracedShared(res, r, acts)
		return
	}
	if d.desired.mailbox.key.Organization != d.sentBy {
		return
	}
	traceID := r.watches.tell(d.desired.mailbox.key, d.app.name, res, acts)
	if traceID != "" && res.Err == nil && d.want == d.sent && !res.WrittenAt.IsZero() {
		r.exemplars.set(traceID, d.pushLatency(res, r))
	}
}

// taken notes that APNs knows the device.
func (d *device) taken(now int64, r *Relay, acts *actions) {
	if d.takenAt < d.app.health.since.Load() && !d.token.Impossible() {
		for i, t := range d.targets {
			if !slices.ContainsFunc(d.targets[:i], func(o *target) bool { return o.stats == t.stats }) { // once for each organization
				t.stats.acceptedDevices.Add(1)
			}
		}
	}
	d.takenAt = now
	for _, t := range d.targets {
		if t.quarantine == nil {
			continue
		}
		t.setQuarantine(nil, r)
		acts.lifted = append(acts.lifted, Subscriber{t.mailbox.key, d.app.name, d.token})
	}
}

// refusesDevice reports whether a verdict is about the device.
func refusesDevice(v apns.Verdict) bool {
	return v == apns.VerdictDeviceGone || v == apns.VerdictDeviceRefused
}

// refused has it judged what becomes of the device's subscriptions. Those that
// were registered since the push was taken are not concerned.
func (d *device) refused(res *apns.Result, acts *actions) {
	sentAt := res.WrittenAt
	if sentAt.IsZero() {
		sentAt = time.Now()
	}
	if d.shared != nil {
		d.refusedShared(&SharedRefusal{
			Sequence: d.shared.sentSequence, Reason: res.Err.Reason, GoneSince: res.Err.Timestamp, SentAt: sentAt, Generation: d.app.generation(),
		}, acts)
		return
	}
	for _, t := range d.targets {
		if t.renewed || t.refused {
			continue
		}
		d.haveJudged(t, &SharedRefusal{
			Reason: res.Err.Reason, GoneSince: res.Err.Timestamp, SentAt: sentAt, Generation: d.app.generation(),
		}, acts)
		if d.desired == t {
			d.desired = nil
		}
	}
}

// haveJudged has it judged what becomes of the subscription behind a target.
func (d *device) haveJudged(t *target, f *SharedRefusal, acts *actions) {
	t.refused = true
	acts.refusals = append(acts.refusals, targetRefusal{t, Refusal{
		Key: t.mailbox.key, App: d.app.name, Device: d.token, Reason: f.Reason,
		GoneSince: f.GoneSince, SentAt: f.SentAt, Registered: time.UnixMilli(t.registeredAt).UTC(),
		Generation: f.Generation, Accepted: d.takenAt != 0 && d.takenAt >= d.app.health.generationAt.Load(),
	}})
}

// dropped ends a count that APNs will not take in any form.
func (d *device) dropped(err *apns.Error, acts *actions) {
	if d.shared != nil {
		d.refusedShared(&SharedRefusal{Sequence: d.shared.sentSequence, Reason: err.Reason, Dropped: true}, acts)
		return
	}
	if d.desired == nil {
		return
	}
	acts.results = append(acts.results, targetResult{
		target: d.desired, event: d.event, end: endDropped, reason: err.Reason,
	})
	d.desired = nil
}

// goOn puts a device that came back where its desired count, if it has one, belongs.
func (d *device) goOn(front bool, now int64, r *Relay, acts *actions) {
	switch {
	case !d.wanted():
		if len(d.targets) == 0 {
			acts.released = append(acts.released, d)
		}
	case d.mayGo(now):
		d.enqueue(front)
		acts.wake(d.app)
	default:
		d.stage = stageWaiting
		r.waits.Set(d, d.waitUntil())
	}
}

// endWait has a device go on that waits, when its time has come.
func (d *device) endWait(now int64, r *Relay, acts *actions) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stage != stageWaiting {
		return
	}
	d.stage = stageIdle
	if !d.wanted() {
		d.addProbes(now, acts)
	}
	d.goOn(false, now, r, acts)
}
