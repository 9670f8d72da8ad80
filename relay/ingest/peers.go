package ingest

import (
	"context"
	"time"
	"unicode/utf8"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry"
)

// Afterlife is how long a relay that hears nothing at all of it may go on with
// what it has of an agent that has left: twice silence until the connection
// counts as dead, and the half minute after which package apns gives up a push
// that is at the socket; the rest is reserve, also for the grace of a drain.
const Afterlife = time.Minute

// silence is after which time without a byte from an agent its connection is
// asked for a sign of life, and how long that may take.
const silence = 10 * time.Second

// Peers is the way to the other relays on the same registry. It may lose what
// it is given: then an agent's older stream ends with its connection, within
// Afterlife.
type Peers interface {
	// StreamOpened has the other relays told soon. It does not block.
	StreamOpened(registry.StreamOpened)
	// OnStreamOpened has fn called with what other relays tell, and perhaps with
	// what this one did. fn must be quick. One call may still be under way when cancel returns.
	OnStreamOpened(fn func(registry.StreamOpened)) (cancel func())
}

// identify ends the agent's older streams, here and elsewhere, before this one
// takes its first event. What those had pending must not go out after it.
func (r *reader) identify(ctx context.Context, hello *pb.Hello) error {
	instance, number := hello.GetInstance(), hello.GetNumber()
	switch {
	case instance == "" && number == 0:
		return nil
	case instance == "" || len(instance) > 64 || !utf8.ValidString(instance):
		return invalid("instance", "is not 1 to 64 bytes of UTF-8")
	case number == 0:
		return invalid("number", "is 0; streams are numbered from 1")
	}
	opened := registry.StreamOpened{Organization: r.session.org, Instance: instance, Number: number}
	older, newest := r.server.sessions.identify(r.session, opened)
	if !newest {
		return streamReplaced()
	}
	if r.server.peers != nil {
		r.server.peers.StreamOpened(opened)
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
func (s *Server) openedElsewhere(opened registry.StreamOpened) {
	if !s.isDraining() {
		s.sessions.replaced(opened)
	}
}

// replaced reports whether the session has ended because of a newer stream.
func (s *session) replaced() bool {
	select {
	case <-s.ended:
		return s.cause.reason == pb.ErrorReason_ERROR_REASON_STREAM_REPLACED
	default:
		return false
	}
}
