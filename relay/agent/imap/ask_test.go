package imap

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"
)

// TestCountDoesNotWait has a server that is away: another source may have the mailbox.
func TestCountDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		m.add("ann", "bob")
		m.during(m.config(), func(s *Source, counts *sink) {
			m.set(func() { m.down = errors.New("connection refused") })
			s.Watch("ann")
			pass(time.Hour)
			for range 100 {
				began := time.Now()
				if _, err := s.Count(t.Context(), "bob"); err == nil || time.Since(began) > 0 {
					t.Errorf("answered %v after %v, want an error at once", err, time.Since(began))
				}
				pass(time.Second)
			}
			m.set(func() { m.down = nil })
			pass(unreachableMax + failedMin)
			if c, err := s.Count(t.Context(), "bob"); err != nil {
				t.Errorf("it has come back: %+v, %v", c, err)
			}
		})
	})
}

// TestWhoLeftIsForgotten has the last device of mailboxes leave while they are logged
// in to, by a turn and by who asks for a count.
func TestWhoLeftIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		m.add("ann", "bob", "cat")
		c := m.config()
		c.Folders = []string{"INBOX", "Archive"} // which nobody has
		c.Dial = func(ctx context.Context) (net.Conn, error) { time.Sleep(time.Second); return m.dial(ctx) }
		m.during(c, func(s *Source, counts *sink) {
			s.Watch("ann")
			pass(time.Minute)
			want := s.Status()
			for _, mailbox := range []string{"bob", "cat", "nobody", "noone", "none"} { // the last three are refused
				s.Watch(mailbox)
				pass(100 * time.Millisecond)
				go func() { _, _ = s.Count(t.Context(), mailbox) }() // ends soon
				pass(100 * time.Millisecond)
				s.Unwatch(mailbox)
				pass(time.Minute)
				go func() { _, _ = s.Count(t.Context(), mailbox) }() // was about to begin
				pass(time.Minute)
			}
			pass(24 * time.Hour)
			if got := s.Status(); got.Trouble != "" || !slices.Equal(got.Notes, want.Notes) {
				t.Errorf("a day later readiness says %q, want %q as long as one mailbox is watched", got, want)
			}
			s.gate.mu.Lock()
			defer s.gate.mu.Unlock()
			if n := len(s.gate.accounts); n != 1 || s.gate.good != 1 || s.gate.stale != 0 {
				t.Errorf("%d accounts are remembered, %d good and %d refused; want the one that is watched", n, s.gate.good, s.gate.stale)
			}
		})
	})
}
