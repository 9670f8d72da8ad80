package simulation

import (
	"context"
	"slices"
	"strings"
	"time"

	"badgerelay/relay/registry"
	"badgerelay/relay/registry/memory"
)

// After its faults a seed has one trouble more, which comes alone: what follows from
// it is not put right by what happens next. Each is aimed at a rule that needs several
// things to come together.
//
// Kinds that come late only; MoveUnheard does as well.
const (
	ShareUnheard Kind = "device_shares_unheard"   // a device comes to a second mailbox while a relay does not reach the registry and its own one changes
	Deaf         Kind = "registry_silent"         // no relay is notified of anything, a device moves and all mailboxes change
	Stranger     Kind = "mailbox_unreported"      // a device signs in to a mailbox of another organization that nobody serves, and its own one changes
	Unreported   Kind = "own_mailbox_unreported"  // a device that shows another organization's mailbox too signs in to one of its own that nobody serves, and all change
	PusherAlone  Kind = "pusher_alone"            // the relay that pushes a sum reaches neither APNs nor the registry, until another one has taken its place
	CommitLate   Kind = "registry_commits_late"   // a device moves, and a later change of another organization commits first and is read
	PusherStuck  Kind = "pusher_without_apns"     // the relay that pushes a sum does not reach APNs, and others do
	ShareAgain   Kind = "device_shares_again"     // a device leaves a second mailbox and comes back when it is not shared any more and no relay knows yet
	LeftBehind   Kind = "push_left_behind"        // a relay that does not reach APNs has a count, whose agent goes on at another relay
	Anew         Kind = "device_registers_anew"   // a device registers anew with APNs and signs in where it is, and nothing changes
	ReadLate     Kind = "subscriptions_read_late" // a device comes to a mailbox whose subscriptions are being read, and what was read comes late
	Older        Kind = "older_count_late"        // an older count of a mailbox's second agent comes after the newest one
	Removed      Kind = "organization_removed"    // the organization of one of a device's mailboxes is removed
	Outcast      Kind = "other_organization_off"  // the organization of one of a device's mailboxes is disabled, and enabled again
)

// lateKinds are drawn from; Older, where two agents serve a mailbox, and ReadLate come
// besides.
var lateKinds = []Kind{MoveUnheard, ShareUnheard, Deaf, Stranger, Unreported, Outcast, PusherAlone, CommitLate, PusherStuck, Removed, ShareAgain, Anew, LeftBehind}

// nobodys is a mailbox that no agent serves.
const nobodys = "nobody's"

// commitTime is for how long a commit comes later, in which relays read the changes
// after it at least twice.
const commitTime = 3 * time.Second

const (
	// olderTime is by how much a count comes later.
	olderTime = 3 * time.Second
	// lateTime is by how much a push comes later.
	lateTime = 8 * time.Second
	// readTime is by how much the answer comes later that says who is subscribed.
	readTime = 3 * time.Second
)

// late plays a trouble that comes late.
func (w *world) late(s *Step) {
	if s.Kind == "" || !w.play(s) {
		return
	}
	w.settle(settleTime)
	w.judge("after a late " + string(s.Kind))
	w.deafen(0)
}

// play begins a trouble that comes late; false: there is no device for it.
func (w *world) play(s *Step) bool {
	d, own, other := w.aim(s)
	switch {
	case d == nil:
		return false
	case s.Kind == CommitLate && (w.plan.Alone || len(w.organizations) == 1):
		return false // one organization's changes commit in their order, and all of SQLite's
	case (s.Kind == Stranger || s.Kind == Unreported) && w.plan.OneOrganization:
		return false // the device may be the stranger's
	case (s.Kind == PusherStuck || s.Kind == LeftBehind) && len(w.relays) == 1:
		return false
	}
	w.trace.add("late %s", s.Kind)
	w.countFault(s.Kind)
	switch s.Kind {
	case MoveUnheard, ShareUnheard:
		// The relay that serves its mailbox hears nothing of it for a while, and what it
		// pushes arrives after the new count, also after it has heard.
		r := w.serving(own)
		there := path{r.name, apnsHost}
		w.network.slow(there, s.between(5, 50*time.Millisecond, lateTime))
		w.events.after(lateTime, func() { w.network.slow(there, 0) })
		w.cutOff(r, s.between(4, 500*time.Millisecond, 4*time.Second))
		w.change(own, false)
		if s.Kind == MoveUnheard {
			w.put(d, other)
		} else {
			w.add(d, other)
		}
	case Deaf:
		w.deafen(1)
		w.put(d, other)
		w.changeAll()
	case Stranger:
		w.stranger(d, own, other.organization)
	case Unreported:
		w.unreported(d, own, other)
	case Outcast:
		w.outcast(d, other)
	case PusherAlone:
		w.isolatePusher(d, own, other)
	case PusherStuck:
		w.obstructPusher(d, own, other)
	case Removed:
		w.remove(d, other)
	case ShareAgain:
		w.shareAgain(d, own, other)
	case LeftBehind:
		w.leaveBehind(own)
	case Anew:
		w.registerAnew(s, d, other)
	case Older:
		w.older(own)
	case CommitLate:
		w.commitLate(s, d, other)
	case ReadLate:
		w.readLate(d, other)
	}
	return true
}

