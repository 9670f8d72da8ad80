package relay

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// longOutage is a relay whose APNs goes away for an hour, with three organizations
// of different size.
type longOutage struct {
	*apnsHarness
	streams [4]*Stream // by organization; 0 is none
	readers sync.WaitGroup
	round   uint32
}

var outageSizes = [4]int{0, 100, 20, 20}

const outageMailboxes = 140

func outageDevice(o OrganizationID, i int) apns.DeviceToken { return phone(int(o)*1000 + i) }

func newOutage(h *apnsHarness) *longOutage {
	out := &longOutage{apnsHarness: h}
	for o := OrganizationID(1); o <= 3; o++ {
		for i := range outageSizes[o] {
			h.registry.subscribe(o, fmt.Sprint("mailbox-", i), outageDevice(o, i))
		}
		out.streams[o] = h.relay.OpenStream(o, "mx")
		out.readers.Go(func() { // ends when the stream is closed
			for {
				if _, err := out.streams[o].Next(context.Background()); err != nil {
					return
				}
			}
		})
	}
	h.start()
	return out
}

func (out *longOutage) close() {
	for _, s := range out.streams[1:] {
		s.Close()
	}
	out.readers.Wait()
}

// submitAll sends another count for every mailbox.
func (out *longOutage) submitAll() {
	out.t.Helper()
	out.round++
	for o := OrganizationID(1); o <= 3; o++ {
		events := make([]Event, outageSizes[o])
		for i := range events {
			events[i] = count(fmt.Sprint("mailbox-", i), out.round)
		}
		out.submit(out.streams[o], events...)
	}
}

