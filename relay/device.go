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
	stageWaiting        // for a time: a retry, or a pause that APNs asked for
)

// device is one installation of an app on one device: what it shows and what
// it is to show. Its badge is the count of the one mailbox that it is on, whose
// link claims it; or, where it is shared between mailboxes, their sum. It may have
// two links and not be shared while it moves from one mailbox to another.
//
// mu guards all but app and token, which never change, and timer.
type device struct {
	app   *appState
	token apns.DeviceToken

	mu         *sync.Mutex // its table's
	links      []*link
	shared     *sharedState // nil: it is on one mailbox
	first      [1]*link     // what links starts as
	claim      *link        // whose count is to be shown; nil: nothing is claimed
	generation uint32       // of the claimed event
	want       uint32       // the claimed count
	acceptedAt int64        // when the claimed event was accepted
	stage      stage
	gone       bool // not in the table any more
	wasShared  bool // an entry of that time may be in the queue still

	// A newer count of the claim that waits for its window's end while the push
	// is in flight: it goes instead if the push has to be repeated.
	newer           bool
	newerWant       uint32
	newerGeneration uint32

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

// claimed is what a claim came to.
type claimed uint8

const (
	claimShown       claimed = iota // the device shows the count already
	claimGoing                      // the count is on its way or waits
	claimQueued                     // the same, and the app has a push to send
	claimQuarantined                // APNs refused the device, and it is not time to try it again
)

// set claims the device for a link's newest event. displaced is the link of
// another organization whose claim was replaced, with its generation.
func (d *device) set(l *link, now int64, r *Relay) (result claimed, displaced linkResult) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := l.mailbox
	if l.refused {
		return claimGoing, displaced // what follows from it is on its way to the mailbox
	}
	if l.quarantined(now) {
		return claimQuarantined, displaced
	}
	if l.repeats = l.hasAccepted(now, r); !l.repeats {
		l.acceptedAt = 0
	}
	if d.shared != nil {
		return d.storeCount(l, now), displaced
	}
	if d.claim != nil && d.claim != l {
		displaced = linkResult{link: d.claim, generation: d.generation, end: endDisplaced}
	}
	if d.stage == stageIdle && d.shows(l, now, r) {
		d.claim = nil
		if l.endAccepted(m.unread, now) == endDelivered {
			l.delivered = m.generation
		}
		return claimShown, displaced
	}
	d.claim, d.generation, d.want, d.acceptedAt = l, m.generation, m.unread, m.acceptedAt
	d.newer = false
	switch d.stage {
	case stageIdle:
		d.enqueue(false)
		return claimQueued, displaced
	case stageWaiting:
		if d.mayGo(now) {
			r.waits.Remove(d)
			d.enqueue(false)
			return claimQueued, displaced
		}
		r.waits.Set(d, d.waitUntil())
	}
	return claimGoing, displaced
}

// offer replaces the count of a claim that has not left yet, or that has to
// leave once more, so that a push that waits carries the newest count when it
// goes.
func (d *device) offer(l *link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := l.mailbox
	switch {
	case d.claim != l:
	case d.stage == stageInFlight:
		d.newer, d.newerWant, d.newerGeneration = true, m.unread, m.generation
	default:
		d.generation, d.want, d.acceptedAt = m.generation, m.unread, m.acceptedAt
	}
}

// withdraw takes a link's claim back; a push in flight goes on.
func (d *device) withdraw(l *link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claim == l {
		d.claim = nil
	}
}

// registered notes what the registry says of the subscription behind a link. An
// app that registers anew may have cleared its badge, so what was pushed before
// is no proof of what it shows, and what APNs asked to wait for is over: the
// device is there.
func (d *device) registered(l *link, sub Subscription, r *Relay) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := unixMilli(sub.RegisteredAt)
	l.renewed = l.renewed || at > l.registeredAt
	l.registeredAt = at
	if d.setback != nil {
		if at, _ := d.setback.At(); r.start.Add(time.Duration(at)).Before(sub.RegisteredAt) {
			d.setback = nil
		}
	}
	if d.shownAt != 0 && r.start.Add(time.Duration(d.shownAt)).Before(sub.RegisteredAt) {
		d.shownAt = 0
	}
	if l.acceptedAt != 0 && r.start.Add(time.Duration(l.acceptedAt)).Before(sub.RegisteredAt) {
		l.acceptedAt = 0
	}
	q := sub.Quarantine
	if q != nil && d.takenAt != 0 && r.start.Add(time.Duration(d.takenAt)).After(q.RefusedAt) {
		q = nil // APNs took the device since; the registry is about to forget it
	}
	lifted := l.quarantine != nil && q == nil
	l.setQuarantine(q, r)
	if lifted && d.shared != nil {
		d.touch(l.mailbox.key.Organization) // its count is not in the sum
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
func (d *device) shows(l *link, now int64, r *Relay) bool {
	return d.shown == l.mailbox.unread && d.shownBy == l.mailbox.key.Organization && l.isProof(d.shownAt, now, r)
}

// isProof reports whether what APNs accepted at a time still says what the device
// shows.
func (l *link) isProof(at, now int64, r *Relay) bool {
	m := l.mailbox
	if r.maxInFlight > 0 && (m.stream == nil || at < max(m.stream.activeAt.Load(), r.at(l.registeredAt))+r.maxInFlight) {
		return false
	}
	return at != 0 && at >= r.strayUntil && now-at < r.shownFor
}

// hasAccepted reports whether APNs accepted the mailbox's newest count for the device
// before. It says how an event ends that needs no push, or one more: unchanged. It
// knows of the mailbox alone, so that nobody learns from an outcome whether others
// share the device, come to it, or move its badge.
func (l *link) hasAccepted(now int64, r *Relay) bool {
	return l.accepted == l.mailbox.unread && l.isProof(l.acceptedAt, now, r)
}

// endAccepted notes that APNs accepted a count of the mailbox, in whatever push, and
// returns how its event ends here. The caller holds d.mu.
func (l *link) endAccepted(count uint32, now int64) linkEnd {
	if l.repeats {
		return endShown
	}
	l.accepted, l.acceptedAt = count, now
	return endDelivered
}

// at returns the time on the relay's clock of Unix milliseconds.
func (r *Relay) at(milli int64) int64 { return int64(time.UnixMilli(milli).Sub(r.start)) }

// mayGo reports whether the claimed count may be sent at once.
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
func (d *device) wanted() bool { return d.claim != nil || d.shared.wanted() }

// enqueue puts the device into its app's queue, in front for a resend. The caller
// holds d.mu.
func (d *device) enqueue(front bool) {
	d.stage = stageQueued
	if d.shared == nil {
		d.app.queue.Add(int64(d.claim.lane.org), d, front, d.wasShared)
		return
	}
	for _, l := range d.shared.lanes { // none waits for another's turns; the first one takes the device
		d.app.queue.Add(int64(l.org), d, front, true)
	}
}

// start takes the device for a push. It reports false, and lets the device
// rest, if nothing is claimed any more or the count has to wait.
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
	for _, l := range d.links {
		l.renewed = false
	}
	d.sent, d.sentBy = d.want, 0
	if d.claim != nil {
		d.sentBy = d.claim.mailbox.key.Organization
	}
	return true
}
