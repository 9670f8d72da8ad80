package relay

import (
	"slices"
	"time"

	"badgerelay/apns"
	"badgerelay/relay/lookup"
)

// Wait is what a count waits for.
type Wait uint8

// The waits.
const (
	WaitNone          Wait = iota
	WaitSubscriptions      // the registry is to say who is subscribed, or what becomes of a refused device
	WaitWindow             // the end of the coalescing window
	WaitStream             // a free stream to APNs
	WaitAnswer             // APNs' answer
	WaitPause              // the end of the pause that APNs asked for
	WaitRetry              // the time from which on the same count may be sent again
	WaitBreaker            // the app's breaker, which lets a push through now and then
	WaitSum                // the registry, which takes or gives the parts of the device's sum; or one of these that nobody has reported
	WaitQuarantine         // a registration, or the one push that tries the refused device again
)

// MailboxState is what this relay has of a mailbox, for people who ask why its
// badge is what it is.
type MailboxState struct {
	Count   *CountState // the newest; nil: none is known
	Devices []DeviceState
}

// CountState is a mailbox's newest count.
type CountState struct {
	Unread     uint32
	ReceivedAt time.Time // zero: more than ten minutes ago
	Agent      string    // who sent it; empty: none of those that were named
	Pending    bool      // it has not settled
	Wait       Wait      // what keeps it from all devices
	Until      time.Time // the latest end of Wait; zero: not known
}

// DeviceState is a device of a mailbox.
type DeviceState struct {
	App    string
	Device apns.DeviceToken

	// Badge is what APNs accepted last, at AcceptedAt; zero: it is not known. By is
	// whose mailbox's count it was, of a device that is not shared.
	Badge      uint32
	AcceptedAt time.Time
	By         OrganizationID

	// Count is the mailbox's own that APNs accepted last, alone or in a sum, at
	// CountAcceptedAt; zero: it is not known, or another was desired since.
	Count           uint32
	CountAcceptedAt time.Time

	// Wanted is the badge that it is to show, while Wait is not WaitNone.
	Wanted uint32
	Wait   Wait
	Until  time.Time // the end of Wait; zero: not known

	// Reason is APNs' last answer, where it made the device wait or the count end.
	Reason    apns.Reason
	RefusedAt time.Time

	Shared bool // it shows a sum
	Pusher bool // which this relay pushes
}

// Inspect returns what the relay has of a mailbox; agents are those that may have
// sent its count. It changes nothing that matters: a compact mailbox is active for a
// while after it.
func (r *Relay) Inspect(key MailboxKey, agents []string) MailboxState {
	now := r.now()
	sh, hash := r.shardOf(key.Organization, key.Mailbox)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	m := sh.active.find(hash, key)
	if m == nil {
		m = r.activate(sh, hash, key)
	}
	if m == nil {
		return MailboxState{}
	}
	var s MailboxState
	if m.counted {
		s.Count = &CountState{Unread: m.unread, ReceivedAt: r.wall(m.receivedAt), Pending: m.pending}
		if i := slices.IndexFunc(agents, func(id string) bool { return r.agentHash(id) == m.order.agent }); i >= 0 {
			s.Count.Agent = agents[i]
		}
		s.Count.Wait, s.Count.Until = r.countWait(m, now)
	}
	for _, t := range m.targets {
		s.Devices = append(s.Devices, t.state(now, r))
	}
	return s
}

// wall returns a time on the relay's clock as one on the wall's; zero for 0.
func (r *Relay) wall(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return r.start.Add(time.Duration(at))
}

// countWait returns what keeps a mailbox's count from all devices. The caller holds
// the shard's lock.
func (r *Relay) countWait(m *mailbox, now int64) (Wait, time.Time) {
	switch {
	case !m.pending:
		return WaitNone, time.Time{}
	case m.subs != lookup.Known:
		return WaitSubscriptions, time.Time{}
	case m.held:
		return WaitWindow, r.wall(now + r.window)
	}
	return WaitNone, time.Time{}
}

// state returns how a device is. The caller holds the shard's lock.
func (t *target) state(now int64, r *Relay) DeviceState {
	d := t.device
	d.mu.Lock()
	defer d.mu.Unlock()
	s := DeviceState{App: d.app.name, Device: d.token, Shared: d.shared != nil}
	if d.shownAt != 0 {
		s.Badge, s.AcceptedAt, s.By = d.shown, r.wall(d.shownAt), d.shownBy
	}
	if t.acceptedAt != 0 {
		s.Count, s.CountAcceptedAt = t.acceptedCount, r.wall(t.acceptedAt)
	}
	if d.setback != nil {
		at, reason := d.setback.At()
		s.Reason, s.RefusedAt = reason, r.wall(at)
	}
	if d.shared != nil {
		s.Pusher = d.shared.pusher
	}
	switch {
	case t.refused:
		s.Wait = WaitSubscriptions
	case t.quarantined(now):
		s.Wait, s.Until = WaitQuarantine, r.wall(t.quarantine.probeAt)
	case d.shared != nil && t.outstanding && d.shared.countPending(t):
		s.Wait = WaitSum
	case d.shared != nil && (t.outstanding || d.shared.changedBy(t.stats)):
		s.Wait, s.Until = d.wait(now, r)
	case d.desired == t:
		s.Wait, s.Until = d.wait(now, r)
	}
	switch {
	case d.shared != nil:
		s.Wanted = d.want
	case d.newer && d.desired == t:
		s.Wanted = d.newerWant
	case d.desired == t:
		s.Wanted = d.want
	default:
		s.Wanted = t.mailbox.unread
	}
	return s
}

// wait returns what keeps the device's count from it. The caller holds d.mu.
func (d *device) wait(now int64, r *Relay) (Wait, time.Time) {
	switch d.stage {
	case stageQueued:
		if d.app.queue.State().BreakerOpen {
			return WaitBreaker, time.Time{}
		}
		return WaitStream, time.Time{}
	case stageInFlight:
		return WaitAnswer, time.Time{}
	case stageWaiting:
		at := d.waitUntil()
		switch {
		case d.setback.Paused(now):
			return WaitPause, r.wall(at)
		case d.setback.Until(d.want) > now:
			return WaitRetry, r.wall(at)
		}
		return WaitWindow, r.wall(at)
	case stageIdle:
	}
	return WaitSum, time.Time{}
}

// Generation returns what an app pushes with; 0: not known, or there is no such app.
func (r *Relay) Generation(app string) Generation {
	a := r.apps.named(app)
	if a == nil {
		return 0
	}
	return a.generation()
}

// Breaker returns since when an app's breaker is open; zero: it is closed, or there
// is no such app.
func (r *Relay) Breaker(app string) time.Time {
	a := r.apps.named(app)
	if a == nil {
		return time.Time{}
	}
	return r.wall(a.queue.State().BreakerSince)
}
