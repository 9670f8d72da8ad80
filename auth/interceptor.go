package auth

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// UnaryInterceptor validates the bearer token of each call and puts the
// [Principal] into its context.
//
// toStatus turns what Validate returned, a *TokenError or a failed lookup,
// into the error of the call. Methods for which skip says true, such as
// health and reflection, pass without a token; nil skips none.
func UnaryInterceptor(v *Validator, toStatus func(error) error, skip func(fullMethod string) bool) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if skip != nil && skip(info.FullMethod) {
			return next(ctx, req)
		}
		ctx, err := v.authenticate(ctx)
		if err != nil {
			return nil, toStatus(err)
		}
		return next(ctx, req)
	}
}

// StreamInterceptor is UnaryInterceptor for streams. It checks the token with
// which a stream opens; what follows on the stream is the handler's.
func StreamInterceptor(v *Validator, toStatus func(error) error, skip func(fullMethod string) bool) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if skip != nil && skip(info.FullMethod) {
			return next(srv, stream)
		}
		ctx, err := v.authenticate(stream.Context())
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

func (v *Validator) authenticate(ctx context.Context) (context.Context, error) {
	token, refusal := bearer(ctx)
	if refusal != nil {
		v.metrics.refused(refusal.Reason)
		return nil, refusal
	}
	p, err := v.Validate(ctx, token)
	if err != nil {
		return nil, err
	}
	return ContextWithPrincipal(ctx, p), nil
}

// bearer reads the token of a call. RFC 6750, section 2.1 (read 2026-11): the
// scheme compares case-insensitively and one or more spaces follow it.
func bearer(ctx context.Context) (string, *TokenError) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) == 0 {
		return "", refuse(ReasonMissing, "no authorization metadata")
	}
	if len(values) > 1 {
		return "", refuse(ReasonMalformed, "several authorization values")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimLeft(token, " ")
	if !equalASCII(scheme, "bearer") || token == "" {
		return "", refuse(ReasonMissing, "authorization is not a bearer token")
	}
	return token, nil
}
