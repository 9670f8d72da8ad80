package relay

import "time"

// The sum of a shared device is pushed once more, though no count has changed, where a push
// that went before may reach the device after the last one (Lifetime and Stray are ExchangeTerms'):
//
//	                                           APNs has answered the sum   it has not
//	the pusher has not been heard of for       at once                     at once
//	  Lifetime: killed, cut off, or gone
//	  with a push in flight
//	it left, or it stalled and yields: with    -                           -
//	  nothing in flight
//	the process before a relay that is alone   -                           when Stray is over
//	the device has just become shared          when Lifetime is over, or where the relay is alone, Stray
//
// What APNs has not answered is outstanding, and who takes the device over pushes it in each
// case: this is about one push more. At once means with the exchange that takes the device
// over.

// pushedBefore is what was of a device's push when an exchange began.
type pushedBefore struct {
	first       bool // the device becomes shared by the exchange
	outstanding bool // APNs had not answered the sum
	pusher      string
}

// planPushAgain has the sum pushed once more as the table says.
func (d *SharedDevice) planPushAgain(was pushedBefore, t ExchangeTerms) {
	takenOver := d.Pusher != was.pusher
	if takenOver && was.pusher != "" && t.Lifetime > 0 && t.PusherSilent && d.anyCount() {
		d.Sequence++ // what it had in flight is not known
	}
	switch {
	case t.Stray > 0 && (was.first || was.outstanding && takenOver):
		d.PushAgainAt = t.Now.Add(t.Stray) // until then the process before may have one in flight
	case was.first && t.Lifetime > 0:
		d.PushAgainAt = t.Now.Add(t.Lifetime) // until then a relay may have one in flight that did not know
	}
}

// pushAgain counts the sum as another when PushAgainAt has come.
func (d *SharedDevice) pushAgain(now time.Time) {
	if !d.pushAgainDue(now) {
		return
	}
	d.PushAgainAt = time.Time{}
	if d.anyCount() {
		d.Sequence++
	}
}

// pushAgainDue reports whether PushAgainAt has come.
func (d *SharedDevice) pushAgainDue(now time.Time) bool {
	return !d.PushAgainAt.IsZero() && !d.PushAgainAt.After(now)
}
