package relay

import (
	"sync"
	"time"

	"badgerelay/apns"
	"badgerelay/relay/dispatch"
)

// stage says where a device is on its way. Only one at a time: that is what
// keeps two pushes to one device from being in flight at once.
type stage uint8

const (
	stageIdle     stage = iota
	stageQueued         // in its app's queue
	stageInFlight       // taken by a connection
	stageWaiting        // for a time: a retry, a pause that APNs asked for, a probe, a shared device's window
)

// device is one installation of an app on one device: what it shows and what
// it is to show. Its badge is the count of the one mailbox that it is on, whose
// target set it; or, where it is shared between mailboxes, their sum. It may have
// two targets and not be shared while it moves from one mailbox to another.
//
// mu guards all but app and token, which never change, and timer.
type device struct {
	app   *appState
	token apns.DeviceToken

	mu         *sync.Mutex // its table's
	targets    []*target
	shared     *sharedState // nil: it is on one mailbox
	first      [1]*target   // what targets starts as
	desired    *target      // whose count is to be shown; nil: nothing is to be shown
	event      uint32       // number of the event with the desired count
	want       uint32       // the desired count
	receivedAt int64        // when that event came
	stage      stage
	gone       bool // not in the table any more
	wasShared  bool // an entry of that time may be in the queue still

	// A newer count of the same mailbox that waits for its window's end while the push
	// is in flight: it goes instead if the push has to be repeated.
	newer           bool
	newerWant       uint32
	newerReceivedAt int64
	newerEvent      uint32

	sent    uint32 // the count in flight
	sentBy  OrganizationID
	shownBy OrganizationID
	shownAt int64             // when APNs accepted a count last; 0: unknown
	takenAt int64             // the same, whatever has happened to the device since; 0: never
	setback *dispatch.Setback // what APNs asked to wait for; nil: nothing
	shown   uint32            // the count APNs accepted last

	timer dispatch.Timer // Relay.waits owns it
}

// Timer implements dispatch.Timed.
func (d *device) Timer() *dispatch.Timer { return &d.timer }

// setResult is what setting the desired count came to.
type setResult uint8

const (
	countShown       setResult = iota // the device shows the count already
	countGoing                        // the count is on its way or waits
	countQueued                       // the same, and the app has a push to send
	countQuarantined                  // APNs refused the device, and it is not time to try it again
)

// set makes a target's newest count the desired one. preempted is the result for the
// target of another mailbox whose count was desired until now; its target is nil where
// there was none. The caller finishes it.
func (d *device) set(t *target, now int64, r *Relay) (result setResult, preempted targetResult) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := t.mailbox
	if t.refused {
		return countGoing, preempted // what follows from it is on its way to the mailbox
	}
	if t.quarantined(now) {
		return countQuarantined, preempted
	}
	if t.repeats = t.repeatsAccepted(now, r); !t.repeats {
		t.acceptedAt = 0
	}
	if d.shared != nil {
		return d.setInSum(t, now), preempted
	}
	if d.desired != nil && d.desired != t {
		preempted = targetResult{target: d.desired, event: d.event, end: endPreempted}
	}
	if d.stage == stageIdle && d.shows(t, now, r) {
		d.desired = nil
		if t.endAccepted(m.unread, now) == endDelivered {
			t.delivered = m.event
		}
		return countShown, preempted
	}
	d.desired, d.event, d.want, d.receivedAt = t, m.event, m.unread, m.receivedAt
	d.newer = false
	switch d.stage {
	case stageIdle:
		d.enqueue(false)
		return countQueued, preempted
	case stageWaiting:
		if d.mayGo(now) {
			r.waits.Remove(d)
			d.enqueue(false)
			return countQueued, preempted
		}
		r.waits.Set(d, d.waitUntil())
	}
	return countGoing, preempted
}

// update replaces a desired count that has not left yet, or that has to
// leave once more, so that a push that waits carries the newest count when it
// goes.
func (d *device) update(t *target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := t.mailbox
	switch {
	case d.desired != t:
	case d.stage == stageInFlight:
		d.newer, d.newerWant, d.newerEvent, d.newerReceivedAt = true, m.unread, m.event, m.receivedAt
	default:
		d.event, d.want, d.receivedAt = m.event, m.unread, m.receivedAt
	}
}

// cancel clears the desired count if it is the target's. A push in flight goes on.
func (d *device) cancel(t *target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.desired == t {
		d.desired = nil
	}
}

