package ingest

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "badgerelay/proto/badgerelay/v1"
)

func (w *world) publish(ctx context.Context, events ...*pb.Event) (*pb.PublishResponse, error) {
	return pb.NewRelayServiceClient(w.conn).Publish(ctx, &pb.PublishRequest{AgentId: "test", Events: events})
}

func TestPublish(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		answer, err := w.publish(o.ctx(),
			&pb.Event{Mailbox: "ann", UnreadCount: 1}, &pb.Event{Mailbox: ""},
			&pb.Event{Mailbox: "bob"}, &pb.Event{Mailbox: strings.Repeat("ü", 129)})
		if err != nil {
			t.Fatal(err)
		}
		want := []pb.Outcome{pb.Outcome_OUTCOME_DELIVERED, pb.Outcome_OUTCOME_REJECTED, pb.Outcome_OUTCOME_NO_SUBSCRIPTION, pb.Outcome_OUTCOME_REJECTED}
		for i, o := range answer.GetOutcomes() {
			if o.GetSequence() != uint64(i)+1 || o.GetOutcome() != want[i] {
				t.Errorf("event %d: got %v, want %v", i+1, o, want[i])
			}
		}
		if len(answer.GetOutcomes()) != len(want) {
			t.Errorf("got %d outcomes, want %d", len(answer.GetOutcomes()), len(want))
		}
	})
}

func TestPublishAnswersBeforeItsDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.setMute(true)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		for timeout, want := range map[time.Duration]time.Duration{
			0: 30 * time.Second, 8 * time.Second: 7500 * time.Millisecond, time.Second: 900 * time.Millisecond,
		} {
			ctx, cancel := o.ctx(), context.CancelFunc(func() {})
			if timeout > 0 {
				ctx, cancel = context.WithTimeout(ctx, timeout)
			}
			start := time.Now()
			answer, err := w.publish(ctx, &pb.Event{Mailbox: "ann", UnreadCount: 1}, &pb.Event{Mailbox: ""})
			if err != nil {
				t.Fatalf("with %v: %v", timeout, err)
			}
			got := time.Since(start)
			if diff := (got - want).Abs(); diff > 10*time.Millisecond { // the deadline travels in coarse units
				t.Errorf("with %v: answered after %v, want %v", timeout, got, want)
			}
			if o := answer.GetOutcomes(); o[0].GetOutcome() != pb.Outcome_OUTCOME_PENDING || o[1].GetOutcome() != pb.Outcome_OUTCOME_REJECTED {
				t.Errorf("with %v: got %v, want the first pending", timeout, o)
			}
			cancel()
		}
	})
}

func TestPublishRules(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.MaxBatchEvents = 10 })
		ctx := w.enrol("fabrikam.com", testKey(0)).ctx()
		client := pb.NewRelayServiceClient(w.conn)
		_, err := client.Publish(ctx, &pb.PublishRequest{AgentId: "test"})
		wantField(t, err, "events")
		_, err = client.Publish(ctx, &pb.PublishRequest{Events: make([]*pb.Event, 1)})
		wantField(t, err, "agent_id")
		_, err = client.Publish(ctx, &pb.PublishRequest{AgentId: "test", Events: make([]*pb.Event, 11)})
		wantRefusal(t, err, codes.InvalidArgument, "BATCH_TOO_LARGE")
		if got := metadataOf(err)["field"]; got != "events" {
			t.Errorf("too many events: got field %q, want events", got)
		}
		_, err = client.Publish(ctx, &pb.PublishRequest{AgentId: "test", Events: make([]*pb.Event, 1), Agent: &pb.Agent{}})
		wantField(t, err, "agent.name")
		_, err = client.Publish(ctx, &pb.PublishRequest{AgentId: "test", Events: make([]*pb.Event, 1), Agent: &pb.Agent{Name: "m", Product: "Exchange", ProductVersion: "14.3"}})
		wantRefusal(t, err, codes.FailedPrecondition, "PRODUCT_TOO_OLD")
	})
}

func TestPublishBeyondTheQuota(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CallsPerSecond = 1 })
		o, other := w.enrol("fabrikam.com", testKey(0)), w.enrol("contoso.com", testKey(1))
		ctx := o.ctx()
		var err error
		for range 3 {
			_, err = w.publish(ctx, &pb.Event{Mailbox: "ann"})
		}
		wantRefusal(t, err, codes.ResourceExhausted, "QUOTA_EXCEEDED")
		retry := time.Duration(0)
		for _, d := range status.Convert(err).Details() {
			if info, ok := d.(*errdetails.RetryInfo); ok {
				retry = info.GetRetryDelay().AsDuration()
			}
		}
		if retry <= 0 || retry > time.Second {
			t.Fatalf("told to come back in %v, want a second at most", retry)
		}
		if _, err := w.publish(other.ctx(), &pb.Event{Mailbox: "ann"}); err != nil {
			t.Errorf("another organization: %v", err)
		}
		time.Sleep(retry)
		if _, err := w.publish(ctx, &pb.Event{Mailbox: "ann"}); err != nil {
			t.Errorf("after the time that was told: %v", err)
		}
	})
}

func TestLimitsReload(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CallsPerSecond = -1; c.MaxStreams = -1 })
		o := w.enrol("fabrikam.com", testKey(0))
		for range 5 {
			if _, err := w.publish(o.ctx(), &pb.Event{Mailbox: "ann"}); err != nil {
				t.Fatalf("without a quota: %v", err)
			}
		}
		w.server.SetLimits(Config{CallsPerSecond: 1, MaxOrganizationStreams: 1})
		var err error
		for range 3 {
			_, err = w.publish(o.ctx(), &pb.Event{Mailbox: "ann"})
		}
		wantRefusal(t, err, codes.ResourceExhausted, "QUOTA_EXCEEDED")
		w.server.SetLimits(Config{CallsPerSecond: -1})
		if _, err := w.publish(o.ctx(), &pb.Event{Mailbox: "ann"}); err != nil {
			t.Errorf("after the quota was lifted: %v", err)
		}
	})
}
