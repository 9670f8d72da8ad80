package ews_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/relay/agent/ews"
	"badgerelay/relay/agent/ews/ewstest"
	"badgerelay/relay/agent/source"
)

// keepWaiting has a mailbox's count due while both workers are at others, which hang.
func (r *rig) keepWaiting(mailbox string, busy []string) {
	r.t.Helper()
	all := append(busy[:len(busy):len(busy)], mailbox)
	r.watch(all...)
	r.within(10*time.Second, "at the start", all...)
	r.server.Misbehave(ewstest.Faults{OmitUnreadCount: true}) // a count has to be asked for
	for _, m := range busy {
		r.server.Hang(m, true)
		r.server.Deliver(m)
	}
	time.Sleep(100 * time.Millisecond)
	r.server.Deliver(mailbox)
}

// TestPeekTakesNobodysCount looks at a mailbox whose count is due, while all workers are
// busy: it is handed on as if nobody had looked.
func TestPeekTakesNobodysCount(t *testing.T) {
	for name, patience := range map[string]time.Duration{"nobody looks": 0, "somebody looks": time.Minute, "somebody looks and leaves": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			all := people(3)
			ann, busy := all[0], all[1:]
			bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{MaxRequests: 1}, func(r *rig) {
				r.keepWaiting(ann, busy)
				time.Sleep(time.Second)
				ctx, cancel := context.WithTimeout(r.t.Context(), patience)
				defer cancel()
				if patience > 0 {
					go func() { _, _ = r.source.Peek(ctx, ann) }() // ends with ctx
				}
				time.Sleep(4 * time.Second)
				synctest.Wait()
				for _, m := range busy {
					r.server.Hang(m, false)
				}
				r.within(5*time.Second, "the workers are free", all...)
			})
		})
	}
}

// TestPeekChangesNothing looks at mailboxes that nobody has, and at a server that
// refuses the login.
func TestPeekChangesNothing(t *testing.T) {
	all := people(3)
	bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{}, func(r *rig) {
		peek := func(mailbox string, want error) {
			t.Helper()
			if _, err := r.source.Peek(r.t.Context(), mailbox); err == nil || want != nil && !errors.Is(err, want) {
				t.Errorf("%s: %v, want an error (%v)", mailbox, err, want)
			}
		}
		for range 5 {
			peek("nobody@fabrikam.com", source.ErrElsewhere)
		}
		r.server.SetPassword("another")
		for _, m := range all {
			peek(m, nil)
		}
		r.server.SetPassword(password)
		if got := r.source.Status(); got.Trouble != "" || got.Notes != nil {
			t.Errorf("readiness says %q, want nothing", got)
		}
		r.watch(all...)
		r.within(time.Second, "they come", all...)
		r.server.Refuse(all[0], true)
		peek(all[0], source.ErrMailbox)
		peek(all[0], source.ErrMailbox)
		r.server.Refuse(all[0], false)
		r.server.Deliver(all[0])
		r.within(2*time.Second, "it may be read again", all...)
	})
}

// TestWhoGivesUpTakesNobodysCount asks for a count as the daemon does, which has others
// to ask when the answer does not come in time.
func TestWhoGivesUpTakesNobodysCount(t *testing.T) {
	all := people(3)
	ann, busy := all[0], all[1:]
	bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{MaxRequests: 1}, func(r *rig) {
		r.keepWaiting(ann, busy)
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		if _, err := r.source.Count(ctx, ann); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ann is counted while no worker is free: %v", err)
		}
		for _, m := range busy {
			r.server.Hang(m, false)
		}
		r.within(5*time.Second, "the workers are free", all...)
	})
}
