package ingest

import (
	"context"
	"time"
)

// Drain ends serving: health says NOT_SERVING, new streams are refused, watches
// end, every stream gets a drain notice and ends when all it sent has settled,
// at the latest after the grace. Then the connections close. When ctx ends,
// what is left is cut off. A second call waits for the first.
func (s *Server) Drain(ctx context.Context) {
	if s.drainBegun.CompareAndSwap(false, true) {
		s.drain(ctx)
		close(s.drained)
	}
	<-s.drained
}

func (s *Server) drain(ctx context.Context) {
	s.health.Shutdown()
	s.beginDrain()
	s.limiter.closeHalfOpen() // gRPC would wait for them
	stopped := make(chan struct{})
	s.background.Go(func() {
		s.grpc.GracefulStop() // refuses new calls at once, then waits for those open
		close(stopped)
	})
	s.awaitStop(ctx, stopped)
	s.leave()
	s.grpc.Stop()
	<-stopped
	s.unlisten()
}

// awaitStop waits until all calls have ended by themselves. When the grace is
// over it has them end; those that don't, because they neither look nor are
// ours, get a last second.
func (s *Server) awaitStop(ctx context.Context, stopped <-chan struct{}) {
	grace := time.NewTimer(s.drainGrace)
	defer grace.Stop()
	select {
	case <-stopped:
		return
	case <-ctx.Done():
		return
	case <-grace.C:
	}
	s.leave()
	last := time.NewTimer(flushTime + time.Second)
	defer last.Stop()
	select {
	case <-stopped:
	case <-ctx.Done():
	case <-last.C:
	}
}

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}
