package agentd

import (
	"log/slog"
	"sync"
	"time"

	"badgerelay/cmd/badgeagent/internal/source"
)

// mailboxes are those that have a device, and which of them are to be asked
// for their count. All methods are safe for concurrent use and never wait.
type mailboxes struct {
	watchers []source.Watcher
	log      *slog.Logger
	metrics  *metrics
	interval time.Duration // between two counts that are not urgent
	wake     chan struct{} // one slot: there is something to ask

	mu       sync.Mutex // guards what follows
	known    map[string]*mailbox
	current  bool // known is what the relay says now
	urgent   queue
	patient  queue
	patience time.Time // when the next of patient may be asked
	pause    time.Time // nothing is asked before: the mail server can't be asked
	failures int       // of the mail server, in a row
	asking   int
}

// mailbox is one that has a device. It belongs to mailboxes.mu.
type mailbox struct {
	name   string
	queued queued
	asked  bool // a worker asks for its count now
	again  bool // it changed meanwhile
	gone   bool // not told since the watch began anew
}

// queued says in which queue a mailbox waits.
type queued uint8

const (
	inNone queued = iota
	inPatient
	inUrgent
)

func newMailboxes(perSecond float64, log *slog.Logger, m *metrics) *mailboxes {
	return &mailboxes{
		log: log, metrics: m, interval: time.Duration(float64(time.Second) / perSecond),
		wake: make(chan struct{}, 1), known: make(map[string]*mailbox),
	}
}

// resync begins: what is known may be out of date.
func (m *mailboxes) resync() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = false
	for _, box := range m.known {
		box.gone = true
	}
}

// subscribed: mailbox has a device, or another one.
func (m *mailboxes) subscribed(name string) {
	m.mu.Lock()
	box, known := m.known[name]
	if !known {
		box = &mailbox{name: name}
		m.known[name] = box
	}
	box.gone = false
	m.enqueue(box, m.current) // in a resync there are many
	m.mu.Unlock()
	notify(m.wake)
	if !known {
		m.watch(name)
	}
}

// unsubscribed: no device is left.
func (m *mailboxes) unsubscribed(name string) {
	m.mu.Lock()
	delete(m.known, name)
	m.mu.Unlock()
	m.unwatch(name)
}

// complete ends a resync: those that were not told have no device any more.
func (m *mailboxes) complete() {
	var gone []string
	m.mu.Lock()
	for name, box := range m.known {
		if box.gone {
			delete(m.known, name)
			gone = append(gone, name)
		}
	}
	m.current = true
	known := len(m.known)
	m.mu.Unlock()
	for _, name := range gone {
		m.unwatch(name)
	}
	m.metrics.resyncs.Inc()
	m.log.Info("mailboxes known", "mailboxes", known, "gone", len(gone))
}

// stale: the watch has ended; changes may be missed until it begins anew.
func (m *mailboxes) stale() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = false
}

func (m *mailboxes) watch(name string) {
	for _, w := range m.watchers {
		w.Watch(name)
	}
}

func (m *mailboxes) unwatch(name string) {
	for _, w := range m.watchers {
		w.Unwatch(name)
	}
}

// wanted says whether a count of the mailbox is of use. While the relay's word
// is not current, all of them may be.
func (m *mailboxes) wanted(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.current || m.known[name] != nil
}

// changed has the mailbox's count asked for. It says whether the mailbox has a
// device.
func (m *mailboxes) changed(name string) bool {
	m.mu.Lock()
	box := m.known[name]
	if box != nil {
		m.enqueue(box, true)
	}
	m.mu.Unlock()
	notify(m.wake)
	return box != nil
}

// enqueue puts a mailbox into a queue, or has it asked again after the count
// that is under way. The caller holds mu.
func (m *mailboxes) enqueue(box *mailbox, urgent bool) {
	switch {
	case box.asked:
		box.again = true
	case urgent && box.queued != inUrgent:
		box.queued = inUrgent // its place in patient is skipped
		m.urgent.push(box)
	case box.queued == inNone:
		box.queued = inPatient
		m.patient.push(box)
	}
}

// take returns the next mailbox to ask; nil: none is due within wait, or, where
// wait is 0, until wake.
func (m *mailboxes) take(now time.Time) (box *mailbox, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Before(m.pause) {
		return nil, m.pause.Sub(now)
	}
	box = m.urgent.pop(m, inUrgent)
	if box == nil && m.patient.peek(m, inPatient) != nil {
		if now.Before(m.patience) {
			return nil, m.patience.Sub(now)
		}
		m.patience = now.Add(m.interval)
		box = m.patient.pop(m, inPatient)
	}
	if box == nil {
		return nil, 0
	}
	box.queued, box.asked = inNone, true
	m.asking++
	notify(m.wake) // there may be more, for another worker
	return box, 0
}

// asked takes a mailbox back from a worker. again has it asked once more.
func (m *mailboxes) asked(box *mailbox, again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asking--
	box.asked = false
	if m.known[box.name] == box && (again || box.again) {
		m.enqueue(box, true)
		notify(m.wake)
	}
	box.again = false
}

// told says whether what is known is what the relay says now.
func (m *mailboxes) told() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

// numbers returns how many mailboxes have a device, and how many of them wait
// for their count.
func (m *mailboxes) numbers() (known, waiting int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, box := range m.known {
		if box.asked || box.queued != inNone {
			waiting++
		}
	}
	return len(m.known), waiting
}

// queue is a first-in first-out of mailboxes. One that has left for another
// queue, or has no device any more, is skipped when its turn comes.
type queue struct {
	boxes []*mailbox
	head  int
}

func (q *queue) push(box *mailbox) { q.boxes = append(q.boxes, box) }

// peek returns the first that still waits here.
func (q *queue) peek(m *mailboxes, here queued) *mailbox {
	for ; q.head < len(q.boxes); q.head++ {
		if box := q.boxes[q.head]; box.queued == here && m.known[box.name] == box {
			return box
		}
		q.boxes[q.head] = nil
	}
	q.boxes, q.head = q.boxes[:0], 0
	return nil
}

func (q *queue) pop(m *mailboxes, here queued) *mailbox {
	box := q.peek(m, here)
	if box != nil {
		q.boxes[q.head] = nil
		q.head++
	}
	return box
}

// notify fills a one-slot channel.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
