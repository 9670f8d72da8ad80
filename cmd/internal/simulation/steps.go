package simulation

import (
	"context"
	"slices"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// do does a step. It does not wait: what takes time goes on in the background or
// comes as an event.
func (w *world) do(s *Step) {
	w.trace.add("step %s", s.Kind)
	if s.Kind != Change && s.Kind != Burst {
		w.countFault(s.Kind)
	}
	switch s.Kind {
	case Change:
		w.change(w.mailboxes[s.pick(0, len(w.mailboxes))], s.pick(1, 12) == 0)
	case Burst:
		m := w.mailboxes[s.pick(0, len(w.mailboxes))]
		for i := range 20 {
			w.events.after(time.Duration(i)*s.between(1, time.Millisecond, 100*time.Millisecond), func() { w.change(m, false) })
		}
	case Restore:
		w.restore(w.mailboxes[s.pick(0, len(w.mailboxes))])
	case Join, Move, Part, Leave:
		w.sign(s)
	case Share, Unshare:
		w.share(s)
	case Add, Set:
		w.several(s)
	case MoveUnheard:
		w.moveUnheard(s)
	case KillRelay, LoseRelay, DrainRelay:
		w.endRelay(s)
	case DrainBusy:
		w.drainBusy(s)
	case KillAgent, MoveAgent:
		w.endAgent(s)
	case TwinAgent:
		w.twinAgent(s)
	case StepClock:
		w.agents[s.pick(0, len(w.agents))].clock = s.between(1, 0, 2*time.Hour) - time.Hour
	case CutAgent, PartAgent, OneSided, SlowAgent:
		a, r := w.agents[s.pick(0, len(w.agents))], w.relays[s.pick(1, len(w.relays))]
		w.hinder(s, a.machine(), r.name, map[Kind]Kind{CutAgent: CutAPNs, PartAgent: PartAPNs, OneSided: OneSidedAPNs, SlowAgent: SlowAPNs}[s.Kind])
	case CutAPNs, PartAPNs, OneSidedAPNs, SlowAPNs:
		w.hinder(s, w.relays[s.pick(1, len(w.relays))].name, apnsHost, s.Kind)
	case Outage:
		for _, r := range w.relays {
			w.hinder(s, r.name, apnsHost, PartAPNs)
		}
	case Unwell:
		w.sicken(s)
	case SlowRegistry, FailRegistry, LoseRegistry, DeafRegistry:
		w.hinderRegistry(s, w.relays[s.pick(0, len(w.relays))])
	case RollKey, Disable:
		w.administer(s, w.organizations[s.pick(0, len(w.organizations))])
	default:
		w.strike(s)
	}
}

// strike is a fault of the simulated APNs: of connections, it strikes one with
// its next request, or all of them at once.
func (w *world) strike(s *Step) {
	if s.fault.OfConnection() && s.pick(0, 2) == 0 {
		w.apns.Trigger(s.fault)
		return
	}
	n := 1
	if s.fault.OfRequest() {
		n += s.pick(1, 3)
	}
	w.apns.Inject(s.fault, n)
}

// sicken has APNs refuse every push for a while, with one reason, and has enough
// pushes come that a relay notices.
func (w *world) sicken(s *Step) {
	fault := []apnstest.Fault{apnstest.FaultServerError, apnstest.FaultUnavailable, apnstest.FaultShuttingDown, apnstest.FaultTooMany}[s.pick(0, 4)]
	if err := w.apns.SetFaults(apnstest.Faults{Rates: map[apnstest.Fault]float64{fault: 1}, Burst: burst}); err != nil {
		w.problem("set faults: %v", err)
	}
	for i := range 3 {
		w.events.after(time.Duration(i)*time.Second, w.changeAll)
	}
	w.events.after(s.between(1, time.Second, 30*time.Second), w.cure)
}

// cure ends what sicken began.
func (w *world) cure() {
	if err := w.apns.SetFaults(apnstest.Faults{Burst: burst}); err != nil {
		w.problem("set faults: %v", err)
	}
}

// change gives a mailbox another count.
func (w *world) change(m *mailbox, empty bool) {
	v := m.change(empty)
	w.trace.add("%s version %d", m.name, v.number)
	for _, a := range m.agents {
		for _, p := range a.processes() {
			p.changed(m.name)
		}
	}
}

func (w *world) changeAll() {
	for _, m := range w.mailboxes {
		w.change(m, false)
	}
}

// restore has a mailbox's versions begin anew. In another epoch the time of
// observation orders the counts of two agents, for ten minutes, so their clocks
// have to be right.
func (w *world) restore(m *mailbox) {
	if len(m.agents) == 1 || !w.plan.has(StepClock) {
		m.restore()
		w.change(m, false)
	}
}

// drainBusy has a relay stop in good order while pushes are on a slow way to APNs,
// and newer counts come meanwhile.
func (w *world) drainBusy(s *Step) {
	r := w.relays[s.pick(0, len(w.relays))]
	there := path{r.name, apnsHost}
	w.network.slow(there, s.between(3, time.Second, 4*time.Second))
	w.events.after(15*time.Second, func() { w.network.slow(there, 0) })
	w.changeAll()
	w.events.after(500*time.Millisecond, func() { w.endRelay(&Step{Kind: DrainRelay, Draw: s.Draw}) })
	w.events.after(time.Second, w.changeAll)
}

// endRelay ends a relay's process and starts another.
func (w *world) endRelay(s *Step) {
	r := w.relays[s.pick(0, len(w.relays))]
	again := func() {
		w.events.after(s.between(1, 10*time.Millisecond, 15*time.Second), func() {
			r.draining = false
			if r.process.Load() == nil {
				w.network.appear(r.name)
				r.start()
			}
		})
	}
	if r.process.Load() == nil {
		return
	}
	if s.Kind == DrainRelay {
		r.drain(again)
		return
	}
	r.kill(s.Kind == LoseRelay)
	again()
}

// endAgent ends an agent's process and starts another, there or elsewhere.
func (w *world) endAgent(s *Step) {
	a := w.agents[s.pick(0, len(w.agents))]
	if a.process.Load() == nil {
		return
	}
	a.stop()
	if s.Kind == MoveAgent {
		a.moves++
	}
	w.events.after(s.between(1, 10*time.Millisecond, 10*time.Second), func() {
		if a.process.Load() == nil {
			a.start()
		}
	})
}

// twinAgent starts a second process of an agent, and ends one of the two.
func (w *world) twinAgent(s *Step) {
	a := w.agents[s.pick(0, len(w.agents))]
	a.twin()
	w.events.after(s.between(1, 10*time.Millisecond, 30*time.Second), func() {
		if n := len(a.standby); n > 0 && s.pick(2, 2) == 0 {
			a.standby[n-1].kill()
			a.standby = a.standby[:n-1]
			return
		}
		if n := len(a.standby); n > 0 {
			a.stop()
		}
	})
}

// hinder makes trouble between two hosts, and ends it.
func (w *world) hinder(s *Step, a, b string, kind Kind) {
	there, back := path{a, b}, path{b, a}
	if s.pick(5, 2) == 0 {
		there, back = back, there
	}
	w.trace.add("%s between %s and %s", kind, there.from, there.to)
	long := s.between(6, 100*time.Millisecond, 40*time.Second)
	switch kind {
	case CutAPNs:
		w.network.cut(a, b)
		return
	case PartAPNs:
		w.network.block(there, true)
		w.network.block(back, true)
	case OneSidedAPNs:
		w.network.block(there, true)
	case SlowAPNs:
		slow := s.between(7, 10*time.Millisecond, 3*time.Second)
		w.network.slow(there, slow)
		w.network.slow(back, slow)
	}
	w.events.after(long, func() {
		for _, p := range []path{there, back} {
			w.network.slow(p, 0)
			w.network.block(p, false)
		}
	})
}

// hinderRegistry makes trouble between a relay and the registry, and ends it.
func (w *world) hinderRegistry(s *Step, r *relayHost) {
	t := &r.trouble
	t.mu.Lock()
	defer t.mu.Unlock()
	switch s.Kind {
	case SlowRegistry:
		t.slow = s.between(1, 10*time.Millisecond, 3*time.Second)
	case FailRegistry:
		t.failed = 0.1 + 0.1*float64(s.pick(1, 9))
	case LoseRegistry:
		t.gone = true
	case DeafRegistry:
		t.deaf, t.late = 0.25*float64(s.pick(1, 5)), s.between(2, 10*time.Millisecond, 2*time.Second)
	}
	w.events.after(s.between(3, 100*time.Millisecond, 30*time.Second), func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		switch s.Kind {
		case SlowRegistry:
			t.slow = 0
		case FailRegistry:
			t.failed = 0
		case LoseRegistry:
			t.gone = false
		case DeafRegistry:
			t.deaf, t.late = 0, 0
		}
	})
}

