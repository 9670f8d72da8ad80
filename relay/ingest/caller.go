package ingest

import (
	"context"
	"errors"

	"badgerelay/auth"
	"badgerelay/relay"
)

// caller returns who makes the call. Without one the interceptor was left
// out, which is a defect.
func caller(ctx context.Context) (*auth.Principal, error) {
	p, ok := auth.PrincipalFrom(ctx)
	if !ok {
		return nil, errors.New("call without a principal")
	}
	return p, nil
}

// admit returns who makes a unary call, if the organization's quota has room
// for it. events is how many events it carries.
func (s *Server) admit(ctx context.Context, events int) (*auth.Principal, error) {
	p, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	return p, s.quotas.take(relay.OrganizationID(p.OrganizationID), min(events, s.batchEvents))
}
