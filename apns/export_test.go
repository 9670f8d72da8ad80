package apns

import (
	"net"
	"time"
)

// SignAhead makes the source sign its token as with a clock that is ahead, or
// behind, and stays so.
func (s *TokenSource) SignAhead(d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if _, err := s.signLocked(now.Add(d)); err != nil {
		return err
	}
	t := *s.current.Load()
	t.issued, t.renewAt = now, now.Add(tokenRenewAfter)
	s.signedAt, s.signedBy = now, now.Round(0)
	s.current.Store(&t)
	return nil
}

// SetClock makes it seem to the source that the clock was set ahead, or back,
// since its token was signed.
func (s *TokenSource) SetClock(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signedBy = s.signedBy.Add(-d)
}

// ErrTooLate is why a guarded write ends after its deadline.
var ErrTooLate = errTooLate

// WriteUntil writes to a guarded connection.
func WriteUntil(nc net.Conn, p []byte, due *Deadline) error {
	g := newGuard(nc)
	g.due.Store(due)
	_, err := g.Write(p)
	return err
}
