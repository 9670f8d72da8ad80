package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// intrusion calls one method as one organization, aiming at what belongs to
// another: the mailbox "ann" with the device of a's. It returns what it was
// told.
type intrusion func(ctx context.Context, w *world) ([]proto.Message, error)

var (
	victim = &pb.SubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: device("a")}

	intrusions = map[string]intrusion{
		"/badgerelay.v1.RelayService/Publish": func(ctx context.Context, w *world) ([]proto.Message, error) {
			m, err := w.publish(ctx, &pb.Event{Mailbox: "ann", UnreadCount: 99, Epoch: 9, Version: 9})
			return []proto.Message{m}, err
		},
		"/badgerelay.v1.RelayService/Stream": func(ctx context.Context, w *world) ([]proto.Message, error) {
			stream, err := pb.NewRelayServiceClient(w.conn).Stream(ctx)
			if err != nil {
				return nil, err
			}
			_ = stream.Send(helloOf(&pb.Agent{Name: "mx"}))
			_ = stream.Send(batchOf(1, &pb.Event{Mailbox: "ann", UnreadCount: 99, Epoch: 9, Version: 9}))
			_ = stream.CloseSend()
			return receiveAll(stream.Recv)
		},
		"/badgerelay.v1.SubscriptionService/Subscribe": func(ctx context.Context, w *world) ([]proto.Message, error) {
			m, err := pb.NewSubscriptionServiceClient(w.conn).Subscribe(ctx, victim)
			if len(m.GetLeftMailboxes())+len(m.GetSubscription().GetOtherMailboxes()) > 0 || err == nil && !m.GetCreated() {
				w.t.Errorf("the subscription of another organization shows in %v", m)
			}
			return nil, err // what it registered is its own
		},
		"/badgerelay.v1.SubscriptionService/SetDevice": func(ctx context.Context, w *world) ([]proto.Message, error) {
			client := pb.NewSubscriptionServiceClient(w.conn)
			request := &pb.SetDeviceRequest{App: testApp, DeviceToken: device("a"), Mailboxes: []string{"ann", "bob"}}
			m, err := client.SetDevice(ctx, request)
			if err == nil && (len(m.GetAdded()) != 2 || len(m.GetRemoved())+len(m.GetKept()) > 0) {
				w.t.Errorf("the subscription of another organization shows in %v", m)
			}
			request.Mailboxes = nil
			if m, err = client.SetDevice(ctx, request); err == nil && len(m.GetRemoved()) != 2 {
				w.t.Errorf("got %v, want that its own two are gone", m)
			}
			return nil, err
		},
		"/badgerelay.v1.SubscriptionService/Unsubscribe": func(ctx context.Context, w *world) ([]proto.Message, error) {
			_, err := pb.NewSubscriptionServiceClient(w.conn).Unsubscribe(ctx,
				&pb.UnsubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: device("a")})
			if status.Code(err) != codes.NotFound {
				w.t.Errorf("got %v, want that there is none", err)
			}
			return nil, nil
		},
		"/badgerelay.v1.SubscriptionService/ListSubscriptions": func(ctx context.Context, w *world) ([]proto.Message, error) {
			client := pb.NewSubscriptionServiceClient(w.conn)
			all, err := client.ListSubscriptions(ctx, &pb.ListSubscriptionsRequest{})
			if err != nil {
				return nil, err
			}
			removed, err := client.ListSubscriptions(ctx, &pb.ListSubscriptionsRequest{Removed: true})
			if err != nil {
				return nil, err
			}
			one, err := client.ListSubscriptions(ctx, &pb.ListSubscriptionsRequest{Mailbox: "ann"})
			return []proto.Message{all, removed, one}, err
		},
		"/badgerelay.v1.SubscriptionService/GetMailbox": func(ctx context.Context, w *world) ([]proto.Message, error) {
			m, err := pb.NewSubscriptionServiceClient(w.conn).GetMailbox(ctx, &pb.GetMailboxRequest{Mailbox: "ann"})
			one := m.GetReport().GetRelays()[0]
			if one.GetCount() != nil || len(one.GetDevices())+len(one.GetStreams()) > 0 || one.GetLastDeparture() != nil || one.GetLastRefusal() != nil {
				w.t.Errorf("another organization shows in %v", m)
			}
			m.GetReport().Mailbox = "" // as it was asked for
			return []proto.Message{m}, err
		},
		"/badgerelay.v1.SubscriptionService/ImportSubscriptions": func(ctx context.Context, w *world) ([]proto.Message, error) {
			stream, err := pb.NewSubscriptionServiceClient(w.conn).ImportSubscriptions(ctx)
			if err != nil {
				return nil, err
			}
			_ = stream.Send(&pb.ImportSubscriptionsRequest{Subscriptions: []*pb.Subscription{{Mailbox: "ann", App: testApp, DeviceToken: device("a")}}})
			m, err := stream.CloseAndRecv()
			if err == nil && m.GetCreated() != 1 {
				w.t.Errorf("the subscription of another organization shows in %v", m)
			}
			return []proto.Message{m}, err
		},
		"/badgerelay.v1.SubscriptionService/WatchMailboxes": func(ctx context.Context, w *world) ([]proto.Message, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			stream, err := pb.NewSubscriptionServiceClient(w.conn).WatchMailboxes(ctx, &pb.WatchMailboxesRequest{})
			if err != nil {
				return nil, err
			}
			told, err := receiveAll(stream.Recv)
			if status.Code(err) == codes.DeadlineExceeded {
				err = nil
			}
			return told, err
		},
	}
)

