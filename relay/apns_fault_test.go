package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// faultKeys are what the simulator and the pool need, made once outside every
// bubble.
var faultKeys = sync.OnceValues(func() (*ecdsa.PrivateKey, *apnstest.Authority) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	authority, err := apnstest.NewAuthority()
	if err != nil {
		panic(err)
	}
	return key, authority
})

// apnsHarness is a relay that pushes through a real pool to a simulator.
type apnsHarness struct {
	*harness
	sim     *apnstest.Simulator
	apns    *apns.Pool
	metrics *prometheus.Registry
	start   func() // the pool begins to connect; withAPNs does not
}

// withAPNs runs a test in fake time with a relay, a pool and a simulator.
func withAPNs(t *testing.T, sim apnstest.Config, pool apns.Config, f func(t *testing.T, h *apnsHarness)) {
	t.Helper()
	key, authority := faultKeys()
	synctest.Test(t, func(t *testing.T) {
		sim.Authority, sim.Hosts, sim.AcceptUnknownDevices = authority, []string{"push.example"}, true
		sim.TeamKeys = []apnstest.TeamKey{{TeamID: "TEAM000001", KeyID: "KEY0000001", Key: &key.PublicKey}}
		simulator, err := apnstest.New(sim)
		if err != nil {
			t.Fatal(err)
		}
		defer simulator.Close()
		h := newAPNsHarness(t, simulator, pool, key, authority)
		defer h.stop()
		f(t, h)
		h.check()
	})
}

func newAPNsHarness(t *testing.T, sim *apnstest.Simulator, c apns.Config, key *ecdsa.PrivateKey, ca *apnstest.Authority) *apnsHarness {
	t.Helper()
	metrics := prometheus.NewRegistry()
	registry := newMemoryRegistry()
	r := newRelay(t, registry, func(c *Config) { c.Registerer = metrics })
	token, err := apns.NewTokenSource(apns.TokenConfig{Key: key, KeyID: "KEY0000001", TeamID: "TEAM000001"})
	if err != nil {
		t.Fatal(err)
	}
	c.App, c.Topic, c.Addr, c.Token = app, app, "push.example:443", token
	c.RootCAs, c.Dial, c.Source = ca.Pool(), sim.Dial, r.Source(app)
	if c.Metrics, err = apns.NewMetrics(metrics); err != nil {
		t.Fatal(err)
	}
	pool, err := apns.NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWake(app, pool.Wake)
	h := &harness{t: t, relay: r, registry: registry, pool: newScriptedPool(), sequence: map[*Stream]uint64{}}
	begin := make(chan struct{})
	h.run(func(ctx context.Context) {
		select {
		case <-begin:
			_ = pool.Run(ctx) // never fails
		case <-ctx.Done():
		}
	})
	return &apnsHarness{h, sim, pool, metrics, func() { close(begin) }}
}

