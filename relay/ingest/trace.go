package ingest

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"badgerelay/relay"
)

// An agent decides what it wants traced, so a hostile one could want all of it:
// beyond so many batches at once, nothing more is, and of one organization
// fewer, so that it leaves some to the others. Of a batch, the pushes of its
// first mailboxes are enough to see where time went. Ours.
const (
	mostTraced        = 64
	mostTracedOfOne   = 16
	mailboxesOfABatch = 4
)

// propagator reads and writes W3C's traceparent, on calls and in batches.
var propagator = propagation.TraceContext{}

// tracer makes the spans of batches: batch, from its arrival to its last
// settlement; in it fan-out, from there to a push at the socket; in that
// apns, from there to the answer. No attribute names a mailbox, a device or an
// organization. A nil *tracer traces nothing.
type tracer struct {
	spans trace.Tracer
	relay *relay.Relay

	mu   sync.Mutex // guards what follows; taken for batches that are traced only
	open int
	orgs map[relay.OrganizationID]int // of open; never 0
}

func newTracer(c *Config) *tracer {
	if c.TracerProvider == nil {
		return nil
	}
	return &tracer{spans: c.TracerProvider.Tracer("badgerelay/relay/ingest"), relay: c.Relay, orgs: map[relay.OrganizationID]int{}}
}

// begin counts one more batch; false: there are too many.
func (t *tracer) begin(org relay.OrganizationID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open >= mostTraced || t.orgs[org] >= mostTracedOfOne {
		return false
	}
	t.open++
	t.orgs[org]++
	return true
}

func (t *tracer) end(org relay.OrganizationID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	if t.orgs[org]--; t.orgs[org] == 0 {
		delete(t.orgs, org)
	}
}

// tracedBatch is a batch that is traced; nil: it is not.
type tracedBatch struct {
	tracer *tracer
	org    relay.OrganizationID
	span   trace.Span
	began  time.Time
	last   uint64 // of a stream: the sequence number of its last event
	stops  []func()
}

// batch begins the span of a batch, as a child of what ctx carries, if it is
// sampled.
func (t *tracer) batch(ctx context.Context, org relay.OrganizationID, events []relay.Event) *tracedBatch {
	if t == nil {
		return nil
	}
	ctx, span := t.spans.Start(ctx, "batch", trace.WithAttributes(attribute.Int("badgerelay.batch.events", len(events))))
	if !span.IsRecording() {
		return nil
	}
	if !t.begin(org) {
		span.SetStatus(codes.Error, "too many batches are traced; this one is not followed")
		span.End()
		return nil
	}
	b := &tracedBatch{tracer: t, org: org, span: span, began: time.Now()}
	for i := range events[:min(len(events), mailboxesOfABatch)] {
		key := relay.MailboxKey{Organization: org, Mailbox: strings.Clone(events[i].Mailbox)}
		b.stops = append(b.stops, t.relay.Watch(key, &relay.Watch{
			TraceID: span.SpanContext().TraceID().String(), Answered: func(a relay.PushAnswer) { b.answered(ctx, a) },
		}))
	}
	return b
}

// streamed is batch for one of a stream. A stream lives for days, so its
// batches are traces of their own: the agent's where it sent its context.
func (t *tracer) streamed(ctx context.Context, org relay.OrganizationID, m *streamRequest) *tracedBatch {
	if t == nil {
		return nil
	}
	ctx = trace.ContextWithSpan(ctx, nil)
	if m.traceparent != "" {
		ctx = propagator.Extract(ctx, propagation.MapCarrier{"traceparent": m.traceparent})
	}
	b := t.batch(ctx, org, m.events)
	if b != nil {
		b.last = m.first + uint64(len(m.events)) - 1
	}
	return b
}

// answered adds the spans of one push.
func (b *tracedBatch) answered(ctx context.Context, a relay.PushAnswer) {
	now := time.Now()
	written := a.WrittenAt
	switch {
	case written.IsZero():
		written = now // it never was at the socket
	case written.Before(b.began):
		return // the push of an event before
	}
	ctx, fanOut := b.tracer.spans.Start(ctx, "fan-out", trace.WithTimestamp(b.began), trace.WithAttributes(attribute.String("badgerelay.app", a.App)))
	fanOut.End(trace.WithTimestamp(written))
	reason := string(a.Reason)
	if reason == "" {
		reason = "accepted"
	}
	_, push := b.tracer.spans.Start(ctx, "apns", trace.WithTimestamp(written), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("badgerelay.app", a.App), attribute.String("badgerelay.apns.reason", reason)))
	if a.Reason != "" {
		push.SetStatus(codes.Error, reason)
	}
	push.End(trace.WithTimestamp(now))
}

// end ends the span. why is empty where all has settled.
func (b *tracedBatch) end(why string) {
	if b == nil {
		return
	}
	for _, stop := range b.stops {
		stop()
	}
	if why != "" {
		b.span.SetStatus(codes.Error, why)
	}
	b.span.End()
	b.tracer.end(b.org)
}

// outcomes notes how the events of a Publish ended.
func (b *tracedBatch) outcomes(outcomes []relay.EventOutcome) {
	if b == nil {
		return
	}
	counts := map[relay.Outcome]int{}
	for i := range outcomes {
		counts[outcomes[i].Outcome]++
	}
	for o, n := range counts {
		b.span.SetAttributes(attribute.Int("badgerelay.outcome."+o.String(), n))
	}
}

// tracedBatches are those of one stream that have not settled. The reader adds
// and the sender ends.
type tracedBatches struct {
	any atomic.Bool // spares the sender the lock

	mu     sync.Mutex     // guards what follows
	open   []*tracedBatch // ascending
	closed bool
}

// add reports whether there is one more.
func (l *tracedBatches) add(b *tracedBatch) bool {
	if b == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed { // the reader may outlive the stream for a moment
		b.end("the stream had ended")
		return false
	}
	l.open = append(l.open, b)
	l.any.Store(true)
	return true
}

// settled ends those of which everything has settled.
func (l *tracedBatches) settled(through uint64) {
	if !l.any.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.open) > 0 && l.open[0].last <= through {
		l.open[0].end("")
		l.open = l.open[1:]
	}
	l.any.Store(len(l.open) > 0)
}

// close ends those that are left.
func (l *tracedBatches) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.open {
		b.end("the stream ended first; the agent sends again")
	}
	l.open, l.closed = nil, true
	l.any.Store(false)
}
