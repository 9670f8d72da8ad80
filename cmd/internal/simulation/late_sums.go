package simulation

import (
	"context"
	"slices"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/ingest"
	"badgerelay/relay/registry"
)

// The late troubles of devices on several mailboxes.

const (
	// strangeTime is within which a device shows its own organization's count, whatever
	// another has not reported; relays wait for a minute for the own one's.
	strangeTime = 20 * time.Second
	// partTime is within which it shows it though its own has not reported another.
	partTime = time.Minute + 10*time.Second
	// outcastTime is within which an organization that is disabled counts nothing.
	outcastTime = 15 * time.Second
	// aloneTime is after which another relay has taken the place of one that nobody
	// hears of.
	aloneTime = ingest.MaxInFlight + 15*time.Second
	// slowTime is by how much the registry's answers of sums are late.
	slowTime = 3 * time.Second
	// stuckTime is within which others push for a relay that does not reach APNs: it
	// has given up what was in flight, and has waited for 10 s.
	stuckTime = time.Minute
)

// stranger has a device come to a mailbox of another organization that no agent
// serves.
func (w *world) stranger(d *device, own *mailbox, o *organization) {
	had := d.at(o)
	d.arrive(o)
	w.subscribe(w.admin, d, o, registry.Registration{Mailbox: nobodys})
	w.events.drive(time.Now().Add(strangeTime))
	w.change(own, false)
	w.events.drive(time.Now().Add(strangeTime))
	w.judge("with a mailbox that nobody has reported")
	if len(had) > 0 {
		w.put(d, had[0])
		return
	}
	if err := w.admin.Unsubscribe(context.Background(), registryID(o), registry.Registration{Mailbox: nobodys, App: appName, Device: d.token}); err != nil {
		w.problem("unsubscribe: %v", err)
	}
}

// unreported has a device, which shows another organization's mailbox too, come to one of
// its own organization that no agent serves. What both change then is shown of the other
// one alone for a minute: its own organization's part is no partial one.
func (w *world) unreported(d *device, own, other *mailbox) {
	w.add(d, other)
	w.settle(settleTime)
	w.judge("after a device has come to a second mailbox")
	nobody := registry.Registration{Mailbox: nobodys, App: appName, Device: d.token, KeepOthers: true}
	w.subscribe(w.admin, d, own.organization, nobody)
	w.events.drive(time.Now().Add(commitTime))
	had := own.newest().unread
	w.change(own, false)
	w.events.drive(time.Now().Add(time.Second))
	w.change(other, false)
	w.events.drive(time.Now().Add(strangeTime))
	shown, _ := w.apns.Device(d.token)
	w.judgeSum("with one's own mailbox that nobody has reported", d, d.parts(), shown.Badge+own.newest().unread-had)
	w.events.drive(time.Now().Add(partTime))
	w.judge("a minute after it came")
	if err := w.admin.Unsubscribe(context.Background(), registryID(own.organization), nobody); err != nil {
		w.problem("unsubscribe: %v", err)
	}
}

// outcast disables an organization for a while: what it has reported is no part of a
// sum then.
func (w *world) outcast(d *device, other *mailbox) {
	w.put(d, other)
	w.settle(settleTime)
	w.judge("after a device has come to a second mailbox")
	enable := func(enabled bool) {
		other.organization.disabled = !enabled
		must(w.admin.UpdateOrganization(context.Background(), other.organization.name, registry.OrganizationUpdate{Enabled: &enabled}))
	}
	enable(false)
	w.events.drive(time.Now().Add(outcastTime))
	w.judge("with " + other.organization.name + " disabled")
	enable(true)
}

// isolatePusher has the relay that pushes a device's sum keep one that it can't send,
// reach nobody for so long that another relay takes its place, and reach APNs first.
func (w *world) isolatePusher(d *device, own, other *mailbox) {
	r := w.addedBy(d, other)
	if r == nil {
		return
	}
	block := w.blockAPNs(r)
	block(true)
	w.change(own, false)
	w.change(other, false)
	w.events.drive(time.Now().Add(time.Second))
	w.cutOff(r, aloneTime+10*time.Second)
	w.events.drive(time.Now().Add(aloneTime - 5*time.Second))
	w.change(own, false)
	w.change(other, false)
	w.events.drive(time.Now().Add(5 * time.Second))
	block(false)
}

