package ingest

import (
	"slices"
	"testing"
	"testing/synctest"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// recorded is a tracer provider that keeps what ended.
func recorded(sampler sdktrace.Sampler) (*sdktrace.TracerProvider, *tracetest.SpanRecorder) {
	r := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithSpanProcessor(r)), r
}

func names(r *tracetest.SpanRecorder) []string {
	var all []string
	for _, s := range r.Ended() {
		if s.Name() == "batch" || s.Name() == "fan-out" || s.Name() == "apns" {
			all = append(all, s.Name()+" "+s.Status().Description)
		}
	}
	slices.Sort(all)
	return all
}

func TestEveryBatchHasATraceOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		provider, spans := recorded(sdktrace.AlwaysSample())
		w := newWorld(t, func(c *Config) { c.TracerProvider = provider })
		a := w.enrol("fabrikam.com", testKey(0)).greet()
		a.batch(1, &pb.Event{Mailbox: "ann"})
		a.settled(1)
		a.batch(2, &pb.Event{Mailbox: "bob"})
		a.settled(2)
		synctest.Wait()
		if got, want := names(spans), []string{"batch ", "batch "}; !slices.Equal(got, want) {
			t.Fatalf("spans %q, want %q: nobody is subscribed", got, want)
		}
		first, second := spans.Ended()[0].SpanContext(), spans.Ended()[1].SpanContext()
		if first.TraceID() == second.TraceID() {
			t.Error("two batches of a stream share a trace, which would last for days")
		}
		if n := w.server.tracer.open.Load(); n != 0 {
			t.Errorf("%d batches are still traced", n)
		}
	})
}

func TestTracedBatchesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		provider, spans := recorded(sdktrace.AlwaysSample())
		w := newWorld(t, func(c *Config) { c.TracerProvider = provider })
		o := w.enrol("fabrikam.com", testKey(0))
		events := []relay.Event{{Mailbox: "ann"}}
		var open []*tracedBatch
		for range mostTraced {
			open = append(open, w.server.tracer.batch(o.ctx(), o.id, events))
		}
		if w.server.tracer.batch(o.ctx(), o.id, events) != nil {
			t.Errorf("more than %d batches are traced at once", mostTraced)
		}
		var l tracedBatches
		for _, b := range open {
			l.add(b)
		}
		l.close()
		if again := w.server.tracer.batch(o.ctx(), o.id, events); again == nil {
			t.Error("nothing is traced any more")
		} else {
			l.add(again) // by a reader that outlives its stream
		}
		if n := w.server.tracer.open.Load(); n != 0 || len(spans.Ended()) != mostTraced+2 {
			t.Errorf("%d batches are traced, %d spans have ended; want all %d", n, len(spans.Ended()), mostTraced+2)
		}
	})
}

// BenchmarkTracing is what tracing costs a batch that is not traced.
func BenchmarkTracing(b *testing.B) {
	m := &streamRequest{first: 1, events: make([]relay.Event, 256)}
	w := newWorld(b)
	unsampled, _ := recorded(sdktrace.ParentBased(sdktrace.NeverSample()))
	for name, tr := range map[string]*tracer{"off": nil, "unsampled": newTracer(&Config{TracerProvider: unsampled, Relay: w.relay})} {
		b.Run("tracing="+name, func(b *testing.B) {
			var l tracedBatches
			b.ReportAllocs()
			for b.Loop() {
				l.add(tr.streamed(b.Context(), 1, m))
				l.settled(256)
			}
		})
	}
}