// counters returns every counter and gauge that the metrics hold, by name and
// the labels that are not the app.
func (h *apnsHarness) counters() map[string]float64 {
	h.t.Helper()
	families, err := h.metrics.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, l := range m.GetLabel() {
				if l.GetName() != "app" {
					name += " " + l.GetValue()
				}
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// faultRow is what one fault does to three events. It strikes with the first
// push of theirs, or where quiet is not 0 that long before, or, if it is one of
// connects, the first connection.
type faultRow struct {
	quiet    time.Duration
	from, by time.Duration // when the last of the three is settled
	reasons  string        // apns_pushes_total beside accepted, as "reason=n", sorted
	resent   int           // pushes_resent_total
	twice    int           // pushes that APNs took although it had taken the same count
	connects string        // apns_connects_total as "ok/failed"
}

// Times that rows have in common.
const (
	atOnce     = 0
	moment     = 10 * time.Millisecond // a step of the test
	hold       = 2 * time.Second       // Faults.Hold
	afterPause = 1250*time.Millisecond + 3*moment
	appleWaits = 15 * time.Minute // after a 5xx
	appleBy    = appleWaits*5/4 + 20*time.Second
)

var faultRows = map[apnstest.Fault]faultRow{
	// The answer comes, late or in an odd shape: nothing is sent again.
	apnstest.FaultLate:          {0, 3 * time.Second, 3*time.Second + 100*moment, "", 0, 0, "1/0"},
	apnstest.FaultSplitAnswer:   {0, atOnce, moment, "", 0, 0, "1/0"},
	apnstest.FaultUnknownFrames: {0, atOnce, moment, "", 0, 0, "1/0"},
	apnstest.FaultInformational: {0, atOnce, moment, "", 0, 0, "1/0"},
	apnstest.FaultHugeHeaders:   {0, atOnce, moment, "", 0, 0, "1/0"},
	apnstest.FaultMissingID:     {0, atOnce, moment, "", 0, 0, "1/0"},

	// No answer comes: the one push is sent again, on another connection unless
	// it certainly was not processed. A stuck stream is given up after three
	// times the answer timeout.
	apnstest.FaultStallStream: {0, 30 * time.Second, 32 * time.Second, "Timeout=1", 1, 1, "2/0"},
	// A connection that refuses what it granted pauses for 50 ms, unless an answer
	// of another push comes first.
	apnstest.FaultRefuseStream: {0, atOnce, 50*time.Millisecond + moment, "StreamRefused=1", 1, 0, "1/0"},
	apnstest.FaultResetStream:  {0, atOnce, moment, "StreamReset=1", 1, 1, "2/0"},
	apnstest.FaultAnswerReset:  {0, atOnce, moment, "StreamReset=1", 1, 1, "2/0"},

	// 410 with a time before the registration: the event settles, the subscription
	// stays, and the count is tried again after twenty minutes.
	apnstest.FaultDuplicateGone: {0, atOnce, moment, "Unregistered=1", 0, 0, "1/0"},
	apnstest.FaultOldTimestamp:  {0, atOnce, moment, "Unregistered=1", 0, 0, "1/0"},

	// Apple is unwell: the same count waits as long as Apple asks, the others
	// are not held up. A connection that said 500 or Shutdown is left.
	apnstest.FaultServerError:  {0, appleWaits, appleBy, "InternalServerError=1", 0, 0, "2/0"},
	apnstest.FaultUnavailable:  {0, appleWaits, appleBy, "ServiceUnavailable=1", 0, 0, "1/0"},
	apnstest.FaultShuttingDown: {0, appleWaits, appleBy, "Shutdown=1", 0, 0, "2/0"},
	apnstest.FaultWedge:        {0, appleWaits, appleBy, "InternalServerError=3", 0, 0, "2/0"},
	apnstest.FaultTooMany:      {0, time.Second, afterPause, "TooManyRequests=1", 0, 0, "1/0"},

	// A young token that is called expired can't be renewed within 20 minutes:
	// the app counts as refused, with an alarm, until a probe gets through.
	apnstest.FaultTokenExpired: {0, 5 * time.Second, 7 * time.Second, "ExpiredProviderToken=3", 3, 0, "2/0"},

	// The connection goes, and everything in flight goes elsewhere. A stalled
	// socket is noticed by its silence: answer timeout, PING, its timeout.
	apnstest.FaultStallSocket: {0, 15 * time.Second, 26 * time.Second, "ConnectionLost=3", 3, 1, "2/0"},
	apnstest.FaultReset:       {0, atOnce, moment, "ConnectionLost=3", 3, 3, "2/0"},
	apnstest.FaultHalfClose:   {0, atOnce, moment, "ConnectionLost=3", 3, 3, "2/0"},

	// GOAWAY: what is above the last stream is sent again at once, and only that.
	apnstest.FaultGoAway:          {0, atOnce, moment, "GoneAway=2", 2, 0, "2/0"},
	apnstest.FaultGoAwayEarly:     {0, atOnce, moment, "GoneAway=3", 3, 0, "2/0"},
	apnstest.FaultGoAwayTwice:     {0, atOnce, moment, "GoneAway=2", 2, 0, "2/0"},
	apnstest.FaultGoAwayText:      {0, atOnce, moment, "GoneAway=2", 2, 0, "2/0"},
	apnstest.FaultGoAwayTruncated: {0, atOnce, moment, "GoneAway=2", 2, 0, "2/0"},

	// The limits fall: with one stream the pushes go one after the other; with
	// none they wait for it, or for a connection of their own.
	apnstest.FaultLimitOne:     {moment, atOnce, moment, "", 0, 0, "1/0"},
	apnstest.FaultLimitZero:    {moment, atOnce, hold, "", 0, 0, "2/0"},
	apnstest.FaultStarveWindow: {moment, atOnce, moment, "", 0, 0, "1/0"},

	// After an hour of silence a PING asks whether anybody is there.
	apnstest.FaultIgnorePing: {61 * time.Minute, atOnce, moment, "", 0, 0, "2/0"},
	apnstest.FaultPingFlood:  {moment, atOnce, moment, "", 0, 0, "1/0"},

	// The first connection fails, and another follows after a jittered second;
	// or it is slow.
	apnstest.FaultRefuseConnect:      {0, 500 * time.Millisecond, 1100 * time.Millisecond, "", 0, 0, "1/1"},
	apnstest.FaultExpiredCertificate: {0, 500 * time.Millisecond, 1100 * time.Millisecond, "", 0, 0, "1/1"},
	apnstest.FaultWrongName:          {0, 500 * time.Millisecond, 1100 * time.Millisecond, "", 0, 0, "1/1"},
	apnstest.FaultSlowTLS:            {0, hold, hold + 10*moment, "", 0, 0, "1/0"},
	apnstest.FaultLateSettings:       {0, hold, hold + 10*moment, "", 0, 0, "1/0"},
}

// faultSeen is what an operator sees while a fault goes on: which of these gauges
// are up while a count is pending. No single fault opens the breaker.
var faultSeen = map[apnstest.Fault]string{
	apnstest.FaultServerError:        "devices_waiting",
	apnstest.FaultUnavailable:        "devices_waiting",
	apnstest.FaultShuttingDown:       "devices_waiting",
	apnstest.FaultWedge:              "devices_waiting",
	apnstest.FaultTooMany:            "devices_waiting",
	apnstest.FaultTokenExpired:       "apns_state refused",
	apnstest.FaultRefuseConnect:      "apns_state outage",
	apnstest.FaultExpiredCertificate: "apns_state outage",
	apnstest.FaultWrongName:          "apns_state outage",
}

// TestEveryFault has every fault of the simulator strike alone, and asserts
// what is sent again, what is not, and what an operator sees of it.
func TestEveryFault(t *testing.T) {
	for _, fault := range apnstest.AllFaults() {
		t.Run(fault.String(), func(t *testing.T) {
			want, ok := faultRows[fault]
			if !ok {
				t.Error("this fault has no row")
			}
			withAPNs(t, apnstest.Config{}, apns.Config{MaxConns: 4}, func(t *testing.T, h *apnsHarness) {
				got, seen, took := h.strike(fault, want.quiet)
				if seen != faultSeen[fault] {
					t.Errorf("an operator saw %q, want %q", seen, faultSeen[fault])
				}
				if took < want.from || took > want.by {
					t.Errorf("settled after %v, want %v to %v", took, want.from, want.by)
				}
				want.quiet, want.from, want.by = 0, 0, 0
				if got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			})
		})
	}
}

// strike lets the fault strike, and says what came of it, what was seen
// meanwhile, and how long it took.
func (h *apnsHarness) strike(fault apnstest.Fault, quiet time.Duration) (got faultRow, seen string, took time.Duration) {
	h.t.Helper()
	for i, name := range struckMailboxes {
		h.registry.subscribe(org, name, phone(i))
	}
	s := h.relay.OpenStream(org, "mx")
	defer s.Close()
	warm := 0
	if fault.OfConnect() {
		h.sim.Inject(fault, 1)
	}
	h.start()
	if !fault.OfConnect() {
		// Known mailboxes, so that the three pushes go out in one write.
		h.submit(s, count("struck", 1), count("second", 1), count("third", 1))
		h.after(2 * time.Second)
		warm = 1
	}
	if quiet > 0 {
		h.sim.Trigger(fault)
		h.after(quiet)
	} else if warm > 0 {
		h.sim.Inject(fault, 1)
	}
	start, saw := time.Now(), map[string]bool{}
	h.submit(s, count("struck", 7), count("second", 8), count("third", 9))
	for step := moment; h.relay.Ledger().Pending > 0 && took < time.Hour; {
		h.after(step)
		took = time.Since(start)
		step = min(max(step, took/50), 10*time.Second)
		values := h.counters()
		for _, gauge := range []string{"apns_state outage", "apns_state refused", "breaker_open", "devices_waiting"} {
			if values[gauge] > 0 && h.relay.Ledger().Pending > 0 {
				saw[gauge] = true
			}
		}
	}
	h.after(30 * time.Second) // nothing comes after
	if h.relay.Ledger().Outcomes[OutcomeUndeliverable] > 0 {
		h.after(20 * time.Minute) // save to a device that was called gone
	}
	return h.outcome(1 + warm), strings.Join(slices.Sorted(maps.Keys(saw)), ", "), took
}

var struckMailboxes = []string{"struck", "second", "third"}

// outcome says what came of three events, for each of which a device needs so many pushes.
func (h *apnsHarness) outcome(pushes int) (got faultRow) {
	h.t.Helper()
	values := h.counters()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		reason, ok := strings.CutPrefix(name, "apns_pushes_total ")
		if n := values[name]; ok && n > 0 && reason != "accepted" {
			got.reasons += fmt.Sprintf(" %s=%v", reason, n)
		}
	}
	got.reasons = strings.TrimSpace(got.reasons)
	got.resent = int(values["pushes_resent_total"])
	got.connects = fmt.Sprintf("%v/%v", values["apns_connects_total ok"], values["apns_connects_total failed"])
	for i, name := range struckMailboxes {
		d, _ := h.sim.Device(phone(i))
		got.twice += int(d.Accepted) - pushes
		if want := uint32(7 + i); d.Badge != want {
			h.t.Errorf("the device of %q shows %d, want %d", name, d.Badge, want)
		}
	}
	undeliverable := uint64(strings.Count(got.reasons, "Unregistered"))
	if l := h.relay.Ledger(); l.Outcomes[OutcomeDelivered] != l.Accepted-undeliverable || l.Outcomes[OutcomeUndeliverable] != undeliverable {
		h.t.Errorf("ledger %+v, want everything delivered but %d", l, undeliverable)
	}
	for name, n := range h.sim.ClientFaults() {
		if n > 0 {
			h.t.Errorf("the simulator counts %d of %s", n, name)
		}
	}
	return got
}