func receiveAll[M proto.Message](receive func() (M, error)) ([]proto.Message, error) {
	var all []proto.Message
	for {
		m, err := receive()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
}

// TestEveryMethodStaysInItsOrganization calls every method there is with
// another organization's token.
func TestEveryMethodStaysInItsOrganization(t *testing.T) {
	methods := service.MethodNames(&pb.RelayService_ServiceDesc, &pb.SubscriptionService_ServiceDesc)
	if len(methods) != len(intrusions) {
		t.Errorf("%d methods are tried of %d", len(intrusions), len(methods))
	}
	for _, method := range methods {
		intrude := intrusions[method]
		if intrude == nil {
			t.Errorf("%s is not tried", method)
			continue
		}
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				o, intruder := w.enrol("fabrikam.com", testKey(0)), w.enrol("contoso.com", testKey(1))
				o.subscribe("ann", "a")
				a := o.connect()
				a.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 3, Epoch: 1, Version: 1})
				a.settled(1)
				before, pushed := o.state(), len(w.pushed())

				told, err := intrude(intruder.ctx(), w)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range told {
					if text := fmt.Sprint(m); strings.Contains(text, "ann") || strings.Contains(text, device("a")) {
						t.Errorf("told %s", text)
					}
				}
				// It may be pushed once more, as where it is on several mailboxes for a moment.
				if again := w.pushed()[pushed:]; len(again) > 1 || len(again) == 1 && again[0].Badge != 3 {
					t.Errorf("%d pushes went out: %v", len(again), again)
				}
				if after := o.state(); !reflect.DeepEqual(after, before) {
					t.Errorf("subscriptions became %v from %v", after, before)
				}
				a.batch(2, &pb.Event{Mailbox: "ann", UnreadCount: 4, Epoch: 1, Version: 2})
				if outcomes := a.settled(2); len(outcomes) != 0 {
					t.Errorf("the next event ended as %v, want delivered", outcomes)
				}
			})
		})
	}
}

// state returns the organization's subscriptions, times included.
func (o *organization) state() []registry.Subscription {
	o.w.t.Helper()
	all, _, err := o.w.registry.ListSubscriptions(o.w.t.Context(), registry.SubscriptionFilter{Organization: o.id}, registry.Page{})
	if err != nil {
		o.w.t.Fatal(err)
	}
	return all
}
