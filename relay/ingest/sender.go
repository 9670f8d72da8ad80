package ingest

import (
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
)

// Settlements wait a moment for others, because sending one costs the relay more
// than the event did, and the agent holds the count anyway. Ours: the wait makes
// one message of three where an agent has ten events a second, and an agent that
// has many doesn't notice it.
// relay.ManySettled do not wait. An agent may allow a longer wait for routine outcomes.
const settleDelay = 200 * time.Millisecond

// settleTick is what the end of a wait is rounded up to, so that the streams whose
// settlements wait send them together: waking up for each costs more than sending
// it. Ours: of a thousand agents with an event a second twenty send at once, and
// what comes meanwhile waits a millisecond for them at most.
const settleTick = 20 * time.Millisecond

// sender sends a stream's messages. It has a goroutine only while there is
// something to send: the one on which its timer runs flush.
type sender struct {
	stream *agentStream
	timer  *time.Timer // runs flush

	mu        sync.Mutex // guards what follows
	state     senderState
	due       time.Time            // while armed: when the timer ends
	delay     time.Duration        // of a settlement whose outcomes are routine
	queue     []*pb.StreamResponse // besides settlements, which come from the relay itself
	more      bool                 // while sending: there is more to send at once
	later     time.Time            // while sending: when what has settled meanwhile is due; zero: nothing has
	ending    bool                 // end the stream with cause when all has settled
	cause     error
	finishing bool          // end the stream when what is there was sent
	closed    bool          // nothing is sent any more
	sent      chan struct{} // while sending; closed at its end
}

type senderState int

const (
	senderIdle    senderState = iota
	senderArmed               // the timer runs
	senderSending             // flush runs
)

func newSender(st *agentStream) *sender {
	o := &sender{stream: st, delay: settleDelay}
	o.timer = time.AfterFunc(time.Hour, o.flush)
	o.timer.Stop()
	return o
}

// put has a message sent.
func (o *sender) put(m *pb.StreamResponse) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, m)
	o.armLocked(0)
}

// settled has the n events that have settled and were not sent yet be sent in time.
// notable: an outcome is not routine.
func (o *sender) settled(n int, notable bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case n >= relay.ManySettled || o.ending:
		o.armLocked(0)
	case notable || o.stream.traced.any.Load(): // a trace ends with its settlement
		o.armLocked(tickAfter(settleDelay, settleTick))
	default:
		o.armLocked(tickAfter(o.delay, settleTick))
	}
}

// hasten has what has settled be sent without the delay that the agent allows, for a
// batch that is traced from now on.
func (o *sender) hasten() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.armLocked(tickAfter(settleDelay, settleTick))
}

// delayBy has settlements with routine outcomes wait for d from now on, and sends what
// has settled.
func (o *sender) delayBy(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.delay = max(d, settleDelay)
	o.armLocked(0)
}

// endWhenSettled has the stream end with cause as soon as nothing is unsettled.
// The first cause counts.
func (o *sender) endWhenSettled(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ending {
		o.ending, o.cause = true, cause
	}
	o.armLocked(0)
}

// finish has the stream's context end when what is there was sent, or flushTime
// is over because the agent does not read.
func (o *sender) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finishing = true
	o.armLocked(0)
	time.AfterFunc(flushTime, o.stream.cancel)
}

// armLocked has flush run after d, at the latest. mu must be held.
func (o *sender) armLocked(d time.Duration) {
	if o.closed {
		return
	}
	due := time.Now().Add(d)
	switch o.state {
	case senderIdle:
		o.state, o.due = senderArmed, due
		o.timer.Reset(d)
	case senderArmed:
		if due.Before(o.due) && o.timer.Stop() { // otherwise flush is about to begin
			o.due = due
			o.timer.Reset(d)
		}
	case senderSending:
		if d == 0 {
			o.more = true
		} else if o.later.IsZero() || due.Before(o.later) {
			o.later = due
		}
	}
}

// flush sends what there is to send. It runs once at a time.
func (o *sender) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.state, o.sent, o.more, o.later = senderSending, make(chan struct{}), true, time.Time{}
	for o.more && !o.closed {
		o.more = false
		queue, ending, cause, finishing := o.queue, o.ending, o.cause, o.finishing
		o.queue = nil
		o.mu.Unlock()
		o.send(queue, ending, cause)
		if finishing {
			o.stream.cancel()
		}
		o.mu.Lock()
	}
	o.state = senderIdle
	close(o.sent)
	if !o.later.IsZero() {
		o.armLocked(max(0, time.Until(o.later)))
	}
}

// send sends the messages and what has settled. If that fails, or all has settled
// and the stream is to end then, it ends.
func (o *sender) send(queue []*pb.StreamResponse, ending bool, cause error) {
	st := o.stream
	err := st.sendAll(queue)
	if err == nil {
		if settled, some := st.relay.TakeSettled(); some {
			err = st.sendSettled(settled)
		}
	}
	switch {
	case err != nil:
		st.end(err)
	case ending && st.relay.Unreported() == 0:
		st.end(cause)
	}
}

// close has nothing sent any more. What is being sent to an agent that does not
// read ends when the handler has returned; Drain waits for it.
func (o *sender) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.timer.Stop()
	if o.state == senderSending {
		sent := o.sent
		o.stream.server.background.Go(func() { <-sent })
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
			return service.Refuse(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_LIMIT_REACHED,
				"the relay is at its limit of mailboxes; send again later, or to another relay")
		}
	}
	st.traced.settled(s.Through)
	return st.sendAll(settlements(s))
}
