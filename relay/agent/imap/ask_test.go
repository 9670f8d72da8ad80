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

	"badgerelay/relay/agent/source"
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

// TestCountDoesNotWaitForAnothersTry has a mailbox try a server that is silent.
func TestCountDoesNotWaitForAnothersTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		m.add("ann", "bob")
		m.during(m.config(), func(s *Source, _ *sink) {
			m.set(func() { m.down = errors.New("connection refused") })
			s.Watch("ann")
			pass(time.Minute)
			m.set(func() { m.down, m.mute = nil, true })
			pass(unreachableMax + failedMax) // somebody tries, until its time is over
			for range 100 {
				if m.open > 0 {
					break
				}
				pass(time.Second)
			}
			if m.open != 1 {
				t.Fatalf("%d connections are tried, want one", m.open)
			}
			began := time.Now()
			if _, err := s.Count(t.Context(), "bob"); err == nil || time.Since(began) > 0 {
				t.Errorf("answered %v after %v, want an error at once", err, time.Since(began))
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

// TestPeekChangesNothing asks for names that nobody has, for one that comes to be
// there, and of a server that is away.
func TestPeekChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		m.add("ann", "bob")
		m.during(m.config(), func(s *Source, counts *sink) {
			unchanged := func(why string) {
				t.Helper()
				if got := s.Status(); got.Trouble != "" || len(got.Notes) > 0 {
					t.Errorf("%s: readiness says %q, want nothing", why, got)
				}
			}
			for _, mailbox := range []string{"anm", "amn", "mna", "cat", "cat", "cat"} {
				if _, err := s.Peek(t.Context(), mailbox); !errors.Is(err, source.ErrMailbox) {
					t.Errorf("%s: %v, want a refusal", mailbox, err)
				}
			}
			unchanged("six logins were refused")
			m.set(func() { m.down = errors.New("connection refused") })
			for range 3 {
				if _, err := s.Peek(t.Context(), "ann"); err == nil {
					t.Error("counted, and the server is away")
				}
			}
			unchanged("the server was away")
			m.set(func() { m.down, m.sick = nil, "bob" })
			s.Watch("ann")
			m.add("cat")
			s.Watch("cat")
			pass(0)
			if n := counts.mailboxes(); n != 2 {
				t.Errorf("%d mailboxes are counted at once, want both", n)
			}
			for range 3 {
				if _, err := s.Peek(t.Context(), "bob"); !errors.Is(err, source.ErrUnavailable) {
					t.Errorf("bob: %v, want that he is unavailable", err)
				}
			}
			m.set(func() { m.sick = "" })
			s.Watch("bob")
			pass(0)
			if n := counts.mailboxes(); n != 3 {
				t.Errorf("%d mailboxes are counted at once, want bob too", n)
			}
			unchanged("all are well")
			for _, mailbox := range []string{"ann", "bob"} {
				if c, err := s.Peek(t.Context(), mailbox); err != nil || c.Mailbox != mailbox {
					t.Errorf("%s: %+v, %v", mailbox, c, err)
				}
			}
		})
	})
}

// TestPeekLeavesAloneWhatIsLeftAlone looks at a server that refuses everybody, and at a
// mailbox that is refused: protections against attacks count each refusal.
func TestPeekLeavesAloneWhatIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		m.add("ann")
		m.during(m.config(), func(s *Source, _ *sink) {
			s.Watch("ann")
			s.Watch("nobody")
			pass(time.Minute / 2)
			m.take()
			_, err := s.Peek(t.Context(), "nobody")
			if logins, _ := m.take(); !errors.Is(err, source.ErrMailbox) || logins[""] > 0 {
				t.Errorf("a mailbox that was refused half a minute ago: %v, and %d logins more", err, logins[""])
			}
			s.Unwatch("ann")
			m.set(func() { m.refusing = true })
			for _, u := range users(5) {
				s.Watch(u)
			}
			pass(time.Minute)
			m.take()
			for s.gate.closed(time.Now()) == nil {
				pass(time.Second)
			}
			_, err = s.Peek(t.Context(), "ann")
			if logins, _ := m.take(); err == nil || logins[""] > 1 { // the one that closed it
				t.Errorf("a server that refuses every login: %v, and %d logins", err, logins[""])
			}
		})
	})
}
