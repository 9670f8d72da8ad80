package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAppThatComesWithASumThatWaits configures an app, while the relay runs, of which a
// device lost a mailbox in the time without it.
func TestAppThatComesWithASumThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		h := newHarnessOn(t, registry, func(c *Config) { c.Window = -1 })
		registry.subscribeToo(org, "a", phone(1))
		registry.subscribeToo(org, "b", phone(1))
		h.after(time.Second)
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 3), count("b", 4))
		h.accept("", "1=7")
		h.after(5 * time.Second)
		s.Close()
		h.stop()
		registry.tellNobody()

		next := &harness{t: t, registry: registry, pool: newScriptedPool(), sequence: map[*Stream]uint64{}}
		next.relay = newRelay(t, registry, func(c *Config) { c.Apps, c.Window = []string{"first"}, -1 })
		next.run(next.pool.run)
		defer next.stop()
		next.after(time.Minute)
		registry.unsubscribe(org, "b", phone(1))
		next.after(time.Minute)
		next.pool.serve(next.relay, next.relay.AddApp(app))
		next.after(5 * time.Second)
		next.accept("the sum has fallen", "1=3")
	})
}

// TestAppThatComesWhileTheRegistryIsAway: its mailboxes are read when the registry is back.
func TestAppThatComesWhileTheRegistryIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &harness{t: t, registry: newMemoryRegistry(), pool: newScriptedPool(), sequence: map[*Stream]uint64{}}
		h.relay = newRelay(t, h.registry, func(c *Config) { c.Apps, c.Window = []string{"first"}, -1 })
		h.run(h.pool.run)
		defer h.stop()
		h.registry.subscribe(org, "sales", phone(1))
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.submit(s, count("sales", 1))
		h.wantSettled(s, "through 1, 1 no_subscription")
		h.registry.setFails(true)
		h.pool.serve(h.relay, h.relay.AddApp(app))
		h.after(time.Minute)
		h.registry.setFails(false)
		h.after(time.Minute)
		h.submit(s, count("sales", 2))
		h.accept("its subscriptions are known now", "1=2")
		h.wantSettled(s, "through 2")
	})
}

func TestAppThatComesWhileTheRelayRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &harness{t: t, registry: newMemoryRegistry(), pool: newScriptedPool(), sequence: map[*Stream]uint64{}}
		r := newRelay(t, h.registry, func(c *Config) { c.Apps, c.Window = []string{"first"}, -1 })
		h.relay = r
		h.run(h.pool.run)
		defer h.stop()
		h.registry.subscribe(org, "sales", phone(1))
		s := r.OpenStream(org, "mx")
		h.submit(s, count("sales", 1))
		h.wantSettled(s, "through 1, 1 no_subscription")

		source := r.AddApp(app)
		if again := r.AddApp(app); again != source || r.Source(app) != source || len(r.apps.all()) != 2 {
			t.Errorf("the app is there as %v and %v, with %d apps", again, r.Source(app), len(r.apps.all()))
		}
		h.pool.serve(r, source)
		h.after(time.Second)
		h.submit(s, count("sales", 2))
		h.accept("its subscriptions are known now", "1=2")
		h.wantSettled(s, "through 2")

		// Its breaker works: after an outage a push goes out by itself.
		for n := range breakerThreshold {
			h.registry.subscribe(org, "all", phone(n+2))
		}
		h.submit(s, count("all", 3))
		h.answer(unavailable(), h.pool.taken()...)
		if r.Breaker(app).IsZero() {
			t.Error("the breaker is closed in an outage")
		}
		for range 60 {
			h.after(time.Minute)
			h.answer(nil, h.pool.taken()...)
		}
		h.wantSettled(s, "through 3")
		if !r.Breaker(app).IsZero() {
			t.Error("the breaker is open after the outage")
		}
		s.Close()
		h.check()
	})
}
