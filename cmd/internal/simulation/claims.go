package simulation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
)

// answered is what APNs has answered of a device, as the relays know it.
type answered struct {
	accepted []shownBadge // pushes, each when its relay knew
	by       *relayHost   // whose the last of them was
	refused  bool         // the device has been, for good
}

// accepted notes that a relay knows that APNs accepted a push.
func (w *world) accepted(by *relayHost, d apns.DeviceToken, badge uint32, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.answersOf(d)
	a.accepted, a.by = append(a.accepted, shownBadge{at, badge}), by
}

// refused notes that a relay knows that APNs refused a device for good.
func (w *world) refused(d apns.DeviceToken) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answersOf(d).refused = true
}

// answersOf returns what is known of a device; mu must be held.
func (w *world) answersOf(d apns.DeviceToken) *answered {
	a := w.answers[d]
	if a == nil {
		a = &answered{}
		w.answers[d] = a
	}
	return a
}

// settled checks what an outcome claims.
func (w *world) settled(e *sentEvent, outcome pb.Outcome) {
	w.countOutcome(outcome)
	if e.mailbox == nil {
		return
	}
	w.claimed(e, outcome)
	if outcome != pb.Outcome_OUTCOME_DELIVERED && outcome != pb.Outcome_OUTCOME_UNCHANGED || e.unread == 0 {
		return
	}
	for _, d := range w.devices {
		w.settledSum(d, e, outcome)
		m, moving, since := d.place()
		if m != e.mailbox || moving || d.everShared() || since.After(e.at.Add(-changeTime)) {
			continue
		}
		if w.isGone(d.token, m) {
			continue // it is left out until it signs in again
		}
		if !w.hasShown(d, e) {
			w.problem("version %d of %s is settled as %v, and device %d has not shown it", e.number, e.mailbox.name,
				strings.ToLower(fmt.Sprint(outcome)), d.number)
		}
	}
}

// claimed checks what an outcome says of APNs' answers, of the subscriptions and of
// other agents, whatever the devices show.
func (w *world) claimed(e *sentEvent, outcome pb.Outcome) {
	switch outcome {
	case pb.Outcome_OUTCOME_DELIVERED:
		if !w.wasAccepted(e) {
			w.problem("version %d of %s is settled as delivered, and no push of it was accepted", e.number, e.mailbox.name)
		}
	case pb.Outcome_OUTCOME_UNDELIVERABLE:
		if !w.anyRefused() {
			w.problem("version %d of %s is settled as undeliverable, and APNs has refused no device", e.number, e.mailbox.name)
		}
	case pb.Outcome_OUTCOME_STALE:
		if len(e.mailbox.agents) == 1 {
			w.problem("version %d of %s is settled as stale, and no other agent serves it", e.number, e.mailbox.name)
		}
	case pb.Outcome_OUTCOME_NO_SUBSCRIPTION:
		for _, d := range w.devices {
			_, moving, since := d.place()
			if w.plan.OneOrganization && d.everShared() && w.ownerOf(d) != e.mailbox.organization {
				continue // it may show another organization's counts
			}
			if !moving && !w.isGone(d.token, e.mailbox) && since.Before(e.at.Add(-changeTime)) && slices.Contains(d.parts(), e.mailbox) {
				w.problem("version %d of %s has no subscription, and device %d is there since %s", e.number, e.mailbox.name, d.number, w.clock(since))
			}
		}
	}
}

// settledSum checks the same of a device on several mailboxes, once there are no faults
// any more: where the others have not changed for calmTime, they are in the sum as they
// are.
func (w *world) settledSum(d *device, e *sentEvent, outcome pb.Outcome) {
	_, moving, since := d.place()
	parts := d.parts()
	if !w.judged.Load() || moving || w.plan.OneOrganization || len(parts) < 2 || !slices.Contains(parts, e.mailbox) ||
		e.mailbox.newest().unread != e.unread || w.isGone(d.token, e.mailbox) || since.After(e.at.Add(-changeTime)) {
		return
	}
	sum := uint32(0)
	for _, m := range parts {
		v := m.newest()
		if sum += v.unread; m != e.mailbox && v.at.After(e.at.Add(-calmTime)) {
			return
		}
	}
	w.mu.Lock()
	accepted := slices.ContainsFunc(w.answersOf(d.token).accepted, func(p shownBadge) bool { return p.badge == sum })
	w.mu.Unlock()
	if !accepted {
		w.problem("version %d of %s is settled as %v, and no sum of %s was accepted for device %d", e.number, e.mailbox.name,
			strings.ToLower(fmt.Sprint(outcome)), describeParts(parts), d.number)
	}
}

// wasAccepted reports whether APNs has accepted a push that holds the event's count:
// the same badge, or at least as much where it may have been a sum. That may have been
// before the event, which repeats a count that was on its way.
func (w *world) wasAccepted(e *sentEvent) bool {
	for _, d := range w.devices {
		sums := d.everShared()
		w.mu.Lock()
		holds := slices.ContainsFunc(w.answersOf(d.token).accepted, func(p shownBadge) bool {
			return p.badge == e.unread || sums && p.badge >= e.unread
		})
		w.mu.Unlock()
		if holds {
			return true
		}
	}
	return false
}

// anyRefused reports whether APNs has refused a device for good.
func (w *world) anyRefused() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.answers {
		if a.refused {
			return true
		}
	}
	return false
}

// changeTime is how long a relay may take to hear of a subscription. It is told
// within a second, or, where it has trouble to reach the registry, after it.
const changeTime = time.Minute

// hasShown reports whether a device has shown an event's count or a newer one.
func (w *world) hasShown(d *device, e *sentEvent) bool {
	for _, s := range w.apns.history(d.token) {
		if s.badge == 0 {
			if e.mailbox.numberOf(0) > e.number {
				return true
			}
			continue
		}
		if mailboxOf(s.badge) == e.mailbox.number && uint64(s.badge/spread) >= e.number {
			return true
		}
	}
	return false
}