// addedBy has a device come to a second mailbox, and returns the relay that pushes its
// sum then; nil: none has.
func (w *world) addedBy(d *device, m *mailbox) *relayHost {
	w.add(d, m)
	w.settle(settleTime)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answersOf(d.token).by
}

// blockAPNs returns what sets whether a relay reaches APNs.
func (w *world) blockAPNs(r *relayHost) func(blocked bool) {
	return func(blocked bool) {
		w.network.block(path{r.name, apnsHost}, blocked)
		w.network.block(path{apnsHost, r.name}, blocked)
	}
}

// obstructPusher has the relay that pushes a device's sum not reach APNs: another one
// does it instead.
func (w *world) obstructPusher(d *device, own, other *mailbox) {
	r := w.addedBy(d, other)
	if r == nil {
		return
	}
	block := w.blockAPNs(r)
	block(true)
	w.change(own, false)
	w.change(other, false)
	w.events.drive(time.Now().Add(stuckTime))
	shown, _ := w.apns.Device(d.token)
	w.judgeSum("with "+r.name+" cut off from APNs", d, d.parts(), shown.Badge)
	block(false)
}

// remove removes the organization of a second mailbox that a device came to.
func (w *world) remove(d *device, other *mailbox) {
	w.add(d, other)
	w.settle(settleTime)
	w.judge("after a device has come to a second mailbox")
	o := other.organization
	for _, d := range w.devices {
		if len(d.at(o)) > 0 {
			d.arrive(o)
		}
	}
	if err := w.admin.RemoveOrganization(context.Background(), o.name); err != nil {
		w.problem("remove organization: %v", err)
	}
	w.events.drive(time.Now().Add(outcastTime))
	w.judge("with " + o.name + " removed")
	for _, a := range w.agents {
		for a.organization == o && a.process.Load() != nil {
			a.stop()
		}
	}
}

// shareAgain has a device leave one of two mailboxes and come back when the registry
// does not call it shared any more and the answer that says so is on its way to the
// relay that pushed its sum, three times. That relay does not serve the mailbox, if
// another one does.
func (w *world) shareAgain(d *device, stays, leaves *mailbox) {
	r := w.addedBy(d, leaves)
	if r == nil {
		return
	}
	if w.serving(leaves) == r {
		stays, leaves = leaves, stays
	}
	for range 3 {
		w.leave(d, leaves)
		r.trouble.answerLate("exchange", slowTime)
		for until := time.Now().Add(2 * ingest.MaxInFlight); w.isShared(d, stays) && time.Now().Before(until); {
			w.events.drive(time.Now().Add(100 * time.Millisecond))
		}
		w.add(d, leaves)
		w.events.drive(time.Now().Add(2 * slowTime))
		r.trouble.answerLate("", 0)
		w.change(stays, false)
		w.change(leaves, false)
		w.settle(settleTime)
		w.judge("after a device has come back to a second mailbox")
	}
}

// isShared reports whether the registry calls a device shared that is on a mailbox.
func (w *world) isShared(d *device, m *mailbox) bool {
	shared := must(w.admin.SharedDevicesOf(context.Background(), relay.MailboxKey{Organization: registryID(m.organization), Mailbox: m.name}))
	return slices.ContainsFunc(shared, func(s relay.SharedDevice) bool { return s.Device == d.token })
}

// leave takes a device off a mailbox without a relay's help.
func (w *world) leave(d *device, m *mailbox) {
	if !d.depart() {
		return
	}
	r := registry.Registration{Mailbox: m.name, App: appName, Device: d.token}
	if err := w.admin.Unsubscribe(context.Background(), registryID(m.organization), r); err != nil {
		w.problem("unsubscribe: %v", err)
	}
	d.arrive(m.organization, slices.DeleteFunc(d.at(m.organization), func(on *mailbox) bool { return on == m })...)
}

// registerAnew has a device, that of several mailboxes in every other seed, register
// with APNs and sign in again where it is: it shows nothing until it is pushed to.
func (w *world) registerAnew(s *Step, d *device, other *mailbox) {
	if s.pick(2, 2) == 0 {
		w.add(d, other)
		w.settle(settleTime)
	}
	if !d.depart() {
		return
	}
	w.apns.Unregister(d.token, time.Now())
	w.events.drive(time.Now().Add(time.Second))
	w.register(d)
	w.background.Go(func() { w.signInAnew(d, s) })
}
