package backend

import (
	"context"
	"crypto/rand"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"badgerelay/relay/agent"
)

// How the list of removed subscriptions is kept. Ours: an answer of one page is never
// older than fresh; who waits has the relay asked every patience, in case a
// removal was not of this agent's making; and the list is bounded.
const (
	fresh       = 5 * time.Second
	patience    = 30 * time.Second
	maxRemovals = 100_000
	// For so long after news the relay is asked more often: it settles a count
	// before its registry has ended the subscription.
	newsLast = 10 * time.Second
	// Each page that the list had costs a pause of pagePause before it is read
	// again, up to patience, whatever happens meanwhile.
	pagePause = time.Second
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
	last    uint64    // number given out last
	asked   time.Time // when the relay was asked last
	pages   int       // that it gave then
	failure error     // that it ended with
	told    time.Time // of the last news
	waiting int       // who wait for news
	stale   bool      // there is news since
	changed chan struct{}
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
	return &removals{relay: relay, epoch: rand.Text()[:8], ask: make(chan struct{}, 1), numbers: map[entryKey]uint64{}, changed: make(chan struct{})}
}

// settled makes what is known old, and wakes those who wait. Of many events in a
// short time one does: for newsLast the relay is asked again anyway.
func (l *removals) settled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stale || l.waiting == 0 && time.Since(l.told) < newsLast/2 || time.Since(l.told) < pagePause/2 {
		return
	}
	l.stale, l.told = true, time.Now()
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
	l.wait(1)
	defer l.wait(-1)
	end := time.Now().Add(wait)
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if err := l.refresh(ctx); err != nil {
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

// wait counts those who wait for news.
func (l *removals) wait(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting += n
}

// pause is how long who waits may sleep before the relay is asked again.
func (l *removals) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stale:
		return time.Until(l.asked.Add(l.spacing()))
	case time.Since(l.told) < newsLast:
		return l.spacing()
	}
	return patience
}

// spacing is how long the relay is left alone after it was asked. l.mu is held.
func (l *removals) spacing() time.Duration { return min(patience, time.Duration(l.pages)*pagePause) }

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

// refresh asks the relay, unless somebody has just done so.
func (l *removals) refresh(ctx context.Context) error {
	select {
	case l.ask <- struct{}{}:
		defer func() { <-l.ask }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if old, failure := l.old(); !old {
		return failure
	}
	listed, pages, err := l.list(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pages, l.failure = pages, err
	if err != nil {
		l.stale = true
		return err
	}
	l.take(listed)
	return nil
}

// old reports whether the relay is to be asked, as is done then; if not, how
// the last time has failed.
func (l *removals) old() (yes bool, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	age := l.spacing()
	if !l.stale && now.Sub(l.told) >= newsLast {
		age = max(age, fresh)
	}
	if now.Sub(l.asked) < age {
		return false, l.failure
	}
	l.stale, l.asked = false, now
	return true, nil
}

// list reads the relay's list, and returns how many pages it had; 0: the relay
// failed, and may be asked again at once.
func (l *removals) list(ctx context.Context) (listed []agent.Subscription, pages int, err error) {
	for token := ""; ; {
		page, next, err := l.relay.Page(ctx, agent.Filter{Removed: true, PageSize: maxPage}, token)
		if err != nil {
			return nil, 0, err
		}
		pages++
		listed = append(listed, page...)
		if len(listed) > maxRemovals {
			return nil, pages, &problem{
				status: http.StatusServiceUnavailable, code: CodeTooMany, after: patience,
				detail: "more than 100,000 subscriptions have ended within 30 days; 'badgeagent subscriptions --removed' lists them from the relay",
			}
		}
		if token = next; token == "" {
			return listed, pages, nil
		}
	}
}

// take numbers what is new and forgets what the relay has forgotten, such as a
// device that has registered again. l.mu is held.
func (l *removals) take(listed []agent.Subscription) {
	numbers := make(map[entryKey]uint64, len(listed))
	kept := l.entries[:0]
	var come []entry
	for i := range listed {
		s := &listed[i]
		if s.Mailbox == agent.ProbeMailbox {
			continue // no back end knows of it
		}
		key := entryKey{s.Mailbox, s.App, string(s.Device), s.RemovedAt.UnixMilli()}
		number, known := l.numbers[key]
		if !known {
			l.last++
			number = l.last
			come = append(come, entry{number, subscriptionOf(s)})
		}
		numbers[key] = number
	}
	for _, e := range l.entries {
		s := &e.subscription
		if _, ok := numbers[entryKey{s.Mailbox, s.App, s.DeviceToken, s.RemovedAt.UnixMilli()}]; ok {
			kept = append(kept, e)
		}
	}
	l.entries, l.numbers = append(kept, come...), numbers
}
