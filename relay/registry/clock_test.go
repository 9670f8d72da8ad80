package registry

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/apns"
	"badgerelay/relay"
)

// setClock makes it seem that the system's clock was set ahead, or back, since
// the registry was opened.
func setClock(s *SQLite, d time.Duration) { s.clock.wall = s.clock.wall.Add(-d) }

// TestAClockSetBackAgesNoRegistration removes a device with a timestamp between
// what the clock says now and the device's registration, as APNs answers while
// it is behind: the device stays.
func TestAClockSetBackAgesNoRegistration(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t)})
	org := addOrg(t, s)
	setClock(s, -2*time.Hour)
	r := registration(1)
	registered := time.Now().Add(2 * time.Hour) // by the clock as it was
	got, err := s.Subscribe(t.Context(), org, r)
	if err != nil || got.Subscription.RegisteredAt.Before(registered.Add(-time.Second)) {
		t.Fatalf("registered at %v, %v; want about %v", got.Subscription.RegisteredAt, err, registered)
	}
	for _, ahead := range []time.Duration{-time.Hour, time.Hour} {
		want := ahead > 0
		removed, err := s.Remove(t.Context(), []relay.Removal{{
			Key: relay.MailboxKey{Organization: org, Mailbox: r.Mailbox}, App: r.App, Device: r.Device,
			Reason: apns.ReasonUnregistered, Timestamp: registered.Add(ahead),
		}})
		if err != nil || removed[0] != want {
			t.Errorf("dead %v after its registration: removed %v, %v; want %v", ahead, removed, err, want)
		}
		if !want {
			wantSubscriptions(t, s, 1)
		}
	}
}

// TestAClockSetAheadEndsNoLifetime purges with a clock that was set a year ahead.
func TestAClockSetAheadEndsNoLifetime(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t), SubscriptionLifetime: 30 * 24 * time.Hour})
	org := addOrg(t, s)
	if _, err := s.Subscribe(t.Context(), org, registration(1)); err != nil {
		t.Fatal(err)
	}
	setClock(s, 365*24*time.Hour)
	if err := s.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSubscriptions(t, s, 1)
}

// TestClockComesBack has the clock set, ahead or back, and once more before the
// first time was a day ago: a day after the last one, what it says is the time.
func TestClockComesBack(t *testing.T) {
	for _, by := range []time.Duration{-5 * 365 * 24 * time.Hour, 5 * 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			c := newClock()
			want := func(when string, behind, ahead time.Duration) {
				t.Helper()
				now := time.Now()
				if got := now.Sub(c.due()); got != behind {
					t.Errorf("%s: lifetimes are judged by a time %v ago, want %v", when, got, behind)
				}
				if got := c.stamp().Sub(now); got != ahead {
					t.Errorf("%s: registrations are stamped %v ahead, want %v", when, got, ahead)
				}
			}
			differ := func(when string, by time.Duration) {
				t.Helper()
				want(when, max(by, 0), max(-by, 0))
			}
			differ("at first", 0)
			set := func(d time.Duration) { c.wall = c.wall.Add(-d) } // as setClock
			set(by)
			differ("set", by)
			time.Sleep(clockTrusted - time.Millisecond)
			differ("nearly a day later", by)
			set(clockStep)
			differ("set again", by+clockStep)
			time.Sleep(clockTrusted - time.Millisecond)
			differ("nearly a day after that", by+clockStep)
			time.Sleep(time.Millisecond)
			differ("a day after that", 0)
			set(clockStep)
			differ("set anew", clockStep)
		})
	}
}

// TestAClockWrongFromTheStart opens a registry while the clock is a year ahead, which
// nothing tells from a year that has passed: what that ends is a twentieth an hour,
// the operator is told, and can bring it back.
func TestAClockWrongFromTheStart(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		config := SQLiteConfig{Path: path, SubscriptionLifetime: 30 * 24 * time.Hour}
		s := open(t, config)
		org := addOrg(t, s)
		rs := make([]Registration, 200)
		for n := range rs {
			rs[n] = registration(n)
		}
		if _, err := s.ImportSubscriptions(t.Context(), org, rs); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		time.Sleep(365 * 24 * time.Hour) // what the clock says
		config.Registerer = metrics
		s = open(t, config)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()   // ends with ctx
		time.Sleep(2*time.Hour + time.Minute) // until somebody looks
		synctest.Wait()
		wantSubscriptions(t, s, 200-10-10-9)
		if got := gauge(t, metrics, "registry_expiries_put_off"); got != 171 {
			t.Errorf("%v are told as put off, want 171", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		removed, _, err := s.ListSubscriptions(t.Context(), SubscriptionFilter{Organization: org, Removed: true}, Page{Size: 100})
		if err != nil || len(removed) != 29 || removed[0].RemovalReason != ReasonExpired {
			t.Errorf("%d can be restored, %v; want all 29 that ended", len(removed), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// gauge returns the value of the metric of this name.
func gauge(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
