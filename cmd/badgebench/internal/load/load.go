// Package load makes the events of a measurement, in the process that measures.
//
// Agents stream as many events as a relay settles, or at a rate. They must never
// be what limits, so they send the contract's messages without the client library,
// and don't reconnect: a stream that ends is an error of the measurement. A Fleet is many
// agents with few events: the real client library, a connection and a stream for each.
//
// Every event changes its mailbox's count, so that each can become a badge. Both
// know the newest version of each mailbox, which is what its devices have to show in
// the end.
package load

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	pb "badgerelay/proto/badgerelay/v1"
)

// Pace says how fast all agents together send.
type Pace struct {
	Rate float64 // events a second; 0: as fast as they settle, which a Fleet does not do
	Once bool    // one event for each mailbox, and no more
}

// tick is how often is looked what is due, and how long an agent with a rate gathers
// events into a batch.
const tick = time.Millisecond

// outcomes is above every outcome of the contract.
const outcomes = 16

// State is what agents have done so far.
type State struct {
	Sent      uint64
	Events    uint64 // that count for a measurement: those that have settled; of a fleet, that were sent
	Unsettled uint64
	Outcomes  [outcomes]uint64 // by the contract's number; of a fleet, none

	// Of a fleet.
	Connected int    // agents that have a stream
	Failures  uint64 // streams that ended or could not be opened
	Refusals  uint64 // of these, with a word of the relay's other than that it drains
}

const delivered = pb.Outcome_OUTCOME_DELIVERED

// newLatency counts from a microsecond to ten minutes, to one in a thousand.
func newLatency() *hdrhistogram.Histogram { return hdrhistogram.New(1, 600_000_000, 3) }

// record adds a latency. Beyond ten minutes the measurement is lost anyway.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(max(1, d.Microseconds()))
}
