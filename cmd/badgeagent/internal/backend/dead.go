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

// How the list of dead tokens is kept. Ours: an answer of one page is never
// older than fresh; who waits has the relay asked every patience, in case a
// removal was not of this agent's making; and the list is bounded.
const (
	fresh    = 5 * time.Second
	patience = 30 * time.Second
	maxDead  = 100_000
	// For so long after news the relay is asked more often: it settles a count
	// before its registry has ended the subscription.
	newsLast = 10 * time.Second
	// Each page that the list had costs a pause of pagePause before it is read
	// again, up to patience, whatever happens meanwhile.
	pagePause = time.Second
)

// dead is the relay's list of ended subscriptions, in the order in which this
// process has heard of them. A cursor is a place in it: of another process it
// means the beginning, so that a back end may hear of a token twice and
// misses none.
type dead struct {
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
	stale   bool      // there is news since
	changed chan struct{}
}

type entry struct {
	number       uint64
	subscription Subscription
}

// entryKey is one ending; a device that comes back and ends again has two.
type entryKey struct {
	mailbox, app, device string
	at                   int64
}

func newDead(relay Relay) *dead {
	return &dead{relay: relay, epoch: rand.Text()[:8], ask: make(chan struct{}, 1), numbers: map[entryKey]uint64{}, changed: make(chan struct{})}
}

// news makes what is known old, and wakes those who wait.
func (d *dead) news() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stale, d.told = true, time.Now()
	close(d.changed)
	d.changed = make(chan struct{})
}

// after returns up to limit endings behind the cursor. Where there is none it
// waits for one, up to wait.
func (d *dead) after(ctx context.Context, cursor string, limit int, wait time.Duration) (Removals, error) {
	number, err := d.place(cursor)
	if err != nil {
		return Removals{}, err
	}
	end := time.Now().Add(wait)
	for {
		d.mu.Lock()
		changed := d.changed
		d.mu.Unlock()
		if err := d.refresh(ctx); err != nil {
			return Removals{}, err
		}
		m := d.behind(number, limit)
		left := time.Until(end)
		if len(m.Removed) > 0 || left <= 0 {
			return m, nil
		}
		timer := time.NewTimer(min(left, d.pause()))
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
func (d *dead) pause() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.stale:
		return time.Until(d.asked.Add(d.spacing()))
	case time.Since(d.told) < newsLast:
		return d.spacing()
	}
	return patience
}

// spacing is how long the relay is left alone after it was asked. d.mu is held.
func (d *dead) spacing() time.Duration { return min(patience, time.Duration(d.pages)*pagePause) }

// place reads a cursor: the number of the last ending that the caller knows.
func (d *dead) place(cursor string) (uint64, error) {
	if cursor == "" {
		return 0, nil
	}
	epoch, number, ok := strings.Cut(cursor, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return 0, invalid("cursor", "is not one of an earlier answer")
	}
	if epoch != d.epoch {
		return 0, nil
	}
	return n, nil
}

func (d *dead) behind(number uint64, limit int) Removals {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := Removals{Removed: []Subscription{}, Cursor: d.epoch + "-" + strconv.FormatUint(d.last, 10)}
	for i := range d.entries {
		if d.entries[i].number <= number {
			continue
		}
		if len(m.Removed) == limit {
			m.More, m.Cursor = true, d.epoch+"-"+strconv.FormatUint(d.entries[i-1].number, 10)
			break
		}
		m.Removed = append(m.Removed, d.entries[i].subscription)
	}
	return m
}

// refresh asks the relay, unless somebody has just done so.
func (d *dead) refresh(ctx context.Context) error {
	select {
	case d.ask <- struct{}{}:
		defer func() { <-d.ask }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if old, failure := d.old(); !old {
		return failure
	}
	listed, pages, err := d.list(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pages, d.failure = pages, err
	if err != nil {
		d.stale = true
		return err
	}
	d.take(listed)
	return nil
}

// old reports whether the relay is to be asked, as is done then; if not, how
// the last time has failed.
func (d *dead) old() (yes bool, failure error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	age := d.spacing()
	if !d.stale && now.Sub(d.told) >= newsLast {
		age = max(age, fresh)
	}
	if now.Sub(d.asked) < age {
		return false, d.failure
	}
	d.stale, d.asked = false, now
	return true, nil
}

// list reads the relay's list, and returns how many pages it had; 0: the relay
// failed, and may be asked again at once.
func (d *dead) list(ctx context.Context) (listed []agent.Subscription, pages int, err error) {
	for token := ""; ; {
		page, next, err := d.relay.Page(ctx, agent.Filter{Removed: true, PageSize: maxPage}, token)
		if err != nil {
			return nil, 0, err
		}
		pages++
		listed = append(listed, page...)
		if len(listed) > maxDead {
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
// device that has registered again. d.mu is held.
func (d *dead) take(listed []agent.Subscription) {
	numbers := make(map[entryKey]uint64, len(listed))
	kept := d.entries[:0]
	var come []entry
	for i := range listed {
		s := &listed[i]
		key := entryKey{s.Mailbox, s.App, string(s.Device), s.RemovedAt.UnixMilli()}
		number, known := d.numbers[key]
		if !known {
			d.last++
			number = d.last
			come = append(come, entry{number, subscriptionOf(s)})
		}
		numbers[key] = number
	}
	for _, e := range d.entries {
		s := &e.subscription
		if _, ok := numbers[entryKey{s.Mailbox, s.App, s.DeviceToken, s.RemovedAt.UnixMilli()}]; ok {
			kept = append(kept, e)
		}
	}
	d.entries, d.numbers = append(kept, come...), numbers
}