func registryID(o *organization) relay.OrganizationID { return relay.OrganizationID(o.id) }

// register has the device registered with APNs.
func (w *world) register(d *device) {
	w.apns.RegisterDevice(d.token, topic, apnstest.Production, apnstest.Meta{})
}

// sign has a device come, go or change.
func (w *world) sign(s *Step) {
	if len(w.devices) == 0 {
		return
	}
	d := w.devices[s.pick(0, len(w.devices))]
	own := d.at(d.organization)
	to := w.mailboxOfOrganization(s, d.organization)
	if len(own) == 0 && (s.Kind == Part || s.Kind == Leave) || len(own) > 0 && s.Kind == Join {
		return
	}
	if !d.depart() {
		return
	}
	w.trace.add("device %d departs", d.number)
	switch s.Kind {
	case Leave:
		w.apns.Unregister(d.token, time.Now())
		w.events.after(s.between(1, 50*time.Millisecond, 10*time.Second), func() {
			w.register(d)
			w.background.Go(func() { w.signInAnew(d, s) })
		})
	case Part:
		w.background.Go(func() { w.signIn(d, d.signOutOf(own[0]), own[1:], s) })
	default:
		r := d.signInTo(to, false)
		if len(own) > 1 && slices.Contains(own, to) {
			r = d.set(d.organization, []*mailbox{to}) // to sign in where it is would keep it on the others
		}
		w.background.Go(func() { w.signIn(d, r, []*mailbox{to}, s) })
	}
}

