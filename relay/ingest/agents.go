package ingest

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Times of what relays ask each other. Ours: a question and its answer take
// milliseconds.
const (
	// claimTime is how long the first stream of an agent that a relay has not
	// heard of waits for another relay to say that it has a newer one.
	claimTime = 250 * time.Millisecond
	// askInterval is how often a relay asks whether a stream that its own ones
	// stand by for is still there, and silenceOfPeer after which time without an
	// answer it is not.
	askInterval   = 5 * time.Second
	silenceOfPeer = 3 * askInterval
)

// maxAgentsElsewhere bounds the agents that are known from other relays alone.
const maxAgentsElsewhere = 100_000

// agentKey names an agent among all organizations.
type agentKey struct {
	organization relay.OrganizationID
	id           string
}

// streamID tells the streams of an agent apart. The zero value is none, and
// older than any.
type streamID struct {
	instance string
	number   uint64
}

// compare is negative where a is older than b.
func (a streamID) compare(b streamID) int {
	return cmp.Or(cmp.Compare(a.instance, b.instance), cmp.Compare(a.number, b.number))
}

// agents decides which stream of each agent is active: the newest one, at this
// relay or at another. The others stand by.
//
// Relays tell each other of a stream that has become active and of one that was
// and is gone. Who hears of an active stream ends older ones that are active, and
// speaks up for a newer one. Where streams stand by for one at another relay, that
// is asked for, and counts as gone when nobody answers.
type agents struct {
	relay      string // this relay's instance
	peers      Peers  // nil: there are none
	isDraining func() bool

	mu    sync.Mutex // guards what follows and agentStream.role
	known map[agentKey]*agentStreams
	left  map[relay.OrganizationID]departure // the last stream of each organization that ended

	refused map[relay.OrganizationID]departure // the last one that was refused, if none was accepted since
}

// agentStreams are the streams of one agent.
type agentStreams struct {
	open   []*agentStream // here, oldest first; those that were ended until they are gone
	active *agentStream   // one of open; nil: none

	// The newest active stream that another relay has told of, which relay it was,
	// and when it said so last. The zero streamID: none.
	elsewhere streamID
	teller    string
	heardAt   time.Time

	// presumed is set while active took over without having been told that the
	// newer stream is gone: it says so again and again, for one who didn't hear it.
	presumed bool
}

func newAgents(c *Config, isDraining func() bool) *agents {
	return &agents{relay: c.Instance, peers: c.Peers, isDraining: isDraining, known: map[agentKey]*agentStreams{}, left: map[relay.OrganizationID]departure{}, refused: map[relay.OrganizationID]departure{}}
}

// open adds a stream. It returns the older streams of the same process, which
// have been told to end; whether another relay may have a newer one that is not
// known here; and false if there is a newer one of the same process.
func (t *agents) open(st *agentStream, key agentKey, id streamID) (older []*agentStream, unsure, newest bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.known[key]
	if st.closed || a.newest(id.instance) >= id.number {
		return nil, false, false
	}
	st.key, st.id, st.openedAt = key, id, time.Now()
	for _, o := range a.streams() {
		if o.id.instance == id.instance {
			o.replaceLocked()
			older = append(older, o)
		}
	}
	if a == nil {
		a = &agentStreams{}
		t.known[key] = a
		unsure = t.peers != nil
	}
	at, _ := slices.BinarySearchFunc(a.open, st, func(o, st *agentStream) int { return o.id.compare(st.id) })
	a.open = slices.Insert(a.open, at, st)
	a.heardAt = time.Now() // whoever has a newer one is asked from now on
	t.electLocked(a)
	if st.role != roleActive {
		t.tellLocked(st, registry.StreamStandby)
	}
	return older, unsure, true
}

// newest returns the number of the newest stream of an instance; 0: it has none.
func (a *agentStreams) newest(instance string) (number uint64) {
	for _, st := range a.streams() {
		if st.id.instance == instance {
			number = max(number, st.id.number)
		}
	}
	return number
}

// streams returns what is open; none where nothing is known.
func (a *agentStreams) streams() []*agentStream {
	if a == nil {
		return nil
	}
	return a.open
}

// close removes a stream whose pending events have ended.
func (t *agents) close(st *agentStream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st.closed = true
	a := t.known[st.key]
	at := slices.Index(a.streams(), st)
	if at < 0 {
		return // it never said whose it is
	}
	a.open = slices.Delete(a.open, at, at+1)
	if a.active == st {
		a.active, a.presumed = nil, false
	}
	if st.told {
		t.tellLocked(st, registry.StreamClosed)
	}
	t.departedLocked(st)
	t.electLocked(a)
	t.forgetLocked(st.key, a)
}