// aim draws a device for a trouble, the mailbox that it is on, and another one: of its
// organization if it moves, of another one or of any if it comes to a second mailbox.
// Best is one that another relay serves.
func (w *world) aim(s *Step) (d *device, own, other *mailbox) {
	moves := s.Kind == MoveUnheard || s.Kind == Deaf || s.Kind == CommitLate || s.Kind == ReadLate
	alone := moves || s.Kind == LeftBehind
	foreign := s.Kind == Stranger || s.Kind == Unreported || s.Kind == Outcast || s.Kind == Removed
	best := -1
	for n := range w.devices {
		candidate := w.devices[(n+s.pick(0, len(w.devices)))%len(w.devices)]
		at, _, _ := candidate.place()
		if at == nil || alone && candidate.everShared() || s.Kind == Older && !w.twoServe(at) || s.Kind == LeftBehind && at.agents[0].publishes {
			continue
		}
		for i := range w.mailboxes {
			to := w.mailboxes[(i+s.pick(1, len(w.mailboxes)))%len(w.mailboxes)]
			is := to.organization == at.organization
			if moves && !is || foreign && is || slices.Contains(candidate.parts(), to) {
				continue
			}
			fit := 0
			if w.serving(at) != w.serving(to) {
				fit = 1
			}
			if fit > best {
				d, own, other, best = candidate, at, to, fit
			}
		}
	}
	return d, own, other
}

// commitLate has a device move in a transaction that commits after one of another
// organization, which took its number among the changes later: it began later, or
// earlier and waited for its organization's row.
func (w *world) commitLate(s *Step, d *device, to *mailbox) {
	other := registryID(w.organizations[(d.organization.number+1)%len(w.organizations)])
	ctx, visitor := context.Background(), registry.Registration{Mailbox: nobodys, App: appName, Device: deviceToken(len(w.devices))}
	visit := func(h *memory.Handle) { must(h.Subscribe(ctx, other, visitor)) }
	slow, blocker := w.slowHandle(commitTime), w.slowHandle(time.Second)
	earlier := s.pick(2, 2) == 0
	if earlier {
		w.background.Go(func() { visit(blocker) })
		w.events.drive(time.Now().Add(100 * time.Millisecond))
		w.background.Go(func() { visit(w.admin) })
		w.events.drive(time.Now().Add(100 * time.Millisecond))
	}
	w.background.Go(func() { w.putBy(slow, d, to) })
	w.events.drive(time.Now().Add(time.Second))
	if !earlier { // a later number would have a snapshot name the one that runs
		visit(w.admin)
	}
	w.events.drive(time.Now().Add(commitTime))
	if err := w.admin.Unsubscribe(ctx, other, visitor); err != nil {
		w.problem("unsubscribe: %v", err)
	}
	_ = slow.Close()
	_ = blocker.Close()
}

// readLate has a device come to a mailbox while relays read who is subscribed to it,
// so that what they have read is out of date when it comes. They read it because
// another device came and went.
func (w *world) readLate(d *device, to *mailbox) {
	answer := func(by time.Duration) {
		for _, r := range w.relays {
			r.trouble.answerLate("lookup", by)
		}
	}
	answer(readTime)
	ctx, visitor := context.Background(), registry.Registration{Mailbox: to.name, App: appName, Device: deviceToken(len(w.devices))}
	must(w.admin.Subscribe(ctx, registryID(to.organization), visitor))
	if err := w.admin.Unsubscribe(ctx, registryID(to.organization), visitor); err != nil {
		w.problem("unsubscribe: %v", err)
	}
	w.events.drive(time.Now().Add(200 * time.Millisecond))
	w.change(to, false)
	w.events.drive(time.Now().Add(500 * time.Millisecond))
	w.put(d, to)
	w.events.drive(time.Now().Add(3 * readTime))
	answer(0)
}

