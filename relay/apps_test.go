package relay

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAppThatComesWhileTheRelayRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &harness{t: t, registry: newMemoryRegistry(), sequence: map[*Stream]uint64{}}
		r, err := New(Config{Subscriptions: h.registry, Apps: []string{"first"}, Window: -1})
		if err != nil {
			t.Fatal(err)
		}
		h.relay = r
		h.registry.changed = r.SubscriptionsChanged
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.Run(ctx) }) // never fails
		defer wg.Wait()
		defer cancel()
		h.registry.subscribe(org, "sales", phone(1))
		s := r.OpenStream(org, "mx")
		h.pool = &scriptedPool{room: 1000, woken: make(chan struct{}, 1)}
		h.submit(s, count("sales", 1))
		h.wantSettled(s, "through 1, 1 no_subscription")

		h.pool.source = r.AddApp(app)
		if again := r.AddApp(app); again != h.pool.source || r.Source(app) != h.pool.source || len(r.Stats().Breakers) != 2 {
			t.Errorf("the app is there as %v and %v, with %d apps", again, r.Source(app), len(r.Stats().Breakers))
		}
		r.SetWake(app, func() { notify(h.pool.woken) })
		wg.Go(func() { h.pool.run(ctx) })
		r.SubscriptionsChanged([]MailboxKey{{Organization: org, Mailbox: "sales"}})
		h.submit(s, count("sales", 2))
		h.accept("its subscriptions are known now", "1=2")
		h.wantSettled(s, "through 2")

		// Its breaker works: after an outage a push goes out by itself.
		for n := range breakerThreshold {
			h.registry.subscribe(org, "all", phone(n+2))
		}
		h.submit(s, count("all", 3))
		h.answer(unavailable(), h.pool.taken()...)
		if !r.Stats().Breakers[app] {
			t.Error("the breaker is closed in an outage")
		}
		for range 60 {
			h.after(time.Minute)
			h.answer(nil, h.pool.taken()...)
		}
		h.wantSettled(s, "through 3")
		if r.Stats().Breakers[app] {
			t.Error("the breaker is open after the outage")
		}
		s.Close()
		h.check()
	})
}
