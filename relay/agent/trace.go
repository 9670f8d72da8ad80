package agent

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

// trace begins the span of a batch and, if it is sampled, tells the relay which
// trace to go on with. done ends it, when the batch is sent.
func (a *Agent) trace(ctx context.Context, batch *badgerelayv1.Batch) (done func()) {
	if a.cfg.TracerProvider == nil {
		return func() {}
	}
	ctx, span := a.cfg.TracerProvider.Tracer("badgerelay/relay/agent").Start(ctx, "send batch",
		trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(attribute.Int("badgerelay.batch.events", len(batch.GetEvents()))))
	if span.SpanContext().IsSampled() {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(ctx, carrier)
		batch.Traceparent = carrier["traceparent"]
	}
	return func() { span.End() }
}
