package demo

import (
	"crypto/rand"
	mathrand "math/rand/v2"

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

// device is one phone or tablet.
type device struct {
	token   apns.DeviceToken
	mailbox string
	meta    apnstest.Meta
}

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
		m.add(name, "iPhone")
		if i%3 == 0 {
			m.add(name, "iPad")
		}
	}
	return m
}

func (m *mailboxes) add(mailbox, model string) {
	raw := make([]byte, apns.MinDeviceTokenSize)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	token, err := apns.DeviceTokenFromBytes(raw)
	if err != nil {
		panic(err) // the size is right
	}
	m.devices = append(m.devices, device{token, mailbox, apnstest.Meta{Name: model, Mailbox: mailbox, Model: model}})
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
