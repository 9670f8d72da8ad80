package daemon

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// sink is a collector that counts spans.
type sink struct {
	collector.UnimplementedTraceServiceServer
	names chan string
}

func (s *sink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				s.names <- span.GetName()
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestTracesGoWhereTheStandardVariablesSay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{names: make(chan string, 10)}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	go func() { _ = server.Serve(l) }() // ends with Stop
	defer server.Stop()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())

	tr, err := newTracing(t.Context(), 1, "test", "here", slog.New(slog.DiscardHandler))
	if err != nil || tr == nil {
		t.Fatalf("newTracing() = %v, %v", tr, err)
	}
	_, span := tr.Tracer("test").Start(t.Context(), "batch")
	span.End()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sendTraces(ctx, tr); err != nil {
		t.Errorf("sendTraces() = %v", err)
	}
	select {
	case name := <-s.names:
		if name != "batch" {
			t.Errorf("span %q, want batch", name)
		}
	case <-time.After(10 * time.Second):
		t.Error("no span arrived")
	}
}

func TestTracingIsOffUnlessAsked(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_SDK_DISABLED": "true"}, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_TRACES_EXPORTER": "none"}, false},
	} {
		if got := tracingWanted(func(k string) string { return tt.env[k] }); got != tt.want {
			t.Errorf("with %v tracing is %v, want %v", tt.env, got, tt.want)
		}
	}
}
