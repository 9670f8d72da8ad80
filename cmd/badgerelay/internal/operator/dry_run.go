package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry"
)

// This file has what a dry run checks, by reading and by the registry's own rules: what
// the relay would refuse, a dry run refuses in the same words.

// refused is a refusal as the relay sends it; the last argument may be the field at fault.
func refused(code codes.Code, reason, message string, field ...string) error {
	info := &errdetails.ErrorInfo{Reason: reason, Metadata: map[string]string{}}
	if len(field) > 0 {
		info.Metadata["field"], info.Metadata["rule"] = field[0], message
		message = field[0] + ": " + message
	}
	st, err := status.New(code, message).WithDetails(info)
	if err != nil { // the message can't be marshalled; ours can
		return errors.New(message)
	}
	return st.Err()
}

// invalid is the relay's refusal for what breaks a rule of the registry.
func invalid(err error) error {
	if e, ok := errors.AsType[*registry.InvalidError](err); ok {
		return refused(codes.InvalidArgument, "FIELD_INVALID", e.Detail, e.Field)
	}
	return err
}

// organizationNamed returns the one of this name, live or removed; nil: there is none.
func organizationNamed(ctx context.Context, admin pb.AdminServiceClient, name string, removed bool) (*pb.Organization, error) {
	name, err := registry.NormalizeOrganization(name)
	if err != nil {
		return nil, invalid(err)
	}
	if !removed {
		r, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: name})
		if status.Code(err) == codes.NotFound {
			return nil, nil
		}
		return r.GetOrganization(), err
	}
	all, err := allOrganizations(ctx, admin, true)
	for _, o := range all.GetOrganizations() {
		if o.GetName() == name {
			return o, nil
		}
	}
	return nil, err
}

// removedOrganization returns one that was removed. One that is live is refused, as is
// one that is not there.
func removedOrganization(ctx context.Context, admin pb.AdminServiceClient, name string) (*pb.Organization, error) {
	removed, err := organizationNamed(ctx, admin, name, true)
	if err != nil || removed != nil {
		return removed, err
	}
	if err := notLive(ctx, admin, name); err != nil {
		return nil, err
	}
	return nil, refused(codes.NotFound, "ORGANIZATION_NOT_FOUND", "there is no organization "+name)
}

// notLive refuses an organization that was not removed.
func notLive(ctx context.Context, admin pb.AdminServiceClient, name string) error {
	live, err := organizationNamed(ctx, admin, name, false)
	if err != nil || live == nil {
		return err
	}
	first := "remove"
	if live.GetEnabled() {
		first = "disable"
	}
	return fmt.Errorf("organization %s is live, and was not removed; only one that was can be restored or purged: 'badgerelay organization %s %s' comes first",
		live.GetName(), first, live.GetName())
}

// mayAdd checks a new organization.
func mayAdd(ctx context.Context, admin pb.AdminServiceClient, m *pb.AddOrganizationRequest) error {
	_, err := registry.NewOrganization{Name: m.GetName(), Limits: limitsOf(m.GetLimits()), MetadataURL: m.GetMetadataUrl()}.Normalize()
	if err != nil {
		return invalid(err)
	}
	if err := knownApps(ctx, admin, m.GetLimits().GetApps()...); err != nil {
		return err
	}
	if live, err := organizationNamed(ctx, admin, m.GetName(), false); err != nil {
		return err
	} else if live != nil {
		return refused(codes.AlreadyExists, "ORGANIZATION_EXISTS", fmt.Sprintf("the organization %s exists already", m.GetName()))
	}
	removed, err := organizationNamed(ctx, admin, m.GetName(), true)
	if err == nil && removed != nil {
		err = refused(codes.AlreadyExists, "ORGANIZATION_REMOVED", fmt.Sprintf("an organization %s was removed; restore it, or purge it first", m.GetName()))
	}
	return err
}

// mayUpdate checks what is to change of an organization.
func mayUpdate(ctx context.Context, admin pb.AdminServiceClient, m *pb.UpdateOrganizationRequest) error {
	limits := limitsOf(m.GetLimits())
	if _, err := (registry.OrganizationUpdate{Limits: &limits, MetadataURL: m.MetadataUrl}).Normalize(); err != nil {
		return invalid(err)
	}
	return knownApps(ctx, admin, m.GetLimits().GetApps()...)
}

func limitsOf(m *pb.OrganizationLimits) registry.Limits {
	return registry.Limits{Apps: m.GetApps(), MaxMailboxes: m.GetMaxMailboxes(), MaxSubscriptions: m.GetMaxSubscriptions(), MaxStreams: m.GetMaxStreams()}
}

// knownApps refuses an app that the relay does not have.
func knownApps(ctx context.Context, admin pb.AdminServiceClient, apps ...string) error {
	if len(apps) == 0 {
		return nil
	}
	known, err := listApps(ctx, nil, admin)
	for _, app := range apps {
		if err == nil && !slices.Contains(known, app) {
			return refused(codes.InvalidArgument, "APP_UNKNOWN", fmt.Sprintf("the relay has no app %q", app))
		}
	}
	return err
}

