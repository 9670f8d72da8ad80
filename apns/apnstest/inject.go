package apnstest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// faultPlan is Faults made ready to draw from. It never changes.
type faultPlan struct {
	Faults
	requests, connects []faultShare
	delays             bool // any latency at all
}

// faultShare is a fault and the sum of rates up to and with it.
type faultShare struct {
	fault Fault
	upTo  float64
}

func newFaultPlan(f Faults) *faultPlan {
	f.Rates = maps.Clone(f.Rates)
	p := &faultPlan{Faults: f, delays: f.Latency != (Latency{})}
	// In a fixed order, so that a seed repeats itself.
	for _, k := range slices.Sorted(maps.Keys(f.Rates)) {
		list := &p.requests
		if k.OfConnect() {
			list = &p.connects
		}
		sum := f.Rates[k]
		if n := len(*list); n > 0 {
			sum += (*list)[n-1].upTo
		}
		*list = append(*list, faultShare{k, sum})
	}
	return p
}

// draw returns the fault that strikes this time, mostly NoFault.
func draw(shares []faultShare, rng *rand.Rand) Fault {
	if len(shares) == 0 {
		return NoFault
	}
	r := rng.Float64()
	for _, s := range shares {
		if r < s.upTo {
			return s.fault
		}
	}
	return NoFault
}

// delay returns how long an answer takes.
func (p *faultPlan) delay(rng *rand.Rand) time.Duration {
	if !p.delays {
		return 0
	}
	l := &p.Latency
	d := l.Min
	if l.Jitter > 0 {
		d += time.Duration(rng.Int64N(int64(l.Jitter)))
	}
	if l.TailRate > 0 && l.Tail > 0 && rng.Float64() < l.TailRate {
		d += min(l.Tail, time.Duration(rng.ExpFloat64()*float64(l.Tail)/3))
	}
	return d
}

// SetFaults changes what is injected from now on, on open connections too.
// Invalid faults change nothing; the error is that of Faults.Validate.
func (s *Simulator) SetFaults(f Faults) error {
	if err := f.Validate(); err != nil {
		return err
	}
	s.plan.Store(newFaultPlan(f))
	return nil
}

// Faults returns what is injected now.
func (s *Simulator) Faults() Faults {
	f := s.plan.Load().Faults
	f.Rates = maps.Clone(f.Rates)
	return f
}

// Seed returns the seed of the faults drawn at random.
func (s *Simulator) Seed() uint64 { return s.seed }

// Inject makes f strike on the next n occasions: requests, whoever sends them,
// or connects. Occasions queue up in the order of the calls.
func (s *Simulator) Inject(f Fault, n int) {
	if f == NoFault || f >= faultCount {
		return
	}
	s.scriptMu.Lock()
	for range n {
		if f.OfConnect() {
			s.connectScript = append(s.connectScript, f)
		} else {
			s.script = append(s.script, Answer{Fault: f})
		}
	}
	s.countScript()
	s.scriptMu.Unlock()
}

// Trigger makes a fault of connections strike every open connection now. It
// returns how many it struck: 0 for faults of other kinds.
func (s *Simulator) Trigger(f Fault) int {
	if !f.OfConnection() {
		return 0
	}
	conns := s.openConns()
	for _, c := range conns {
		c.strike(f)
	}
	return len(conns)
}

// nextConnectFault returns the fault that strikes a new connection.
func (s *Simulator) nextConnectFault(rng *rand.Rand) Fault {
	s.scriptMu.Lock()
	if len(s.connectScript) > 0 {
		f := s.connectScript[0]
		s.connectScript = s.connectScript[1:]
		s.countScript()
		s.scriptMu.Unlock()
		return f
	}
	s.scriptMu.Unlock()
	return draw(s.plan.Load().connects, rng)
}

// chance reports true with the given probability.
func (s *Simulator) chance(p float64) bool {
	s.rngMu.Lock()
	defer s.rngMu.Unlock()
	return s.rng.Float64() < p
}

// randomDuration returns a duration in [0, limit).
func (s *Simulator) randomDuration(limit time.Duration) time.Duration {
	s.rngMu.Lock()
	defer s.rngMu.Unlock()
	return time.Duration(s.rng.Int64N(int64(limit)))
}
