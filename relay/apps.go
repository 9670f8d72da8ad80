package relay

import (
	"maps"
	"sync"
	"sync/atomic"

	"badgerelay/apns"
	"badgerelay/relay/dispatch"
)

// appState is what the relay has of one app: its queue towards APNs, and how APNs
// treats its devices. It owns the devices that are in the queue.
type appState struct {
	name   string
	index  int // in appTable
	relay  *Relay
	queue  *dispatch.Queue[*device]
	health health
	stall  stall

	oneOrganization atomic.Bool // see SetSumAcrossOrganizations
	readShared      atomic.Bool // its shared devices are to be read: every sum is another, or the app is new
	readMailboxes   atomic.Bool // its mailboxes are to be read again: the app is new

	scratch sync.Pool // of *actions, for Answered
}

func newAppState(r *Relay, name string, index int) *appState {
	a := &appState{name: name, index: index, relay: r}
	a.health.byOrg = map[OrganizationID]*orgStats{}
	a.scratch.New = func() any { return new(actions) }
	a.queue = dispatch.NewQueue(dispatch.Config[*device]{
		Owner: a, Logger: r.logger.With("app", name), Now: r.now, Random: r.random, Changed: r.timersChanged.fill,
	})
	return a
}

// Begin implements dispatch.Owner.
func (a *appState) Begin() *apns.Deadline { return a.relay.pushDeadline() }

// Start implements dispatch.Owner.
func (a *appState) Start(d *device, push *apns.Request) bool {
	if d.start(push, a.relay) {
		return true
	}
	a.relay.devices.drop(d, a.relay)
	return false
}

// Answered implements dispatch.Owner.
func (a *appState) Answered(results []apns.Result) {
	acts := a.scratch.Get().(*actions)
	now := a.relay.now()
	for i := len(results) - 1; i >= 0; i-- { // the first to go back to the front is the last there
		res := &results[i]
		res.Tag.(*device).answer(res.Err.Verdict(), res, now, a.relay, acts)
	}
	a.health.note(results, now)
	a.stall.note(results, now)
	a.relay.apply(acts)
	a.scratch.Put(acts)
}

// appTable is all apps. It is read without a lock, and a
// change replaces it as a whole: apps come, and none goes, so that an index
// means the same for ever.
type appTable struct {
	now atomic.Pointer[apps]

	mu sync.Mutex // held while the table is replaced
}

// apps is one state of the table; it never changes.
type apps struct {
	byName map[string]*appState
	list   []*appState // by appState.index
}

func (t *appTable) begin() { t.now.Store(&apps{}) }

// named returns the app; nil: there is none.
func (t *appTable) named(name string) *appState { return t.now.Load().byName[name] }

// all returns the apps by index.
func (t *appTable) all() []*appState { return t.now.Load().list }

// add returns the app, which it adds if there is none of this name.
func (t *appTable) add(r *Relay, name string) *appState {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.now.Load()
	if a := old.byName[name]; a != nil {
		return a
	}
	a := newAppState(r, name, len(old.list))
	next := &apps{byName: maps.Clone(old.byName), list: append(old.list[:len(old.list):len(old.list)], a)}
	if next.byName == nil {
		next.byName = map[string]*appState{}
	}
	next.byName[name] = a
	t.now.Store(next)
	return a
}

// SetSumAcrossOrganizations says whether a device of an app that has been added, which several
// organizations have on their mailboxes shows the sum of all their counts, as it does
// by default. Otherwise it shows those of the organization that registered it first,
// and the others' events end as no_subscription for it. All relays that serve the same
// mailboxes must say the same. While Run runs, badges follow a change; a relay that has
// been started anew has each device follow with its next event.
func (r *Relay) SetSumAcrossOrganizations(app string, sum bool) {
	a := r.apps.named(app)
	if a.oneOrganization.Swap(!sum) != !sum {
		r.rereadShared(a)
	}
}
