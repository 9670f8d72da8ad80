package load

import (
	"errors"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
)

var errDrain = errors.New("the relay left in the middle of the measurement")

// receive takes settlements until the stream ends.
func (a *stream) receive() {
	for {
		answer, err := a.rpc.Recv()
		if err == nil && answer.GetDrain() != nil {
			err = errDrain
		}
		if err == nil {
			err = a.settle(answer.GetSettlement(), time.Now())
		}
		if err != nil {
			a.fail(err)
			return
		}
		a.signal()
	}
}

// settle takes what the relay says has settled.
func (a *stream) settle(s *pb.Settlement, now time.Time) error {
	at := int64(now.Sub(a.epoch))
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range s.GetOutcomes() {
		if uint32(o.GetOutcome()) >= outcomes || o.GetSequence() <= a.through || o.GetSequence() >= a.next {
			return errContract
		}
		a.outcomes[o.GetOutcome()]++
		a.ring[o.GetSequence()&uint64(len(a.ring)-1)] = ended
	}
	if s.GetThrough() >= a.next {
		return errContract
	}
	for n := a.through + 1; n <= s.GetThrough(); n++ {
		a.settleOne(n, at)
	}
	a.through = max(a.through, s.GetThrough())
	for _, r := range s.GetRanges() {
		if r.GetFirst() <= a.through || r.GetLast() >= a.next {
			return errContract
		}
		for n := r.GetFirst(); n <= r.GetLast(); n++ {
			a.settleOne(n, at)
		}
	}
	return nil
}

// settleOne settles an event, unless it is already. mu must be held.
func (a *stream) settleOne(n uint64, at int64) {
	place := &a.ring[n&uint64(len(a.ring)-1)]
	switch *place {
	case settled:
		return // by a range before
	case ended:
	default:
		a.outcomes[delivered]++
		record(a.latency, time.Duration(at-*place))
	}
	*place = settled
	a.unsettled--
}
