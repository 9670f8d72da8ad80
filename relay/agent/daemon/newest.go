package daemon

import (
	"time"

	"badgerelay/relay/agent/source"
)

// newest is the count of a mailbox that was handed on last.
type newest struct {
	at             time.Time // when it came; zero: none did
	epoch, version uint64
	unread         uint32
	deleted        bool // there were unread messages marked \Deleted
}

// reorder is how long counts that the mail server told may overtake each other
// on their way. Ours: twice what Dovecot's script waits for an answer.
const reorder = 2 * time.Second

// supersededBy says whether c is a later truth than n.
//
// An answer to a question that began after n had come is, whatever its version:
// numbers go back when an index is rebuilt, a backup restored or a mailbox
// migrated. What the server told unasked, or was asked before n came, has to
// have a newer version.
func (n *newest) supersededBy(c source.Count) bool {
	switch {
	case n.at.IsZero():
		return true
	case !c.Asked.IsZero() && !c.Asked.Before(n.at):
		return true
	case c.Epoch == 0 && c.Version == 0 || n.epoch == 0 && n.version == 0:
		return c.Asked.IsZero() // by arrival
	case c.Epoch != n.epoch:
		return false // which of them is later can't be told
	case c.Version != n.version:
		return c.Version > n.version
	}
	return c.Unread == n.unread
}

// counted judges a count: whether to hand it on. One that may be older than what
// was handed on, or that may count what people don't see, is a reason to ask.
func (m *mailboxes) counted(c source.Count, now time.Time) (take bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	box := m.known[c.Mailbox]
	if box == nil {
		return !m.current // all of them may have a device
	}
	later := box.newest.supersededBy(c)
	if !later && (m.blind || box.failed > 0) {
		later = now.Sub(box.newest.at) > reorder // nobody can be asked
	}
	deleted := box.newest.deleted
	if c.Asked.IsZero() {
		deleted = deleted && c.Unread > 0 // the rest may all be marked
	} else {
		deleted = c.Deleted > 0
	}
	if !later || c.WithDeleted && deleted && !m.blind {
		m.news(box)
		notify(m.wake)
		return false
	}
	box.newest = newest{at: now, epoch: c.Epoch, version: c.Version, unread: c.Unread, deleted: deleted}
	return true
}
