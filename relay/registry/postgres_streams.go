package registry

import (
	"encoding/json"
	"sync"

	"badgerelay/relay"
)

// streamChannel is where relays tell each other which streams agents have
// opened. What is told there is kept nowhere: a relay that does not hear it
// ends the older stream when it finds the connection dead.
const streamChannel = "badgerelay_streams"

// maxStreamsTold bounds how many streams wait to be told of; those beyond are
// not. PostgreSQL's queue holds millions.
const maxStreamsTold = 10_000

// StreamOpened says that an agent has opened a stream, so that those of it with
// lower numbers are dead.
type StreamOpened struct {
	Organization relay.OrganizationID `json:"organization"`
	Instance     string               `json:"instance"` // of the agent
	Number       uint64               `json:"number"`
}

// streamNews holds what is to be told of streams, and who is to hear it.
type streamNews struct {
	mu    sync.Mutex // guards what follows
	queue []string   // payloads
	hear  func(StreamOpened)
}

// StreamOpened has the other relays told, if Run is running, in some
// milliseconds. It may be lost.
func (p *postgresServer) StreamOpened(s StreamOpened) {
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

// OnStreamOpened has fn called with what relays tell, this one included, while
// Run is running. There is one fn. One call may still be under way when cancel
// returns.
func (p *postgresServer) OnStreamOpened(fn func(StreamOpened)) (cancel func()) {
	p.streams.set(fn)
	return func() { p.streams.set(nil) }
}

func (n *streamNews) set(fn func(StreamOpened)) {
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
	var s StreamOpened
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
