package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fakeCalls is what a scripted relay answers to calls that are not streams.
type fakeCalls struct {
	tokens      []string // of each call
	publish     func(*badgerelayv1.PublishRequest) (*badgerelayv1.PublishResponse, error)
	subscribe   func(*badgerelayv1.SubscribeRequest) (*badgerelayv1.SubscribeResponse, error)
	unsubscribe func(*badgerelayv1.UnsubscribeRequest) (*badgerelayv1.UnsubscribeResponse, error)
	list        func(*badgerelayv1.ListSubscriptionsRequest) (*badgerelayv1.ListSubscriptionsResponse, error)
	watch       func(grpc.ServerStreamingServer[badgerelayv1.WatchMailboxesResponse]) error
}

func (c *fakeCalls) note(ctx context.Context) {
	md, _ := metadata.FromIncomingContext(ctx)
	c.tokens = append(c.tokens, fmt.Sprint(md.Get("authorization")))
}

func (r *fakeRelay) Publish(ctx context.Context, request *badgerelayv1.PublishRequest) (*badgerelayv1.PublishResponse, error) {
	r.calls.note(ctx)
	return r.calls.publish(request)
}

func (r *fakeRelay) Subscribe(ctx context.Context, request *badgerelayv1.SubscribeRequest) (*badgerelayv1.SubscribeResponse, error) {
	r.calls.note(ctx)
	return r.calls.subscribe(request)
}

func (r *fakeRelay) Unsubscribe(ctx context.Context, request *badgerelayv1.UnsubscribeRequest) (*badgerelayv1.UnsubscribeResponse, error) {
	r.calls.note(ctx)
	return r.calls.unsubscribe(request)
}

func (r *fakeRelay) ListSubscriptions(ctx context.Context, request *badgerelayv1.ListSubscriptionsRequest) (*badgerelayv1.ListSubscriptionsResponse, error) {
	r.calls.note(ctx)
	return r.calls.list(request)
}

func (r *fakeRelay) WatchMailboxes(_ *badgerelayv1.WatchMailboxesRequest, stream grpc.ServerStreamingServer[badgerelayv1.WatchMailboxesResponse]) error {
	r.calls.note(stream.Context())
	return r.calls.watch(stream)
}

func client(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

func TestClientPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		relay.calls.publish = func(r *badgerelayv1.PublishRequest) (*badgerelayv1.PublishResponse, error) {
			if got := r.GetAgent().GetProduct(); got != "Test" {
				t.Errorf("product %q, want Test", got)
			}
			var out []*badgerelayv1.EventOutcome
			for i, e := range r.GetEvents() {
				o := outcome(uint64(i+1), badgerelayv1.Outcome_OUTCOME_DELIVERED)
				if e.GetMailbox() == "bob" {
					o = &badgerelayv1.EventOutcome{Sequence: 2, Outcome: badgerelayv1.Outcome_OUTCOME_UNDELIVERABLE, Detail: "gone",
						Removed: []*badgerelayv1.RemovedSubscription{{App: "mail", DeviceToken: "ab", Reason: "Unregistered"}}}
				}
				out = append(out, o)
			}
			return &badgerelayv1.PublishResponse{Outcomes: out}, nil
		}
		c := client(t, network.config("a"))
		got, err := c.Publish(t.Context(), []Event{{Mailbox: "ann", Unread: 1}, {Mailbox: "bob", Unread: 2, ObservedAt: time.Now()}})
		want := []Result{
			{Mailbox: "ann", Unread: 1, Outcome: OutcomeDelivered},
			{Mailbox: "bob", Unread: 2, Outcome: OutcomeUndeliverable, Detail: "gone",
				Removed: []RemovedSubscription{{App: "mail", Device: "ab", Reason: "Unregistered"}}},
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("Publish = %+v, %v, want %+v", got, err, want)
		}
		relay.calls.publish = func(*badgerelayv1.PublishRequest) (*badgerelayv1.PublishResponse, error) {
			return &badgerelayv1.PublishResponse{}, nil
		}
		if _, err := c.Publish(t.Context(), []Event{{Mailbox: "ann"}}); Explain(err).Kind != FailureProtocol {
			t.Fatalf("no outcome for an event: %v, want a failure of protocol", err)
		}
	})
}

func TestClientReplacesRefusedTokenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		refuse := 1
		relay.calls.unsubscribe = func(*badgerelayv1.UnsubscribeRequest) (*badgerelayv1.UnsubscribeResponse, error) {
			if refuse--; refuse >= 0 {
				return nil, refusal(codes.Unauthenticated, "TOKEN_EXPIRED")
			}
			return &badgerelayv1.UnsubscribeResponse{}, nil
		}
		cfg := network.config("a")
		cfg.Token = &counted{life: time.Hour}
		c := client(t, cfg)
		if _, err := c.Unsubscribe(t.Context(), Registration{Mailbox: "ann", App: "mail", Device: "ab"}); err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(relay.calls.tokens), "[[Bearer token-1] [Bearer token-2]]"; got != want {
			t.Fatalf("tokens %v, want %v", got, want)
		}
		refuse = 5
		_, err := c.Unsubscribe(t.Context(), Registration{Mailbox: "ann", App: "mail", Device: "ab"})
		if f := Explain(err); f.Kind != FailureToken || f.Reason != "TOKEN_EXPIRED" || len(relay.calls.tokens) != 4 {
			t.Fatalf("refused twice: %+v after %d calls, want TOKEN_EXPIRED after 4", f, len(relay.calls.tokens))
		}
	})
}

func TestClientGoesToTheNextRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		b := network.start("b")
		created := time.Now().UTC()
		b.calls.subscribe = func(r *badgerelayv1.SubscribeRequest) (*badgerelayv1.SubscribeResponse, error) {
			return &badgerelayv1.SubscribeResponse{Created: true, LeftMailboxes: []string{"bob"}, Subscription: &badgerelayv1.Subscription{
				Mailbox: r.GetMailbox(), App: r.GetApp(), DeviceToken: r.GetDeviceToken(), CreatedAt: timestamppb.New(created)}}, nil
		}
		c := client(t, network.config("a", "b"))
		got, err := c.Subscribe(t.Context(), Registration{Mailbox: "ann", App: "mail", Device: "ab"})
		want := Subscribed{Created: true, LeftMailboxes: []string{"bob"}, Subscription: Subscription{Mailbox: "ann", App: "mail", Device: "ab", CreatedAt: created}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("Subscribe = %+v, %v, want %+v", got, err, want)
		}
		network.stop("b")
		if _, err := c.Subscribe(t.Context(), Registration{Mailbox: "ann", App: "mail", Device: "ab"}); status.Code(err) != codes.Unavailable {
			t.Fatalf("with no relay: %v, want Unavailable", err)
		}
	})
}

// A relay that says nothing has its share of a call's time, and the next one the rest.
func TestClientLeavesASilentRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		b := network.start("b")
		b.calls.unsubscribe = func(*badgerelayv1.UnsubscribeRequest) (*badgerelayv1.UnsubscribeResponse, error) {
			return &badgerelayv1.UnsubscribeResponse{}, nil
		}
		c := client(t, network.config(silent, "b"))
		for n, want := range []time.Duration{5 * time.Second, 0} { // the second call goes where the first one went
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			began := time.Now()
			_, err := c.Unsubscribe(ctx, Registration{Mailbox: "ann", App: "mail", Device: "ab"})
			if took := time.Since(began); err != nil || took != want {
				t.Errorf("call %d took %v, %v; want %v", n, took, err, want)
			}
			cancel()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := client(t, network.config(silent, silent)).Unsubscribe(ctx, Registration{Mailbox: "ann", App: "mail", Device: "ab"})
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("with no relay that answers: %v, want DeadlineExceeded", err)
		}
	})
}

func TestClientListPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		relay.calls.list = func(r *badgerelayv1.ListSubscriptionsRequest) (*badgerelayv1.ListSubscriptionsResponse, error) {
			switch r.GetPageToken() {
			case "":
				return &badgerelayv1.ListSubscriptionsResponse{NextPageToken: "2", Subscriptions: []*badgerelayv1.Subscription{{Mailbox: "ann"}, {Mailbox: "bob"}}}, nil
			case "2":
				return &badgerelayv1.ListSubscriptionsResponse{NextPageToken: "3", Subscriptions: []*badgerelayv1.Subscription{{Mailbox: "eve"}}}, nil
			}
			return nil, refusal(codes.Unavailable, "REGISTRY_UNAVAILABLE")
		}
		c := client(t, network.config("a"))
		var got []string
		var last error
		for s, err := range c.List(t.Context(), Filter{}) {
			got, last = append(got, s.Mailbox), err
		}
		if want := "[ann bob eve ]"; fmt.Sprint(got) != want || Explain(last).Reason != "REGISTRY_UNAVAILABLE" {
			t.Fatalf("listed %v, then %v, want %v, then REGISTRY_UNAVAILABLE", got, last, want)
		}
	})
}

func TestWatchResyncsAfterEachBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		kinds := map[string]badgerelayv1.MailboxChangeKind{
			"+": badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED,
			"-": badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_UNSUBSCRIBED,
			"<": badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_DEVICE_LEFT,
		}
		script := func(complete bool, changes ...string) *badgerelayv1.WatchMailboxesResponse {
			m := &badgerelayv1.WatchMailboxesResponse{Complete: complete}
			for _, c := range changes {
				m.Changes = append(m.Changes, &badgerelayv1.MailboxChange{Mailbox: c[1:], Kind: kinds[c[:1]]})
			}
			return m
		}
		round := 0
		relay.calls.watch = func(stream grpc.ServerStreamingServer[badgerelayv1.WatchMailboxesResponse]) error {
			round++
			if round == 1 {
				for _, m := range []*badgerelayv1.WatchMailboxesResponse{script(false, "+ann"), script(true, "+bob"), script(false, "-ann", "<bob")} {
					_ = stream.Send(m) // the test reads all of it
				}
				return refusal(codes.Unauthenticated, "TOKEN_EXPIRED")
			}
			_ = stream.Send(script(true, "+bob"))
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		cfg := network.config("a")
		cfg.Token = &counted{life: time.Hour}
		c := client(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var told []string
		note := func(kind string) func(string) { return func(m string) { told = append(told, kind+m) } }
		ended := make(chan error)
		go func() {
			ended <- c.Watch(ctx, Watcher{
				Resync: func() { told = append(told, "resync") }, Complete: func() { told = append(told, "complete") },
				Subscribed: note("+"), Unsubscribed: note("-"), Left: note("<"), Failed: func(f Failure) { told = append(told, f.Reason) },
			})
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Fatalf("Watch returned %v, want nil", err)
		}
		if got, want := fmt.Sprint(told), "[resync +ann +bob complete -ann <bob TOKEN_EXPIRED resync +bob complete]"; got != want {
			t.Fatalf("told %v, want %v", got, want)
		}
		if got, want := fmt.Sprint(relay.calls.tokens), "[[Bearer token-1] [Bearer token-2]]"; got != want {
			t.Fatalf("tokens %v, want %v", got, want)
		}
	})
}

func TestClosedClientOpensNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(t)
		first := n.start("a:1")
		n.start("b:1")
		c := client(t, n.config("a:1", "b:1"))
		first.calls.unsubscribe = func(*badgerelayv1.UnsubscribeRequest) (*badgerelayv1.UnsubscribeResponse, error) {
			if err := c.Close(); err != nil { // while a call is under way that would go on to b
				t.Errorf("close: %v", err)
			}
			return nil, status.Error(codes.Unavailable, "leaving")
		}
		if _, err := c.Unsubscribe(t.Context(), Registration{Mailbox: "m", App: "app", Device: "aa"}); err == nil {
			t.Error("a call that was cut off succeeded")
		}
		if _, err := c.Unsubscribe(t.Context(), Registration{Mailbox: "m", App: "app", Device: "aa"}); !errors.Is(err, ErrClosed) {
			t.Errorf("a call after Close: %v, want ErrClosed", err)
		}
	})
}