// twoServe reports whether two agents have the mailbox's counts on streams to one relay.
func (w *world) twoServe(m *mailbox) bool {
	if len(m.agents) < 2 {
		return false
	}
	a, b := m.agents[0], m.agents[1]
	return !a.publishes && !b.publishes && a.relay() != nil && a.relay() == b.relay()
}

// older has the count of a mailbox's second agent come late, when the first one has
// sent a newer one.
func (w *world) older(m *mailbox) {
	late := m.agents[1]
	way := path{late.machine(), late.relay().name}
	w.network.slow(way, olderTime)
	w.change(m, false)
	w.events.drive(time.Now().Add(time.Second))
	m.change(false)
	for _, p := range m.agents[0].processes() {
		p.changed(m.name)
	}
	w.events.drive(time.Now().Add(2 * olderTime))
	w.network.slow(way, 0)
}

// leaveBehind has a relay that does not reach APNs keep a count, whose agent then goes
// on at another relay. It reaches APNs when the agent has sent for the last time what
// was in flight there.
func (w *world) leaveBehind(m *mailbox) {
	r := w.serving(m)
	block := w.blockAPNs(r)
	block(true)
	w.change(m, false)
	w.events.drive(time.Now().Add(time.Second))
	machine := m.agents[0].machine()
	blockAgent := func(blocked bool) {
		w.network.block(path{machine, r.name}, blocked)
		w.network.block(path{r.name, machine}, blocked)
	}
	blockAgent(true)
	w.network.cut(machine, r.name)
	w.events.drive(time.Now().Add(time.Second))
	w.change(m, false)
	w.events.drive(time.Now().Add(aloneTime))
	block(false)
	blockAgent(false)
}

// slowHandle returns a handle of the registry whose commits take a time.
func (w *world) slowHandle(takes time.Duration) *memory.Handle {
	return w.database.Open(memory.Config{Carry: w.carryAdmin, Reach: func(_ context.Context, call string) error {
		if call == "commit" {
			time.Sleep(takes)
		}
		return nil
	}})
}

// serving returns the relay to which the mailbox's first agent has its stream, or
// last had one.
func (w *world) serving(m *mailbox) *relayHost {
	if r := m.agents[0].relay(); r != nil {
		return r
	}
	return w.relays[0]
}

// relay returns the relay to which the agent has its stream, or last had one; nil: none.
func (h *agentHost) relay() *relayHost {
	p := h.process.Load()
	if p == nil {
		return nil
	}
	for _, r := range h.world.relays {
		if strings.HasSuffix(p.agent.Status().Address, "/"+r.name) {
			return r
		}
	}
	return nil
}

// cutOff has a relay not reach the registry for a time.
func (w *world) cutOff(r *relayHost, long time.Duration) {
	set := func(gone bool) {
		r.trouble.mu.Lock()
		defer r.trouble.mu.Unlock()
		r.trouble.gone = gone
	}
	set(true)
	w.events.after(long, func() { set(false) })
}

// deafen sets which share of the notifications is lost, at every relay.
func (w *world) deafen(share float64) {
	for _, r := range w.relays {
		r.trouble.mu.Lock()
		r.trouble.deaf = share
		r.trouble.mu.Unlock()
	}
}

// put has a device registered with a mailbox without a relay's help: it is off its
// organization's others then.
func (w *world) put(d *device, m *mailbox) { w.putBy(w.admin, d, m) }

func (w *world) putBy(h *memory.Handle, d *device, m *mailbox) {
	if d.depart() {
		w.subscribe(h, d, m.organization, registry.Registration{Mailbox: m.name})
		d.arrive(m.organization, m)
		w.trace.add("device %d is put on %s of %s", d.number, m.name, m.organization.name)
	}
}

// add does so and leaves the device on the others.
func (w *world) add(d *device, m *mailbox) {
	if on := d.at(m.organization); d.depart() {
		w.subscribe(w.admin, d, m.organization, registry.Registration{Mailbox: m.name, KeepOthers: true})
		d.arrive(m.organization, append(on, m)...)
		w.trace.add("device %d is put on %s of %s, too", d.number, m.name, m.organization.name)
	}
}

func (w *world) subscribe(h *memory.Handle, d *device, o *organization, r registry.Registration) {
	w.signsIn(d.token, time.Now().Add(commitTime+time.Second), w.mailboxNamed(o, r.Mailbox))
	r.App, r.Device = appName, d.token
	must(h.Subscribe(context.Background(), registryID(o), r))
}
