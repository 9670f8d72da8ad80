package apns

import "time"

// State is how a pool fares.
type State uint8

// The states.
const (
	// StateConnecting: no connection is up, none has failed.
	StateConnecting State = iota
	// StateUp: at least one connection is up.
	StateUp
	// StateOutage: no connection is up and the last attempts failed.
	StateOutage
	// StateRefused: APNs refuses the credential or the topic. Single pushes probe
	// whether it still does.
	StateRefused
)

// String returns the state in lower case, as metrics and pages show it.
func (s State) String() string {
	switch s {
	case StateUp:
		return "up"
	case StateOutage:
		return "outage"
	case StateRefused:
		return "refused"
	}
	return "connecting"
}

// Stats is what a pool looks like at one moment.
type Stats struct {
	App            string
	Topic          string
	Environment    Environment
	State          State
	Refused        Reason // with StateRefused: what APNs said
	RefusedSince   time.Time
	Connections    int   // up and taking work
	StreamsGranted int   // how many pushes may be in flight
	InFlight       int   // how many are
	Connects       int64 // attempts since the beginning
	ConnectsFailed int64
	LastError      error         // nil: none so far
	TokenAge       time.Duration // of the provider token; 0 with a certificate
	CertificateEnd time.Time     // zero with a provider token
}

// Stats returns the present state. It is cheap and may be called from any
// goroutine.
func (p *Pool) Stats() Stats {
	s := Stats{
		App: p.config.App, Topic: p.config.Topic, Environment: p.config.Environment,
		Connects: p.m.connects.Load(), ConnectsFailed: p.m.failed.Load(),
	}
	for _, c := range *p.conns.Load() {
		state := c.state()
		s.InFlight += int(state.inFlight.Load())
		if !state.leaving.Load() {
			s.Connections++
			s.StreamsGranted += int(state.granted.Load())
		}
	}
	p.mu.Lock()
	s.LastError, s.Refused, s.RefusedSince = p.lastError, p.refusedAs, p.refusedSince
	p.mu.Unlock()
	switch {
	case p.refusing.Load():
		s.State = StateRefused
	case s.Connections > 0:
		s.State = StateUp
	case p.m.outage.Load():
		s.State = StateOutage
	}
	cred := p.cred.Load()
	if cred.Token != nil {
		s.TokenAge = cred.Token.Age(time.Now())
	}
	s.CertificateEnd = cred.expiry()
	return s
}
