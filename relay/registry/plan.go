package registry

import (
	"time"

	"badgerelay/apns"
)

// plan decides what becomes of registrations of one organization, on what a
// transaction read, and collects what has to be written. It is the rules of
// subscriptions without a database. One goroutine uses it, for one transaction.
type plan struct {
	org      Organization
	now      time.Time
	lifetime time.Duration

	devices map[device]*placement // every device that is asked about, read before
	live    map[string]*liveCount // every mailbox that is asked about or left, read before
	// anyRemoved: some of the organization's subscriptions ended within RemovedRetention.
	anyRemoved bool
	touched    []*placement // in the order they were first touched

	mailboxes, subscriptions int64 // changes of the organization's counts
}

// device is an installation of an app.
type device struct {
	app   string
	token apns.DeviceToken
}

// placement is where a device was and will be. An empty mailbox is nowhere.
type placement struct {
	device
	hash    int64 // deviceHash
	was, is string
	created time.Time // of the subscription to is
	touched bool
	renewed bool // is was there before and was never left
	alone   bool // it registered, and is nowhere else
}

// liveCount is how many live subscriptions a mailbox had and will have.
type liveCount struct{ was, is int64 }

// newPlan makes a plan of an organization that is to be read.
func newPlan(now time.Time, lifetime time.Duration) *plan {
	return &plan{now: now, lifetime: lifetime,
		devices: make(map[device]*placement), live: make(map[string]*liveCount)}
}

// subscribe puts a device on a mailbox, or returns a *LimitError.
func (p *plan) subscribe(r Registration) (SubscribeResult, error) {
	at := p.devices[device{r.App, r.Device}]
	if err := p.allow(r, at); err != nil {
		return SubscribeResult{}, err
	}
	result := SubscribeResult{Created: at.is != r.Mailbox}
	if result.Created {
		result.LeftMailbox = at.is
		p.leave(at)
		p.enter(at, r.Mailbox)
	}
	if !at.touched {
		p.touched = append(p.touched, at)
		at.touched, at.renewed = true, !result.Created
	}
	at.renewed = at.renewed && !result.Created
	at.alone = true
	result.Subscription = Subscription{
		Organization: p.org.ID, Mailbox: r.Mailbox, App: r.App, Device: r.Device,
		CreatedAt: at.created, RegisteredAt: p.now, ExpiresAt: expiry(p.now, p.lifetime),
	}
	return result, nil
}

// restore puts a device back on a mailbox that it was on since created, unless
// it is on one. ErrSuperseded, *LimitError.
func (p *plan) restore(r Registration, created time.Time) error {
	at := p.devices[device{r.App, r.Device}]
	if at.is != "" {
		return ErrSuperseded
	}
	if err := p.allow(r, at); err != nil {
		return err
	}
	p.enter(at, r.Mailbox)
	at.created = created
	if !at.touched {
		p.touched = append(p.touched, at)
		at.touched = true
	}
	return nil
}

// allow checks the limits. What an organization has beyond a limit that was
// lowered may be renewed and moved, only more is refused.
func (p *plan) allow(r Registration, at *placement) error {
	if err := p.org.Limits.allows(r.App); err != nil {
		return err
	}
	if at.is == r.Mailbox {
		return nil
	}
	if most := p.org.Limits.MaxSubscriptions; most > 0 && at.is == "" && p.org.Subscriptions+uint64(p.subscriptions) >= most {
		return &LimitError{Limit: LimitSubscriptions, Max: most}
	}
	comes := p.live[r.Mailbox].is == 0
	goes := at.is != "" && p.live[at.is].is == 1
	if most := p.org.Limits.MaxMailboxes; most > 0 && comes && !goes && p.org.Mailboxes+uint64(p.mailboxes) >= most {
		return &LimitError{Limit: LimitMailboxes, Max: most}
	}
	return nil
}

// mailboxesOf returns the mailboxes to come to, each once.
func (p *plan) mailboxesOf(rs []Registration) (mailboxes []string) {
	for _, r := range rs {
		if p.live[r.Mailbox] == nil {
			p.live[r.Mailbox] = &liveCount{}
			mailboxes = append(mailboxes, r.Mailbox)
		}
	}
	return mailboxes
}

// ask notes a device to be read; false: it was noted before.
func (p *plan) ask(r Registration) (*placement, bool) {
	d := device{r.App, r.Device}
	if at := p.devices[d]; at != nil {
		return at, false
	}
	at := &placement{device: d, hash: deviceHash(d)}
	p.devices[d] = at
	return at, true
}

func (p *plan) leave(at *placement) {
	if at.is == "" {
		return
	}
	count := p.live[at.is]
	if count.is--; count.is == 0 {
		p.mailboxes--
	}
	p.subscriptions--
}

func (p *plan) enter(at *placement, mailbox string) {
	count := p.live[mailbox]
	if count.is++; count.is == 1 {
		p.mailboxes++
	}
	p.subscriptions++
	at.is, at.created = mailbox, p.now
}

// changes returns what listeners are told: of each mailbox at most one coming
// and one leaving.
func (p *plan) changes() []Change {
	var changes []Change
	came, left := make(map[string]int), make(map[string]bool)
	for _, at := range p.touched {
		if at.was != "" && at.was != at.is && !left[at.was] {
			left[at.was] = true
			changes = append(changes, p.change(ChangeUnsubscribed, at.was))
		}
		if i, ok := came[at.is]; ok {
			changes[i].Renewed = changes[i].Renewed && at.renewed
			continue
		}
		came[at.is] = len(changes)
		c := p.change(ChangeSubscribed, at.is)
		c.Renewed = at.renewed
		changes = append(changes, c)
	}
	return changes
}

func (p *plan) change(kind ChangeKind, mailbox string) Change {
	return Change{Kind: kind, Organization: p.org.ID, OrganizationName: p.org.Name, Mailbox: mailbox, Live: p.live[mailbox].is > 0}
}

// expiry returns when a subscription ends without renewal; zero: never.
func expiry(registered time.Time, lifetime time.Duration) time.Time {
	if lifetime <= 0 {
		return time.Time{}
	}
	return registered.Add(lifetime)
}
