package service

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
)

// Calls are the calls of one server: its errors become what callers see, and are
// counted.
type Calls struct {
	Logger  *slog.Logger
	Metrics *Metrics
	// Unreadable is called with what gRPC says of a message that it could not hand over;
	// nil: nobody counts those.
	Unreadable func(error)
}

// finish turns the error a method ended with into a status, counts both, and
// logs what is a defect of ours, once.
func (c *Calls) finish(method string, err error) error {
	out := ToStatus(err)
	if t, ok := errors.AsType[*auth.TokenError](err); ok {
		c.logToken(method, t)
	}
	var refused *Refusal
	if errors.As(out, &refused) {
		c.Metrics.Refused(refused.Reason)
		if refused.Reason == pb.ErrorReason_ERROR_REASON_INTERNAL {
			c.Logger.Error("call failed", "method", method, "error", err)
		}
	}
	c.Metrics.Call(method, status.Code(out))
	return out
}

// logToken notes a refused token. Anybody can send tokens that no registered
// key signed, as many as they like: those are for debugging only.
func (c *Calls) logToken(method string, t *auth.TokenError) {
	level := slog.LevelDebug
	if t.Organization != "" {
		level = slog.LevelInfo
	}
	c.Logger.Log(context.Background(), level, "token refused", "method", method, "token", t)
}

// MethodNames returns the full names of a service's methods.
func MethodNames(descs ...*grpc.ServiceDesc) []string {
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

// Wrap returns the service with its unary methods as Calls has them. It takes more
// than an interceptor, because there are two sides: inside of all interceptors
// it takes the message, and outside of them it sees how the call ended, be it
// that authentication refused it.
func (c *Calls) Wrap(d grpc.ServiceDesc) *grpc.ServiceDesc {
	return AuthBeforeDecode(d, c.receive, c.finish)
}

// AuthBeforeDecode returns the service with the interceptors of its unary methods before
// the message: a caller without a right is not waited for, and so can't hold a
// call open by never sending one. receive takes the message with decode, which
// is gRPC's; finish sees what the method ended with.
func AuthBeforeDecode(d grpc.ServiceDesc, receive func(decode func(any) error, m any) error, finish func(method string, err error) error) *grpc.ServiceDesc {
	methods := make([]grpc.MethodDesc, len(d.Methods))
	for i, m := range d.Methods {
		full, inner := "/"+d.ServiceName+"/"+m.MethodName, m.Handler
		methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			call := func(ctx context.Context, _ any) (any, error) {
				return inner(srv, ctx, func(m any) error { return receive(dec, m) }, nil)
			}
			if interceptor == nil {
				interceptor = noInterceptor
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

// noInterceptor is an interceptor that does nothing.
func noInterceptor(ctx context.Context, m any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	return next(ctx, m)
}

// Stream is the outermost interceptor of methods that stream.
func (c *Calls) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !Ours(info.FullMethod) {
		return handler(srv, ss)
	}
	return c.finish(info.FullMethod, handler(srv, decodingStream{ss, c}))
}

// decodingStream receives as Calls has it.
type decodingStream struct {
	grpc.ServerStream
	calls *Calls
}

// RecvMsg implements grpc.ServerStream.
func (s decodingStream) RecvMsg(m any) error {
	if own, ok := m.(Decoder); ok { // says itself what is wrong with it
		return s.calls.unreadable(s.ServerStream.RecvMsg(own))
	}
	return s.calls.receive(s.ServerStream.RecvMsg, m)
}

// receive decodes into m with decode, gRPC's, and returns malformed as refusal.
func (c *Calls) receive(decode func(any) error, m any) error {
	taken := received{message: m}
	if err := c.unreadable(decode(&taken)); err != nil {
		return err
	}
	if taken.err != nil {
		return Malformed()
	}
	return nil
}

// unreadable has an error counted with which gRPC could not hand over a message.
func (c *Calls) unreadable(err error) error {
	if err != nil && c.Unreadable != nil {
		c.Unreadable(err)
	}
	return err
}

// Ours reports whether the method is of our contract: not health, not
// reflection, which answer anybody.
func Ours(fullMethod string) bool { return strings.HasPrefix(fullMethod, "/badgerelay.v1.") }
