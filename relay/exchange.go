package relay

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"badgerelay/apns"
	"badgerelay/relay/fair"
)

const (
	// exchangeBatch is how many shared devices one transaction brings to the
	// registry at most, and dueBatch how many it asks for.
	exchangeBatch = 256
	dueBatch      = 2048 // what is due is named only: an organization's many hide no other's for long

	// exchangePause is how often the registry is asked for what waits: a
	// notification is a hint. A relay is heard of so often, too.
	exchangePause = time.Second
	// hintPause is the least time between two questions because of a hint.
	hintPause = 50 * time.Millisecond
)

// sums brings the counts of shared devices to the registry, and their sums back.
// One goroutine does, in batches: what comes while one is under way goes with the
// next.
type sums struct {
	relay *Relay
	queue *fair.Inbox[OrganizationID, queuedExchange] // devices whose state is not exchanged

	// Owned by run.
	after     string               // where the next question for what is due begins
	elsewhere map[*device]struct{} // those whose events wait for what the registry says next
	pending   map[*device]struct{} // those with counts that are in no sum yet: they are asked for once a second
	clock     sharedClock

	alive atomic.Pointer[lease] // nil: no sums may be pushed, or always where there is no other relay
	hint  signal                // something may be due

	ruleChanged signal // every sum of an app is another

	inFlight atomic.Int64 // pushes of sums
}

// lease is until when the other relays leave it to this one to push what it pushes.
type lease struct {
	until  *apns.Deadline
	number uint64 // another one follows a lease that ran out
}

// queuedExchange is a device in an organization's turn.
type queuedExchange struct {
	org    OrganizationID
	device *device
}

func (s *sums) begin(r *Relay) {
	s.relay, s.elsewhere, s.pending = r, map[*device]struct{}{}, map[*device]struct{}{}
	s.queue = fair.NewInbox[OrganizationID, queuedExchange]()
	s.hint, s.ruleChanged = newSignal(), newSignal()
}

// mayPush reports whether this relay may push a sum that it learned in a lease, and
// until when. What it learned in an earlier one may be another relay's to push by now.
func (s *sums) mayPush(number uint64) (*apns.Deadline, bool) {
	if s.relay.maxInFlight == 0 {
		return nil, true
	}
	l := s.alive.Load()
	if l == nil || l.number != number || l.until.Passed() {
		return nil, false
	}
	return l.until, true
}

// leaseNumber returns which lease this relay has; 0: none.
func (s *sums) leaseNumber() uint64 {
	if l := s.alive.Load(); l != nil {
		return l.number
	}
	return 0
}

// run exchanges until ctx is done.
func (s *sums) run(ctx context.Context) {
	r := s.relay
	failing := r.outage("exchange sums")
	ticker := time.NewTicker(exchangePause)
	defer ticker.Stop()
	hinted := time.NewTimer(0) // ends the pause between two questions
	defer hinted.Stop()
	ask, asked := true, time.Time{} // what was left behind is due at the start
	var queued []queuedExchange
	var batch []*device
	defer s.leave(ctx)
	for {
		queued = s.queue.Next(queued[:0], exchangeBatch)
		batch = beginExchanges(queued, batch[:0])
		if len(batch) > 0 || ask && r.devices.shared.Load() > 0 {
			if ask {
				asked = time.Now()
				askFor(s.elsewhere)
			}
			if err := s.exchange(ctx, batch, ask); err != nil {
				if ctx.Err() != nil {
					return
				}
				for _, q := range queued {
					q.device.endFailedExchange(q.org)
				}
				failing.Note(err)
				if failing.Pause(ctx) != nil {
					return
				}
				continue
			}
			failing.End()
			ask = false
		}
		more := len(queued) == exchangeBatch
		clear(queued)
		clear(batch)
		if more {
			continue
		}
		select {
		case <-s.queue.Added():
		case <-ticker.C:
			ask = true
			askFor(s.pending)
			s.updateStalls()
		case <-s.hint:
			hinted.Reset(max(0, hintPause-time.Since(asked)))
		case <-hinted.C:
			ask = true
		case <-ctx.Done():
			return
		}
	}
}

// beginExchanges returns the devices that are to be exchanged of those that are queued,
// each once.
func beginExchanges(queued []queuedExchange, into []*device) []*device {
	for _, q := range queued {
		if q.device.beginExchange(q.org) {
			into = append(into, q.device)
		}
	}
	return into
}

