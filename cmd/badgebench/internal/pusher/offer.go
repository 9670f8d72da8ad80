package pusher

import (
	"time"
)

// Offer is an open loop: pushes come due at a rate, whether they flow or not.
type Offer struct {
	Rate     float64 // a second
	Duration time.Duration
}

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

// Offer pushes at a rate and looks at what flows.
func (r *Role) Offer(o Offer, f *Flow) error {
	*f = Flow{}
	return r.measure(&f.Pushed, func() error {
		r.supply.due.Store(1 << 60) // nobody waits for the end
		start := time.Now()
		tick := time.NewTicker(offerEvery)
		defer tick.Stop()
		offered, sampled := int64(0), time.Duration(0)
		for since := time.Duration(0); since < o.Duration; since = time.Since(start) {
			due := int64(since.Seconds() * o.Rate)
			room := int64(backlog*o.Rate) - r.supply.left.Load()
			if n := min(due-offered, room); n > 0 {
				r.supply.left.Add(n)
				r.wake()
			}
			offered = due
			if since >= sampled {
				f.Samples = append(f.Samples, r.look(since))
				sampled += sampleEvery
			}
			<-tick.C
		}
		r.supply.left.Store(0)
		f.Samples = append(f.Samples, r.look(time.Since(start)))
		return nil
	})
}

func (r *Role) look(at time.Duration) Sample {
	s := Sample{At: at, Accepted: r.supply.accepted.Load()}
	for _, p := range r.pools {
		stats := p.Stats()
		s.Connections += stats.Connections
		s.Connects += stats.Connects
		s.Granted += stats.StreamsGranted
	}
	return s
}