// mayAddCredential checks a certificate to register. Which keys removed organizations
// have is not told by the relay.
func mayAddCredential(ctx context.Context, admin pb.AdminServiceClient, m *pb.AddCredentialRequest) error {
	if _, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: m.GetOrganization()}); err != nil {
		return err
	}
	n := registry.NewCredential{Certificate: m.GetCertificate()}
	if at := m.GetStartAt(); at != nil {
		n.StartAt = at.AsTime()
	}
	if at := m.GetEndAt(); at != nil {
		n.EndAt = at.AsTime()
	}
	parsed, err := n.Parse()
	if err != nil {
		return invalid(err)
	}
	name, err := registry.NormalizeOrganization(m.GetOrganization())
	if err != nil {
		return invalid(err)
	}
	key, x5t := fmt.Sprintf("%x", parsed.KeySHA256), fmt.Sprintf("%X", parsed.X5T)
	all, err := allOrganizations(ctx, admin, false)
	if err != nil {
		return err
	}
	for _, o := range all.GetOrganizations() {
		r, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: o.GetName()})
		if status.Code(err) == codes.NotFound && o.GetName() != name {
			continue // it was removed meanwhile
		}
		if err != nil {
			return err
		}
		for _, c := range r.GetCredentials() { // a renewed certificate of one key may stand beside the old one
			if c.GetKeySha256() == key && (o.GetName() != name || c.GetThumbprint() == x5t) {
				return refused(codes.AlreadyExists, "CREDENTIAL_EXISTS", "the key is registered already, for "+o.GetName())
			}
		}
	}
	return nil
}

// maySubscribe checks a device that is to be put on a mailbox.
func maySubscribe(ctx context.Context, admin pb.AdminServiceClient, r *registration, keepOthers bool) error {
	on, err := r.devices(ctx, admin)
	if err != nil {
		return err
	}
	if err := knownApps(ctx, admin, r.App); err != nil {
		return err
	}
	answer, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: r.organization})
	if err != nil {
		return err
	}
	o := answer.GetOrganization()
	limits := limitsOf(o.GetLimits())
	if limits.Allow(r.App) != nil {
		return refused(codes.PermissionDenied, "APP_NOT_ALLOWED", "the organization may not use the app")
	}
	if slices.ContainsFunc(on, r.is) { // it is renewed
		return nil
	}
	others, alone, err := r.mailboxes(ctx, admin, o, keepOthers)
	switch {
	case err != nil:
		return err
	case keepOthers && others >= registry.MaxDeviceMailboxes:
		return limitReached(registry.MaxDeviceMailboxes, registry.LimitDeviceMailboxes)
	case keepOthers:
		others, alone = 0, 0 // it leaves none
	}
	if others == 0 && limits.MaxSubscriptions > 0 && o.GetSubscriptions() >= limits.MaxSubscriptions {
		return limitReached(limits.MaxSubscriptions, registry.LimitSubscriptions)
	}
	if alone == 0 && limits.MaxMailboxes > 0 && len(on) == 0 && o.GetMailboxes() >= limits.MaxMailboxes {
		return limitReached(limits.MaxMailboxes, registry.LimitMailboxes)
	}
	return nil
}

func limitReached(limit uint64, name string) error {
	return refused(codes.ResourceExhausted, "LIMIT_REACHED", fmt.Sprintf("the limit of %d %s is reached", limit, name))
}

// mailboxes returns on how many mailboxes the device is now, and on how many of those it
// is alone, where it matters: where an organization is at a limit, or the device is to
// stay on all.
func (r *registration) mailboxes(ctx context.Context, admin pb.AdminServiceClient, o *pb.Organization, keepOthers bool) (n, alone int, err error) {
	l := o.GetLimits()
	if !keepOthers && (l.GetMaxSubscriptions() == 0 || o.GetSubscriptions() < l.GetMaxSubscriptions()) && (l.GetMaxMailboxes() == 0 || o.GetMailboxes() < l.GetMaxMailboxes()) {
		return 0, 0, nil
	}
	all, err := pages(ctx, admin, r.organization, &pb.ListSubscriptionsRequest{PageSize: 1000}, 0)
	devices := map[string]int{}
	for _, s := range all.GetSubscriptions() {
		devices[s.GetMailbox()]++
	}
	for _, s := range all.GetSubscriptions() {
		if r.sameDevice(s) {
			n++
			if devices[s.GetMailbox()] == 1 {
				alone++
			}
		}
	}
	return n, alone, err
}

// devices returns those on the mailbox, once what names a device is checked.
func (r *registration) devices(ctx context.Context, admin pb.AdminServiceClient) ([]*pb.Subscription, error) {
	device, err := apns.ParseDeviceToken(r.DeviceToken)
	if err != nil {
		return nil, refused(codes.InvalidArgument, "FIELD_INVALID", strings.TrimPrefix(err.Error(), "device token "), "device_token")
	}
	if err := (registry.Registration{Mailbox: r.Mailbox, App: r.App, Device: device}).Validate(); err != nil {
		return nil, invalid(err)
	}
	all, err := pages(ctx, admin, r.organization, &pb.ListSubscriptionsRequest{Mailbox: r.Mailbox, PageSize: 1000}, 0)
	return all.GetSubscriptions(), err
}

// mayUnsubscribe checks a device that is to be taken off a mailbox.
func mayUnsubscribe(ctx context.Context, admin pb.AdminServiceClient, r *registration) error {
	on, err := r.devices(ctx, admin)
	if err == nil && !slices.ContainsFunc(on, r.is) {
		err = refused(codes.NotFound, "SUBSCRIPTION_NOT_FOUND", "there is no such subscription")
	}
	return err
}

// is reports whether s is the device on the mailbox.
func (r *registration) is(s *pb.Subscription) bool {
	return s.GetMailbox() == r.Mailbox && r.sameDevice(s)
}

func (r *registration) sameDevice(s *pb.Subscription) bool {
	return s.GetApp() == r.App && strings.EqualFold(s.GetDeviceToken(), r.DeviceToken)
}
