package load

import (
	"errors"
	"time"
)

var errDrain = errors.New("the relay left in the middle of the measurement")

// receive takes settlements until the stream ends.
func (a *agent) receive() {
	var s settlement
	for {
		var f frame
		if err := a.rpc.RecvMsg(&f); err != nil {
			a.fail(err)
			return
		}
		err := s.decode(f.b.ReadOnlyData())
		f.b.Free()
		if err == nil && s.drain {
			err = errDrain
		}
		if err == nil {
			err = a.settle(&s, time.Now())
		}
		if err != nil {
			a.fail(err)
			return
		}
		a.signal()
	}
}

// settle takes what the relay says has settled.
func (a *agent) settle(s *settlement, now time.Time) error {
	at := int64(now.Sub(a.epoch))
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range s.outcomes {
		if o.outcome >= Outcomes || o.sequence <= a.through || o.sequence >= a.next {
			return errWire
		}
		a.outcomes[o.outcome]++
		a.ring[o.sequence&uint64(len(a.ring)-1)] = ended
	}
	if s.through >= a.next {
		return errWire
	}
	for n := a.through + 1; n <= s.through; n++ {
		a.settleOne(n, at)
	}
	a.through = max(a.through, s.through)
	for _, r := range s.ranges {
		if r.first <= a.through || r.last >= a.next {
			return errWire
		}
		for n := r.first; n <= r.last; n++ {
			a.settleOne(n, at)
		}
	}
	return nil
}

// settleOne settles an event, unless it is already. mu must be held.
func (a *agent) settleOne(n uint64, at int64) {
	place := &a.ring[n&uint64(len(a.ring)-1)]
	switch *place {
	case settled:
		return // by a range before
	case ended:
	default:
		a.outcomes[Delivered]++
		_ = a.latency.RecordValue(max(1, (at-*place)/int64(time.Microsecond))) // beyond ten minutes the measurement is lost anyway
	}
	*place = settled
	a.unsettled--
}
