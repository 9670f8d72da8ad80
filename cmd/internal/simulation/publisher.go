package simulation

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent"
	"badgerelay/relay/ingest"
)

// publisher sends an agent's counts by unary calls, one after the other. What had
// not settled it sends again at once; and everything once more a minute later,
// because a call's end does not tell what is still in flight, nor whether the relay
// knew of every device.
type publisher struct {
	process *agentProcess
	wake    chan struct{} // one slot: there is something to send

	mu     sync.Mutex // guards what follows
	newest map[string]*published
}

// published is the newest count of a mailbox.
type published struct {
	event    agent.Event
	settled  bool
	onceMore time.Time // zero: it has been
}

// The times of a publisher: how long a call may take, and how long it waits after
// one that failed.
const (
	publishTimeout = 10 * time.Second
	publishPause   = 500 * time.Millisecond
	publishAgain   = ingest.MaxInFlight + time.Second
)

func newPublisher(p *agentProcess) *publisher {
	return &publisher{process: p, wake: make(chan struct{}, 1), newest: map[string]*published{}}
}

// set takes a count to be sent.
func (p *publisher) set(e agent.Event) {
	p.mu.Lock()
	p.newest[e.Mailbox] = &published{event: e, onceMore: time.Now().Add(publishAgain)}
	p.mu.Unlock()
	signal(p.wake)
}

// run sends until ctx is done.
func (p *publisher) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-p.wake:
		case <-ctx.Done():
			return
		}
		timer.Reset(p.send(ctx))
	}
}

// send sends what is due, and returns when to look again.
func (p *publisher) send(ctx context.Context) time.Duration {
	batch := p.due(time.Now())
	if len(batch) == 0 {
		return time.Second
	}
	w, events := p.process.host.world, make([]agent.Event, len(batch))
	for i, b := range batch {
		events[i] = b.event
	}
	w.countEvents(len(events))
	sent := time.Now()
	call, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	results, err := p.process.client.Publish(call, events)
	if err != nil {
		w.trace.add("%s: publish: %v", p.process.name, agent.Explain(err).Kind)
		return publishPause
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range results {
		w.trace.add("%s: version %d of %s is %v", p.process.name, r.Unread/spread, r.Mailbox, r.Outcome)
		batch[i].settled = r.Outcome != agent.OutcomePending
		w.published(p.process.host, &events[i], sent, r.Outcome)
	}
	return 0
}

// due returns what is to be sent now, in the order of names. Who is sent once more is
// not settled until then.
func (p *publisher) due(now time.Time) (batch []*published) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.newest {
		if !e.onceMore.IsZero() && !now.Before(e.onceMore) {
			e.onceMore, e.settled = time.Time{}, false
		}
		if !e.settled {
			batch = append(batch, e)
		}
	}
	slices.SortFunc(batch, func(a, b *published) int { return cmp.Compare(a.event.Mailbox, b.event.Mailbox) })
	return batch
}

// unsettled returns how many counts have not settled.
func (p *publisher) unsettled() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.newest {
		if !e.settled {
			n++
		}
	}
	return n
}

// published checks what an outcome of Publish claims.
func (w *world) published(h *agentHost, e *agent.Event, sent time.Time, outcome agent.Outcome) {
	w.settled(&sentEvent{
		mailbox: w.mailboxNamed(h.organization, e.Mailbox), number: uint64(e.Unread / spread), unread: e.Unread, at: sent,
	}, pb.Outcome(outcome))
}
