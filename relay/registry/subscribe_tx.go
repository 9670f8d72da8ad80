package registry

import (
	"slices"
	"strings"
	"time"

	"badgerelay/apns"
)

// subscribeTx decides what becomes of registrations of one organization, on what a
// transaction read, and collects what has to be written. It is the rules of
// subscriptions without a database:
//
//   - A device of an app may be on several mailboxes of an organization, up to
//     MaxDeviceMailboxes.
//   - One that comes to a mailbox leaves the organization's others, unless the
//     registration keeps them. One that is there already is renewed, and leaves
//     nothing.
//   - A whole list (SetDevice) is done as a whole: the device comes to what is
//     missing, leaves what is not named, and is renewed on the rest.
//   - Of other organizations nothing is taken and nothing told.
//
// One goroutine uses a subscribeTx, for one transaction.
type subscribeTx struct {
	org      Organization
	now      time.Time
	lifetime time.Duration

	devices map[device]*deviceState // every device that is asked about, read before
	live    map[string]*liveCount   // every mailbox that is asked about or left, read before
	// anyRemoved: some of the organization's subscriptions ended within RemovedRetention.
	anyRemoved bool
	touched    []*deviceState // in the order they were first touched

	mailboxes, subscriptions int64 // changes of the organization's counts
}

// device is an installation of an app.
type device struct {
	app   string
	token apns.DeviceToken
}

// deviceState is where a device was and will be.
type deviceState struct {
	device
	hash        int64 // deviceHash
	memberships []membership
	touched     bool
	alone       bool // it has left everything that it is not on
	others      bool // it is on mailboxes of other organizations; read where a look-up can't tell
}

// membership is a device's place on a mailbox of the organization.
type membership struct {
	mailbox             string
	before, after       bool
	created, registered time.Time // of the subscription that is
	touched             bool
}

// liveCount is how many live subscriptions a mailbox had and will have.
type liveCount struct {
	before, after int64
	read          bool // by a transaction before, so that the database knows less
}

// request asks for a device to be put on mailboxes.
type request struct {
	device
	mailboxes []string // each once
	whole     bool     // they are the device's whole list; otherwise there is one

	keepOthers bool
	keepSince  time.Time // zero: none is kept for it
}

// request returns what a registration asks for.
func (r Registration) request() request {
	return request{device: device{r.App, r.Device}, mailboxes: []string{r.Mailbox}, keepOthers: r.KeepOthers, keepSince: r.KeepSince}
}

// declared is what a request has changed, in the order of the mailboxes' bytes.
type declared struct {
	added, removed, kept []string
	others               []string  // mailboxes beside those of the request
	created, registered  time.Time // of the last mailbox of the request
	expires              time.Time
}

// newSubscribeTx makes a subscribeTx of an organization that is to be read, with room
// for this many requests.
func newSubscribeTx(now time.Time, lifetime time.Duration, requests int) *subscribeTx {
	return &subscribeTx{now: now, lifetime: lifetime,
		devices: make(map[device]*deviceState, requests), live: make(map[string]*liveCount, requests), touched: make([]*deviceState, 0, requests)}
}

// next begins another transaction, to which the one before was as if it had been kept.
func (p *subscribeTx) next(now time.Time) {
	p.org, p.now = Organization{}, now // which is read anew
	for _, at := range p.touched {
		at.touched = false
	}
	p.touched = p.touched[:0]
	for _, live := range p.live {
		live.read = true
	}
}

// found notes how many live subscriptions of a mailbox were read.
func (p *subscribeTx) found(mailbox string, n int64) {
	if live := p.live[mailbox]; live == nil || !live.read {
		p.live[mailbox] = &liveCount{before: n, after: n}
	}
}

