package admin

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// AddCredential implements badgerelayv1.AdminServiceServer.
func (s *handler) AddCredential(ctx context.Context, m *pb.AddCredentialRequest) (*pb.AddCredentialResponse, error) {
	o, err := s.organization(ctx, "organization", m.GetOrganization())
	if err != nil {
		return nil, err
	}
	start, err := timeOf("start_at", m.GetStartAt())
	if err != nil {
		return nil, err
	}
	end, err := timeOf("end_at", m.GetEndAt())
	if err != nil {
		return nil, err
	}
	c, err := s.changes(m).AddCredential(ctx, o.ID, registry.NewCredential{
		Certificate: m.GetCertificate(), StartAt: start, EndAt: end,
	})
	if err != nil {
		return nil, err
	}
	return &pb.AddCredentialResponse{Credential: credentialMessage(&c)}, nil
}

// ListCredentials implements badgerelayv1.AdminServiceServer.
func (s *handler) ListCredentials(ctx context.Context, m *pb.ListCredentialsRequest) (*pb.ListCredentialsResponse, error) {
	o, err := s.organization(ctx, "organization", m.GetOrganization())
	if err != nil {
		return nil, err
	}
	credentials, err := s.server.config.Registry.ListCredentials(ctx, o.ID)
	if err != nil {
		return nil, err
	}
	answer := &pb.ListCredentialsResponse{}
	for i := range credentials {
		answer.Credentials = append(answer.Credentials, credentialMessage(&credentials[i]))
	}
	return answer, nil
}

// RemoveCredential implements badgerelayv1.AdminServiceServer.
func (s *handler) RemoveCredential(ctx context.Context, m *pb.RemoveCredentialRequest) (*pb.RemoveCredentialResponse, error) {
	o, err := s.organization(ctx, "organization", m.GetOrganization())
	if err != nil {
		return nil, err
	}
	if m.GetId() == "" {
		return nil, service.Invalid("id", "is empty")
	}
	if err := s.changes(m).RemoveCredential(ctx, o.ID, m.GetId()); err != nil {
		return nil, err
	}
	return &pb.RemoveCredentialResponse{}, nil
}

// timeOf takes a timestamp; absent is the zero time.
func timeOf(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if !t.IsValid() {
		return time.Time{}, service.Invalid(field, "is not a valid timestamp")
	}
	return t.AsTime(), nil
}

func credentialMessage(c *registry.Credential) *pb.Credential {
	return &pb.Credential{
		Id:         c.ID,
		Thumbprint: fmt.Sprintf("%X", c.X5T),
		KeySha256:  fmt.Sprintf("%x", c.KeySHA256),
		Type:       "Asymmetric",
		Usage:      "Verify",
		StartAt:    service.Time(c.StartAt),
		EndAt:      service.Time(c.EndAt),
		CreatedAt:  service.Time(c.CreatedAt),
		LastUsedAt: service.Time(c.LastUsedAt),
		Subject:    subject(c.Certificate),
	}
}

// subject returns the certificate's subject.
func subject(certificate *x509.Certificate) string {
	return strings.ToValidUTF8(certificate.Subject.String(), "\uFFFD")
}