// registered notes what the registry says of the subscription behind a target. An
// app that registers anew may have cleared its badge, so what was pushed before
// is no proof of what it shows, and what APNs asked to wait for is over: the
// device is there.
func (d *device) registered(t *target, sub Subscription, r *Relay) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := unixMilli(sub.RegisteredAt)
	anew := t.registeredAt != 0 && at > t.registeredAt // which voids what was shown, whatever this relay's clock says
	before := func(time int64) bool { return anew || r.wall(time).Before(sub.RegisteredAt) }
	t.renewed = t.renewed || at > t.registeredAt
	t.registeredAt = at
	if d.setback != nil {
		if at, _ := d.setback.At(); r.wall(at).Before(sub.RegisteredAt) {
			d.setback = nil
		}
	}
	if before(d.shownAt) {
		d.shownAt = 0
	}
	if before(t.acceptedAt) {
		t.acceptedAt = 0
	}
	q := sub.Quarantine
	if q != nil && r.wall(d.takenAt).After(q.RefusedAt) {
		q = nil // APNs took the device since; the registry is about to forget it
	}
	lifted := t.quarantine != nil && q == nil
	t.setQuarantine(q, r)
	if lifted && d.shared != nil {
		d.touch(t.mailbox.key.Organization) // its events pushed nothing, and nobody may have brought its newest count
	}
}

// unixMilli returns t in Unix milliseconds; 0 for the zero time.
func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// shows reports whether APNs accepted the mailbox's count not too long ago, for
// the same organization: another one must not learn what it was. Among several
// relays only what was accepted when the stream's agent had long left every
// other one counts, and when each had long heard of the subscription: until then
// one of them may have had something else shown. A relay alone counts what was
// accepted when nothing of the process before it can come any more.
func (d *device) shows(t *target, now int64, r *Relay) bool {
	return d.shown == t.mailbox.unread && d.shownBy == t.mailbox.key.Organization && t.isProof(d.shownAt, now, r)
}

// isProof reports whether what APNs accepted at a time still says what the device
// shows.
func (t *target) isProof(at, now int64, r *Relay) bool {
	m := t.mailbox
	if r.maxInFlight > 0 && (m.stream == nil || at < max(m.stream.activeAt.Load(), r.at(t.registeredAt))+r.maxInFlight) {
		return false
	}
	return at != 0 && at >= r.strayUntil && now-at < r.shownFor
}

// repeatsAccepted reports whether APNs accepted the mailbox's newest count for the device
// before. It says how an event ends that needs no push, or one more: unchanged. It
// knows of the mailbox alone, so that nobody learns from an outcome whether others
// share the device, come to it, or move its badge.
func (t *target) repeatsAccepted(now int64, r *Relay) bool {
	return t.acceptedCount == t.mailbox.unread && t.isProof(t.acceptedAt, now, r)
}

// endAccepted returns how an event ends whose count APNs has accepted for the device, in
// whatever push, now or before; it notes the count, unless the event repeats that. The caller
// holds d.mu.
func (t *target) endAccepted(count uint32, now int64) targetEnd {
	if t.repeats {
		return endShown
	}
	t.acceptedCount, t.acceptedAt = count, now
	return endDelivered
}

// at returns the time on the relay's clock of Unix milliseconds.
func (r *Relay) at(milli int64) int64 { return int64(time.UnixMilli(milli).Sub(r.start)) }

// mayGo reports whether the desired count may be sent at once.
func (d *device) mayGo(now int64) bool {
	return d.waitUntil() <= now
}

// waitUntil returns when the count that is wanted may be sent.
func (d *device) waitUntil() int64 {
	at := d.setback.Until(d.want)
	if d.shared != nil && !d.app.relay.draining.Load() {
		at = max(at, d.shared.windowEnds)
	}
	return at
}

// wanted reports whether there is something to be pushed.
func (d *device) wanted() bool { return d.desired != nil || d.shared.wanted() }

// enqueue puts the device into its app's queue, in front for a resend. The caller
// holds d.mu.
func (d *device) enqueue(front bool) {
	d.stage = stageQueued
	if d.shared == nil {
		// A device that was shared may be there already, and takes the one place.
		d.app.queue.Add(int64(d.desired.stats.org), d, front, d.wasShared)
		return
	}
	for _, s := range d.shared.turns { // none waits for another's turns; the first one takes the device
		d.app.queue.Add(int64(s.org), d, front, true)
	}
}

// start takes the device for a push. It reports false, and leaves the device
// idle, if nothing is to be shown any more or the count has to wait.
func (d *device) start(req *apns.Request, r *Relay) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stage != stageQueued {
		return false // another organization's turn took it
	}
	if !d.wanted() {
		d.stage = stageIdle
		return false
	}
	if (d.setback != nil || d.shared != nil) && !d.mayGo(r.now()) {
		d.stage = stageWaiting // for a count that APNs wants to see later, or for the window of a shared device
		r.waits.Set(d, d.waitUntil())
		return false
	}
	*req = apns.Request{Device: d.token, Badge: d.want, Priority: r.priority(d), Tag: d}
	if d.shared != nil && !d.startShared(req, r) {
		d.stage = stageIdle
		return false
	}
	d.stage = stageInFlight
	for _, t := range d.targets {
		t.renewed = false
	}
	d.sent, d.sentBy = d.want, 0
	if d.desired != nil {
		d.sentBy = d.desired.mailbox.key.Organization
	}
	return true
}
