package registry

import (
	"encoding/json"
	"sync"

	"badgerelay/relay"
)

// streamChannel is where relays tell each other of agents' streams. What is told
// there is kept nowhere: a relay that does not hear it ends the older stream when
// it finds the connection dead.
const streamChannel = "badgerelay_streams"

// maxStreamsTold bounds how many streams wait to be told of; those beyond are
// not. PostgreSQL's queue holds millions.
const maxStreamsTold = 10_000

// StreamChange is what one relay tells the others of an agent's stream.
type StreamChange struct {
	Relay        string               `json:"relay"` // its instance
	State        StreamState          `json:"state"`
	Organization relay.OrganizationID `json:"organization"`
	AgentID      string               `json:"agent_id"`
	Instance     string               `json:"instance"` // of the agent
	Number       uint64               `json:"number"`
}

// StreamState is what a stream is at the relay that tells of it.
type StreamState string

// The states.
const (
	StreamActive  StreamState = "active"  // it takes events; older ones of the agent id must not
	StreamStandby StreamState = "standby" // it waits for the end of a newer one that is elsewhere
	StreamClosed  StreamState = "closed"  // it was active and is gone
)

// streamNews holds what is to be told of streams, and who is to hear it.
type streamNews struct {
	mu    sync.Mutex // guards what follows
	queue []string   // payloads
	hear  func(StreamChange)
}

// StreamChanged has the other relays told, if Run is running, in some
// milliseconds. It may be lost.
func (p *postgresServer) StreamChanged(s StreamChange) {
	data, err := json.Marshal(s)
	if err != nil {
		return // strings and numbers can be encoded
	}
	n := &p.streams
	n.mu.Lock()
	if len(n.queue) < maxStreamsTold {
		n.queue = append(n.queue, string(data))
	}
	n.mu.Unlock()
	select {
	case p.hint <- struct{}{}:
	default:
	}
}

// OnStreamChanged has fn called with what relays tell, this one included, while
// Run is running. There is one fn. One call may still be under way when cancel
// returns.
func (p *postgresServer) OnStreamChanged(fn func(StreamChange)) (cancel func()) {
	p.streams.set(fn)
	return func() { p.streams.set(nil) }
}

func (n *streamNews) set(fn func(StreamChange)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hear = fn
}

// take returns what is to be told.
func (n *streamNews) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	queue := n.queue
	n.queue = nil
	return queue
}

// heard passes on what a relay has told. What can't be read comes from a
// version that says more, or from somebody else.
func (n *streamNews) heard(payload string) {
	var s StreamChange
	if json.Unmarshal([]byte(payload), &s) != nil {
		return
	}
	n.mu.Lock()
	fn := n.hear
	n.mu.Unlock()
	if fn != nil {
		fn(s)
	}
}
