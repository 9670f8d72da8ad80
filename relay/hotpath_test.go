package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"badgerelay/apns"
)

// echoPool accepts every push at once, on the caller's goroutine.
type echoPool struct {
	source   apns.Source
	requests []apns.Request
	results  []apns.Result
}

func newEchoPool(r *Relay) *echoPool {
	p := &echoPool{source: r.Source(app), requests: make([]apns.Request, 256)}
	p.results = make([]apns.Result, 256)
	r.SetWake(app, func() {})
	return p
}

func (p *echoPool) draw() {
	for {
		n, _ := p.source.Take(p.requests)
		if n == 0 {
			return
		}
		for i := range n {
			p.results[i] = apns.Result{Tag: p.requests[i].Tag}
		}
		p.source.Done(p.results[:n])
	}
}

// hotRelay is a relay that knows a number of mailboxes with one device each.
func hotRelay(tb testing.TB, mailboxes int) (*Relay, *echoPool, []Event) {
	tb.Helper()
	registry := newMemoryRegistry()
	events := make([]Event, mailboxes)
	for i := range events {
		name := fmt.Sprintf("user%06d@fabrikam.com", i)
		registry.subs[MailboxKey{org, name}] = []Subscription{{App: app, Device: phone(i)}}
		events[i] = count(name, 1)
	}
	r := newRelay(tb, registry, func(c *Config) { c.Window = -1 })
	p := newEchoPool(r)
	s := r.OpenStream(org, "mx")
	if err := s.Submit(tb.Context(), 1, events); err != nil {
		tb.Fatal(err)
	}
	for some := true; some; {
		var err error
		if some, err = r.lookups.Turn(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
	p.draw()
	s.Close()
	if got := r.Ledger().Outcomes[OutcomeDelivered]; got != uint64(mailboxes) {
		tb.Fatalf("%d events delivered, want %d", got, mailboxes)
	}
	return r, p, events
}

func TestKnownMailboxAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: the budget is checked without it")
		return
	}
	const batch = 256
	r, p, events := hotRelay(t, batch)
	s := r.OpenStream(org, "mx")
	defer s.Close()
	ctx, sequence := context.Background(), uint64(1)
	turn := func() {
		for i := range events {
			events[i].Unread++
		}
		if err := s.Submit(ctx, sequence, events); err != nil {
			t.Fatal(err)
		}
		sequence += batch
		p.draw()
		if _, err := s.Next(ctx); err != nil {
			t.Fatal(err)
		}
	}
	turn() // buffers grow once
	turn()
	if got := testing.AllocsPerRun(100, turn) / batch; got > 0.02 {
		t.Errorf("%.3f allocations per event, want none", got)
	}
}

// BenchmarkManyDevices has one mailbox with many devices: its subscriptions are read anew,
// and an event finds that all are quarantined. The time grows with the devices, not faster.
func BenchmarkManyDevices(b *testing.B) {
	for _, devices := range []int{1_000, 10_000, 100_000} {
		mailbox := func(b *testing.B, quarantined bool) (*Relay, *mailbox, []Subscription) {
			r := newRelay(b, newMemoryRegistry(), nil)
			r.SetGeneration(app, 1)
			now := time.Now()
			var q *Quarantine
			if quarantined {
				q = &Quarantine{Generation: 1, Reason: "BadDeviceToken", Since: now, RefusedAt: now, Refusals: 1, Registered: now}
			}
			subs := make([]Subscription, devices)
			for i := range subs {
				subs[i] = Subscription{App: app, Device: phone(i), RegisteredAt: now, Quarantine: q}
			}
			sh, hash := r.shardOf(org, "a")
			m := sh.add(hash, MailboxKey{org, "a"})
			r.reconcileTargets(m, subs)
			return r, m, subs
		}
		b.Run(fmt.Sprintf("read anew/devices=%d", devices), func(b *testing.B) {
			r, m, subs := mailbox(b, false)
			for b.Loop() {
				slices.Reverse(subs)
				r.reconcileTargets(m, subs)
			}
		})
		b.Run(fmt.Sprintf("all refused/devices=%d", devices), func(b *testing.B) {
			r, m, _ := mailbox(b, true)
			m.subs.BeginLoad()
			m.subs.EndLoad()
			for b.Loop() {
				var acts actions
				m.take(nil, 1, &Event{Mailbox: "a", Unread: 5}, r.now())
				r.fanOut(m, r.now(), &acts)
			}
		})
	}
}

func BenchmarkEventToSettlement(b *testing.B) {
	for _, mailboxes := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("mailboxes=%d", mailboxes), func(b *testing.B) {
			const batch = 256
			r, p, events := hotRelay(b, mailboxes)
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			s := r.OpenStream(org, "mx")
			defer s.Close()
			ctx, sequence, at := context.Background(), uint64(1), 0
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				events[at].Unread++
				if at++; at%batch != 0 && at != len(events) {
					continue
				}
				part := events[(at-1)/batch*batch : at]
				if at == len(events) {
					at = 0
				}
				if err := s.Submit(ctx, sequence, part); err != nil {
					b.Fatal(err)
				}
				sequence += uint64(len(part))
				p.draw()
				if _, err := s.Next(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
