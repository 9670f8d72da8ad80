package ingest

import (
	"context"
	"strings"

	"google.golang.org/grpc"
)

// methodNames returns the full names of a service's methods.
func methodNames(descs ...*grpc.ServiceDesc) []string {
	var names []string
	for _, d := range descs {
		for _, m := range d.Methods {
			names = append(names, "/"+d.ServiceName+"/"+m.MethodName)
		}
		for _, m := range d.Streams {
			names = append(names, "/"+d.ServiceName+"/"+m.StreamName)
		}
	}
	return names
}

// wrap returns the service with its unary methods behind the rim. It takes more
// than an interceptor, because the rim has two sides: inside of all interceptors
// it takes the message, and outside of them it sees how the call ended, be it
// that authentication refused it.
func (r *rim) wrap(d grpc.ServiceDesc) *grpc.ServiceDesc { return early(d, r.receive, r.finish) }

// early returns the service with the interceptors of its unary methods before
// the message: a caller without a right is not waited for, and so can't hold a
// call open by never sending one. receive takes the message with decode, which
// is gRPC's; finish sees what the method ended with.
func early(d grpc.ServiceDesc, receive func(decode func(any) error, m any) error, finish func(method string, err error) error) *grpc.ServiceDesc {
	methods := make([]grpc.MethodDesc, len(d.Methods))
	for i, m := range d.Methods {
		full, inner := "/"+d.ServiceName+"/"+m.MethodName, m.Handler
		methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			call := func(ctx context.Context, _ any) (any, error) {
				return inner(srv, ctx, func(m any) error { return receive(dec, m) }, nil)
			}
			if interceptor == nil {
				interceptor = straight
			}
			answer, err := interceptor(ctx, nil, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, call)
			if err := finish(full, err); err != nil {
				return nil, err
			}
			return answer, nil
		}}
	}
	d.Methods = methods
	return &d
}

// straight is an interceptor that does nothing.
func straight(ctx context.Context, m any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	return next(ctx, m)
}

// stream is the rim of methods that stream: the outermost interceptor.
func (r *rim) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !ours(info.FullMethod) {
		return handler(srv, ss)
	}
	return r.finish(info.FullMethod, handler(srv, decodingStream{ss, r}))
}

// unaryFault and streamFault stand inside of authentication, where it is known
// whose agent calls.
func (r *rim) unaryFault(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	tokenAccepted(ctx)
	answer, err := handler(ctx, req)
	r.logFault(ctx, info.FullMethod, err)
	return answer, err
}

func (r *rim) streamFault(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	tokenAccepted(ss.Context())
	err := handler(srv, ss)
	r.logFault(ss.Context(), info.FullMethod, err)
	return err
}

// decodingStream receives like the rim.
type decodingStream struct {
	grpc.ServerStream
	rim *rim
}

// RecvMsg implements grpc.ServerStream.
func (s decodingStream) RecvMsg(m any) error {
	if own, ok := m.(*streamRequest); ok { // says itself what is wrong with it
		if err := s.ServerStream.RecvMsg(own); err != nil {
			return s.rim.transport.unreadable(err)
		}
		return nil
	}
	return s.rim.receive(s.ServerStream.RecvMsg, m)
}

// receive decodes into m with decode, gRPC's, and returns malformed as refusal.
func (r *rim) receive(decode func(any) error, m any) error {
	taken := received{message: m}
	if err := decode(&taken); err != nil {
		return r.transport.unreadable(err)
	}
	if taken.err != nil {
		return malformed()
	}
	return nil
}

// ours reports whether the method is of our contract: not health, not
// reflection, which answer anybody.
func ours(fullMethod string) bool { return strings.HasPrefix(fullMethod, "/badgerelay.v1.") }
