package demo

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"strings"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// mailboxes are the organization's, with their unread counts. They belong to
// one goroutine.
type mailboxes struct {
	names   []string
	unread  map[string]uint32
	version map[string]uint64
	devices []device
}

// device is one phone or tablet. On several mailboxes it shows their sum.
type device struct {
	token     apns.DeviceToken
	mailboxes []string
	meta      apnstest.Meta
}

// sharers are the departments whose phone shows the next one's mail as well: one of
// so many.
const sharers = 7

// departments name mailboxes that belong to nobody in particular.
var departments = [...]string{
	"billing", "booking", "catering", "events", "facilities", "feedback", "helpdesk", "info", "jobs", "legal",
	"library", "logistics", "marketing", "orders", "partners", "press", "purchasing", "quality", "reception",
	"research", "returns", "sales", "security", "support", "training", "travel", "warehouse", "workshop",
}

func newMailboxes() *mailboxes {
	m := &mailboxes{unread: map[string]uint32{}, version: map[string]uint64{}}
	for i, department := range departments {
		name := department + "@" + organization
		m.names = append(m.names, name)
		if i%sharers == 0 {
			m.add("iPhone", name, departments[i+1]+"@"+organization)
		} else {
			m.add("iPhone", name)
		}
		if i%3 == 0 {
			m.add("iPad", name)
		}
	}
	return m
}

func (m *mailboxes) add(model string, on ...string) {
	raw := make([]byte, apns.MinDeviceTokenSize)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	token, err := apns.DeviceTokenFromBytes(raw)
	if err != nil {
		panic(err) // the size is right
	}
	meta := apnstest.Meta{Name: model, Mailbox: on[0], Model: model}
	if len(on) > 1 {
		meta.Mailbox = "sum of " + strings.Join(on, " and ")
	}
	m.devices = append(m.devices, device{token, on, meta})
}

// shared returns how many devices show a sum.
func (m *mailboxes) shared() (n int) {
	for _, d := range m.devices {
		if len(d.mailboxes) > 1 {
			n++
		}
	}
	return n
}

// badge returns what a device has to show.
func (m *mailboxes) badge(d device) (badge uint32) {
	for _, mailbox := range d.mailboxes {
		badge += m.unread[mailbox]
	}
	return badge
}

// change lets mail arrive at, or be read in, a mailbox drawn at random: a
// little at a time, and now and then all of it.
func (m *mailboxes) change() (mailbox string, unread uint32, version uint64) {
	mailbox = m.names[mathrand.IntN(len(m.names))]
	unread = m.unread[mailbox]
	switch draw := mathrand.IntN(10); {
	case draw < 6:
		unread += 1 + uint32(mathrand.IntN(3))
	case draw < 8 && unread > 0:
		unread--
	case draw == 9:
		unread = 0
	}
	return mailbox, unread, m.set(mailbox, unread)
}

// set keeps a count and returns its version.
func (m *mailboxes) set(mailbox string, unread uint32) uint64 {
	m.unread[mailbox] = unread
	m.version[mailbox]++
	return m.version[mailbox]
}
