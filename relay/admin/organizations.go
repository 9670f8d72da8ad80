package admin

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// AddOrganization implements badgerelayv1.AdminServiceServer.
func (s *handler) AddOrganization(ctx context.Context, m *pb.AddOrganizationRequest) (*pb.AddOrganizationResponse, error) {
	limits, err := s.limits(m.GetLimits())
	if err != nil {
		return nil, err
	}
	o, err := s.changes(m).AddOrganization(ctx, registry.NewOrganization{
		Name: m.GetName(), Limits: limits, MetadataURL: m.GetMetadataUrl(),
	})
	if err != nil {
		return nil, service.OfOrganization(m.GetName(), err)
	}
	return &pb.AddOrganizationResponse{Organization: s.organizationMessage(&o)}, nil
}

// ListOrganizations implements badgerelayv1.AdminServiceServer.
func (s *handler) ListOrganizations(ctx context.Context, m *pb.ListOrganizationsRequest) (*pb.ListOrganizationsResponse, error) {
	page, err := service.PageOf(m)
	if err != nil {
		return nil, err
	}
	organizations, next, err := s.server.config.Registry.ListOrganizations(ctx, registry.OrganizationFilter{Removed: m.GetRemoved()}, page)
	if err != nil {
		return nil, err
	}
	answer := &pb.ListOrganizationsResponse{NextPageToken: next}
	for i := range organizations {
		answer.Organizations = append(answer.Organizations, s.organizationMessage(&organizations[i]))
	}
	return answer, nil
}

// GetOrganization implements badgerelayv1.AdminServiceServer.
func (s *handler) GetOrganization(ctx context.Context, m *pb.GetOrganizationRequest) (*pb.GetOrganizationResponse, error) {
	o, err := s.organization(ctx, "name", m.GetName())
	if err != nil {
		return nil, err
	}
	return &pb.GetOrganizationResponse{Organization: s.organizationMessage(&o)}, nil
}

// UpdateOrganization implements badgerelayv1.AdminServiceServer.
func (s *handler) UpdateOrganization(ctx context.Context, m *pb.UpdateOrganizationRequest) (*pb.UpdateOrganizationResponse, error) {
	var update registry.OrganizationUpdate
	if m.Enabled != nil {
		update.Enabled = m.Enabled
	}
	if m.MetadataUrl != nil {
		update.MetadataURL = m.MetadataUrl
	}
	if m.GetLimits() != nil {
		limits, err := s.limits(m.GetLimits())
		if err != nil {
			return nil, err
		}
		update.Limits = &limits
	}
	o, err := s.changes(m).UpdateOrganization(ctx, m.GetName(), update)
	if err != nil {
		return nil, service.OfOrganization(m.GetName(), err)
	}
	return &pb.UpdateOrganizationResponse{Organization: s.organizationMessage(&o)}, nil
}

// RemoveOrganization implements badgerelayv1.AdminServiceServer. A slip of the pen
// must not be enough to end everybody's badges: disabling comes first.
func (s *handler) RemoveOrganization(ctx context.Context, m *pb.RemoveOrganizationRequest) (*pb.RemoveOrganizationResponse, error) {
	o, err := s.organization(ctx, "name", m.GetName())
	if err != nil {
		return nil, err
	}
	if o.Enabled {
		return nil, service.Refuse(codes.FailedPrecondition, pb.ErrorReason_ERROR_REASON_ORGANIZATION_ENABLED,
			"organization %s is enabled; disable it first", o.Name)
	}
	if err := s.changes(m).RemoveOrganization(ctx, o.Name); err != nil {
		return nil, service.OfOrganization(o.Name, err)
	}
	return &pb.RemoveOrganizationResponse{}, nil
}

// RestoreOrganization implements badgerelayv1.AdminServiceServer.
func (s *handler) RestoreOrganization(ctx context.Context, m *pb.RestoreOrganizationRequest) (*pb.RestoreOrganizationResponse, error) {
	o, err := s.changes(m).RestoreOrganization(ctx, m.GetName())
	if err != nil {
		return nil, s.notRemoved(ctx, m.GetName(), err)
	}
	return &pb.RestoreOrganizationResponse{Organization: s.organizationMessage(&o)}, nil
}

// PurgeOrganization implements badgerelayv1.AdminServiceServer. Who gets here has
// disabled and removed it before.
func (s *handler) PurgeOrganization(ctx context.Context, m *pb.PurgeOrganizationRequest) (*pb.PurgeOrganizationResponse, error) {
	if err := s.changes(m).PurgeOrganization(ctx, m.GetName()); err != nil {
		return nil, s.notRemoved(ctx, m.GetName(), err)
	}
	return &pb.PurgeOrganizationResponse{}, nil
}

// notRemoved explains an error of a call that is about a removed organization: there may
// be one of the name that is live.
func (s *handler) notRemoved(ctx context.Context, name string, err error) error {
	if errors.Is(err, registry.ErrOrganizationNotFound) {
		if o, missing := s.server.config.Registry.GetOrganization(ctx, name); missing == nil {
			return service.Refuse(codes.FailedPrecondition, pb.ErrorReason_ERROR_REASON_ORGANIZATION_EXISTS,
				"organization %s is live, and was not removed; only one that was can be restored or purged", o.Name)
		}
	}
	return service.OfOrganization(name, err)
}

// limits takes limits; an app that is not configured would be a slip of the
// pen that shows only when devices fail to subscribe.
func (s *handler) limits(m *pb.OrganizationLimits) (registry.Limits, error) {
	for _, app := range m.GetApps() {
		if !s.subscriptions.Apps.Has(app) {
			r := service.AppUnknown(app)
			r.Field = "limits.apps"
			return registry.Limits{}, r
		}
	}
	return registry.Limits{
		Apps:             m.GetApps(),
		MaxMailboxes:     m.GetMaxMailboxes(),
		MaxSubscriptions: m.GetMaxSubscriptions(),
		MaxStreams:       m.GetMaxStreams(),
	}, nil
}

func (s *handler) organizationMessage(o *registry.Organization) *pb.Organization {
	return &pb.Organization{
		Name:    o.Name,
		Enabled: o.Enabled,
		Limits: &pb.OrganizationLimits{
			Apps:             o.Limits.Apps,
			MaxMailboxes:     o.Limits.MaxMailboxes,
			MaxSubscriptions: o.Limits.MaxSubscriptions,
			MaxStreams:       o.Limits.MaxStreams,
		},
		MetadataUrl:   o.MetadataURL,
		CreatedAt:     service.Time(o.CreatedAt),
		RemovedAt:     service.Time(o.RemovedAt),
		Subscriptions: o.Subscriptions,
		Mailboxes:     o.Mailboxes,
		Streams:       uint32(s.server.config.Agents.Streams(o.ID)),
	}
}
