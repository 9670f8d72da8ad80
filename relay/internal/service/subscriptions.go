package service

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Registry makes, ends and lists subscriptions; registry.Registry says how.
type Registry interface {
	changes
	DryRun() registry.Changes
	ListSubscriptions(ctx context.Context, f registry.SubscriptionFilter, page registry.Page) ([]registry.Subscription, string, error)
}

// changes is what of a Registry and of its dry run makes and ends subscriptions.
type changes interface {
	Subscribe(ctx context.Context, org relay.OrganizationID, r registry.Registration) (registry.SubscribeResult, error)
	SetDevice(ctx context.Context, org relay.OrganizationID, d registry.DeviceMailboxes) (registry.SetDeviceResult, error)
	Unsubscribe(ctx context.Context, org relay.OrganizationID, r registry.Registration) error
	ImportSubscriptions(ctx context.Context, org relay.OrganizationID, rs []registry.Registration) (registry.ImportResult, error)
}

// Subscriptions makes and ends subscriptions, for agents and operators alike. It has
// no opinion on whose organization it is asked about.
type Subscriptions struct {
	Relay    *relay.Relay
	Registry Registry
	Apps     Apps
}

// changes returns where a call changes something, or only tries whether it would.
func (s *Subscriptions) changes(m interface{ GetValidateOnly() bool }) changes {
	if m.GetValidateOnly() {
		return s.Registry.DryRun()
	}
	return s.Registry
}

// Subscribe puts a device on a mailbox.
func (s *Subscriptions) Subscribe(ctx context.Context, org relay.OrganizationID, m *pb.SubscribeRequest) (*pb.SubscribeResponse, error) {
	r, err := s.registration(m)
	if err != nil {
		return nil, err
	}
	if !s.Apps.Has(r.App) {
		return nil, AppUnknown(r.App)
	}
	r.KeepOthers = m.GetKeepOthers()
	result, err := s.changes(m).Subscribe(ctx, org, r)
	if err != nil {
		return nil, err
	}
	return &pb.SubscribeResponse{
		Subscription:     Subscription(&result.Subscription),
		Created:          result.Created,
		LeftMailboxes:    result.LeftMailboxes,
		AppMisconfigured: s.Relay.Misconfigured(r.App),
	}, nil
}

// SetDevice declares a device's mailboxes. It takes a device off every mailbox also where its app is not configured
// any more.
func (s *Subscriptions) SetDevice(ctx context.Context, org relay.OrganizationID, m *pb.SetDeviceRequest) (*pb.SetDeviceResponse, error) {
	if registry.TooManyMailboxes(m.GetMailboxes()) {
		return nil, Mistyped("mailboxes", fmt.Sprintf("has more than %d names", registry.MaxDeviceMailboxes))
	}
	for i, mailbox := range m.GetMailboxes() {
		if err := CheckMailbox(fmt.Sprintf("mailboxes[%d]", i), mailbox); err != nil {
			return nil, err
		}
	}
	device, err := parseDevice(m)
	if err != nil {
		return nil, err
	}
	if len(m.GetMailboxes()) > 0 && !s.Apps.Has(m.GetApp()) {
		return nil, AppUnknown(m.GetApp())
	}
	result, err := s.changes(m).SetDevice(ctx, org, registry.DeviceMailboxes{App: m.GetApp(), Device: device, Mailboxes: m.GetMailboxes()})
	if err != nil {
		return nil, err
	}
	return &pb.SetDeviceResponse{
		Added: result.Added, Removed: result.Removed, Kept: result.Kept,
		ExpiresAt:        Time(result.ExpiresAt),
		AppMisconfigured: s.Relay.Misconfigured(m.GetApp()),
	}, nil
}

// Unsubscribe takes a device off a mailbox. It takes apps that are not configured any more, too.
func (s *Subscriptions) Unsubscribe(ctx context.Context, org relay.OrganizationID, m *pb.UnsubscribeRequest) error {
	r, err := s.registration(m)
	if err != nil {
		return err
	}
	return s.changes(m).Unsubscribe(ctx, org, r)
}

