package ingest

import (
	"context"
	"errors"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry"
)

// MaxInFlight is how long after the end of an agent's stream a count that was
// pending on it may still reach a device: twice silence until its connection
// counts as dead, and the half minute after which package apns gives up a push
// that is at the socket; the rest is reserve.
const MaxInFlight = time.Minute

// silence is after which time without a byte from an agent its connection is
// asked for a sign of life, and how long that may take.
const silence = 10 * time.Second

// Peers is the way to the other relays on the same registry. It may lose what
// it is given: then an agent's older stream ends with its connection, within
// MaxInFlight.
type Peers interface {
	// StreamChanged has the other relays told soon. It does not block.
	StreamChanged(registry.StreamChange)
	// OnStreamChanged has fn called with what other relays tell, and perhaps with
	// what this one did. fn must be quick. One call may still be under way when cancel returns.
	OnStreamChanged(fn func(registry.StreamChange)) (cancel func())
}

// identify ends the agent's older streams, here and elsewhere, before this one
// takes its first event. What those had pending must not go out after it.
func (r *reader) identify(ctx context.Context, hello *pb.Hello) error {
	opened := registry.StreamChange{
		Relay: r.server.instance, State: registry.StreamActive, Organization: r.session.org,
		AgentID: hello.GetAgentId(), Instance: hello.GetInstance(), Number: hello.GetNumber(),
	}
	older, newest := r.server.sessions.identify(r.session, opened)
	if !newest {
		return streamReplaced()
	}
	if r.server.peers != nil {
		r.server.peers.StreamChanged(opened)
	}
	for _, s := range older {
		select {
		case <-s.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// openedElsewhere ends the streams here that the agent has left. A relay that
// leaves goes on: it has asked its agents to open streams elsewhere, and they
// wait with newer counts for what is settled here.
func (s *Server) openedElsewhere(opened registry.StreamChange) {
	if !s.isDraining() {
		s.sessions.replaced(opened)
	}
}

// replaced reports whether the session has ended because of a newer stream.
func (s *session) replaced() bool {
	cause, ours := errors.AsType[*refusal](context.Cause(s.right))
	return ours && cause.reason == pb.ErrorReason_ERROR_REASON_STREAM_REPLACED
}
