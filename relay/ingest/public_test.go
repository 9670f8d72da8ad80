package ingest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "badgerelay/proto/badgerelay/v1"
)

// TestStrangersAreNotWaitedFor opens every method without a token, and never
// sends a message: the relay holds no call open for that.
func TestStrangersAreNotWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, method := range allMethods() {
			stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.RecvMsg(new(pb.PublishResponse)); status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s: got %v before any message, want it refused", method, err)
			}
		}
	})
}

// TestPublicCallsAreBounded opens as many calls of health and reflection as
// there may be connections, and one more.
func TestPublicCallsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer, c.MaxConnections = metrics, 3 })
		health := grpc_health_v1.NewHealthClient(w.conn)
		first, leave := context.WithCancel(t.Context())
		defer leave()
		for _, ctx := range []context.Context{first, t.Context()} {
			if watch, err := health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			} else if _, err := watch.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := grpc_reflection_v1.NewServerReflectionClient(w.conn).ServerReflectionInfo(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		check := func() error {
			_, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			return err
		}
		if err := check(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("the call beyond the limit: %v, want it refused", err)
		}
		if watch, err := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Error(err)
		} else if _, err := watch.Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("the stream beyond the limit: %v, want it refused", err)
		}
		wantTransportRefusals(t, metrics, "beyond the limit", map[string]float64{refusedPublic: 2})
		if _, err := w.publish(w.enrol("fabrikam.com", testKey(0)).ctx(), &pb.Event{Mailbox: "ann"}); err != nil {
			t.Errorf("an agent beside: %v", err)
		}
		leave()
		synctest.Wait()
		if err := check(); err != nil {
			t.Errorf("when one has left: %v", err)
		}
	})
}
