package registry

import (
	"testing"
	"testing/synctest"
	"time"

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
