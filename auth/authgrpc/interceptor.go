// Package authgrpc has auth's tokens checked where gRPC receives a call.
package authgrpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"badgerelay/auth"
)

// UnaryInterceptor validates the bearer token of each call and puts the
// [auth.Principal] into its context.
//
// toStatus turns what Validate returned, an *auth.TokenError or a failed lookup,
// into the error of the call. Methods for which skip says true, such as
// health and reflection, pass without a token; nil skips none.
func UnaryInterceptor(v *auth.Validator, toStatus func(error) error, skip func(fullMethod string) bool) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if skip != nil && skip(info.FullMethod) {
			return next(ctx, req)
		}
		ctx, err := authenticate(ctx, v)
		if err != nil {
			return nil, toStatus(err)
		}
		return next(ctx, req)
	}
}

// StreamInterceptor is UnaryInterceptor for streams. It checks the token with
// which a stream opens; what follows on the stream is the handler's.
func StreamInterceptor(v *auth.Validator, toStatus func(error) error, skip func(fullMethod string) bool) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if skip != nil && skip(info.FullMethod) {
			return next(srv, stream)
		}
		ctx, err := authenticate(stream.Context(), v)
		if err != nil {
			return toStatus(err)
		}
		return next(srv, &principalStream{ServerStream: stream, ctx: ctx})
	}
}

// principalStream is a stream whose context carries the principal; gRPC hands
// a stream's context to its handler in no other way.
type principalStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *principalStream) Context() context.Context { return s.ctx }

func authenticate(ctx context.Context, v *auth.Validator) (context.Context, error) {
	p, err := v.Authenticate(ctx, metadata.ValueFromIncomingContext(ctx, "authorization"))
	if err != nil {
		return nil, err
	}
	return auth.ContextWithPrincipal(ctx, p), nil
}
