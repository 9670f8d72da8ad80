package simulation

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"badgerelay/apns"
)

// mailbox is one on the mail server, with everything it ever held. Only the
// goroutine that drives changes it.
type mailbox struct {
	number       int
	name         string
	organization *organization
	agents       []*agentHost
	mu           sync.Mutex // guards what follows
	epoch        uint64
	versions     []version
	back         uint64 // by which the mail server's numbers are lower than ours
}

// version is what a mailbox held since a time.
type version struct {
	number uint64
	unread uint32
	at     time.Time
}

// spread tells the mailboxes' counts apart: a badge says whose and which it is.
const spread = 64

// unreadOf is the count of a mailbox's version.
func unreadOf(mailbox int, version uint64) uint32 {
	return uint32(version)*spread + uint32(mailbox) + 1
}

// mailboxOf returns whose count a badge is; it is not 0.
func mailboxOf(badge uint32) int { return int((badge - 1) % spread) }

func (m *mailbox) servedBy(h *agentHost) bool { return slices.Contains(m.agents, h) }

func (m *mailbox) newest() version {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.versions[len(m.versions)-1]
}

// restore has the mail server's numbers begin anew, as after a restored backup. Of
// a mailbox that several agents serve the epoch changes as well, as it should.
func (m *mailbox) restore() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.back = uint64(len(m.versions)) - 1
	if len(m.agents) > 1 {
		m.epoch++
	}
}

// told returns the newest version, with its epoch and number as the mail server
// tells them.
func (m *mailbox) told() (v version, epoch, number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v = m.versions[len(m.versions)-1]
	return v, m.epoch, v.number - m.back
}

// change gives the mailbox another count; empty: none is unread.
func (m *mailbox) change(empty bool) version {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := version{number: uint64(len(m.versions)) + 1, at: time.Now()}
	if !empty {
		v.unread = unreadOf(m.number, v.number)
	}
	m.versions = append(m.versions, v)
	return v
}

// numberOf returns the newest version that says unread, or 0.
func (m *mailbox) numberOf(unread uint32) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range slices.Backward(m.versions) {
		if v.unread == unread {
			return v.number
		}
	}
	return 0
}

// device is one of an organization's.
type device struct {
	number       int
	token        apns.DeviceToken
	organization *organization

	mu     sync.Mutex                   // guards what follows
	on     map[*organization][]*mailbox // where it is
	moving bool                         // it is on its way from or to a mailbox: nobody can know what it shows
	since  time.Time                    // when it came to where it is
	shared bool                         // it has ever been on several at once, or was about to
	owner  ownership
}

// place returns where the device is in its own organization: the first of its mailboxes
// there; nil: on none.
func (d *device) place() (m *mailbox, moving bool, since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if own := d.on[d.organization]; len(own) > 0 {
		m = own[0]
	}
	return m, d.moving, d.since
}

// at returns the organization's mailboxes that the device is on.
func (d *device) at(o *organization) []*mailbox {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.on[o])
}

// depart notes that the device is on its way; false: it was already.
func (d *device) depart() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.moving
	d.moving = true
	return !was
}

// arrive notes which of an organization's mailboxes the device is on.
func (d *device) arrive(o *organization, on ...*mailbox) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.on == nil {
		d.on = map[*organization][]*mailbox{}
	}
	d.on[o] = on
	d.moving, d.since = false, time.Now()
	d.shared = d.shared || o != d.organization || len(on) > 1
	d.owner.note(o, len(on) > 0, d.since)
}

// willShare notes that the device is about to be on several mailboxes.
func (d *device) willShare() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shared = true
}

// judge says what is wrong with what the devices show, now that everything
// should be right.
func (w *world) judge(when string) {
	for _, d := range w.devices {
		_, moving, since := d.place()
		if moving {
			w.problem("%s: device %d is still on its way", when, d.number)
			continue
		}
		parts := d.parts()
		if len(parts) == 0 {
			if shown := w.apns.history(d.token); shown[len(shown)-1].at.After(since.Add(settleTime)) {
				w.problem("%s: device %d, on no mailbox since %s, shows %s since %s", when, d.number, w.clock(since),
					w.describe(shown[len(shown)-1].badge), w.clock(shown[len(shown)-1].at))
			}
			continue
		}
		shown, _ := w.apns.Device(d.token)
		if len(parts) > 1 || d.everShared() {
			w.judgeSum(when, d, parts, shown.Badge)
			continue
		}
		m, want := parts[0], parts[0].newest()
		if shown.Badge != want.unread {
			w.wrong++
			w.problem("%s: device %d, on %s since %s, shows %s, want version %d of %s, which is %d", when, d.number, m.name,
				w.clock(since), w.describe(shown.Badge), want.number, w.clock(want.at), want.unread)
		}
	}
}

// describe says whose count a badge is.
func (w *world) describe(badge uint32) string {
	if badge == 0 {
		return "0"
	}
	m := w.mailboxes[mailboxOf(badge)%len(w.mailboxes)]
	return fmt.Sprintf("%d (version %d of %s)", badge, badge/spread, m.name)
}

func (w *world) clock(t time.Time) string { return fmt.Sprintf("%.3fs", t.Sub(w.began).Seconds()) }

// judgeForeign says which devices have ever shown another organization's count.
func (w *world) judgeForeign() {
	for _, d := range w.devices {
		if d.everShared() {
			continue // see judgeSums
		}
		for _, s := range w.apns.history(d.token) {
			if s.badge == 0 {
				continue
			}
			m := mailboxOf(s.badge)
			if m >= len(w.mailboxes) || w.mailboxes[m].organization != d.organization {
				w.foreign++
				w.problem("device %d of %s showed %s at %s, a count of another organization", d.number, d.organization.name,
					w.describe(s.badge), w.clock(s.at))
			}
		}
	}
}

// judgeOrder says which devices went back to an older count of their mailbox.
// Where there is one relay that lives through the run, and no process of an
// agent before another, none may even for a moment.
func (w *world) judgeOrder() {
	publishes := slices.ContainsFunc(w.plan.Agents, func(a agentPlan) bool { return a.publishes })
	if len(w.processes) > 1 || publishes || w.plan.has(KillAgent, MoveAgent, TwinAgent) {
		return
	}
	for _, d := range w.devices {
		if d.everShared() {
			continue
		}
		newest := map[int]uint32{}
		for _, s := range w.apns.history(d.token) {
			if s.badge == 0 {
				continue // several versions may say so
			}
			m := mailboxOf(s.badge)
			if s.badge < newest[m] {
				w.problem("device %d went back from %s to %s at %s", d.number, w.describe(newest[m]), w.describe(s.badge), w.clock(s.at))
			}
			newest[m] = max(newest[m], s.badge)
		}
	}
}
