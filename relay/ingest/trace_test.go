package ingest

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
		a := w.enrol("fabrikam.com", testKey(0)).connect()
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
		if n := w.server.tracer.open; n != 0 {
			t.Errorf("%d batches are still traced", n)
		}
	})
}

// TestTraceEndsWithItsBatch has an agent allow a long settlement delay: a batch's trace
// is no longer for it, and has no later batch's push.
func TestTraceEndsWithItsBatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var sampled atomic.Bool
		provider, spans := recorded(samplerFunc(sampled.Load))
		w := newWorld(t, func(c *Config) { c.TracerProvider = provider })
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "1")
		a := o.connect()
		a.send(settlementDelay(10 * time.Second))
		synctest.Wait()
		const soon = settleDelay + settleTick
		for i := range uint64(5) {
			sampled.Store(i > 0) // what is not traced waits before what is
			w.setMute(i%2 == 0)  // half are answered when what was there has been sent
			a.batch(i+1, &pb.Event{Mailbox: "ann", UnreadCount: uint32(i)})
			time.Sleep(soon)
			w.setMute(false)
			time.Sleep(soon)
		}
		pushes := 0
		for _, s := range spans.Ended() {
			if took := s.EndTime().Sub(s.StartTime()); s.Name() == "batch" && took > 2*soon {
				t.Errorf("a batch lasted %v", took)
			}
			if s.Name() == "apns" {
				pushes++
			}
		}
		if pushes != 4 {
			t.Errorf("%d pushes are told of 4 batches, want one of each", pushes)
		}
	})
}

// samplerFunc samples what it is true for.
type samplerFunc func() bool

func (f samplerFunc) ShouldSample(sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if f() {
		return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
	}
	return sdktrace.SamplingResult{Decision: sdktrace.Drop}
}

func (samplerFunc) Description() string { return "a test's" }

// TestTraceparentThatIsNone sends texts that are no traceparent: they count as
// none, and the batch as any other.
func TestTraceparentThatIsNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		provider, spans := recorded(sdktrace.AlwaysSample())
		w := newWorld(t, func(c *Config) { c.TracerProvider = provider })
		a := w.enrol("fabrikam.com", testKey(0)).connect()
		none := []string{"\xff", "x", "00-0-0-00", "00-\xff", strings.Repeat("0", 1<<16)}
		for i, text := range none {
			m := batchOf(uint64(i)+1, &pb.Event{Mailbox: "ann"})
			m.GetBatch().Traceparent = text
			a.send(m)
			a.settled(uint64(i) + 1)
		}
		synctest.Wait()
		for _, s := range spans.Ended() {
			if s.Name() == "batch" && s.Parent().IsValid() {
				t.Errorf("a batch is a part of trace %v", s.Parent())
			}
		}
		if got := len(names(spans)); got != len(none) {
			t.Errorf("%d spans, want %d batches", got, len(none))
		}
	})
}

func TestTracedBatchesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		provider, spans := recorded(sdktrace.AlwaysSample())
		w := newWorld(t, func(c *Config) { c.TracerProvider = provider })
		tracer, events := w.server.tracer, []relay.Event{{Mailbox: "ann"}}
		var l tracedBatches
		const organizations = mostTraced / mostTracedOfOne
		for org := range relay.OrganizationID(organizations) {
			for range mostTracedOfOne {
				b := tracer.batch(t.Context(), org, events)
				if b == nil {
					t.Fatalf("nothing of organization %d is traced, because of the others", org)
				}
				l.add(b)
			}
			if tracer.batch(t.Context(), org, events) != nil {
				t.Fatalf("more than %d batches of an organization are traced at once", mostTracedOfOne)
			}
		}
		if tracer.batch(t.Context(), organizations, events) != nil {
			t.Errorf("more than %d batches are traced at once", mostTraced)
		}
		l.close()
		if again := tracer.batch(t.Context(), 0, events); again == nil {
			t.Error("nothing is traced any more")
		} else {
			l.add(again) // by a reader that outlives its stream
		}
		const began = mostTraced + organizations + 1 + 1
		if len(spans.Ended()) != began || tracer.open != 0 || len(tracer.orgs) != 0 {
			t.Errorf("%d spans have ended, %d of %d organizations are traced; want all %d ended", len(spans.Ended()), tracer.open, len(tracer.orgs), began)
		}
	})
}

// TestTraceTellsOfItsOwnPushes answers pushes that were written before, when and
// after the batch came, and one that never was.
func TestTraceTellsOfItsOwnPushes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		provider, spans := recorded(sdktrace.AlwaysSample())
		w := newWorld(t, func(c *Config) { c.TracerProvider = provider })
		b := w.server.tracer.batch(t.Context(), 1, []relay.Event{{Mailbox: "ann"}})
		defer b.end("")
		for _, c := range []struct {
			written time.Time
			want    int
		}{{b.began.Add(-1), 0}, {b.began, 1}, {b.began.Add(1), 2}, {time.Time{}, 3}} {
			b.answered(t.Context(), relay.PushAnswer{App: testApp, WrittenAt: c.written})
			if got := len(names(spans)); got != 2*c.want {
				t.Errorf("written %v: got %d spans, want %d pushes of two", c.written, got, c.want)
			}
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
