package ingest

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	pb "badgerelay/proto/badgerelay/v1"
)

// drain receives up to the drain notice.
func (a *agent) drain() *pb.Drain {
	a.t.Helper()
	for {
		if d := a.receive().GetDrain(); d != nil {
			return d
		}
	}
}

func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.setMute(true)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		idle, busy, silent := o.connect(), o.connect(), w.open(o.token(time.Hour))
		next := o.watch()
		wantChanges(t, next, true, "ann+ ")
		busy.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1}, &pb.Event{Mailbox: ""})
		busy.receive() // the second is rejected, the first pending
		synctest.Wait()

		start := time.Now()
		w.stop()
		if got := busy.drain().GetGrace().AsDuration(); got != 5*time.Second {
			t.Errorf("got a grace of %v, want 5 s", got)
		}
		idle.drain()
		idle.ends(codes.Unavailable, "DRAINING")
		silent.ends(codes.Unavailable, "DRAINING")
		_, err := next()
		wantRefusal(t, err, codes.Unavailable, "DRAINING")
		if got := time.Since(start); got != 0 {
			t.Errorf("those with nothing unsettled ended after %v, want at once", got)
		}
		busy.batch(3, &pb.Event{Mailbox: ""}) // too late: dropped, not settled
		busy.ends(codes.Unavailable, "DRAINING")
		if got := time.Since(start); got != 5*time.Second {
			t.Errorf("the busy one ended after %v, want the grace of 5 s", got)
		}
		if l := w.relay.Ledger(); l.Accepted != 2 {
			t.Errorf("%d events were accepted, want none after the notice", l.Accepted)
		}
		<-w.stopped
		if got := time.Since(start); got > 6*time.Second {
			t.Errorf("stopped after %v", got)
		}
	})
}

func TestDrainReportsWhatSettles(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.setMute(true)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		o.subscribe("bob", "b")
		a := o.connect()
		a.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1})
		synctest.Wait()
		w.stop()
		a.drain()
		time.Sleep(2 * time.Second)
		if _, err := w.publish(o.ctx(), &pb.Event{Mailbox: "bob"}); status.Code(err) != codes.Unavailable {
			t.Errorf("a call while draining: got %v, want Unavailable", err)
		}
		start := time.Now()
		w.setMute(false)
		if got := a.receive().GetSettlement().GetThrough(); got != 1 {
			t.Errorf("settled through %d, want 1", got)
		}
		a.ends(codes.Unavailable, "DRAINING")
		if got := time.Since(start); got != 0 {
			t.Errorf("ended after %v, want at once when all has settled", got)
		}
	})
}

func TestDrainAnswersPublish(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.setMute(true)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		time.AfterFunc(time.Second, w.stop)
		start := time.Now()
		answer, err := w.publish(o.ctx(), &pb.Event{Mailbox: "ann", UnreadCount: 1})
		if err != nil || answer.GetOutcomes()[0].GetOutcome() != pb.Outcome_OUTCOME_PENDING {
			t.Errorf("got %v, %v, want it pending", answer, err)
		}
		if got := time.Since(start); got != 6*time.Second {
			t.Errorf("answered after %v, want when the grace ended", got)
		}
	})
}

func TestDrainBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.DrainGrace = time.Hour })
		w.setMute(true)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		a := o.connect()
		a.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		w.server.Drain(ctx)
		w.server.Drain(ctx) // again: nothing
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("drained for %v, want the 3 s of the budget", got)
		}
		<-w.stopped
	})
}

func TestHealth(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		client := grpc_health_v1.NewHealthClient(w.conn)
		check := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
			t.Helper()
			for _, service := range []string{"", "badgerelay.v1.RelayService", "badgerelay.v1.SubscriptionService"} {
				m, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
				if err != nil || m.GetStatus() != want {
					t.Errorf("%q: got %v, %v, want %v", service, m.GetStatus(), err, want)
				}
			}
		}
		check(grpc_health_v1.HealthCheckResponse_SERVING)
		w.server.SetReady(false)
		check(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		w.server.SetReady(true)

		watch, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		wantHealth(t, watch.Recv, grpc_health_v1.HealthCheckResponse_SERVING)
		start := time.Now()
		w.stop()
		wantHealth(t, watch.Recv, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		<-w.stopped
		if got := time.Since(start); got > 5*time.Second {
			t.Errorf("a watch of health held the stop up for %v", got)
		}
		w.server.SetReady(true) // too late to matter
	})
}

func wantHealth(t *testing.T, receive func() (*grpc_health_v1.HealthCheckResponse, error), want grpc_health_v1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	m, err := receive()
	if err != nil || m.GetStatus() != want {
		t.Errorf("got %v, %v, want %v", m.GetStatus(), err, want)
	}
}

func TestReflection(t *testing.T) {
	for _, disabled := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.DisableReflection = disabled })
			v1, err := grpc_reflection_v1.NewServerReflectionClient(w.conn).ServerReflectionInfo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = v1.Send(&grpc_reflection_v1.ServerReflectionRequest{
				MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "badgerelay.v1.RelayService"},
			})
			m, err := v1.Recv()
			if disabled && status.Code(err) != codes.Unimplemented || !disabled && (err != nil || m.GetFileDescriptorResponse() == nil) {
				t.Errorf("disabled %v: got %v, %v", disabled, m, err)
			}
			alpha, err := grpc_reflection_v1alpha.NewServerReflectionClient(w.conn).ServerReflectionInfo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = alpha.Send(&grpc_reflection_v1alpha.ServerReflectionRequest{
				MessageRequest: &grpc_reflection_v1alpha.ServerReflectionRequest_ListServices{},
			})
			if _, err := alpha.Recv(); disabled != (status.Code(err) == codes.Unimplemented) {
				t.Errorf("disabled %v, v1alpha: got %v", disabled, err)
			}
		})
	}
}

func TestRunTellsOfAFailedListener(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		s, err := New(Config{Relay: w.relay, Registry: w.registry, Validator: w.validator, DrainGrace: -1})
		if err != nil {
			t.Fatal(err)
		}
		closed := bufconn.Listen(1)
		_ = closed.Close()
		if err := s.Run(t.Context(), closed); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the listener's error", err)
		}
	})
}

func TestConfigReportsEverything(t *testing.T) {
	_, err := New(Config{MaxBatchEvents: 20_000, MinimumVersions: map[string]string{"X": "y"}})
	if err == nil {
		t.Fatal("taken")
	}
	for _, part := range []string{"relay", "registry", "validator", "MaxBatchEvents", `"y"`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not tell of %s", err, part)
		}
	}
}

// TestDrainDoesNotWaitForWhoSaysNothing has a connection begin, and no more.
func TestDrainDoesNotWaitForWhoSaysNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		nc, err := w.listener.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close() // the relay has closed it
		synctest.Wait()
		began := time.Now()
		w.stop()
		<-w.stopped
		if took := time.Since(began); took != 0 {
			t.Errorf("the drain took %v, want no wait", took)
		}
	})
}
