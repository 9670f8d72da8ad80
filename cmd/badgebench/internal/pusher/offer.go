package pusher

import (
	"context"
	"time"
)

// Flow is how a pool coped with an offer.
type Flow struct {
	Samples []Sample // every sampleEvery
	Pushed  Pushed
}

// Sample is one look at the pool.
type Sample struct {
	At          time.Duration // since the offer began
	Accepted    int64         // so far
	Connections int           // up
	Connects    int64         // attempts so far
	Granted     int           // streams
}

const (
	offerEvery  = time.Millisecond
	sampleEvery = 100 * time.Millisecond
	// backlog is how much of what came due may wait, in seconds of the rate;
	// what is beyond was superseded by newer counts. Ours.
	backlog = 0.25
)

// Offer pushes at a rate, an open loop, and looks at what flows: pushes come due
// whether those before have flowed or not.
func (p *Pusher) Offer(ctx context.Context, rate float64, duration time.Duration) (f Flow, err error) {
	f.Pushed, err = p.measure(func() error {
		p.supply.due.Store(1 << 60) // nobody waits for the end
		start := time.Now()
		tick := time.NewTicker(offerEvery)
		defer tick.Stop()
		offered, sampled := int64(0), time.Duration(0)
		for since := time.Duration(0); since < duration && ctx.Err() == nil; since = time.Since(start) {
			due := int64(since.Seconds() * rate)
			room := int64(backlog*rate) - p.supply.left.Load()
			if n := min(due-offered, room); n > 0 {
				p.supply.left.Add(n)
				p.wake()
			}
			offered = due
			if since >= sampled {
				f.Samples = append(f.Samples, p.look(since))
				sampled += sampleEvery
			}
			<-tick.C
		}
		p.supply.left.Store(0)
		f.Samples = append(f.Samples, p.look(time.Since(start)))
		return ctx.Err()
	})
	return f, err
}

func (p *Pusher) look(at time.Duration) Sample {
	s := Sample{At: at, Accepted: p.supply.accepted.Load()}
	for _, pool := range p.pools {
		stats := pool.Stats()
		s.Connections += stats.Connections
		s.Connects += stats.Connects
		s.Granted += stats.StreamsGranted
	}
	return s
}
