package ingest

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// TestSettlementsAreGathered sends events one by one and sees one settlement for
// those that settle within the delay, and that the delay is bounded.
func TestSettlementsAreGathered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		a, start := o.connect(), time.Now()
		synctest.Wait()                       // the welcome's sending is over
		a.batch(1, &pb.Event{Mailbox: "ann"}) // nobody has subscribed: settled at once
		for i := range uint64(3) {
			time.Sleep(settleDelay / 4)
			a.batch(2+i, &pb.Event{Mailbox: "ann"})
		}
		if got := a.receive().GetSettlement().GetThrough(); got != 4 {
			t.Errorf("settled through %d, want one settlement of all 4", got)
		}
		if got := time.Since(start); got != settleDelay {
			t.Errorf("settled after %v, want %v after the first", got, settleDelay)
		}
		a.batch(5, &pb.Event{Mailbox: "ann"})
		if a.settled(5); time.Since(start) != 2*settleDelay {
			t.Errorf("the next after %v, want a delay of its own", time.Since(start))
		}
	})
}

// TestAgentDelaysSettlements has an agent allow a longer delay, and sees that only what
// went well waits for it.
func TestAgentDelaysSettlements(t *testing.T) {
	const long = 5 * time.Second
	cases := map[string]struct {
		then func(a *agent) // a millisecond after an event has settled
		want time.Duration
	}{
		"nothing":       {func(*agent) {}, long},
		"a success":     {func(a *agent) { a.batch(2, &pb.Event{Mailbox: "ann", UnreadCount: 3}) }, long},
		"a notable one": {func(a *agent) { a.batch(2, &pb.Event{Mailbox: "nobody"}) }, settleDelay + settleTick},
		"many": {func(a *agent) {
			a.batch(2, slices.Repeat([]*pb.Event{{Mailbox: "ann", UnreadCount: 3}}, relay.ManySettled)...)
		}, time.Millisecond},
		"no delay":    {func(a *agent) { a.send(settlementDelay(0)) }, time.Millisecond},
		"half-closed": {func(a *agent) { _ = a.stream.CloseSend() }, time.Millisecond},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.enrol("fabrikam.com", testKey(0))
				o.subscribe("ann", "1")
				a, start := o.connect(), time.Now()
				a.send(settlementDelay(long))
				synctest.Wait()
				a.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 3})
				synctest.Wait()
				time.Sleep(time.Millisecond)
				c.then(a)
				if a.receive().GetSettlement().GetThrough() == 0 || time.Since(start) != c.want {
					t.Errorf("settled after %v, want %v", time.Since(start), c.want)
				}
			})
		})
	}
}

func settlementDelay(d time.Duration) *pb.StreamRequest {
	return &pb.StreamRequest{Message: &pb.StreamRequest_SettlementDelay{SettlementDelay: &pb.SettlementDelay{MaxDelay: durationpb.New(d)}}}
}

// TestStreamsSettleTogether has events settle at odd times on two streams, and
// sees both told at once.
func TestStreamsSettleTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.enrol("fabrikam.com", testKey(0)).connect()
		b := w.enrol("contoso.com", testKey(1)).connect()
		start := time.Now()
		for _, one := range []*agent{a, b} {
			time.Sleep(time.Millisecond)
			one.batch(1, &pb.Event{Mailbox: "ann"})
		}
		for _, one := range []*agent{a, b} {
			if one.settled(1); time.Since(start) != settleDelay+settleTick {
				t.Errorf("settled after %v, want %v on each stream", time.Since(start), settleDelay+settleTick)
			}
		}
	})
}

func TestManySettlementsDoNotWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		a, start := o.connect(), time.Now()
		var events []*pb.Event
		for i := range relay.ManySettled {
			events = append(events, &pb.Event{Mailbox: fmt.Sprint("mailbox-", i)})
		}
		a.batch(1, events[1:]...)
		synctest.Wait()
		if got := w.relay.Ledger().Accepted; got != relay.ManySettled-1 {
			t.Fatalf("%d events were accepted", got)
		}
		a.batch(relay.ManySettled, events[0])
		if a.settled(relay.ManySettled); time.Since(start) != 0 {
			t.Errorf("%d events settled after %v, want at once", relay.ManySettled, time.Since(start))
		}
	})
}

// TestWhatHasSettledIsToldBeforeTheEnd ends a stream within the delay.
func TestWhatHasSettledIsToldBeforeTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		a, start := o.connect(), time.Now()
		a.batch(1, &pb.Event{Mailbox: "ann"})
		if err := a.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if a.settled(1); time.Since(start) != 0 {
			t.Errorf("settled after %v, want at once when the agent has closed its side", time.Since(start))
		}
		b := o.connect()
		b.batch(1, &pb.Event{Mailbox: "ann"})
		synctest.Wait()
		b.batch(7, &pb.Event{Mailbox: "ann"}) // a gap ends the stream
		if got := b.receive().GetSettlement().GetThrough(); got != 1 {
			t.Errorf("settled through %d, want 1 before the end", got)
		}
	})
}
