package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// subscriptionService implements badgerelayv1.SubscriptionServiceServer.
type subscriptionService struct {
	pb.UnimplementedSubscriptionServiceServer
	*Server
}

// Subscribe implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) Subscribe(ctx context.Context, m *pb.SubscribeRequest) (*pb.SubscribeResponse, error) {
	p, err := s.admit(ctx, 0)
	if err != nil {
		return nil, err
	}
	return s.desk.subscribe(ctx, relay.OrganizationID(p.OrganizationID), m)
}

// SetDevice implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) SetDevice(ctx context.Context, m *pb.SetDeviceRequest) (*pb.SetDeviceResponse, error) {
	p, err := s.admit(ctx, 0)
	if err != nil {
		return nil, err
	}
	return s.desk.setDevice(ctx, relay.OrganizationID(p.OrganizationID), m)
}

// Unsubscribe implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) Unsubscribe(ctx context.Context, m *pb.UnsubscribeRequest) (*pb.UnsubscribeResponse, error) {
	p, err := s.admit(ctx, 0)
	if err != nil {
		return nil, err
	}
	return &pb.UnsubscribeResponse{}, s.desk.unsubscribe(ctx, relay.OrganizationID(p.OrganizationID), m)
}

// ListSubscriptions implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) ListSubscriptions(ctx context.Context, m *pb.ListSubscriptionsRequest) (*pb.ListSubscriptionsResponse, error) {
	p, err := s.admit(ctx, 0)
	if err != nil {
		return nil, err
	}
	return s.desk.list(ctx, relay.OrganizationID(p.OrganizationID), m)
}

// desk is where subscriptions are made and ended, for agents and operators
// alike. It has no opinion on whose organization it is asked about.
type desk struct {
	relay    *relay.Relay
	registry Registrations
	apps     *apps
}

func (d *desk) subscribe(ctx context.Context, org relay.OrganizationID, m *pb.SubscribeRequest) (*pb.SubscribeResponse, error) {
	r, err := d.registration(m)
	if err != nil {
		return nil, err
	}
	if !d.apps.has(r.App) {
		return nil, appUnknown()
	}
	r.KeepOthers = m.GetKeepOthers()
	result, err := d.registry.Subscribe(ctx, org, r)
	if err != nil {
		return nil, err
	}
	return &pb.SubscribeResponse{
		Subscription:     subscriptionMessage(&result.Subscription),
		Created:          result.Created,
		LeftMailboxes:    result.LeftMailboxes,
		AppMisconfigured: d.relay.Misconfigured(r.App),
	}, nil
}

// setDevice takes a device off every mailbox also where its app is not configured
// any more.
func (d *desk) setDevice(ctx context.Context, org relay.OrganizationID, m *pb.SetDeviceRequest) (*pb.SetDeviceResponse, error) {
	if len(m.GetMailboxes()) > registry.MaxDeviceMailboxes {
		return nil, mistyped("mailboxes", fmt.Sprintf("has more than %d names", registry.MaxDeviceMailboxes))
	}
	for i, mailbox := range m.GetMailboxes() {
		if err := checkMailbox(fmt.Sprintf("mailboxes[%d]", i), mailbox); err != nil {
			return nil, err
		}
	}
	device, err := parseDevice(m)
	if err != nil {
		return nil, err
	}
	if len(m.GetMailboxes()) > 0 && !d.apps.has(m.GetApp()) {
		return nil, appUnknown()
	}
	result, err := d.registry.SetDevice(ctx, org, registry.DeviceMailboxes{App: m.GetApp(), Device: device, Mailboxes: m.GetMailboxes()})
	if err != nil {
		return nil, err
	}
	return &pb.SetDeviceResponse{
		Added: result.Added, Removed: result.Removed, Kept: result.Kept,
		ExpiresAt:        timeMessage(result.ExpiresAt),
		AppMisconfigured: d.relay.Misconfigured(m.GetApp()),
	}, nil
}

// unsubscribe takes apps that are not configured any more, too.
func (d *desk) unsubscribe(ctx context.Context, org relay.OrganizationID, m *pb.UnsubscribeRequest) error {
	r, err := d.registration(m)
	if err != nil {
		return err
	}
	return d.registry.Unsubscribe(ctx, org, r)
}

