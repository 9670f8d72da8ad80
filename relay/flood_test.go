package relay

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// narrowPool is an APNs that is the bottleneck: a few streams, and a round trip.
type narrowPool struct {
	source    apns.Source
	roundTrip time.Duration

	mu   sync.Mutex
	free int
}

func (p *narrowPool) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.free > 0 {
		dst := make([]apns.Request, p.free)
		n, _ := p.source.Take(dst)
		if n == 0 {
			return
		}
		p.free -= n
		time.AfterFunc(p.roundTrip, func() { p.answer(dst[:n]) })
	}
}

func (p *narrowPool) answer(pushes []apns.Request) {
	results := make([]apns.Result, len(pushes))
	for i, req := range pushes {
		results[i] = apns.Result{Tag: req.Tag, WrittenAt: time.Now()}
	}
	p.mu.Lock()
	p.free += len(pushes)
	p.mu.Unlock()
	p.source.Done(results)
	p.wake()
}

// latencies are how long the events of one stream took to settle.
type latencies struct {
	mu        sync.Mutex
	submitted map[uint64]time.Time
	took      []time.Duration
}

// read takes settlements until ctx is done.
func (l *latencies) read(ctx context.Context, s *Stream) {
	for {
		got, err := s.Next(ctx)
		if err != nil {
			return
		}
		l.mu.Lock()
		for sequence, at := range l.submitted {
			in := func(r Range) bool { return r.First <= sequence && sequence <= r.Last }
			if sequence <= got.Through || slices.ContainsFunc(got.Ranges, in) {
				l.took = append(l.took, time.Since(at))
				delete(l.submitted, sequence)
			}
		}
		l.mu.Unlock()
	}
}

// offer submits an event every so often, each to the next of some mailboxes.
func (l *latencies) offer(ctx context.Context, s *Stream, every time.Duration, mailboxes int) {
	for n := uint64(1); ctx.Err() == nil; n++ {
		l.mu.Lock()
		l.submitted[n] = time.Now()
		l.mu.Unlock()
		if s.Submit(ctx, n, []Event{count(fmt.Sprint("mailbox-", int(n)%mailboxes), uint32(n))}) != nil {
			return
		}
		time.Sleep(every)
	}
}

// p99 runs ten organizations of four events a second each for a minute, beside
// one that sends so many times as much, and returns the 99th percentile of how
// long the ten waited.
func p99(t *testing.T, flood int) (worst time.Duration) {
	const (
		every     = 250 * time.Millisecond
		mailboxes = 40 // each is quiet for ten seconds between two events
		flooder   = 1  // the organization
	)
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		r := newRelay(t, registry, nil)
		// Ten streams of 100 ms are 100 pushes a second: the ten organizations
		// ask for 40, the flood alone for 400.
		pool := &narrowPool{source: r.Source(app), roundTrip: 100 * time.Millisecond, free: 10}
		r.SetWake(app, func() { go pool.wake() }) // ends at once; the bubble waits
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		running, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var all []*latencies
		size := func(o OrganizationID) (boxes int, pace time.Duration) {
			if o == flooder {
				return mailboxes * flood, every / time.Duration(max(flood, 1))
			}
			return mailboxes, every
		}
		for o := OrganizationID(flooder); o <= 11; o++ {
			boxes, _ := size(o)
			for i := range boxes {
				registry.subs[MailboxKey{o, fmt.Sprint("mailbox-", i)}] = []Subscription{{App: app, Device: phone(int(o)*1_000_000 + i)}}
			}
		}
		wg.Go(func() { _ = r.Run(running) }) // never fails
		for o := OrganizationID(flooder); o <= 11; o++ {
			boxes, pace := size(o)
			if boxes == 0 {
				continue
			}
			l := &latencies{submitted: map[uint64]time.Time{}}
			s := r.OpenStream(o, "mx")
			wg.Go(func() { l.read(running, s) })
			wg.Go(func() {
				time.Sleep(time.Duration(o) * 23 * time.Millisecond) // out of step
				l.offer(ctx, s, pace, boxes)
			})
			if o != flooder {
				all = append(all, l)
			}
		}
		<-ctx.Done()
		time.Sleep(2 * time.Second)
		var took []time.Duration
		for i, l := range all {
			l.mu.Lock()
			if len(l.submitted) > 0 {
				t.Errorf("%d events of organization %d are still pending", len(l.submitted), i+2)
			}
			took = append(took, l.took...)
			l.mu.Unlock()
		}
		CheckLedger(t, r)
		if pending := r.Ledger().Pending; flood > 1 && pending < 1000 {
			t.Errorf("%d events pending: the flood was none", pending)
		}
		stop()
		wg.Wait()
		slices.Sort(took)
		worst = took[len(took)*99/100]
		t.Logf("flood of %d: %d events of the others, p50 %v, p99 %v, worst %v", flood, len(took), took[len(took)/2], worst, took[len(took)-1])
	})
	return worst
}

// TestFloodDelaysNobodyElse has one organization send a hundred times what the
// others do while APNs is the bottleneck (design, promise 4).
func TestFloodDelaysNobodyElse(t *testing.T) {
	without, with := p99(t, 0), p99(t, 100)
	if with > 2*without {
		t.Errorf("p99 of the others is %v beside a flood, %v without: more than twice as much", with, without)
	}
}
