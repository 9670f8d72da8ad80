package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent"
)

// collected is a real OTLP receiver that keeps what it is sent.
type collected struct {
	collector.UnimplementedTraceServiceServer

	mu    sync.Mutex // guards spans
	spans []*otlp.Span
}

func (c *collected) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// collect starts a receiver and has every relay that is started send there.
func collect(t *testing.T) *collected {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collected{}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) }) // ends with Stop
	t.Cleanup(func() { server.Stop(); wg.Wait() })
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	return c
}

// path returns the names of the spans of a trace, each with its parents'.
func (c *collected) paths(trace string) map[string]*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	byID := map[string]*otlp.Span{}
	for _, s := range c.spans {
		byID[string(s.GetSpanId())] = s
	}
	paths := map[string]*otlp.Span{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) != trace {
			continue
		}
		path := s.GetName()
		for up := byID[string(s.GetParentSpanId())]; up != nil; up = byID[string(up.GetParentSpanId())] {
			path = up.GetName() + " > " + path
		}
		paths[path] = s
	}
	return paths
}

func (c *collected) wantPaths(t *testing.T, trace string, want ...string) {
	t.Helper()
	got := c.paths(trace)
	for _, path := range want {
		if got[path] == nil {
			t.Errorf("trace %s has no %s; it has %v", trace, path, got)
		}
	}
	for _, s := range got {
		for _, secret := range []string{"ann", "bob", "fabrikam", numberedDevice(t, 1).Hex()} {
			if strings.Contains(s.String(), secret) {
				t.Errorf("span %s names %q: %v", s.GetName(), secret, s)
			}
		}
		if s.GetStartTimeUnixNano() > s.GetEndTimeUnixNano() {
			t.Errorf("span %s ends before it starts", s.GetName())
		}
	}
}

const agentsTrace = "0af7651916cd43dd8448eb211c80319c"

func TestTraceGoesFromTheAgentToApple(t *testing.T) {
	spans := collect(t)
	r := startRelay(t)
	r.subscribe(t, "ann@fabrikam.com", 1)

	// An agent that traces: every batch of its stream.
	exporter, err := otlptracegrpc.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := make(chan string, 1)
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter), sdktrace.WithSpanProcessor(traceIDs(ids)))
	r.streamCount(t, provider, "ann@fabrikam.com", 7)
	trace := <-ids

	// A client that only has the header, of a call.
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+r.token(t), "traceparent", "00-"+agentsTrace+"-b7ad6b7169203331-01")
	if _, err := pb.NewRelayServiceClient(r.dial(t)).Publish(ctx, &pb.PublishRequest{AgentId: "test", Events: []*pb.Event{{Mailbox: "ann@fabrikam.com", UnreadCount: 8}}}); err != nil {
		t.Fatal(err)
	}
	if metrics := openMetrics(t, "http://"+r.Ops+"/metrics"); !strings.Contains(metrics, `# {trace_id="`+agentsTrace+`"}`) {
		t.Error("no bucket has the trace as its exemplar")
	}

	r.stop(t) // sends what is left
	spans.wantPaths(t, trace, "send batch > batch > fan-out > apns")
	call := "badgerelay.v1.RelayService/Publish > batch > fan-out > apns"
	spans.wantPaths(t, agentsTrace, call)
	for _, a := range spans.paths(agentsTrace)[call].GetAttributes() {
		if a.GetKey() == "badgerelay.apns.reason" && a.GetValue().GetStringValue() != "accepted" {
			t.Errorf("apns says %v", a.GetValue())
		}
	}
}

// streamCount sends a count over a stream, as the agent's library does, and
// waits until it is settled.
func (r *enrolled) streamCount(t *testing.T, tracing trace.TracerProvider, mailbox string, unread uint32) {
	t.Helper()
	a, err := agent.New(agent.Config{
		Addresses: []string{r.address}, TLS: &tls.Config{RootCAs: roots(t, r.caFile)}, Token: r.issuer, AgentID: "test", Name: "test", TracerProvider: tracing,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx) }) // ends with ctx
	defer wg.Wait()
	defer cancel()
	if err := a.Set(mailbox, unread, 1, 1); err != nil {
		t.Fatal(err)
	}
	patient, enough := context.WithTimeout(ctx, testTimeout)
	defer enough()
	if err := a.WaitSettled(patient); err != nil {
		t.Fatal(err)
	}
}

// traceIDs tells the id of each trace that begins.
type traceIDs chan<- string

func (c traceIDs) OnStart(_ context.Context, s sdktrace.ReadWriteSpan) {
	c <- s.SpanContext().TraceID().String()
}
func (traceIDs) OnEnd(sdktrace.ReadOnlySpan)      {}
func (traceIDs) Shutdown(context.Context) error   { return nil }
func (traceIDs) ForceFlush(context.Context) error { return nil }

// openMetrics gets what Prometheus asks for, which can carry exemplars.
func openMetrics(t *testing.T, url string) string {
	t.Helper()
	return getWith(t, &http.Client{Transport: accepting("application/openmetrics-text; version=1.0.0")}, url)
}

// accepting is a transport that asks for one kind of answer.
type accepting string

// RoundTrip implements http.RoundTripper.
func (a accepting) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept", string(a))
	return http.DefaultTransport.RoundTrip(r)
}
