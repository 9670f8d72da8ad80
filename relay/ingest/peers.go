package ingest

import (
	"context"
	"errors"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// MaxInFlight is how long after the end of an agent's stream a count that was
// pending on it may still reach a device: twice silence until its connection
// counts as dead, the half minute after which package apns gives up a push that is
// at the socket, and the sixth for which package relay may have been stopped unnoticed.
const MaxInFlight = time.Minute

// silence is half of the time without a byte from an agent after which its
// connection counts as dead; the agent is asked before (pingAfter).
const silence = 10 * time.Second

// Peers is the way to the other relays on the same registry. It may lose what
// it is given: then an agent's older stream ends with its connection, within
// MaxInFlight.
type Peers interface {
	// StreamChanged has the other relays told soon. It does not block.
	StreamChanged(registry.StreamChange)
	// OnStreamChanged has fn called with what other relays tell, and perhaps with
	// what this one did, in the order in which each told it, and not from within
	// StreamChanged. fn must be quick. One call may still be under way when cancel returns.
	OnStreamChanged(fn func(registry.StreamChange)) (cancel func())
}

// identify notes whose stream this is, before it takes its first event. It ends
// the older ones of the same process, here and elsewhere: what those had pending
// must not go out after it.
func (r *reader) identify(ctx context.Context, hello *pb.Hello) error {
	key, id := agentKey{r.session.org, hello.GetAgentId()}, streamID{hello.GetInstance(), hello.GetNumber()}
	r.name = hello.GetAgent().GetName()
	older, unsure, newest := r.server.agents.open(r.agentStream, key, id)
	if !newest {
		return streamReplaced()
	}
	for _, o := range older {
		select {
		case <-o.session.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !unsure {
		return nil
	}
	wait := time.NewTimer(claimTime)
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-r.demoted:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replaced reports whether the session has ended because of a newer stream.
func (s *session) replaced() bool {
	cause, ours := errors.AsType[*service.Refusal](context.Cause(s.right))
	return ours && cause.Reason == pb.ErrorReason_ERROR_REASON_STREAM_REPLACED
}
