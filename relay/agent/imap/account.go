package imap

import (
	"fmt"
	"time"

	"badgerelay/relay/agent/internal/backoff"
	"badgerelay/relay/agent/source"
)

// How long a mailbox whose login was refused is not logged in to: four times as
// long each time. Servers slow down everybody from an address that has many
// refused logins: Dovecot each within two minutes. Where there are many such
// mailboxes the longest time grows, so that one is tried in two minutes.
const (
	accountMin  = time.Minute
	accountMax  = 30 * time.Minute
	accountEach = 2 * time.Minute
)

// account is what is known of the logins of a mailbox that is watched; of others
// nothing is remembered. It belongs to gate.mu.
type account struct {
	good    bool // it was let in the last time
	refused int  // times in a row
	until   time.Time
	err     error // why not before
	late    int   // times in a row that an answer did not come in time
}

// firstTimeout is how long a mailbox may take for an answer at first, where others
// wait for a connection. One that took longer has twice as long the next time, up
// to Config.Timeout, so that those that hang hold up the others for seconds. Ours:
// servers answer within milliseconds, and Dovecot's pause after a refused login is
// two seconds.
const firstTimeout = 4 * time.Second

// timeout returns how long a mailbox may take for an answer; at most most.
func (g *gate) timeout(mailbox string, most time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.accounts[mailbox]; a != nil {
		return backoff.Doubled(a.late, firstTimeout, most)
	}
	return min(firstTimeout, most)
}

// wasLate says whether the mailbox did not answer in its time.
func (g *gate) wasLate(mailbox string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.accounts[mailbox]
	return a != nil && a.late > 0
}

// late: the mailbox did not answer within had. It says whether that tells
// nothing of the server: the mailbox was not let in before, and has longer the
// next time, or is not watched.
func (g *gate) late(mailbox string, had, most time.Duration) (own bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.accounts[mailbox]
	if a == nil {
		return true
	}
	a.late++
	a.until, a.err = time.Now().Add(backoff.Jittered(2*had)), fmt.Errorf("%w: %w within %v", source.ErrUnavailable, errTimeout, had)
	return !a.good && had < most
}

// inTime: the mailbox was counted within d.
func (g *gate) inTime(mailbox string, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.accounts[mailbox]; a != nil && d < firstTimeout/2 {
		a.late = 0
	}
}

// watch has it remembered how a mailbox's logins go, until forget.
func (g *gate) watch(mailbox string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.accounts[mailbox] == nil {
		g.accounts[mailbox] = new(account)
	}
}

// watched says whether it is remembered how a mailbox's logins go.
func (g *gate) watched(mailbox string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.accounts[mailbox] != nil
}

// may returns why a mailbox failed whose time has not come again.
func (g *gate) may(mailbox string, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.accounts[mailbox]; a != nil && now.Before(a.until) {
		return fmt.Errorf("%w; not tried again before %s", a.err, a.until.UTC().Format(time.RFC3339))
	}
	return nil
}

// again returns when a mailbox may be logged in to; the zero time: now.
func (g *gate) again(mailbox string) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.accounts[mailbox]; a != nil {
		return a.until
	}
	return time.Time{}
}

// refuseAccount notes a refused login. The caller holds mu.
func (g *gate) refuseAccount(a *account, err error, now time.Time) {
	if a.good {
		g.good--
	}
	if a.refused == 0 {
		g.stale++
	}
	most := max(accountMax, time.Duration(g.stale)*accountEach)
	a.good, a.err = false, err
	a.until = now.Add(backoff.Jittered(backoff.Doubled(2*a.refused, accountMin, most)))
	a.refused++
}

// admit notes that a login was accepted. The caller holds mu.
func (g *gate) admit(mailbox string) {
	a := g.accounts[mailbox]
	if a == nil {
		return
	}
	if !a.good {
		g.good++
	}
	if a.refused > 0 {
		g.stale--
	}
	*a = account{good: true, late: a.late}
}

// pardon has every mailbox logged in to again when it is wanted: what it was
// refused for may be mended.
func (g *gate) pardon() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range g.accounts {
		a.until = time.Time{}
	}
}

// forget drops what is known of a mailbox.
func (g *gate) forget(mailbox string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.accounts[mailbox]; a != nil {
		if a.good {
			g.good--
		}
		if a.refused > 0 {
			g.stale--
		}
		delete(g.accounts, mailbox)
	}
}

// refusedAccounts is how many mailboxes' logins were refused the last time.
func (g *gate) refusedAccounts() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stale
}
