package ingest

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

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

// TestPublicCallsOfOneAddress has one address open as many calls of health as it
// may, over several connections: it gets no more, and others get theirs.
func TestPublicCallsOfOneAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.MaxAddressConnections = 3 })
		from := func(address string) grpc_health_v1.HealthClient {
			l := bufconn.Listen(1 << 16)
			go func() { _ = w.server.grpc.Serve(w.server.limiter.limit(addressedListener{l, address})) }() // ends with the server
			conn := w.dial(func(unused net.Conn) net.Conn {
				_ = unused.Close() // it would come from nowhere
				c, err := l.Dial()
				if err != nil {
					t.Error(err)
				}
				return c
			})
			t.Cleanup(func() { _ = conn.Close() })
			return grpc_health_v1.NewHealthClient(conn)
		}
		watch := func(ctx context.Context, c grpc_health_v1.HealthClient) error {
			stream, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
		stranger := from("192.0.2.1:1000")
		first, leave := context.WithCancel(t.Context())
		defer leave()
		for _, err := range []error{watch(first, stranger), watch(t.Context(), stranger), watch(t.Context(), from("192.0.2.1:1001"))} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := watch(t.Context(), stranger); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("the address' call beyond the limit: %v, want it refused", err)
		}
		if _, err := from("192.0.2.2:1000").Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Errorf("another address: %v", err)
		}
		leave()
		synctest.Wait()
		if err := watch(t.Context(), stranger); err != nil {
			t.Errorf("when one of the address' has left: %v", err)
		}
	})
}
