package simulation

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns/apnstest"
	pb "badgerelay/proto/badgerelay/v1"
)

// Options say what a run prints.
type Options struct {
	Trace   io.Writer // gets what happens, line by line. nil: nobody
	Verbose bool      // and what the programs log
}

// Result is what a run found.
type Result struct {
	Seed      uint64         `json:"seed"`
	Problems  []string       `json:"problems,omitempty"`
	Hash      uint64         `json:"hash"` // of the trace
	Simulated time.Duration  `json:"simulated"`
	Events    int            `json:"events"` // sent by agents, again included
	Pushes    uint64         `json:"pushes"`
	Faults    map[string]int `json:"faults"`
	Outcomes  map[string]int `json:"outcomes"`
	Wrong     int            `json:"wrongBadges"`
	Foreign   int            `json:"foreignBadges"`
	Client    map[string]int `json:"clientFaults,omitempty"` // those that occurred

	Crashed bool     `json:"crashed,omitempty"` // the process died
	Trace   []string `json:"-"`
}

// Failed reports whether anything was not as it has to be.
func (r *Result) Failed() bool { return len(r.Problems) > 0 }

// The times of a run after its faults.
const (
	// settleTime is within which everything is right after the last fault.
	settleTime = 90 * time.Second
	// calmRounds of changes come after that, each shown within calmTime, also in
	// stalledRound, when no connection to APNs says anything any more.
	calmRounds   = 3
	stalledRound = 1
	calmTime     = 30 * time.Second
	// lateStrikes bounds for how long what was broken before may strike after it:
	// a connection that answers 500 to everything does so when it is used next.
	lateStrikes = 5 * time.Minute
)

// Run runs a plan in a bubble of its own.
func Run(t *testing.T, p *Plan, o Options) (result *Result) {
	keys()
	synctest.Test(t, func(*testing.T) { result = run(p, o) })
	return result
}

func run(p *Plan, o Options) *Result {
	w := newWorld(p, o)
	w.start()
	for i := range p.Steps {
		s := &p.Steps[i]
		w.events.at(w.began.Add(time.Second+s.At), func() { w.do(s); w.checkLedgers() })
	}
	w.events.drive(w.began.Add(time.Second + p.Length))
	w.calm()
	w.settle(settleTime)
	w.judge("after the faults")
	if p.Late.Kind == Outcast {
		w.judgeSums() // before sums lack what is disabled
	}
	w.late(&p.Late)
	w.judged.Store(true)
	for i := range calmRounds {
		if i == stalledRound {
			w.trace.add("connections to APNs stall")
			w.apns.Trigger(apnstest.FaultStallSocket)
		}
		for n := i; n < len(w.mailboxes); n += calmRounds {
			w.change(w.mailboxes[n], false)
		}
		w.settle(calmTime)
		w.judge(fmt.Sprintf("in the calm, %d", i+1))
	}
	w.judgeForeign()
	w.judgeOrder()
	if p.Late.Kind != Outcast {
		w.judgeSums()
	}
	w.judgeClient()
	stats := w.apns.Stats()
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &Result{
		Seed: p.Seed, Problems: w.problems, Hash: w.trace.sum(), Simulated: time.Since(w.began), Events: w.sent, Pushes: stats.Requests,
		Faults: w.faults, Outcomes: map[string]int{}, Wrong: w.wrong, Foreign: w.foreign, Client: map[string]int{}, Trace: w.trace.lines,
	}
	for outcome, n := range w.outcomes {
		r.Outcomes[pb.Outcome_name[int32(outcome)]] = n
	}
	maps.Copy(r.Client, w.apns.ClientFaults())
	maps.DeleteFunc(r.Client, func(name string, n int) bool { return n == 0 || w.forgives(name) })
	return r
}

// settle lets everything happen that comes within a time, or within settleTime
// after the last fault of APNs was met.
func (w *world) settle(within time.Duration) {
	began := time.Now()
	w.events.drive(began.Add(within))
	for struck := w.lastStrike(); struck.After(began); struck = w.lastStrike() {
		if time.Since(began) > lateStrikes {
			w.problem("APNs still refuses %v after the faults", time.Since(began))
			return
		}
		until := struck.Add(settleTime)
		if !until.After(time.Now()) {
			return
		}
		w.events.drive(until)
	}
}

// judgeClient says what the relays did that APNs holds against a client.
func (w *world) judgeClient() {
	for name, n := range w.apns.ClientFaults() {
		if n > 0 && !w.forgives(name) {
			w.problem("client fault %s, %d times", name, n)
		}
	}
}

// forgives reports whether a client fault of the simulated APNs is none.
func (w *world) forgives(name string) bool {
	switch name {
	case apnstest.ClientTwoInFlight, apnstest.ClientEarly5xx:
		// It counts all its clients as one, and a 5xx that was lost with its
		// connection. sourceTap looks at what each process knows.
		return true
	case apnstest.ClientDeadDevice:
		// What one relay was told another hears from the registry. And a device of two
		// organizations ends each one's subscription with its own next event.
		last := w.apns.LastFaultDevices()[name]
		return len(w.processes) > 1 || slices.ContainsFunc(w.devices, func(d *device) bool { return d.token == last && d.everShared() })
	case apnstest.ClientAfterGoAway:
		// A second after it was sent, which is before it arrives where the way is
		// slow or cut off.
		return w.plan.has(SlowAPNs, PartAPNs, OneSidedAPNs, Outage, DrainBusy)
	}
	return false
}

// MarshalLine is the result as one line of JSON.
func (r *Result) MarshalLine() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	return string(b)
}
