package imap

import (
	"context"
	"errors"
	"regexp"
	"sync"
	"time"

	"badgerelay/relay/agent/internal/backoff"
)

// errLimit: the server has as many connections of ours as it allows.
var errLimit = errors.New("the server allows no more connections")

// How soon one connection more is tried than the server has allowed: doubled
// each time it refuses. Ours.
const (
	raiseMin = 10 * time.Second
	raiseMax = 10 * time.Minute
)

// fewest connections that are made do with: one to watch, one to count.
const fewest = 2

// limit is how many connections the server allows, as far as is known: what is
// configured, until the server refuses one because of the others. Then it is
// less by a quarter until none is refused, and now and then one more is tried.
// It is safe for concurrent use.
type limit struct {
	configured int

	mu      sync.Mutex // guards what follows
	making  int        // connections that are being made
	in      int        // connections that were let in
	allowed int
	trying  bool          // one more than before is allowed
	pause   time.Duration // before the next is tried
	next    time.Time     // when it is
	fell    time.Time     // when allowed fell
	freed   chan struct{} // closed, and made anew, when there may be room
}

// fallInterval is how long refusals are one: connections are made many at once.
const fallInterval = time.Second

func newLimit(configured int) *limit {
	return &limit{configured: configured, allowed: configured, pause: raiseMin, freed: make(chan struct{})}
}

// begin notes a connection that is being made.
func (l *limit) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.making++
}

// failed notes that it came to nothing.
func (l *limit) failed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.making--
	l.wake()
}

// accepted notes that it was let in.
func (l *limit) accepted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.making--
	l.in++
}

// ended notes that one that was let in is gone.
func (l *limit) ended() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in--
	l.wake()
}

// refused: the connection that is being made was not let in because of those
// that are. It says what is allowed now, and whether that is news.
func (l *limit) refused(now time.Time) (allowed int, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.allowed
	switch {
	case now.Sub(l.fell) < fallInterval:
		return l.allowed, false
	case l.trying:
		l.allowed--
		l.pause = min(2*l.pause, raiseMax)
	default:
		l.allowed = min(l.allowed, l.in+l.making) * 3 / 4
	}
	l.allowed = min(max(l.allowed, l.in, fewest), l.configured)
	l.trying, l.fell, l.next = false, now, now.Add(backoff.Jittered(l.pause))
	return l.allowed, before == l.configured && l.allowed < before
}

// others is how many connections have been let in.
func (l *limit) others() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.in
}

// limited says whether the server has refused connections, and told how many it
// lets in, as far as is known.
func (l *limit) limited() bool { return l.told() < l.configured }

func (l *limit) told() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trying && l.allowed < l.configured {
		return l.allowed - 1
	}
	return l.allowed
}

// now returns how many connections may be open.
func (l *limit) now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.allowed
}

// raise allows one more, where it is wanted and its time has come. It returns
// when the next may be allowed; the zero time: never.
func (l *limit) raise(now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.allowed < l.configured && !now.Before(l.next) {
		if l.trying {
			l.pause = raiseMin // the one before was let in
		}
		l.allowed++
		l.trying, l.next = true, now.Add(raiseMin)
		l.wake()
	}
	if l.allowed == l.configured {
		return time.Time{}
	}
	return l.next
}

// wake lets those who wait for room look again. The caller holds mu.
func (l *limit) wake() {
	close(l.freed)
	l.freed = make(chan struct{})
}

// waiting returns what is closed when there may be room.
func (l *limit) waiting() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.freed
}

// slots bounds how many use something, where the bound may change. It is safe
// for concurrent use.
type slots struct {
	mu    sync.Mutex // guards what follows
	used  int
	wants int // who wait for one
}

// awaited says whether somebody waits for a slot.
func (s *slots) awaited() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wants > 0
}

// take waits for one of most slots.
func (s *slots) take(ctx context.Context, l *limit, most func(allowed int) int) error {
	s.mu.Lock()
	s.wants++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wants--
	}()
	for {
		freed := l.waiting()
		s.mu.Lock()
		room := s.used < most(l.now())
		if room {
			s.used++
		}
		s.mu.Unlock()
		if room {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// give returns a slot.
func (s *slots) give(l *limit) {
	s.mu.Lock()
	s.used--
	s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wake()
}

// tooMany is how servers say it in words: Courier, Cyrus, Dovecot, Exchange.
var tooMany = regexp.MustCompile(`(?i)too many|maximum number|connection limit|limit exceeded`)

// isLimit says whether a connection was refused because of those that are open:
// the server says so, or it closes the connection without a greeting, as
// Courier does.
func isLimit(err error, others int) bool {
	switch {
	case err == nil:
		return false
	case errors.Is(err, errLimit), tooMany.MatchString(err.Error()):
		return true
	}
	return others > 0 && errors.Is(err, errGreeting) && !errors.Is(err, errTimeout)
}

// errGreeting: the server was reached and did not greet.
var errGreeting = errors.New("no greeting")
