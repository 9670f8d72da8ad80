package ingest

import (
	"context"
	"net/netip"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"badgerelay/relay/internal/service"
)

// Health and reflection answer anybody, so what bounds their callers is here:
// calls open at once, and the end of the server.

// publicUnary is the interceptor of their unary methods.
func (s *Server) publicUnary(ctx context.Context, m any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if service.Ours(info.FullMethod) {
		return next(ctx, m)
	}
	addr := calledFrom(ctx)
	if !s.limiter.enterPublic(addr) {
		return nil, s.crowded()
	}
	defer s.limiter.leavePublic(addr)
	return next(ctx, m)
}

// publicStream is the interceptor of their streams. It has them end when the
// server drains: they never end by themselves, and would hold it up.
func (s *Server) publicStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if service.Ours(info.FullMethod) {
		return handler(srv, ss)
	}
	return s.boundPublic(srv, ss, handler)
}

// boundPublic is publicStream for a method that needs no token.
func (s *Server) boundPublic(srv any, ss grpc.ServerStream, handler grpc.StreamHandler) error {
	addr := calledFrom(ss.Context())
	if !s.limiter.enterPublic(addr) {
		return s.crowded()
	}
	defer s.limiter.leavePublic(addr)
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	return handler(srv, streamWithContext{ss, ctx})
}

// calledFrom returns the address that a call comes from.
func calledFrom(ctx context.Context) netip.Addr {
	p, _ := peer.FromContext(ctx) // gRPC sets it
	return addressOf(p.Addr)
}

// crowded refuses a call that needs no token.
func (s *Server) crowded() error {
	s.transport.refusals[refusedPublic].Inc()
	return status.Error(codes.ResourceExhausted, "too many calls without a token are open")
}

// streamWithContext is a stream with another context.
type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context // that of the stream, ended early
}

// Context implements grpc.ServerStream.
func (s streamWithContext) Context() context.Context { return s.ctx }