// leave tells the other relays that this one pushes no more, if that is so.
func (s *sums) leave(ctx context.Context) {
	const timeout = time.Second
	r := s.relay
	if s.alive.Swap(nil) == nil || s.inFlight.Load() > 0 || r.devices.shared.Load() == 0 {
		return // then they wait until nothing of it can be on its way any more
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if _, err := s.ask(last, Exchange{Leave: true}); err != nil {
		r.logger.Info("other relays could not be told that this one ends", "error", err)
	}
}

// exchange brings a batch to the registry, asks for what is due if it is asked to,
// and acts on what comes back.
func (s *sums) exchange(ctx context.Context, batch []*device, due bool) error {
	r := s.relay
	alive := apns.DeadlineIn(r.pulse.bound)
	if r.maxInFlight > 0 {
		r.pushDeadline() // a process that was stopped has old counts
	}
	if !s.clock.known(r.now()) { // what a process before this one stored is dated, too
		if err := s.tell(ctx, Exchange{}, alive); err != nil {
			return err
		}
	}
	x := Exchange{Devices: make([]SharedUpdate, 0, len(batch))}
	told := make([][]storedCount, len(batch))
	for i, d := range batch {
		u, c := d.gather(r)
		x.Devices, told[i] = append(x.Devices, u), c
	}
	if due {
		x.Due, x.After = dueBatch, s.after
	}
	result, err := s.ask(ctx, x)
	if err != nil {
		return err
	}
	s.setAlive(alive)
	var acts actions
	for i, d := range batch {
		s.applyResult(d, &result.Devices[i], told[i], result.Now, &acts)
	}
	if due {
		s.takeDue(&result)
	}
	r.apply(&acts)
	return nil
}

// tell exchanges without devices, so that the others hear of this relay.
func (s *sums) tell(ctx context.Context, x Exchange, alive *apns.Deadline) error {
	_, err := s.ask(ctx, x)
	if err == nil {
		s.setAlive(alive)
	}
	return err
}

// setAlive notes until when the others take this relay for alive.
func (s *sums) setAlive(until *apns.Deadline) {
	if s.relay.maxInFlight == 0 {
		return
	}
	next := &lease{until: until, number: 1}
	if l := s.alive.Load(); l != nil {
		next.number = l.number
		if l.until.Passed() {
			next.number++
		}
	}
	s.alive.Store(next)
}

func (s *sums) ask(ctx context.Context, x Exchange) (ExchangeResult, error) {
	r := s.relay
	x.Relay, x.Lifetime, x.ShownFor = r.instance, time.Duration(r.maxInFlight), time.Duration(r.shownFor)
	x.Stray = time.Duration(max(0, r.strayUntil-r.now()))
	sent := r.now()
	result, err := r.subscriptions.Exchange(ctx, x)
	if err == nil {
		s.clock.note(result.Now, sent, r.now())
	}
	return result, err
}

// applyResult takes over what the registry says of a device.
func (s *sums) applyResult(d *device, st *SharedDevice, told []storedCount, now time.Time, acts *actions) {
	r := s.relay
	if !st.Shared {
		s.unshare(d, st, acts)
		return
	}
	r.devices.noteShared(deviceKey{d.app, d.token})
	for i := range st.Parts {
		p := &st.Parts[i]
		if c, ok := r.recall(p.Key); ok && (!p.reported() || c.Count != p.NewestCount && c.ReceivedAt.After(p.ReceivedAt)) {
			d.recalled(c)
		}
	}
	waits, pending := d.applyShared(st, told, now, r, acts)
	if waits {
		s.elsewhere[d] = struct{}{}
	}
	if pending {
		s.pending[d] = struct{}{}
	}
}

// askFor has devices exchanged on behalf of the events that wait for them, once.
func askFor(devices map[*device]struct{}) {
	for d := range devices {
		d.mu.Lock()
		if d.shared != nil && !d.gone {
			d.touchForWaiting()
		}
		d.mu.Unlock()
	}
	clear(devices)
}

// recalled has a count stored that this relay remembers.
func (d *device) recalled(c ReceivedCount) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shared != nil && !slices.Contains(d.shared.recalled, c) {
		d.shared.recalled = append(d.shared.recalled, c)
		d.touch(c.Key.Organization)
	}
}