func (d *desk) list(ctx context.Context, org relay.OrganizationID, m *pb.ListSubscriptionsRequest) (*pb.ListSubscriptionsResponse, error) {
	if m.GetMailbox() != "" {
		if err := checkMailbox("mailbox", m.GetMailbox()); err != nil {
			return nil, err
		}
	}
	page, err := pageOf(m)
	if err != nil {
		return nil, err
	}
	filter := registry.SubscriptionFilter{Organization: org, Mailbox: m.GetMailbox(), Removed: m.GetRemoved()}
	subscriptions, next, err := d.registry.ListSubscriptions(ctx, filter, page)
	if err != nil {
		return nil, err
	}
	answer := &pb.ListSubscriptionsResponse{NextPageToken: next}
	for i := range subscriptions {
		answer.Subscriptions = append(answer.Subscriptions, subscriptionMessage(&subscriptions[i]))
	}
	return answer, nil
}

// pageOf takes a request's page.
func pageOf(m interface {
	GetPageSize() uint32
	GetPageToken() string
}) (registry.Page, error) {
	if m.GetPageSize() > registry.MaxPageSize {
		return registry.Page{}, invalid("page_size", "is not 0 to 1000")
	}
	return registry.Page{Size: int(m.GetPageSize()), Token: m.GetPageToken()}, nil
}

// registration checks what names a subscription.
func (d *desk) registration(m interface {
	GetMailbox() string
	GetApp() string
	GetDeviceToken() string
}) (registry.Registration, error) {
	if err := checkMailbox("mailbox", m.GetMailbox()); err != nil {
		return registry.Registration{}, err
	}
	device, err := parseDevice(m)
	return registry.Registration{Mailbox: m.GetMailbox(), App: m.GetApp(), Device: device}, err
}

// parseDevice checks what names a device of an app.
func parseDevice(m interface {
	GetApp() string
	GetDeviceToken() string
}) (apns.DeviceToken, error) {
	if err := checkApp(m.GetApp()); err != nil {
		return apns.DeviceToken{}, err
	}
	if m.GetDeviceToken() == "" {
		return apns.DeviceToken{}, invalid("device_token", "is empty")
	}
	device, err := apns.ParseDeviceToken(m.GetDeviceToken())
	if err != nil {
		return apns.DeviceToken{}, mistyped("device_token", strings.TrimPrefix(err.Error(), "device token "))
	}
	return device, nil
}

func checkMailbox(field, mailbox string) error {
	switch {
	case mailbox == "":
		return invalid(field, "is empty")
	case len(mailbox) > relay.MaxMailboxSize:
		return mistyped(field, "is longer than 256 bytes")
	case !utf8.ValidString(mailbox):
		return mistyped(field, "is not UTF-8")
	}
	return nil
}

func checkApp(app string) error {
	switch {
	case app == "":
		return invalid("app", "is empty")
	case len(app) > registry.MaxAppSize:
		return mistyped("app", "is longer than 255 bytes")
	case !utf8.ValidString(app):
		return mistyped("app", "is not UTF-8")
	}
	return nil
}

func appUnknown() *refusal {
	r := refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_APP_UNKNOWN, "the relay has no such app")
	r.field, r.rule = "app", "is not configured at the relay"
	return r
}

// apps is the set of configured apps. It is safe for concurrent use.
type apps struct{ names atomic.Pointer[[]string] }

func (a *apps) set(names []string) { names = slices.Clone(names); a.names.Store(&names) }

func (a *apps) has(app string) bool { return slices.Contains(*a.names.Load(), app) }

func subscriptionMessage(s *registry.Subscription) *pb.Subscription {
	return &pb.Subscription{
		Mailbox:       s.Mailbox,
		App:           s.App,
		DeviceToken:   s.Device.Hex(),
		CreatedAt:     timeMessage(s.CreatedAt),
		RegisteredAt:  timeMessage(s.RegisteredAt),
		ExpiresAt:     timeMessage(s.ExpiresAt),
		RemovedAt:     timeMessage(s.RemovedAt),
		RemovalReason: string(s.RemovalReason),

		OtherMailboxes: s.OtherMailboxes,
	}
}

// timeMessage leaves the zero time out.
func timeMessage(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
