package simulation

import (
	"context"
	"errors"
	"slices"
	"time"

	"badgerelay/relay/agent"
)

// registration is what an agent of an organization asks a relay for a device.
type registration struct {
	organization *organization
	to           []*mailbox // that the device registers with
	ask          func(context.Context, *agent.Client) error
}

// signInTo puts the device on a mailbox. It leaves the organization's others where it
// is new, unless it keeps them.
func (d *device) signInTo(m *mailbox, keepOthers bool) *registration {
	return &registration{m.organization, []*mailbox{m}, func(ctx context.Context, c *agent.Client) error {
		_, err := c.Subscribe(ctx, agent.Registration{Mailbox: m.name, App: appName, Device: agent.DeviceToken(d.token.Hex()), KeepOthers: keepOthers})
		return err
	}}
}

// signOutOf takes the device off a mailbox.
func (d *device) signOutOf(m *mailbox) *registration {
	return &registration{m.organization, nil, func(ctx context.Context, c *agent.Client) error {
		_, err := c.Unsubscribe(ctx, agent.Registration{Mailbox: m.name, App: appName, Device: agent.DeviceToken(d.token.Hex())})
		return err
	}}
}

// set has the device on these mailboxes of an organization and on no others of it.
func (d *device) set(o *organization, on []*mailbox) *registration {
	all := agent.DeviceMailboxes{App: appName, Device: agent.DeviceToken(d.token.Hex())}
	for _, m := range on {
		all.Mailboxes = append(all.Mailboxes, m.name)
	}
	return &registration{o, on, func(ctx context.Context, c *agent.Client) error {
		_, err := c.SetDevice(ctx, all)
		return err
	}}
}

// signInAll has the device register with the mailboxes that it is on.
func (d *device) signInAll(o *organization, on []*mailbox) *registration {
	if len(on) == 1 {
		return d.signInTo(on[0], false)
	}
	return d.set(o, on)
}

// signIn registers a device, however often it takes, and notes where it is then.
func (w *world) signIn(d *device, r *registration, on []*mailbox, s *Step) {
	if w.keepSigningIn(d, r, s) {
		d.arrive(r.organization, on...)
		w.trace.add("device %d arrives at %s", d.number, describeParts(d.parts()))
	}
}

// keepSigningIn does so until it is done; false: it can't be.
func (w *world) keepSigningIn(d *device, r *registration, s *Step) bool {
	gone := func(m *mailbox) bool { return w.isGone(d.token, m) }
	for attempt := uint(0); ; attempt++ {
		err := w.trySignIn(d, r, s, attempt)
		if err == nil && w.calmed.Load() && slices.ContainsFunc(r.to, gone) {
			continue // by a push that was on its way; see reviveGone
		}
		if err == nil {
			return true
		}
		if attempt > 400 {
			w.problem("device %d can't sign in: %v", d.number, err)
			return false
		}
		time.Sleep(200*time.Millisecond + s.between(10+attempt, 0, 300*time.Millisecond))
	}
}

var errNoAgent = errors.New("no agent runs")

// trySignIn asks a relay through one of the agents of the organization.
func (w *world) trySignIn(d *device, r *registration, s *Step, attempt uint) error {
	var through []*agentProcess
	for _, a := range w.agents {
		if p := a.process.Load(); p != nil && a.organization == r.organization {
			through = append(through, p)
		}
	}
	if len(through) == 0 {
		return errNoAgent
	}
	p := through[s.pick(100+attempt, len(through))]
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if len(r.to) > 0 {
		w.signsIn(d.token, time.Now().Add(5*time.Second), r.to...) // by when it is done, one way or the other
	}
	return r.ask(ctx, p.client)
}
