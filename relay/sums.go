package relay

import (
	"context"
	"time"

	"badgerelay/apns"
)

// Sums is where the relays that serve the same mailboxes agree on the badges of
// shared devices: those that are on several mailboxes, of one organization or of
// several, and show the sum of their counts. Exchange is called by one goroutine of the
// relay; SharedDevices by several, also at once. An error is retried with backoff.
type Sums interface {
	// SharedDevices calls fn with every shared device, in batches that are
	// SharedDevices' again when fn returns. It ends with fn's error.
	SharedDevices(ctx context.Context, fn func(batch []DeviceKey) error) error
	// Exchange brings what a relay knows of shared devices to the others, and says
	// what they know, in one transaction: SharedDevice.Exchange decides. A device that
	// is on several mailboxes and not yet shared is shared from then on. The answer
	// has the devices in the order of the question. Each device must be in it once: of
	// two updates of one the second is ignored.
	Exchange(ctx context.Context, x Exchange) (ExchangeResult, error)
}

// Exchange is what a relay brings.
type Exchange struct {
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

// SharedUpdate is what a relay knows of a device.
type SharedUpdate struct {
	DeviceKey
	Counts []ReceivedCount // of its mailboxes
	// OneOrganization: the app shows no sum across organizations, see LivePart.
	OneOrganization bool
	Accepted        uint64         // the sequence whose sum APNs accepted; 0: none
	Refused         *SharedRefusal // what APNs answered last, if it refused a sum for good; nil: it did not
	// Yield: another relay shall push, because this one can't at present. It has no
	// push in flight, and begins none before the answer.
	Yield bool
}

// ReceivedCount is a mailbox's count, as an agent sent it.
type ReceivedCount struct {
	Key   MailboxKey
	Count uint32
	// ReceivedAt is when the relay received it, on the shared clock and not later
	// than it was. Zero: long ago.
	ReceivedAt time.Time
}

// SharedRefusal is APNs' answer that a sum will not reach a device.
type SharedRefusal struct {
	Sequence   uint64 // of the sum that was refused
	Reason     apns.Reason
	GoneSince  time.Time // since when APNs says that the device is gone; zero: not said
	SentAt     time.Time // when the push was written
	Generation Generation
	Dropped    bool // the push was refused, not the device
}
