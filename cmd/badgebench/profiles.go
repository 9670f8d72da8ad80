package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"badgerelay/cmd/internal/rig"
)

// profiles are the files for what a relay profiles of itself under load; empty: none.
type profiles struct{ cpu, heap string }

func (p *profiles) register(f *pflag.FlagSet) {
	f.StringVar(&p.cpu, "cpuprofile", "", "write the relay's CPU profile under load to this `file`")
	f.StringVar(&p.heap, "heapprofile", "", "write what the relay's memory holds under load to this `file`")
}

// profile has the relay profile itself during d; the function waits for it.
func (p *profiles) profile(ctx context.Context, relay *rig.Relay, d time.Duration) func() error {
	var wg sync.WaitGroup
	var err error
	if p.cpu != "" {
		wg.Go(func() { err = relay.CPUProfile(ctx, d-time.Second, p.cpu) }) // ends with its time
	}
	return func() error {
		wg.Wait()
		if p.heap != "" {
			err = errors.Join(err, relay.HeapProfile(ctx, p.heap))
		}
		return err
	}
}
