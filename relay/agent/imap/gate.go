package imap

import (
	"context"
	"fmt"
	"sync"
	"time"

	"badgerelay/relay/agent/internal/backoff"
)

// How long the server is left alone after it could not be reached, and after it
// refused one login after the other: doubled up to the last, and jittered. Ours:
// a restart costs a badge a second, a wrong password does not look like an
// attack.
const (
	unreachableMin = time.Second
	unreachableMax = time.Minute
	refusedMin     = 10 * time.Second
	refusedMax     = 5 * time.Minute
	// refusedInARow is how many different mailboxes the server must refuse
	// before it seems to refuse us.
	refusedInARow = 3
	// failedInARow is how many different mailboxes must fail to log in before the
	// server seems to be in trouble.
	failedInARow = 3
)

// trouble is what is wrong with the server as a whole.
type trouble uint8

const (
	troubleNone trouble = iota
	troubleUnreachable
	troubleRefused
	troubleUnavailable
)

// String says what is wrong, as a predicate; empty: nothing.
func (t trouble) String() string {
	return [...]string{"", "can't be reached", "refuses every login", "lets nobody in"}[t]
}

// gate holds connections back while the server is in trouble: one at a time
// tries, after a pause. It is safe for concurrent use.
type gate struct {
	mu      sync.Mutex // guards what follows
	trouble trouble
	times   int // in a row, of that trouble
	until   time.Time
	trying  bool                // one tries
	refused map[string]struct{} // mailboxes that were refused since one was let in
	failed  map[string]struct{} // and those that were good, and could not log in since one did
	turned  chan struct{}       // closed, and made anew, when something has changed

	accounts map[string]*account
	good     int // accounts that were let in the last time
	stale    int // accounts that were refused
}

func newGate() *gate {
	return &gate{accounts: make(map[string]*account), refused: make(map[string]struct{}), failed: make(map[string]struct{}), turned: make(chan struct{})}
}

// enter waits until a connection may be tried. Each nil has to be followed by
// one of reached, unreachable, broken, refuse and leave.
func (g *gate) enter(ctx context.Context) error {
	for ctx.Err() == nil {
		g.mu.Lock()
		wait, turned := time.Until(g.until), g.turned
		if g.trouble == troubleNone || !g.trying && wait <= 0 {
			g.trying = g.trouble != troubleNone
			g.mu.Unlock()
			return nil
		}
		trying := g.trying
		g.mu.Unlock()
		var timer <-chan time.Time
		if !trying {
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-turned:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// closed says why no connection is to be tried now; nil: one may be.
func (g *gate) closed(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.trouble == troubleNone || !g.trying && !g.until.After(now) {
		return nil
	}
	return fmt.Errorf("the server is left alone for now: it %s", g.trouble)
}

// reached: the server let us in. It says whether that ends a trouble.
func (g *gate) reached(mailbox string) (again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.admit(mailbox)
	again = g.trouble != troubleNone
	g.trouble, g.times = troubleNone, 0
	clear(g.refused)
	clear(g.failed)
	g.turn()
	return again
}

// unreachable: no connection, or one that does not work. It returns the pause,
// and whether this is the first in a row.
func (g *gate) unreachable() (pause time.Duration, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pause(troubleUnreachable, unreachableMin, unreachableMax)
}

// broken: the server can be reached, and this mailbox could not log in, though
// it was not refused. That is the mailbox's own trouble, until it is that of
// several in a row while none is let in, or of the last that was; of those that
// were let in before, where there are any.
func (g *gate) broken(mailbox string) (pause time.Duration, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.accounts[mailbox]
	if a == nil { // it is not watched
		g.turn()
		return 0, false
	}
	tells, last := a.good || g.good == 0, a.good && g.good == 1
	if a.good {
		g.good--
		a.good = false
	}
	if tells && len(g.failed) < failedInARow {
		g.failed[mailbox] = struct{}{}
	}
	if len(g.failed) < failedInARow && !last && g.trouble == troubleNone {
		g.turn()
		return 0, false
	}
	return g.pause(troubleUnavailable, unreachableMin, unreachableMax)
}

// refuse: the server refused this mailbox. Where others have been refused
// before it, and none was let in, there is a pause for all of them. Once some
// have been let in, only a refusal of one of those says something about us:
// mailboxes go, or are another server's.
func (g *gate) refuse(mailbox string, err error) (pause time.Duration, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.accounts[mailbox]
	if a == nil { // it is not watched
		g.turn()
		return 0, false
	}
	tells := a.good || g.good == 0 || g.trouble == troubleRefused
	g.refuseAccount(a, err, time.Now())
	if tells && len(g.refused) < refusedInARow {
		g.refused[mailbox] = struct{}{}
	}
	if !tells || len(g.refused) < refusedInARow {
		g.trouble, g.times = troubleNone, 0 // it can be reached
		g.turn()
		return 0, false
	}
	return g.pause(troubleRefused, refusedMin, refusedMax)
}

// reopen lets the next one try at once: what was wrong may be mended.
func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until, g.times = time.Time{}, 0
	g.turn()
}

// leave ends a try that says nothing about the server.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn()
}

// pause closes the gate. The caller holds mu.
func (g *gate) pause(t trouble, least, most time.Duration) (time.Duration, bool) {
	if g.trouble != t {
		g.trouble, g.times = t, 0
	} else if !g.trying {
		return time.Until(g.until), false // it was tried before the gate closed
	}
	d := backoff.Jittered(backoff.Doubled(g.times, least, most))
	g.times++
	g.until = time.Now().Add(d)
	g.turn()
	return d, g.times == 1
}

// turn lets those who wait look again. The caller holds mu.
func (g *gate) turn() {
	g.trying = false
	close(g.turned)
	g.turned = make(chan struct{})
}

// state returns what is wrong with the server.
func (g *gate) state() trouble {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.trouble
}
