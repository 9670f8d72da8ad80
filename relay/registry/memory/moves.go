package memory

import (
	"slices"

	"badgerelay/relay/registry"
)

// moves are the registrations of a transaction, and where each device was before.
type moves struct {
	*transaction
	organization *organization
	order        []installation
	devices      map[installation]*move
}

// move is where a device of an app was, and what has become of it.
type move struct {
	was     []string // mailboxes of the organization
	touched []string // mailboxes that it was put on
}

func (t *transaction) moves(o *organization) *moves {
	return &moves{transaction: t, organization: o, devices: map[installation]*move{}}
}

// subscribe puts a device on a mailbox, or returns a *LimitError.
func (m *moves) subscribe(r registry.Registration) (result registry.SubscribeResult, err error) {
	who := installation{r.App, r.Device}
	at := place{r.Mailbox, who}
	var leaves, comes []string
	if m.organization.subscriptions[at] == nil {
		comes = []string{r.Mailbox}
		for _, mailbox := range m.organization.on(who) {
			since := m.organization.subscriptions[place{mailbox, who}].RegisteredAt
			if !r.KeepOthers && (r.KeepSince.IsZero() || since.UnixMilli() < r.KeepSince.UnixMilli()) {
				leaves = append(leaves, mailbox)
			}
		}
	}
	if err := m.allow(who, comes, leaves, true); err != nil {
		return result, err
	}
	m.do(who, []string{r.Mailbox}, leaves, len(comes) > 0 && !r.KeepOthers)
	result = registry.SubscribeResult{Subscription: *m.organization.subscriptions[at], Created: len(comes) > 0, LeftMailboxes: leaves}
	result.Subscription.OtherMailboxes = m.organization.others(at)
	return result, nil
}

// set puts a device on all its mailboxes, or returns a *LimitError.
func (m *moves) set(d registry.DeviceMailboxes) (result registry.SetDeviceResult, err error) {
	who := installation{d.App, d.Device}
	named := slices.Compact(slices.Sorted(slices.Values(d.Mailboxes)))
	for _, mailbox := range named {
		if m.organization.subscriptions[place{mailbox, who}] != nil {
			result.Kept = append(result.Kept, mailbox)
		} else {
			result.Added = append(result.Added, mailbox)
		}
	}
	for _, mailbox := range m.organization.on(who) {
		if !slices.Contains(named, mailbox) {
			result.Removed = append(result.Removed, mailbox)
		}
	}
	if err := m.allow(who, result.Added, result.Removed, len(named) > 0); err != nil {
		return registry.SetDeviceResult{}, err
	}
	m.do(who, named, result.Removed, true)
	if len(named) > 0 && m.SubscriptionLifetime > 0 {
		result.ExpiresAt = m.at.Add(m.SubscriptionLifetime)
	}
	return result, nil
}

// allow checks the limits. What an organization has beyond a limit that was
// lowered may be renewed and moved, only more is refused.
func (m *moves) allow(who installation, comes, leaves []string, app bool) error {
	o := m.organization
	if err := o.Limits.Allow(who.app); app && err != nil {
		return err
	}
	more := len(comes) - len(leaves)
	if more > 0 && len(o.on(who))+more > registry.MaxDeviceMailboxes {
		return &registry.LimitError{Limit: registry.LimitDeviceMailboxes, Max: registry.MaxDeviceMailboxes}
	}
	if most := o.Limits.MaxSubscriptions; most > 0 && more > 0 && uint64(len(o.subscriptions)+more) > most {
		return &registry.LimitError{Limit: registry.LimitSubscriptions, Max: most}
	}
	more = 0
	for _, mailbox := range comes {
		if o.mailboxes[mailbox] == 0 {
			more++
		}
	}
	for _, mailbox := range leaves {
		if o.mailboxes[mailbox] == 1 {
			more--
		}
	}
	if most := o.Limits.MaxMailboxes; most > 0 && more > 0 && uint64(len(o.mailboxes)+more) > most {
		return &registry.LimitError{Limit: registry.LimitMailboxes, Max: most}
	}
	return nil
}

// do takes a device off mailboxes and puts it on others; alone: it has left
// everything that it is not on.
func (m *moves) do(who installation, on, off []string, alone bool) {
	o, moved := m.organization, m.devices[who]
	if moved == nil {
		moved = &move{was: o.on(who)}
		m.devices[who] = moved
		m.order = append(m.order, who)
	}
	for _, mailbox := range off {
		o.leave(place{mailbox, who})
		m.changeSum(who)
	}
	for _, mailbox := range on {
		sub := o.subscriptions[place{mailbox, who}]
		if sub == nil {
			sub = &registry.Subscription{Organization: o.ID, Mailbox: mailbox, App: who.app, Device: who.device, CreatedAt: m.at}
			o.enter(sub)
		}
		sub.RegisteredAt = m.at // which lifts a quarantine
		if m.SubscriptionLifetime > 0 {
			sub.ExpiresAt = m.at.Add(m.SubscriptionLifetime)
		}
		if !slices.Contains(moved.touched, mailbox) {
			moved.touched = append(moved.touched, mailbox)
		}
	}
	for p := range o.removed {
		o.superseded[p] = o.superseded[p] || alone && p.installation == who
	}
}

// tell notes what listeners are told: of each mailbox at most one coming and
// one leaving.
func (m *moves) tell() {
	came, left := map[string]bool{}, map[string]bool{}
	for _, who := range m.order {
		moved, is := m.devices[who], m.organization.on(who)
		for _, mailbox := range moved.was {
			if !slices.Contains(is, mailbox) && !left[mailbox] {
				left[mailbox] = true
				m.changes = append(m.changes, m.organization.change(registry.ChangeUnsubscribed, mailbox))
			}
		}
		slices.Sort(moved.touched)
		for _, mailbox := range moved.touched {
			if slices.Contains(is, mailbox) && !came[mailbox] {
				came[mailbox] = true
				m.changes = append(m.changes, m.organization.change(registry.ChangeSubscribed, mailbox))
			}
		}
		if came := func(mailbox string) bool { return !slices.Contains(moved.was, mailbox) }; len(is) > 1 && slices.ContainsFunc(is, came) {
			m.tellShared(who)
		}
	}
}

// tellShared notes that a device is on several mailboxes.
func (t *transaction) tellShared(who installation) {
	t.changes = append(t.changes, registry.Change{Kind: registry.ChangeDeviceShared, App: who.app, Device: who.device})
}