// moveUnheard has a device move while a relay hears nothing of it, which may push it
// what its old mailbox holds then.
func (w *world) moveUnheard(s *Step) {
	if len(w.devices) == 0 {
		return
	}
	w.hinderRegistry(&Step{Kind: LoseRegistry, Draw: s.Draw}, w.relays[s.pick(4, len(w.relays))])
	old, _, _ := w.devices[s.pick(0, len(w.devices))].place()
	w.sign(&Step{Kind: Move, Draw: s.Draw})
	if old != nil {
		w.events.after(time.Second, func() { w.change(old, false) })
	}
}

func (w *world) mailboxOfOrganization(s *Step, o *organization) *mailbox {
	var of []*mailbox
	for _, m := range w.mailboxes {
		if m.organization == o {
			of = append(of, m)
		}
	}
	return of[s.pick(2, len(of))]
}

// administer does what an operator does to an organization.
func (w *world) administer(s *Step, o *organization) {
	ctx := context.Background()
	if s.Kind == Disable {
		set := func(enabled bool) {
			must(w.admin.UpdateOrganization(ctx, o.name, registry.OrganizationUpdate{Enabled: &enabled}))
		}
		set(false)
		w.events.after(s.between(1, 100*time.Millisecond, 20*time.Second), func() { set(true) })
		return
	}
	o.mu.Lock()
	old := o.present
	o.mu.Unlock()
	next := keys().organizations[o.number][1-old]
	if _, err := w.admin.AddCredential(ctx, registryID(o), registry.NewCredential{Certificate: next.Certificate.Raw}); err != nil {
		return // the last roll-over is not over
	}
	w.events.after(s.between(1, time.Second, 10*time.Second), func() {
		o.mu.Lock()
		o.present = 1 - old
		o.mu.Unlock()
		for _, a := range w.agents {
			for _, p := range a.processes() {
				if a.organization == o {
					p.agent.RenewToken()
					p.client.RenewToken()
				}
			}
		}
		w.events.after(s.between(2, 5*time.Second, 20*time.Second), func() { w.removeKey(o, old) })
	})
}

// removeKey takes the key of before away.
func (w *world) removeKey(o *organization, old int) {
	ctx := context.Background()
	for _, c := range must(w.admin.ListCredentials(ctx, registryID(o))) {
		if c.Certificate.Equal(keys().organizations[o.number][old].Certificate) {
			if err := w.admin.RemoveCredential(ctx, registryID(o), c.ID); err != nil {
				w.problem("remove credential: %v", err)
			}
		}
	}
}