// declare does what a request asks for, or returns a *LimitError.
func (p *subscribeTx) declare(q request) (declared, error) {
	at := p.devices[q.device]
	d := at.decide(q)
	if err := p.allow(q, at, d); err != nil {
		return declared{}, err
	}
	p.touch(at)
	at.alone = at.alone || q.whole || len(d.added) > 0 && !q.keepOthers
	for _, mailbox := range d.removed {
		p.leave(at.on(mailbox))
	}
	for _, mailbox := range q.mailboxes {
		on := p.enter(at, mailbox)
		d.created, d.registered = on.created, on.registered
	}
	d.others = at.mailboxes(func(on membership) bool { return on.after && !slices.Contains(q.mailboxes, on.mailbox) })
	d.expires = expiry(p.now, p.lifetime)
	return d, nil
}

// restore puts a device back on a mailbox that it was on since created. An
// organization's device that has left the mailbox since is not put back, see
// removedRow. *LimitError.
func (p *subscribeTx) restore(r Registration, created time.Time) error {
	q := r.request()
	q.keepOthers = true
	at := p.devices[q.device]
	if err := p.allow(q, at, at.decide(q)); err != nil {
		return err
	}
	p.touch(at)
	p.enter(at, r.Mailbox).created = created
	return nil
}

func (p *subscribeTx) touch(at *deviceState) {
	if !at.touched {
		at.touched = true
		p.touched = append(p.touched, at)
	}
}

// decide says what a request will change.
func (at *deviceState) decide(q request) (d declared) {
	for _, mailbox := range q.mailboxes {
		if on := at.on(mailbox); on != nil && on.after {
			d.kept = append(d.kept, mailbox)
		} else {
			d.added = append(d.added, mailbox)
		}
	}
	slices.Sort(d.kept)
	slices.Sort(d.added)
	if q.whole || len(d.added) > 0 {
		d.removed = at.mailboxes(func(on membership) bool { return on.after && !q.keeps(on) })
	}
	return d
}

// keeps reports whether a device stays on a mailbox when it comes to another.
func (q request) keeps(on membership) bool {
	return q.keepOthers || slices.Contains(q.mailboxes, on.mailbox) ||
		!q.keepSince.IsZero() && on.registered.UnixMilli() >= q.keepSince.UnixMilli()
}

// on returns the device's membership of a mailbox; nil: it never had one.
func (at *deviceState) on(mailbox string) *membership {
	for i := range at.memberships {
		if at.memberships[i].mailbox == mailbox {
			return &at.memberships[i]
		}
	}
	return nil
}

// mailboxes returns the mailboxes of the device's memberships that are wanted, in the
// order of their bytes.
func (at *deviceState) mailboxes(wanted func(membership) bool) (mailboxes []string) {
	for _, on := range at.memberships {
		if wanted(on) {
			mailboxes = append(mailboxes, on.mailbox)
		}
	}
	slices.Sort(mailboxes)
	return mailboxes
}

// allow checks the limits. What an organization has beyond a limit that was
// lowered may be renewed and moved, only more is refused.
func (p *subscribeTx) allow(q request, at *deviceState, d declared) error {
	if len(q.mailboxes) > 0 {
		if err := p.org.Limits.allows(q.app); err != nil {
			return err
		}
	}
	more := len(d.added) - len(d.removed)
	if after := len(at.mailboxes(func(on membership) bool { return on.after })); more > 0 && after+more > MaxDeviceMailboxes {
		return &LimitError{Limit: LimitDeviceMailboxes, Max: MaxDeviceMailboxes}
	}
	if beyond(p.org.Limits.MaxSubscriptions, p.org.Subscriptions, p.subscriptions, more) {
		return &LimitError{Limit: LimitSubscriptions, Max: p.org.Limits.MaxSubscriptions}
	}
	more = 0
	for _, mailbox := range d.added {
		if p.live[mailbox].after == 0 {
			more++
		}
	}
	for _, mailbox := range d.removed {
		if p.live[mailbox].after == 1 {
			more--
		}
	}
	if beyond(p.org.Limits.MaxMailboxes, p.org.Mailboxes, p.mailboxes, more) {
		return &LimitError{Limit: LimitMailboxes, Max: p.org.Limits.MaxMailboxes}
	}
	return nil
}

