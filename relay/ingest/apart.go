package ingest

import "google.golang.org/grpc"

// apart runs f on a goroutine of its own, and waits for it. A stream's goroutines wait
// for hours, and what they did before decides how large their stacks stay: Go halves one
// only while less than a quarter of it is in use, and gRPC's frames below a handler, or
// below RecvMsg, are more than a quarter of 8 kB. So what goes deep is done apart, and
// their stacks never grow beyond 4 kB.
//
// Source: shrinkstack in https://go.dev/src/runtime/stack.go (read 2026-11).
func apart(f func() error) error {
	done := make(chan error)
	go func() { done <- f() }() // ends with f
	return <-done
}

// checkedApart returns an interceptor that runs check apart. check has to do all its work
// before it calls its handler.
func checkedApart(check grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		checked := ss
		var note grpc.StreamHandler = func(_ any, s grpc.ServerStream) error {
			checked = s
			return nil
		}
		if err := apart(func() error { return check(srv, ss, info, note) }); err != nil {
			return err
		}
		return handler(srv, checked)
	}
}
