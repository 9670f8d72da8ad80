//go:build !race

package apns_test

import (
	"context"
	"net"
	"runtime"
	"testing"

	"badgerelay/apns"
)

// TestPushAllocatesNothing holds the native engine to its budget: over many
// pushes, less than one allocation in fifty, the peer's included.
func TestPushAllocatesNothing(t *testing.T) {
	addr := sink(t)
	e := &endless{finished: make(chan struct{})}
	for i := range 1024 {
		e.devices = append(e.devices, device(i))
	}
	f := startPool(t, apns.Config{MaxConns: 1, Source: e,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}})
	run := func(n int64) {
		e.done.Store(n)
		e.left.Store(n)
		f.pool.Wake()
		<-e.finished
	}
	run(1)
	run(50000) // buffers have grown
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const pushes = 100000
	run(pushes)
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > pushes/50 {
		t.Errorf("%d allocations in %d pushes", n, pushes)
	}
}
