package memory

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// TestRemovedOrganization removes an organization while a device of it, which APNs called
// gone, is to be tried again: it is pushed nothing. Restored by its operator, the
// organization has its devices again.
func TestRemovedOrganization(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		h := new(Database).Open(Config{})
		defer h.Close()
		o, err := h.AddOrganization(ctx, registry.NewOrganization{Name: "gone.com"})
		if err != nil {
			t.Fatal(err)
		}
		device, err := apns.DeviceTokenFromBytes([]byte("01234567890123456789012345678901"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Subscribe(ctx, o.ID, registry.Registration{Mailbox: "ann", App: "app", Device: device}); err != nil {
			t.Fatal(err)
		}
		r, err := relay.New(relay.Config{Subscriptions: h, Apps: []string{"app"}, Window: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer h.OnChange(func(changes []registry.Change) {
			for _, c := range changes {
				switch c.Kind {
				case registry.ChangeOrganizationRemoved:
					r.OrganizationGone(c.Organization)
				case registry.ChangeOrganizationChanged:
					r.OrganizationBack(c.Organization)
				}
			}
		})()
		running, end := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { _ = r.Run(running); close(done) }() // never fails
		defer func() { end(); <-done }()
		time.Sleep(time.Hour)

		var pushes [4]apns.Request
		answer := func(err *apns.Error) (badges []uint32) {
			synctest.Wait()
			n, _ := r.Source("app").Take(pushes[:])
			for _, p := range pushes[:n] {
				badges = append(badges, p.Badge)
				r.Source("app").Done([]apns.Result{{Tag: p.Tag, Err: err, WrittenAt: time.Now()}})
			}
			synctest.Wait()
			return badges
		}
		submit := func(unread uint32) *relay.Stream {
			s := r.OpenStream(o.ID, "mx")
			if err := s.Submit(ctx, 1, []relay.Event{{Mailbox: "ann", Unread: unread}}); err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := submit(3)
		if got := answer(&apns.Error{Status: 410, Reason: apns.ReasonUnregistered, Timestamp: time.Now().Add(-time.Hour)}); len(got) != 1 {
			t.Fatalf("pushes %v, want one", got)
		}
		s.Close()
		if err := h.RemoveOrganization(ctx, "gone.com"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := r.Stats(); s.Devices != 0 {
			t.Errorf("%d devices are known of a removed organization", s.Devices)
		}
		submit(4).Close() // of a stream that does not know yet
		for range 48 {
			time.Sleep(30 * time.Minute)
			if got := answer(nil); len(got) > 0 {
				t.Fatalf("the organization is removed, and its device is pushed %v", got)
			}
		}
		submit(5).Close()
		synctest.Wait()
		time.Sleep(10 * time.Minute) // the relay compacts what is idle
		if _, err := h.RestoreOrganization(ctx, "gone.com"); err != nil {
			t.Fatal(err)
		}
		defer submit(6).Close()
		if got := answer(nil); len(got) != 1 || got[0] != 6 {
			t.Errorf("pushed %v when the organization is back, want 6", got)
		}
	})
}