// forgetLocked drops an agent of which nothing is known.
func (t *agents) forgetLocked(key agentKey, a *agentStreams) {
	if len(a.open) == 0 && a.elsewhere == (streamID{}) {
		delete(t.known, key)
	}
}

// electLocked makes the newest stream active, unless a newer one is elsewhere.
func (t *agents) electLocked(a *agentStreams) {
	var newest *agentStream
	for _, st := range slices.Backward(a.open) {
		if !st.replaced {
			newest = st
			break
		}
	}
	if newest != nil && a.elsewhere.compare(newest.id) > 0 && !t.leavingFor(newest.id, a.elsewhere) {
		newest = nil
	}
	for _, st := range a.open {
		if st != newest && st.role != roleStandby && !st.replaced {
			st.takeRole(roleStandby)
		}
	}
	if newest == a.active {
		return
	}
	a.active, a.presumed = newest, false
	if newest != nil {
		newest.takeRole(roleActive)
		newest.told = true
		t.tellLocked(newest, registry.StreamActive)
	}
}

// leavingFor reports whether a stream goes on although its process has a newer one
// elsewhere: this relay leaves and has asked for the newer one, and the agent waits
// with newer counts for what is settled here.
func (t *agents) leavingFor(id, elsewhere streamID) bool {
	return id.instance == elsewhere.instance && t.isDraining()
}

// heard takes what another relay tells.
func (t *agents) heard(c registry.StreamChange) {
	if c.Relay == t.relay {
		return
	}
	key, id := agentKey{c.Organization, c.AgentID}, streamID{c.Instance, c.Number}
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.known[key]
	switch {
	case a == nil && (c.State != registry.StreamActive || len(t.known) >= maxAgentsElsewhere):
		return
	case a == nil:
		a = &agentStreams{}
		t.known[key] = a
	}
	if c.State != registry.StreamClosed {
		t.replaceLocked(a, id)
	}
	switch c.State {
	case registry.StreamActive:
		t.activeElsewhereLocked(a, c.Relay, id)
	case registry.StreamClosed:
		if id == a.elsewhere {
			a.elsewhere = streamID{}
		}
	case registry.StreamStandby:
	}
	t.electLocked(a)
	if a.active != nil && a.active.id.compare(id) > 0 && c.State != registry.StreamClosed {
		t.tellLocked(a.active, registry.StreamActive)
	}
	t.forgetLocked(key, a)
}

// replaceLocked ends the streams that a process has left for the one with this id,
// at another relay.
func (t *agents) replaceLocked(a *agentStreams, id streamID) {
	for _, st := range a.open {
		if st.id.instance == id.instance && st.id.number < id.number && !t.leavingFor(st.id, id) {
			st.replaceLocked()
		}
	}
	if a.active != nil && a.active.replaced {
		a.active, a.presumed = nil, false
	}
}

// activeElsewhereLocked has other processes' streams stand by that are older than
// one that is active at another relay. What has something pending ends.
func (t *agents) activeElsewhereLocked(a *agentStreams, teller string, id streamID) {
	if id.compare(a.elsewhere) >= 0 || teller == a.teller {
		a.elsewhere, a.teller, a.heardAt = id, teller, time.Now()
	}
	for _, st := range a.open {
		if st.id.compare(id) >= 0 || st.id.instance == id.instance {
			continue
		}
		if st.role == roleActive {
			st.takeRole(roleStandby)
		}
		if st.relay.Pending() > 0 {
			st.replaceLocked()
		}
	}
	if a.active != nil && a.active.role != roleActive {
		a.active, a.presumed = nil, false
	}
}

// run asks after streams at other relays until ctx is done.
func (t *agents) run(ctx context.Context) {
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			t.ask(now)
		case <-ctx.Done():
			return
		}
	}
}

// ask asks once, and takes over from those who have not answered for too long.
func (t *agents) ask(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.known {
		switch {
		case len(a.open) == 0:
		case a.presumed && a.active != nil:
			t.tellLocked(a.active, registry.StreamActive)
		case a.active != nil || a.elsewhere == (streamID{}):
		case now.Sub(a.heardAt) >= silenceOfPeer:
			a.elsewhere = streamID{}
			t.electLocked(a)
			a.presumed = true
		default:
			t.tellLocked(a.open[len(a.open)-1], registry.StreamStandby)
		}
	}
}

// tellLocked has the other relays told of a stream.
func (t *agents) tellLocked(st *agentStream, state registry.StreamState) {
	if t.peers == nil {
		return
	}
	t.peers.StreamChanged(registry.StreamChange{
		Relay: t.relay, State: state, Organization: st.key.organization, AgentID: st.key.id,
		Instance: st.id.instance, Number: st.id.number,
	})
}