// anHour sends another count for every mailbox every ten seconds, and sees to
// it that nothing but the newest is kept.
func (out *longOutage) anHour() {
	out.t.Helper()
	var before, after runtime.MemStats
	for minute := range 60 {
		for range 6 {
			out.submitAll()
			out.after(10 * time.Second)
		}
		s, l := out.relay.Stats(), out.relay.Ledger()
		if l.Pending > outageMailboxes || s.Mailboxes != outageMailboxes || s.Devices != outageMailboxes || s.Queued+s.Waiting > outageMailboxes {
			out.t.Fatalf("after %d minutes: %+v, %d pending; want at most one of each a mailbox, %d", minute+1, s, l.Pending, outageMailboxes)
		}
		if minute == 9 {
			runtime.GC()
			runtime.ReadMemStats(&before)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		out.t.Errorf("the heap grew by %d KB in fifty minutes of outage", grown>>10)
	}
}

// wantNewest expects every device to show the last count that was sent.
func (out *longOutage) wantNewest() {
	out.t.Helper()
	if l := out.relay.Ledger(); l.Pending != 0 {
		out.t.Errorf("%d events are still pending", l.Pending)
	}
	for o := OrganizationID(1); o <= 3; o++ {
		for i := range outageSizes[o] {
			if d, ok := out.sim.Device(outageDevice(o, i)); !ok || d.Badge != out.round {
				out.t.Fatalf("device %d of organization %d shows %d, want %d", i, o, d.Badge, out.round)
			}
		}
	}
	for name, n := range out.sim.ClientFaults() {
		if n > 0 {
			out.t.Errorf("the simulator counts %d of %s", n, name)
		}
	}
}

func (out *longOutage) setFaults(f apnstest.Faults) {
	out.t.Helper()
	if err := out.sim.SetFaults(f); err != nil {
		out.t.Fatal(err)
	}
}

// TestOutageOfAnHour takes APNs away. Connects stay rare, the newest counts are
// all that is kept, and when APNs is back they go out once each, organizations
// in turn, and first come, first served within each.
func TestOutageOfAnHour(t *testing.T) {
	withAPNs(t, apnstest.Config{StreamLimit: 6}, apns.Config{MaxConns: 1}, func(t *testing.T, h *apnsHarness) {
		out := newOutage(h)
		defer out.close()
		out.submitAll()
		out.after(5 * time.Second)
		out.wantNewest()

		out.setFaults(apnstest.Faults{Rates: map[apnstest.Fault]float64{apnstest.FaultRefuseConnect: 1}})
		h.sim.CloseConnections()
		out.after(time.Second) // nothing is in flight, and goes to the front of the queue
		connects := h.apns.Stats().Connects
		out.anHour()
		if n := h.apns.Stats().Connects - connects; n < 50 || n > 150 {
			t.Errorf("%d connects in an hour, want one to two a minute", n)
		}
		if v := h.counters(); v["apns_state outage"] != 1 || v["apns_state up"] != 0 || v["events_pending"] != outageMailboxes {
			t.Errorf("an operator sees outage=%v, up=%v, pending=%v", v["apns_state outage"], v["apns_state up"], v["events_pending"])
		}

		h.sim.ClearHistory()
		connects = h.apns.Stats().Connects
		out.setFaults(apnstest.Faults{Latency: apnstest.Latency{Min: 100 * time.Millisecond}})
		out.after(90 * time.Second)
		out.wantNewest()
		out.wantFairOrder(h.sim.History())
		if n := h.apns.Stats().Connects - connects; n > 2 {
			t.Errorf("%d connects when APNs was back", n)
		}
		if v := h.counters(); v["apns_state up"] != 1 || v["events_pending"] != 0 {
			t.Errorf("an operator sees up=%v, pending=%v", v["apns_state up"], v["events_pending"])
		}
	})
}

// wantFairOrder expects one push a device: organizations in turn as long as
// they have any, each in the order in which its mailboxes first asked.
func (out *longOutage) wantFairOrder(history []apnstest.Record) {
	out.t.Helper()
	if len(history) != outageMailboxes {
		out.t.Errorf("%d pushes when APNs was back, want one a device, %d", len(history), outageMailboxes)
	}
	var sent [4]int
	for n, r := range history {
		raw := r.Device.AppendRaw(nil)
		var number int
		if _, err := fmt.Sscanf(fmt.Sprintf("%x", raw[24:]), "%x", &number); err != nil {
			out.t.Fatal(err)
		}
		o, i := number/1000, number%1000
		if i != sent[o] {
			out.t.Errorf("push %d is for mailbox %d of organization %d, want %d: first come, first served", n, i, o, sent[o])
		}
		sent[o]++
		if n < 60 && (sent[o] > n/3+2 || sent[o] < n/3-1) {
			out.t.Errorf("after %d pushes organization %d has had %d, want a third", n+1, o, sent[o])
		}
	}
}

// TestUnwellForAnHour has APNs answer 503 to everything: single pushes probe, and
// no count is sent twice within Apple's fifteen minutes.
func TestUnwellForAnHour(t *testing.T) {
	withAPNs(t, apnstest.Config{}, apns.Config{MaxConns: 1}, func(t *testing.T, h *apnsHarness) {
		out := newOutage(h)
		defer out.close()
		out.submitAll()
		out.after(5 * time.Second)

		// A longer burst would outlast the hour by some probes.
		out.setFaults(apnstest.Faults{Rates: map[apnstest.Fault]float64{apnstest.FaultUnavailable: 1}, Burst: 1})
		before := h.sim.Stats().Requests
		out.anHour()
		// What is in flight when the breaker opens has gone already.
		if n := h.sim.Stats().Requests - before; n > outageMailboxes+180 {
			t.Errorf("%d pushes to an APNs that is unwell for an hour", n)
		}
		if v := h.counters(); v["breaker_open"] != 1 {
			t.Error("the breaker is closed after an hour of 503")
		}

		out.setFaults(apnstest.Faults{})
		out.after(20 * time.Minute)
		out.wantNewest()
		if v := h.counters(); v["breaker_open"] != 0 {
			t.Error("the breaker is open although APNs is well")
		}
	})
}
