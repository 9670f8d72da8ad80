package ingest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"badgerelay/auth/authtest"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
)

// TestServeTLS calls over a real socket with TLS.
func TestServeTLS(t *testing.T) {
	w := newWorld(t)
	ctx := w.enrol("fabrikam.com", testKey(0)).ctx()
	certificate, roots := serverCertificate()
	s, err := New(Config{
		Relay: w.relay, Registry: w.registry, Validator: w.validator, DrainGrace: -1,
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(serving, l); err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "relay.example.com"})))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewRelayServiceClient(conn).Publish(ctx, &pb.PublishRequest{AgentId: "test", Events: []*pb.Event{{Mailbox: "ann"}}}); err != nil {
		t.Error(err)
	}
	_ = conn.Close()
	stop()
	wg.Wait()
}

func serverCertificate() (tls.Certificate, *x509.CertPool) {
	s := authtest.NewServer("relay", time.Now().Add(time.Hour), "relay.example.com")
	return s.TLS(), s.Pool()
}

func TestMetrics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = reg })
		series := func(name string, labels map[string]string) float64 {
			t.Helper()
			value, found := sample(t, reg, name, labels)
			if !found {
				t.Errorf("there is no %s%v", name, labels)
			}
			return value
		}
		want := func(name string, labels map[string]string, want float64) {
			t.Helper()
			if got := series(name, labels); got != want {
				t.Errorf("%s%v is %v, want %v", name, labels, got, want)
			}
		}
		for number := range pb.ErrorReason_name {
			if number > 0 {
				want("ingest_refusals_total", map[string]string{"reason": service.Label(pb.ErrorReason(number))}, 0)
			}
		}
		want("ingest_calls_total", map[string]string{"method": "RelayService/Stream", "code": "OK"}, 0)
		if _, found := sample(t, reg, "ingest_calls_total", map[string]string{"code": "Unauthenticated"}); found {
			t.Error("there is a series of calls that failed before one did")
		}

		o := w.enrol("fabrikam.com", testKey(0))
		a := o.connect()
		a.batch(1, &pb.Event{Mailbox: "ann"})
		a.settled(1)
		want("ingest_streams", map[string]string{"kind": "stream"}, 1)
		want("ingest_batches_total", nil, 1)
		w.open("x").ends(codes.Unauthenticated, "TOKEN_MALFORMED")
		_ = w.callRaw(o.ctx(), pb.RelayService_Publish_FullMethodName, []byte{0xff})
		a.batch(1, &pb.Event{Mailbox: "ann"})
		a.ends(codes.InvalidArgument, "SEQUENCE_GAP")
		want("ingest_streams", map[string]string{"kind": "stream"}, 0)
		want("ingest_refusals_total", map[string]string{"reason": "token_malformed"}, 1)
		want("ingest_refusals_total", map[string]string{"reason": "sequence_gap"}, 1)
		want("ingest_refusals_total", map[string]string{"reason": "message_malformed"}, 1)
		want("ingest_calls_total", map[string]string{"method": "RelayService/Stream", "code": "Unauthenticated"}, 1)
		want("ingest_calls_total", map[string]string{"method": "RelayService/Stream", "code": "InvalidArgument"}, 1)
		want("ingest_calls_total", map[string]string{"method": "RelayService/Publish", "code": "InvalidArgument"}, 1)
	})
}

// sample returns the value of one series.
func sample(t *testing.T, g prometheus.Gatherer, name string, labels map[string]string) (float64, bool) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matching := 0
			for _, l := range m.GetLabel() {
				if labels[l.GetName()] == l.GetValue() {
					matching++
				}
			}
			if matching == len(labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true
			}
		}
	}
	return 0, false
}

// TestTraces sees that a call has a span when a tracer is given.
func TestTraces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		w := newWorld(t, func(c *Config) { c.TracerProvider = trace.NewTracerProvider(trace.WithSpanProcessor(spans)) })
		if _, err := w.publish(w.enrol("fabrikam.com", testKey(0)).ctx(), &pb.Event{Mailbox: "ann"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ended := spans.Ended()
		if len(ended) != 2 || ended[0].Name() != "batch" || ended[1].Name() != "badgerelay.v1.RelayService/Publish" {
			t.Errorf("got spans %v, want those of Publish and its batch", ended)
		}
	})
}
