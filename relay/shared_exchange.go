package relay

import (
	"context"
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

// SharedRegistry is where the relays that serve the same mailboxes agree on the badges of
// shared devices: those that are on several mailboxes, of one organization or of
// several, and show the sum of their counts. Exchange is called by one goroutine of the
// relay; SharedDevices by several, also at once. An error is retried with backoff.
type SharedRegistry interface {
	// SharedDevices calls fn with every shared device, in batches that are
	// SharedDevices' again when fn returns. It ends with fn's error.
	SharedDevices(ctx context.Context, fn func(batch []DeviceKey) error) error
	// Exchange brings what a relay knows of shared devices to the others, and says
	// what they know, in one transaction: SharedDevice.Merge decides. A device that
	// is on several mailboxes and not yet shared is shared from then on. The answer
	// has the devices in the order of the question. Each device must be in it once: of
	// two updates of one the second is ignored.
	Exchange(ctx context.Context, x ExchangeRequest) (ExchangeResult, error)
}

// ExchangeRequest is what a relay brings.
type ExchangeRequest struct {
	Relay   string // its instance; never empty
	Devices []SharedUpdate

	// Lifetime is how long after a relay's last exchange a push that it handed
	// out may still reach a device. 0: there is no other relay.
	Lifetime time.Duration
	// Stray is for how long from now a push of the process before a relay that is
	// alone may still reach a device. 0: there was none, or there are other relays.
	Stray time.Duration
	// ShownFor is how long an accepted count is not pushed again.
	ShownFor time.Duration

	// Due asks for devices that wait for this relay's push, or for any relay's, up
	// to so many and in a fixed order. After is the Next of the answer that this one
	// continues; empty: from the beginning.
	Due   int
	After string
	// Leave says that the relay hands out no more: others need not wait.
	Leave bool
}

// ExchangeResult is what a relay learns.
type ExchangeResult struct {
	Now     time.Time // on the clock that all relays share, during the exchange
	Devices []SharedDevice
	Due     []DueDevice
	Next    string // there may be more; empty: that was all
}

// DueDevice is a device that waits for a push.
type DueDevice struct {
	DeviceKey
	Sequence uint64
	Ours     bool // the relay that asks is its pusher
	Again    bool // though nobody has changed the sum, see SharedDevice.Again

	// Organizations are those with a count that APNs has not answered; empty: nobody
	// waits, as where the sum is pushed once more.
	Organizations []OrganizationID
}

// exchanger brings the counts of shared devices to the registry, and their sums back.
// One goroutine does, in batches: what comes while one is under way goes with the
// next.
type exchanger struct {
	relay *Relay
	queue *fair.Inbox[OrganizationID, queuedExchange] // devices whose state is not exchanged

	// Owned by run.
	after     string               // where the next question for what is due begins
	elsewhere map[*device]struct{} // those whose events wait for what the registry says next
	pending   map[*device]struct{} // those with counts that are in no sum yet: they are asked for once a second
	clock     sharedClock

	alive atomic.Pointer[lease] // nil: no sums may be pushed, or always where there is no other relay
	hint  signal                // something may be due

	readShared signal // an app asks for it

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

func (e *exchanger) begin(r *Relay) {
	e.relay, e.elsewhere, e.pending = r, map[*device]struct{}{}, map[*device]struct{}{}
	e.queue = fair.NewInbox[OrganizationID, queuedExchange]()
	e.hint, e.readShared = newSignal(), newSignal()
}

// run exchanges until ctx is done.
func (e *exchanger) run(ctx context.Context) {
	r := e.relay
	failing := r.outage("exchange sums")
	ticker := time.NewTicker(exchangePause)
	defer ticker.Stop()
	hinted := time.NewTimer(0) // ends the pause between two questions
	defer hinted.Stop()
	ask, asked := true, time.Time{} // what was left behind is due at the start
	look := func() {
		ask = true
		touchAll(e.pending)
		e.updateStalls()
	}
	var queued []queuedExchange
	var batch []*device
	defer e.leave(ctx)
	for {
		queued = e.queue.Next(queued[:0], exchangeBatch)
		batch = beginExchanges(queued, batch[:0])
		if len(batch) > 0 || ask && r.devices.sharedCount.Load() > 0 {
			if ask {
				asked = time.Now()
				touchAll(e.elsewhere)
			}
			if err := e.exchangeDevices(ctx, batch, ask); err != nil {
				if ctx.Err() != nil {
					return
				}
				endFailedExchanges(queued)
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
		if more { // however long the queue is, what is not in it has its second too
			select {
			case <-ticker.C:
				look()
			default:
			}
			continue
		}
		select {
		case <-e.queue.Added():
		case <-ticker.C:
			look()
		case <-e.hint:
			hinted.Reset(max(0, hintPause-time.Since(asked)))
		case <-hinted.C:
			ask = true
		case <-ctx.Done():
			return
		}
	}
}

// exchangeDevices brings a batch to the registry, asks for what is due if it is asked to,
// and acts on what comes back.
func (e *exchanger) exchangeDevices(ctx context.Context, batch []*device, due bool) error {
	r := e.relay
	alive := apns.DeadlineIn(r.pulse.bound)
	if r.maxInFlight > 0 {
		r.dropIfStopped() // a process that was stopped has old counts
	}
	if !e.clock.known(r.now()) { // what a process before this one stored is dated, too
		if _, err := e.ask(ctx, ExchangeRequest{}); err != nil {
			return err
		}
		e.setAlive(alive)
	}
	x := ExchangeRequest{Devices: make([]SharedUpdate, 0, len(batch))}
	brought := make([][]storedCount, len(batch))
	for i, d := range batch {
		u, c := d.gather(r)
		x.Devices, brought[i] = append(x.Devices, u), c
	}
	if due {
		x.Due, x.After = dueBatch, e.after
	}
	result, err := e.ask(ctx, x)
	if err != nil {
		return err
	}
	e.setAlive(alive)
	var acts actions
	for i, d := range batch {
		e.applyResult(d, &result.Devices[i], brought[i], result.Now, &acts)
	}
	if due {
		e.takeDue(&result)
	}
	r.apply(&acts)
	return nil
}

// ask does an exchange, and reads the shared clock by it.
func (e *exchanger) ask(ctx context.Context, x ExchangeRequest) (ExchangeResult, error) {
	r := e.relay
	x.Relay, x.Lifetime, x.ShownFor = r.instance, time.Duration(r.maxInFlight), time.Duration(r.shownFor)
	x.Stray = time.Duration(max(0, r.strayUntil-r.now()))
	sent := r.now()
	result, err := r.subscriptions.Exchange(ctx, x)
	if err == nil {
		e.clock.note(result.Now, sent, r.now())
	}
	return result, err
}

// setAlive notes until when the others take this relay for alive.
func (e *exchanger) setAlive(until *apns.Deadline) {
	if e.relay.maxInFlight == 0 {
		return
	}
	next := &lease{until: until, number: 1}
	if l := e.alive.Load(); l != nil {
		next.number = l.number
		if l.until.Passed() {
			next.number++
		}
	}
	e.alive.Store(next)
}

// mayPush reports whether this relay may push a sum that it learned in a lease, and
// until when. What it learned in an earlier one may be another relay's to push by now.
func (e *exchanger) mayPush(number uint64) (*apns.Deadline, bool) {
	if e.relay.maxInFlight == 0 {
		return nil, true
	}
	l := e.alive.Load()
	if l == nil || l.number != number || l.until.Passed() {
		return nil, false
	}
	return l.until, true
}

// leaseNumber returns which lease this relay has; 0: none.
func (e *exchanger) leaseNumber() uint64 {
	if l := e.alive.Load(); l != nil {
		return l.number
	}
	return 0
}

// leave tells the other relays that this one pushes no more, if that is so.
func (e *exchanger) leave(ctx context.Context) {
	const timeout = time.Second
	r := e.relay
	if e.alive.Swap(nil) == nil || e.inFlight.Load() > 0 || r.devices.sharedCount.Load() == 0 {
		return // then they wait until nothing of it can be on its way any more
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if _, err := e.ask(last, ExchangeRequest{Leave: true}); err != nil {
		r.logger.Info("other relays could not be told that this one ends", "error", err)
	}
}

// sharedTime returns a time of the relay's clock on the clock that relays share;
// zero: long ago.
func (e *exchanger) sharedTime(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return e.clock.at(at)
}
