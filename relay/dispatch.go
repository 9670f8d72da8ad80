package relay

import (
	"slices"
	"sync"
	"sync/atomic"

	"badgerelay/apns"
)

// dispatcher is the queue of one app: the devices that are to be pushed to, in
// a lane for each organization. Connections draw from the lanes in turn, so
// that one organization's flood does not delay another's badges.
//
// It implements apns.Source.
type dispatcher struct {
	name  string
	index int // in Relay.apps
	relay *Relay
	pool  atomic.Pointer[func()] // wakes the app's pool

	mu      sync.Mutex
	lanes   map[OrganizationID]*lane
	ring    *lane // the last lane served of those with work, a circle; nil: none has any
	waiting int   // devices in all lanes; one that is in several counts in each
	breaker breaker

	health health

	breakerChanged chan struct{} // one slot: the breaker's pause or allowance changed

	resent  atomic.Uint64
	scratch sync.Pool // of *effects, for Done
}

// lane is one organization's queue for one app. The dispatcher's mutex guards
// the queue.
type lane struct {
	head, tail *device
	next       *lane // in the ring; nil: the lane is empty

	// Shared devices, which may be in several lanes: what an organization waits for
	// does not take another's turn. The first lane that is served takes the device;
	// start passes it over in the others. They and the others are served in turn.
	shared     []*device
	isIn       map[*device]struct{} // those in shared
	sharedNext bool

	// Distinct devices that APNs accepted in the present period and in the one
	// before, and refused in this generation and not accepted since.
	accepted, acceptedBefore, refused atomic.Int64
}

func newDispatcher(r *Relay, name string, index int) *dispatcher {
	d := &dispatcher{
		name: name, index: index, relay: r, lanes: map[OrganizationID]*lane{}, breakerChanged: make(chan struct{}, 1),
	}
	d.scratch.New = func() any { return new(effects) }
	return d
}

// lane returns the organization's lane.
func (d *dispatcher) lane(org OrganizationID) *lane {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[org]
	if l == nil {
		l = new(lane)
		d.lanes[org] = l
	}
	return l
}

// forget drops the lane of an organization that is gone. What is queued in it goes
// out all the same.
func (d *dispatcher) forget(org OrganizationID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.lanes, org)
}

// enqueue puts a device into a lane. The caller holds the device's lock and
// wakes the pool when it holds none.
func (d *dispatcher) enqueue(dev *device, l *lane, front bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dev.queued {
		return // since before it was shared, and is not any more
	}
	dev.queued = true
	d.waiting++
	d.link(l)
	switch {
	case l.head == nil:
		l.head, l.tail = dev, dev
	case front:
		dev.next, l.head = l.head, dev
	default:
		l.tail.next, l.tail = dev, dev
	}
}

// enqueueShared puts a shared device into those of the lanes that it is not in.
func (d *dispatcher) enqueueShared(dev *device, lanes []*lane, front bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range lanes {
		if _, is := l.isIn[dev]; is {
			continue
		}
		if l.isIn == nil {
			l.isIn = map[*device]struct{}{}
		}
		l.isIn[dev] = struct{}{}
		d.waiting++
		d.link(l)
		if front {
			l.shared = slices.Insert(l.shared, 0, dev)
		} else {
			l.shared = append(l.shared, dev)
		}
	}
}

// link puts a lane at the end of the ring, unless it is in there.
func (d *dispatcher) link(l *lane) {
	switch {
	case l.next != nil:
		return
	case d.ring == nil:
		l.next = l
	default:
		l.next, d.ring.next = d.ring.next, l
	}
	d.ring = l
}

// pop takes the next device, one of each lane in turn. The caller holds d.mu
// and has seen that waiting is not 0.
func (d *dispatcher) pop() *device {
	l := d.ring.next
	dev := l.pop()
	d.waiting--
	if l.head != nil || len(l.shared) > 0 {
		d.ring = l
		return dev
	}
	if l.next == l {
		d.ring = nil
	} else {
		d.ring.next = l.next
	}
	l.next = nil
	return dev
}

// pop takes the lane's next device.
func (l *lane) pop() *device {
	if len(l.shared) > 0 && (l.sharedNext || l.head == nil) {
		l.sharedNext = false
		dev := l.shared[0]
		l.shared[0] = nil // the array lives on
		l.shared = l.shared[1:]
		delete(l.isIn, dev)
		return dev
	}
	l.sharedNext = true
	dev := l.head
	l.head, dev.next, dev.queued = dev.next, nil, false
	if l.head == nil {
		l.tail = nil
	}
	return dev
}

// Take implements apns.Source: it hands out devices with their newest counts.
func (d *dispatcher) Take(dst []apns.Request) (n, more int) {
	until := d.relay.awake()
	for {
		popped := 0
		d.mu.Lock()
		allowed := d.breaker.grant(min(len(dst)-n, d.waiting))
		for ; popped < allowed; popped++ {
			dst[n+popped].Tag = d.pop()
		}
		more = d.breaker.visible(d.waiting)
		d.mu.Unlock()
		if popped == 0 {
			return n, more
		}
		taken := n
		for i := range popped {
			dev := dst[taken+i].Tag.(*device)
			if dev.start(&dst[n], d.relay) {
				if dst[n].Deadline == nil {
					dst[n].Deadline = until
				}
				n++
			} else {
				d.relay.devices.drop(dev, d.relay)
			}
		}
		if n == taken+popped || n == len(dst) {
			return n, more
		}
		// Some claims were withdrawn meanwhile: take others in their place.
		d.ungrant(taken + popped - n)
	}
}

// ungrant gives back what the breaker granted for devices that rest.
func (d *dispatcher) ungrant(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.breaker.refund(n)
}

// Done implements apns.Source: it brings answers home.
func (d *dispatcher) Done(results []apns.Result) {
	fx := d.scratch.Get().(*effects)
	now := d.relay.now()
	accepted, failed, alarm := 0, 0, false
	var answers tally
	sentAway := 0
	for i := len(results) - 1; i >= 0; i-- { // the first to go back to the front is the last there
		res := &results[i]
		verdict := res.Err.Verdict()
		dev := res.Tag.(*device)
		switch verdict {
		case apns.VerdictRetryLater, apns.VerdictUnknown:
			failed++
		case apns.VerdictStopApp:
			failed, alarm = failed+1, true
		case apns.VerdictResend:
			d.resent.Add(1)
			if res.Err.DevicesRefused() {
				sentAway++
			}
		case apns.VerdictAccepted:
			answers.accepted++
			accepted++
		case apns.VerdictDeviceRefused:
			if !dev.token.Impossible() {
				answers.refused++
			}
			accepted++ // APNs is alive and talks to us, whatever it said
		default:
			accepted++
		}
		dev.answer(verdict, res, now, d.relay, fx)
	}
	d.mu.Lock()
	changed := d.breaker.note(accepted, failed, alarm)
	if d.breaker.open && d.breaker.since == 0 {
		d.breaker.since = now
	}
	d.health.lately.note(answers, sentAway, now)
	d.mu.Unlock()
	if changed {
		notify(d.breakerChanged)
	}
	d.relay.apply(fx)
	d.scratch.Put(fx)
}

// wakePool tells the pool that there is work.
func (d *dispatcher) wakePool() {
	if wake := d.pool.Load(); wake != nil {
		(*wake)()
	}
}