// recall returns the newest count that this relay remembers of a mailbox.
func (r *Relay) recall(key MailboxKey) (c ReceivedCount, ok bool) {
	sh, hash := r.shardOf(key.Organization, key.Mailbox)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if m := sh.active.find(hash, key); m != nil {
		return ReceivedCount{key, m.unread, r.sums.sharedTime(m.receivedAt)}, m.counted
	}
	e, found := sh.compact.get(hash)
	if !found || e.key() != key {
		return c, false
	}
	reader := mailboxDecoder{left: e}
	reader.skipKey()
	_, receivedAt := reader.order()
	return ReceivedCount{key, reader.unread, r.sums.sharedTime(receivedAt)}, reader.counted
}

// unshare takes a device back that is on one mailbox. A mailbox that it has left
// may not have heard of it.
func (s *sums) unshare(d *device, st *SharedDevice, acts *actions) {
	r := s.relay
	targets, done := r.devices.unshare(d)
	if !done {
		return
	}
	var left []MailboxKey
	for _, t := range targets {
		if st.part(t.mailbox.key) == nil {
			left = append(left, t.mailbox.key)
			continue
		}
		r.setAnew(t, acts)
	}
	r.SubscriptionsChanged(left)
	acts.released = append(acts.released, d)
}

// takeDue has devices exchanged that wait for this relay's push, unless they are on
// their way already.
func (s *sums) takeDue(result *ExchangeResult) {
	r := s.relay
	if s.after = result.Next; s.after != "" {
		s.hint.fill() // there is more
	}
	for _, one := range result.Due {
		app := r.apps.named(one.App)
		if app == nil {
			continue // it is not configured any more
		}
		if app.stall.stalled && !one.Ours && !app.stall.try(one.DeviceKey, r.now()) {
			continue
		}
		r.devices.withShared(deviceKey{app, one.Device}, func(d *device) {
			if app.stall.stalled || !d.shared.wanted() || d.shared.sequence < one.Sequence || one.Again {
				d.touchFor(one.Organizations)
			}
		})
	}
}

// loadShared reads which devices the registry calls shared.
func (r *Relay) loadShared(ctx context.Context) error {
	err := r.subscriptions.SharedDevices(ctx, func(batch []DeviceKey) error {
		for _, key := range batch {
			if app := r.apps.named(key.App); app != nil {
				r.devices.noteShared(deviceKey{app, key.Device})
				r.devices.shareIfActive(deviceKey{app, key.Device})
			}
		}
		return nil
	})
	r.sums.hint.fill()
	return err
}

// runRuleChanges has every shared device of an app exchanged that sums are made otherwise
// for, until ctx is done.
func (s *sums) runRuleChanges(ctx context.Context) {
	r := s.relay
	failing := r.outage("read shared devices")
	for {
		select {
		case <-s.ruleChanged:
		case <-ctx.Done():
			return
		}
		concerned := map[string]bool{}
		for _, a := range r.apps.all() {
			concerned[a.name] = a.ruleChanged.Swap(false)
		}
		_ = failing.Retry(ctx, func() error { // it only fails when ctx is done
			return r.subscriptions.SharedDevices(ctx, func(batch []DeviceKey) error {
				r.DevicesShared(slices.DeleteFunc(slices.Clone(batch), func(d DeviceKey) bool { return !concerned[d.App] }))
				return nil
			})
		})
	}
}

// DevicesShared tells the relay that devices have become shared, or are not any more. Each
// is exchanged, which says what it is: this relay may remember a count of a mailbox that
// nobody else does.
func (r *Relay) DevicesShared(keys []DeviceKey) {
	for _, key := range keys {
		if app := r.apps.named(key.App); app != nil {
			r.devices.noteShared(deviceKey{app, key.Device})
			r.devices.withShared(deviceKey{app, key.Device}, func(d *device) { d.touchFor(nil) })
		}
	}
}

// SumsChanged hints that sums of shared devices changed, at another relay or
// because an organization was disabled or enabled.
func (r *Relay) SumsChanged() { r.sums.hint.fill() }

// sharedTime returns a time of the relay's clock on the clock that relays share;
// zero: long ago.
func (s *sums) sharedTime(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return s.clock.at(at)
}