// List returns a page of subscriptions.
func (s *Subscriptions) List(ctx context.Context, org relay.OrganizationID, m *pb.ListSubscriptionsRequest) (*pb.ListSubscriptionsResponse, error) {
	if m.GetMailbox() != "" {
		if err := CheckMailbox("mailbox", m.GetMailbox()); err != nil {
			return nil, err
		}
	}
	page, err := PageOf(m)
	if err != nil {
		return nil, err
	}
	filter := registry.SubscriptionFilter{Organization: org, Mailbox: m.GetMailbox(), Removed: m.GetRemoved()}
	subscriptions, next, err := s.Registry.ListSubscriptions(ctx, filter, page)
	if err != nil {
		return nil, err
	}
	answer := &pb.ListSubscriptionsResponse{NextPageToken: next}
	for i := range subscriptions {
		answer.Subscriptions = append(answer.Subscriptions, Subscription(&subscriptions[i]))
	}
	return answer, nil
}

// PageOf takes a request's page.
func PageOf(m interface {
	GetPageSize() uint32
	GetPageToken() string
}) (registry.Page, error) {
	if m.GetPageSize() > registry.MaxPageSize {
		return registry.Page{}, Invalid("page_size", "is not 0 to 1000")
	}
	return registry.Page{Size: int(m.GetPageSize()), Token: m.GetPageToken()}, nil
}

// registration checks what names a subscription.
func (s *Subscriptions) registration(m interface {
	GetMailbox() string
	GetApp() string
	GetDeviceToken() string
}) (registry.Registration, error) {
	if err := CheckMailbox("mailbox", m.GetMailbox()); err != nil {
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
	if err := CheckApp(m.GetApp()); err != nil {
		return apns.DeviceToken{}, err
	}
	if m.GetDeviceToken() == "" {
		return apns.DeviceToken{}, Invalid("device_token", "is empty")
	}
	device, err := apns.ParseDeviceToken(m.GetDeviceToken())
	if err != nil {
		return apns.DeviceToken{}, Mistyped("device_token", strings.TrimPrefix(err.Error(), "device token "))
	}
	return device, nil
}

// CheckMailbox refuses what is no mailbox's name.
func CheckMailbox(field, mailbox string) error {
	return checkName(field, mailbox, relay.MaxMailboxSize)
}

// CheckApp refuses what is no app's name.
func CheckApp(app string) error { return checkName("app", app, registry.MaxAppSize) }

func checkName(field, name string, most int) error {
	switch rule := registry.NameRule(name, most); {
	case rule == "":
		return nil
	case name == "":
		return Invalid(field, rule)
	default:
		return Mistyped(field, rule)
	}
}

// AppUnknown refuses an app that is not configured.
func AppUnknown(app string) *Refusal {
	r := Refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_APP_UNKNOWN, "the relay has no app %q", app)
	r.Field, r.Rule = "app", "is not configured at the relay"
	return r
}

// Apps is the set of configured apps. It is safe for concurrent use once Set has been
// called.
type Apps struct{ names atomic.Pointer[[]string] }

// Set replaces the set.
func (a *Apps) Set(names []string) { names = slices.Clone(names); a.names.Store(&names) }

// Has reports whether an app is in the set.
func (a *Apps) Has(app string) bool { return slices.Contains(*a.names.Load(), app) }

// Subscription returns a subscription as callers see it.
func Subscription(s *registry.Subscription) *pb.Subscription {
	return &pb.Subscription{
		Mailbox:       s.Mailbox,
		App:           s.App,
		DeviceToken:   s.Device.Hex(),
		CreatedAt:     Time(s.CreatedAt),
		RegisteredAt:  Time(s.RegisteredAt),
		ExpiresAt:     Time(s.ExpiresAt),
		RemovedAt:     Time(s.RemovedAt),
		RemovalReason: string(s.RemovalReason),

		OtherMailboxes: s.OtherMailboxes,
	}
}

// Time returns t as callers see it; it leaves the zero time out.
func Time(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
