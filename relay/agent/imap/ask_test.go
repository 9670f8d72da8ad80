package imap

import (
	"errors"
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
