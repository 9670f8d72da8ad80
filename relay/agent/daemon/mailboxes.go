package daemon

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"badgerelay/relay/agent/source"
)

// mailboxes are those that have a device, and which of them are to be asked
// for their count. All methods are safe for concurrent use and never wait.
type mailboxes struct {
	watchers []source.Watcher
	counters []*counter // in the order in which they are asked
	log      *slog.Logger
	metrics  *metrics
	interval time.Duration // between two counts that are not urgent
	wake     chan struct{} // one slot: there is something to ask
	workers  int           // that ask
	blind    bool          // nobody can be asked
	exact    bool          // names that differ in case are different mailboxes

	mu        sync.Mutex // guards what follows
	known     map[string]*mailbox
	spelled   map[string][]string // of known: by their folded names
	waiting   int                 // of known: to be asked now
	current   bool                // known is what the relay says now
	once      bool                // it has been
	urgent    queue
	patient   queue
	late      queue
	retrying  int // being asked that failed before
	uncounted int // of known: failed the last time
	stale     int // whose count is older than another agent's
	idle      idle
	patientAt time.Time // when the next of patient may be asked
}

func newMailboxes(perSecond float64, log *slog.Logger, m *metrics) *mailboxes {
	return &mailboxes{
		log: log, metrics: m, interval: time.Duration(float64(time.Second) / perSecond),
		wake: make(chan struct{}, 1), known: make(map[string]*mailbox), spelled: make(map[string][]string),
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
		m.spelled[fold(name)] = append(m.spelled[fold(name)], name)
	}
	box.gone = false
	m.enqueue(box, m.current || m.once && !known) // in a resync there are many
	m.mu.Unlock()
	notify(m.wake)
	if !known {
		m.watch(name)
	}
}

// unsubscribed: no device is left.
func (m *mailboxes) unsubscribed(name string) {
	m.mu.Lock()
	if box := m.known[name]; box != nil {
		m.forget(box)
	}
	m.mu.Unlock()
	m.unwatch(name)
}

// forget drops a mailbox that has no device. The caller holds mu.
func (m *mailboxes) forget(box *mailbox) {
	m.move(box, unknown)
	delete(m.known, box.name)
	key := fold(box.name)
	if m.spelled[key] = slices.DeleteFunc(m.spelled[key], func(name string) bool { return name == box.name }); len(m.spelled[key]) == 0 {
		delete(m.spelled, key)
	}
	m.uncounted -= min(box.failed, 1)
	m.stale -= min(box.stale, 1)
}

// complete ends a resync: those that were not told have no device any more.
func (m *mailboxes) complete() {
	var gone []string
	m.mu.Lock()
	for name, box := range m.known {
		if box.gone {
			m.forget(box)
			gone = append(gone, name)
		}
	}
	m.current, m.once = true, true
	known := len(m.known)
	m.mu.Unlock()
	for _, name := range gone {
		m.unwatch(name)
	}
	m.metrics.resyncs.Inc()
	m.log.Info("mailboxes known", "mailboxes", known, "gone", len(gone))
}

// interrupted: the watch has ended; changes may be missed until it begins anew.
func (m *mailboxes) interrupted() {
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

// names returns the mailboxes that a source means: devices may be subscribed to
// Vera@, and the mail server speaks of vera@.
func (m *mailboxes) names(name string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if spelled := m.spelled[fold(name)]; !m.exact && len(spelled) > 0 {
		return slices.Clone(spelled)
	}
	return []string{name}
}

// fold returns a name by which spellings of it are found.
func fold(name string) string { return strings.ToLower(name) }

// changed has the mailbox's count asked for. It says whether the mailbox has a
// device.
func (m *mailboxes) changed(name string) bool {
	m.mu.Lock()
	box := m.known[name]
	if box != nil {
		m.news(box)
	}
	m.mu.Unlock()
	notify(m.wake)
	return box != nil
}

// recount has every mailbox counted anew, at the pace of a resync: another process
// of the agent was active meanwhile.
func (m *mailboxes) recount() {
	m.mu.Lock()
	for _, box := range m.known {
		m.enqueue(box, false)
	}
	m.mu.Unlock()
	notify(m.wake)
}

// informed says whether what is known is what the relay says now.
func (m *mailboxes) informed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

// recountAll has every mailbox counted anew, at the pace.
func (m *mailboxes) recountAll() {
	m.mu.Lock()
	for _, box := range m.known {
		if box.failed == 0 {
			m.enqueue(box, false)
		}
	}
	m.mu.Unlock()
	notify(m.wake)
}

// behind returns how many mailboxes could not be counted the last time, and how many
// have an older count than another agent told.
func (m *mailboxes) behind() (uncounted, stale int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.uncounted, m.stale
}

// numbers returns how many mailboxes have a device, and how many of them wait
// for their count.
func (m *mailboxes) numbers() (known, waiting int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.known), m.waiting
}

// notify fills a one-slot channel.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