// beyond reports whether a number that was read, and has changed since, would
// grow beyond a limit; 0 is none.
func beyond(limit, before uint64, changed int64, more int) bool {
	return limit > 0 && more > 0 && before+uint64(changed)+uint64(more) > limit
}

// mailboxesOf returns the mailboxes to come to, each once.
func (p *subscribeTx) mailboxesOf(qs []request) (mailboxes []string) {
	for _, q := range qs {
		for _, mailbox := range q.mailboxes {
			if p.live[mailbox] == nil {
				p.live[mailbox] = &liveCount{}
				mailboxes = append(mailboxes, mailbox)
			}
		}
	}
	return mailboxes
}

// ask notes a device to be read; false: it was noted before.
func (p *subscribeTx) ask(d device) (*deviceState, bool) {
	if at := p.devices[d]; at != nil {
		return at, false
	}
	at := &deviceState{device: d, hash: deviceHash(d)}
	p.devices[d] = at
	return at, true
}

func (p *subscribeTx) leave(on *membership) {
	on.after = false
	count := p.live[on.mailbox]
	if count.after--; count.after == 0 {
		p.mailboxes--
	}
	p.subscriptions--
}

// enter puts a device on a mailbox, or renews that.
func (p *subscribeTx) enter(at *deviceState, mailbox string) *membership {
	on := at.on(mailbox)
	if on == nil {
		at.memberships = append(at.memberships, membership{mailbox: mailbox})
		on = &at.memberships[len(at.memberships)-1]
	}
	if !on.after {
		count := p.live[mailbox]
		if count.after++; count.after == 1 {
			p.mailboxes++
		}
		p.subscriptions++
		on.after, on.created = true, p.now
	}
	on.touched, on.registered = true, p.now
	return on
}

// changes returns what listeners are told: of each mailbox at most one coming
// and one leaving.
func (p *subscribeTx) changes() []Change {
	changes := make([]Change, 0, len(p.touched))
	came, left := make(map[string]bool, len(p.touched)), make(map[string]bool)
	for _, at := range p.touched {
		slices.SortFunc(at.memberships, func(a, b membership) int { return strings.Compare(a.mailbox, b.mailbox) })
		for _, on := range at.memberships {
			if on.before && !on.after && !left[on.mailbox] {
				left[on.mailbox] = true
				changes = append(changes, p.change(ChangeUnsubscribed, on.mailbox))
			}
		}
		for _, on := range at.memberships {
			if on.after && on.touched && !came[on.mailbox] {
				came[on.mailbox] = true
				changes = append(changes, p.change(ChangeSubscribed, on.mailbox))
			}
		}
		if at.cameToSeveral(false) {
			changes = append(changes, Change{Kind: ChangeDeviceShared, App: at.app, Device: at.token})
		}
	}
	return changes
}

// cameToSeveral reports whether the device came to a mailbox and is on others of
// the organization too, or of others where anybody's count: relays show no count of
// one of them alone from then on.
func (at *deviceState) cameToSeveral(anybodys bool) bool {
	after, came := 0, false
	for _, on := range at.memberships {
		if on.after {
			after++
			came = came || !on.before
		}
	}
	return came && (after > 1 || anybodys && at.others)
}

func (p *subscribeTx) change(kind ChangeKind, mailbox string) Change {
	return Change{Kind: kind, Organization: p.org.ID, OrganizationName: p.org.Name, Mailbox: mailbox, Live: p.live[mailbox].after > 0}
}

// expiry returns when a subscription ends without renewal; zero: never.
func expiry(registered time.Time, lifetime time.Duration) time.Time {
	if lifetime <= 0 {
		return time.Time{}
	}
	return registered.Add(lifetime)
}
