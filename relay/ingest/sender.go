package ingest

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// outbox holds what a stream has to send besides settlements, which the
// sender takes from the relay itself. Only few messages ever wait in it: a
// welcome, an answer to a fresh token, a drain notice.
type outbox struct {
	mu    sync.Mutex // guards all
	queue []*pb.StreamResponse
	end   bool  // end the stream when all has settled
	cause error // with this

	wake context.CancelFunc // ends the sender's waiting for settlements
}

func newOutbox() *outbox { return &outbox{wake: func() {}} }

// put adds a message and wakes the sender.
func (o *outbox) put(m *pb.StreamResponse) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, m)
	o.wake()
}

// endWhenSettled has the sender return cause as soon as nothing is unsettled.
// The first cause counts.
func (o *outbox) endWhenSettled(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.end {
		o.end, o.cause = true, cause
	}
	o.wake()
}

// take empties the outbox; from now on wake is what ends the waiting.
func (o *outbox) take(wake context.CancelFunc) (queue []*pb.StreamResponse, end bool, cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wake = wake
	queue, o.queue = o.queue, nil
	return queue, o.end, o.cause
}

// send is the stream's sender: it sends what the outbox holds and what
// settles, until ctx is done, sending fails, or the stream ends because all
// has settled. When ctx is done it sends what has settled until then.
func (st *agentStream) send(ctx context.Context) error {
	turn, wake := context.WithCancel(ctx)
	defer func() { wake() }()
	for {
		if turn.Err() != nil {
			turn, wake = context.WithCancel(ctx)
		}
		queue, end, cause := st.out.take(wake)
		if err := st.sendAll(queue); err != nil {
			return err
		}
		if end && st.relay.Unsettled() == 0 {
			return cause
		}
		settled, err := st.relay.Next(turn)
		switch {
		case err == nil:
			err = st.sendSettled(settled)
		case turn.Err() != nil:
			err = ctx.Err() // nil: there is something in the outbox
		}
		if err != nil {
			return err
		}
	}
}

func (st *agentStream) sendAll(messages []*pb.StreamResponse) error {
	for _, m := range messages {
		if err := st.grpc.SendMsg(m); err != nil {
			return err
		}
	}
	return nil
}

// sendSettled sends a settlement, unless it reports events as abandoned: to the
// agent those have not settled. Either the stream is being closed, and this
// error counts for nothing any more, or the relay has no room for a mailbox,
// and ending the stream makes the agent send again, later or elsewhere.
func (st *agentStream) sendSettled(s relay.Settlement) error {
	for i := range s.Outcomes {
		if s.Outcomes[i].Outcome == relay.OutcomeAbandoned {
			return refuse(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_LIMIT_REACHED,
				"the relay is at its limit of mailboxes; send again later, or to another relay")
		}
	}
	st.traced.settled(s.Through)
	return st.sendAll(settlements(s))
}
