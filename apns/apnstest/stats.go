package apnstest

import (
	"maps"
	"sync"
	"sync/atomic"

	"badgerelay/apns"
)

// Stats is what a Simulator has done so far.
type Stats struct {
	Seed        uint64                 `json:"seed"`
	Devices     int                    `json:"devices"`
	Connections int                    `json:"connections"` // open now
	Connects    uint64                 `json:"connects"`    // accepted by the listener
	Handshakes  uint64                 `json:"handshakes"`  // of these, finished
	InFlight    int                    `json:"inFlight"`    // streams open now
	Requests    uint64                 `json:"requests"`    // complete ones
	Accepted    uint64                 `json:"accepted"`    // answered 200
	Repeated    uint64                 `json:"repeated"`    // of these, badges that the device showed already; not counted when Fast
	Reasons     map[apns.Reason]uint64 `json:"reasons"`     // answered otherwise
	Rules       map[Rule]uint64        `json:"rules"`       // rules broken
	Injected    map[string]uint64      `json:"injected"`    // faults injected, by name
	GoAways     uint64                 `json:"goaways"`     // GOAWAY frames sent
	BytesRead   uint64                 `json:"bytesRead"`   // inside TLS
	FastLane    uint64                 `json:"fastLane"`    // requests that went the short way of fast mode
	Writes      uint64                 `json:"writes"`      // to connections; each may carry many answers
}

// counters is Stats while it grows. Safe for concurrent use.
type counters struct {
	connections, inFlight                    atomic.Int64
	connects, handshakes, requests, accepted atomic.Uint64
	goAways, bytesRead, writes, fastLane     atomic.Uint64
	repeated                                 atomic.Uint64

	mu       sync.Mutex
	reasons  map[apns.Reason]uint64
	rules    map[Rule]uint64
	injected map[string]uint64
}

func (c *counters) refused(reason apns.Reason, rule Rule) {
	c.mu.Lock()
	if reason != "" {
		c.reasons[reason]++
	}
	if rule != "" {
		c.rules[rule]++
	}
	c.mu.Unlock()
}

func (c *counters) inject(f Fault) {
	c.mu.Lock()
	c.injected[f.String()]++
	c.mu.Unlock()
}

// Stats returns what the simulator has done so far.
func (s *Simulator) Stats() Stats {
	c := &s.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Seed: s.seed, Devices: s.DeviceCount(),
		Connections: int(c.connections.Load()), InFlight: int(c.inFlight.Load()),
		Connects: c.connects.Load(), Handshakes: c.handshakes.Load(),
		Requests: c.requests.Load(), Accepted: c.accepted.Load(), Repeated: c.repeated.Load(),
		GoAways: c.goAways.Load(), BytesRead: c.bytesRead.Load(), Writes: c.writes.Load(), FastLane: c.fastLane.Load(),
		Reasons: maps.Clone(c.reasons), Rules: maps.Clone(c.rules), Injected: maps.Clone(c.injected),
	}
}
