package backend

import (
	"context"
	"crypto/rand"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"badgerelay/relay/agent"
)

// How the list of removed subscriptions is kept. Ours: the relay tells which
// mailbox a device has left, so its removals alone are read then; all of them at
// the start, after the watch began anew, and now and then, in case something was
// missed. The list is bounded.
const (
	fresh       = 5 * time.Second  // the age of all, where a back end asks
	maxAge      = 30 * time.Second // the same, where it waits
	maxRemovals = 100_000
	// Each page that the whole list had costs a pause of pagePause before it is
	// read again, up to maxAge, whatever happens meanwhile.
	pagePause = time.Second
	// gather is how long mailboxes that devices have left are gathered.
	gather = 200 * time.Millisecond
	// maxLeft is how many are read one by one; more are read with all others.
	maxLeft = 100
)

// removals is the relay's list of removed subscriptions, in the order in which
// this process has heard of them. A cursor is a place in it: of another process
// it means the beginning, so that a back end may hear of a removal twice and
// misses none.
type removals struct {
	relay Relay
	epoch string        // names this process
	ask   chan struct{} // one slot: held by whoever asks the relay

	mu      sync.Mutex // guards what follows
	entries []entry    // by number
	numbers map[entryKey]uint64
	last    uint64              // number given out last
	asked   time.Time           // when the relay was asked for all
	pages   int                 // that it gave then
	failure error               // that it ended with
	stale   bool                // all are to be read
	gone    map[string]struct{} // mailboxes whose removals are to be read
	read    time.Time           // when those of single mailboxes were
	changed chan struct{}       // closed, and made anew, when stale or gone has changed
}

type entry struct {
	number       uint64
	subscription Subscription
}

// entryKey is one removal; a device that comes back and is removed again has
// two.
type entryKey struct {
	mailbox, app, device string
	at                   int64
}

func newRemovals(relay Relay) *removals {
	return &removals{
		relay: relay, epoch: rand.Text()[:8], ask: make(chan struct{}, 1), numbers: map[entryKey]uint64{},
		stale: true, gone: make(map[string]struct{}), changed: make(chan struct{}),
	}
}

// left makes what is known of a mailbox old, or all of it, and wakes those who
// wait.
func (l *removals) left(mailbox string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.gone[mailbox]; known {
		return
	}
	if mailbox != "" && len(l.gone) < maxLeft {
		l.gone[mailbox] = struct{}{}
	} else if l.stale {
		return
	} else {
		l.stale = true
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// after returns up to limit removals behind the cursor. Where there is none it
// waits for one, up to wait.
func (l *removals) after(ctx context.Context, cursor string, limit int, wait time.Duration) (Removals, error) {
	number, err := l.place(cursor)
	if err != nil {
		return Removals{}, err
	}
	end := time.Now().Add(wait)
	for age := fresh; ; age = maxAge {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if err := l.refresh(ctx, age); err != nil {
			return Removals{}, err
		}
		m := l.behind(number, limit)
		left := time.Until(end)
		if len(m.Removed) > 0 || left <= 0 {
			return m, nil
		}
		timer := time.NewTimer(min(left, l.pause()))
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return Removals{}, ctx.Err()
		}
	}
}

// pause is how long who waits may sleep before the relay is asked again.
func (l *removals) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.gone) > 0:
		return time.Until(l.read.Add(gather))
	case l.stale:
		return time.Until(l.asked.Add(l.spacing()))
	}
	return time.Until(l.asked.Add(maxAge))
}

// spacing is how long the relay is left alone after it was asked for all. l.mu
// is held.
func (l *removals) spacing() time.Duration { return min(maxAge, time.Duration(l.pages)*pagePause) }

// place reads a cursor: the number of the last removal that the caller knows.
func (l *removals) place(cursor string) (uint64, error) {
	if cursor == "" {
		return 0, nil
	}
	epoch, number, ok := strings.Cut(cursor, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return 0, invalid("cursor", "is not one of an earlier answer")
	}
	if epoch != l.epoch {
		return 0, nil
	}
	return n, nil
}

