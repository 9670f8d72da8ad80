package registry

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/relay"
)

// TestExpiry has a subscription end exactly at its lifetime, and be forgotten
// exactly at the end of RemovedRetention.
func TestExpiry(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, SQLiteConfig{Path: path, SubscriptionLifetime: 24 * time.Hour})
		org := addOrg(t, s)
		var reasons []string
		s.OnChange(func(changes []Change) {
			for _, c := range changes {
				reasons = append(reasons, c.Kind.String()+" "+c.Mailbox)
			}
		})
		for n := range 2 {
			if _, err := s.Subscribe(t.Context(), org, registration(n)); err != nil {
				t.Fatal(err)
			}
		}
		ctx := t.Context()
		purge := func() {
			t.Helper()
			if err := s.purge(ctx); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(23 * time.Hour)
		if _, err := s.Subscribe(ctx, org, registration(0)); err != nil { // renews
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Millisecond)
		purge()
		wantSubscriptions(t, s, 2) // a millisecond before
		time.Sleep(time.Millisecond)
		purge()
		wantSubscriptions(t, s, 1) // at its lifetime; the other was renewed
		if last := reasons[len(reasons)-1]; last != "unsubscribed user1" {
			t.Errorf("listeners were told %q at last", last)
		}
		removed := func() []Subscription {
			t.Helper()
			got, _, err := s.ListSubscriptions(ctx, SubscriptionFilter{Organization: org, Removed: true}, Page{})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if got := removed(); len(got) != 1 || got[0].RemovalReason != ReasonExpired {
			t.Errorf("got %+v, want one that expired", got)
		}
		if _, err := s.Remove(ctx, []relay.Removal{{Key: relay.MailboxKey{Organization: org, Mailbox: "user0"}, App: "com.example.mail",
			Device: registration(0).Device, Reason: "BadDeviceToken"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(RemovedRetention - time.Millisecond)
		purge()
		if got := removed(); len(got) != 2 {
			t.Errorf("a millisecond before: got %+v, want both", got)
		}
		time.Sleep(time.Millisecond)
		if got := removed(); len(got) != 0 { // before the purge, too
			t.Errorf("after 30 days: got %+v, want none", got)
		}
		purge()
		var n int
		if err := s.readers.QueryRowContext(ctx, `SELECT count(*) FROM removed_subscriptions`).Scan(&n); err != nil || n != 0 {
			t.Errorf("got %d rows, %v; want none kept", n, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestRun has Run purge by itself, more than one batch, and end with its context.
func TestRun(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, SQLiteConfig{Path: path, SubscriptionLifetime: 24 * time.Hour})
		org := addOrg(t, s)
		rs := make([]Registration, purgeBatch+1)
		for n := range rs {
			rs[n] = registration(n)
		}
		if _, err := s.ImportSubscriptions(t.Context(), org, rs); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }() // ends with ctx
		time.Sleep(24*time.Hour - time.Minute)
		wantSubscriptions(t, s, uint64(len(rs)))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		wantSubscriptions(t, s, uint64(len(rs)-len(rs)/20-1)) // a twentieth within an hour
		time.Sleep(72 * time.Hour)
		synctest.Wait()
		wantSubscriptions(t, s, 0)
		// Instead of a month of hourly turns.
		pragma(t, s, fmt.Sprintf("UPDATE removed_subscriptions SET removed_at = removed_at - %d", RemovedRetention.Milliseconds()))
		time.Sleep(time.Hour)
		synctest.Wait()
		var n int
		if err := s.readers.QueryRowContext(ctx, `SELECT count(*) FROM removed_subscriptions`).Scan(&n); err != nil || n != 0 {
			t.Errorf("got %d rows, %v; want all forgotten", n, err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestRemovedOrganizationIsForgotten has one stay until exactly the end of
// RemovedRetention, also when the clock was set ahead meanwhile.
func TestRemovedOrganizationIsForgotten(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, SQLiteConfig{Path: path})
		org, ctx := addOrg(t, s), t.Context()
		if _, err := s.Subscribe(ctx, org, registration(0)); err != nil {
			t.Fatal(err)
		}
		o, err := s.OrganizationByID(ctx, org)
		if err != nil {
			t.Fatal(err)
		}
		kept := func() (n int) {
			t.Helper()
			if err := s.purge(ctx); err != nil {
				t.Fatal(err)
			}
			err := s.readers.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM organizations) + (SELECT count(*) FROM subscriptions)
				+ (SELECT count(*) FROM devices_log)`).Scan(&n)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if err := s.RemoveOrganization(ctx, o.Name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(RemovedRetention - time.Millisecond)
		if n := kept(); n != 3 {
			t.Errorf("a millisecond before: %d rows, want all 3", n)
		}
		s.clock.wall = s.clock.wall.Add(-time.Hour) // the system's is set ahead by an hour
		time.Sleep(time.Millisecond)
		if n := kept(); n != 3 {
			t.Errorf("by a clock that was set: %d rows, want all 3", n)
		}
		time.Sleep(time.Hour)
		if n := kept(); n != 0 {
			t.Errorf("after 30 days: %d rows, want none", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