func (l *removals) behind(number uint64, limit int) Removals {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := Removals{Removed: []Subscription{}, Cursor: l.epoch + "-" + strconv.FormatUint(l.last, 10)}
	for i := range l.entries {
		if l.entries[i].number <= number {
			continue
		}
		if len(m.Removed) == limit {
			m.More, m.Cursor = true, l.epoch+"-"+strconv.FormatUint(l.entries[i-1].number, 10)
			break
		}
		m.Removed = append(m.Removed, l.entries[i].subscription)
	}
	return m
}

// refresh asks the relay for what is old, unless somebody has just done so: for
// all removals if those are older than age.
func (l *removals) refresh(ctx context.Context, age time.Duration) error {
	select {
	case l.ask <- struct{}{}:
		defer func() { <-l.ask }()
	case <-ctx.Done():
		return ctx.Err()
	}
	all, mailboxes, failure := l.old(age)
	switch {
	case all:
		return l.refreshAll(ctx)
	case failure != nil:
		return failure
	}
	for n, mailbox := range mailboxes {
		listed, _, err := l.list(ctx, mailbox)
		if err != nil {
			for _, again := range mailboxes[n:] {
				l.left(again)
			}
			return err
		}
		l.mu.Lock()
		l.take(listed, func(of string) bool { return of == mailbox })
		l.mu.Unlock()
	}
	return nil
}

func (l *removals) refreshAll(ctx context.Context) error {
	listed, pages, err := l.list(ctx, "")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pages, l.failure = pages, err
	if err != nil {
		l.stale = true
		return err
	}
	l.take(listed, func(string) bool { return true })
	return nil
}

// old reports what the relay is to be asked for, as is done then: everything, or
// the removals of some mailboxes. If it is too early for everything, failure is
// how the last time has failed.
func (l *removals) old(age time.Duration) (all bool, mailboxes []string, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.stale {
		age = 0
	}
	switch {
	case now.Sub(l.asked) >= max(age, l.spacing()):
		l.stale, l.asked = false, now
		clear(l.gone)
		return true, nil, nil
	case l.failure == nil && len(l.gone) > 0 && now.Sub(l.read) >= gather:
		mailboxes = slices.Collect(maps.Keys(l.gone))
		clear(l.gone)
		l.read = now
	}
	return false, mailboxes, l.failure
}

// list reads the relay's list, of all mailboxes if mailbox is empty, and returns
// how many pages it had; 0: the relay failed, and may be asked again at once.
func (l *removals) list(ctx context.Context, mailbox string) (listed []agent.Subscription, pages int, err error) {
	for token := ""; ; {
		page, next, err := l.relay.Page(ctx, agent.Filter{Mailbox: mailbox, Removed: true, PageSize: maxPage}, token)
		if err != nil {
			return nil, 0, err
		}
		pages++
		listed = append(listed, page...)
		if len(listed) > maxRemovals {
			return nil, pages, &problem{
				status: http.StatusServiceUnavailable, code: CodeTooMany, after: maxAge,
				detail: "more than 100,000 subscriptions have ended within 30 days; 'badgeagent subscription list --removed' lists them from the relay",
			}
		}
		if token = next; token == "" {
			return listed, pages, nil
		}
	}
}

// take numbers what is new and forgets what the relay has forgotten, such as a
// device that has registered again: of the mailboxes that were asked for. l.mu is
// held.
func (l *removals) take(listed []agent.Subscription, asked func(mailbox string) bool) {
	found := make(map[entryKey]bool, len(listed))
	var come []entry
	for i := range listed {
		s := &listed[i]
		if s.Mailbox == agent.ProbeMailbox {
			continue // no back end knows of it
		}
		key := entryKey{s.Mailbox, s.App, string(s.Device), s.RemovedAt.UnixMilli()}
		found[key] = true
		if _, known := l.numbers[key]; !known {
			l.last++
			l.numbers[key] = l.last
			come = append(come, entry{l.last, SubscriptionOf(s)})
		}
	}
	kept := l.entries[:0]
	for _, e := range l.entries {
		s := &e.subscription
		key := entryKey{s.Mailbox, s.App, s.DeviceToken, s.RemovedAt.UnixMilli()}
		if asked(s.Mailbox) && !found[key] {
			delete(l.numbers, key)
			continue
		}
		kept = append(kept, e)
	}
	clear(l.entries[len(kept):])
	l.entries = append(kept, come...)
}
