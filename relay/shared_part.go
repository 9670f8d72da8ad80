package relay

import (
	"math"
	"time"
)

// Part is a mailbox of a shared device.
type Part struct {
	Key      MailboxKey
	Disabled bool      // it counts nothing: its organization is disabled, or OtherOrganization
	JoinedAt time.Time // since when it is a part

	// OtherOrganization: the device shows another organization's counts alone. Not kept.
	OtherOrganization bool

	// Quarantined: something is remembered of refusals of the device with it. Until
	// the device is tried again the mailbox's events push nothing; its count is in the
	// sums that are pushed for others. Not kept.
	Quarantined bool

	State       PartState
	Count       uint32 // in the sum, unless the part is disabled
	NewestCount uint32 // that a relay has brought
	Sequence    uint64 // the device's, when Count was last brought into the sum

	ReceivedAt time.Time // of the newest count; orders counts of different relays
	StoredAt   time.Time // when the newest count came into the sum, or began to wait for that
}

// PartState says what there is of a part: a count in the sum, and a newest one, which may
// be the same. The newest waits while other parts of its organization are awaited (see
// Part.Awaited), or while its own part is disabled.
//
//	                 in the sum   newest count   reported
//	PartUnreported   -            -              no
//	PartFirstWaits   -            waits          yes
//	PartNewerWaits   Count        waits          yes
//	PartCurrent      Count        is Count       yes
//	PartForgotten    Count        is Count       no
//
//	store         Unreported -> FirstWaits; Current, Forgotten -> NewerWaits
//	              Unreported, FirstWaits -> NewerWaits, if the device had the count to show (wasShown)
//	include       FirstWaits, NewerWaits -> Current
//	includeAnew   Current -> NewerWaits, with the same count
//	beginAnew     Current -> Forgotten
//
// The registries keep the numbers.
type PartState uint8

// The states.
const (
	PartUnreported PartState = iota // no relay has brought a count
	PartFirstWaits                  // the only count waits
	PartNewerWaits                  // the sum goes on with an older count, or with the same, while the newest waits
	PartCurrent                     // the newest count is in the sum
	PartForgotten                   // so it is; a relay that remembers it has to bring it once more, see beginAnew
)

// hasCount reports whether the part has a Count. It is in the sum unless the part is disabled.
func (p *Part) hasCount() bool {
	return p.State == PartNewerWaits || p.State == PartCurrent || p.State == PartForgotten
}

// waits reports whether the newest count waits to come into the sum.
func (p *Part) waits() bool { return p.State == PartFirstWaits || p.State == PartNewerWaits }

// reported reports whether some relay has brought a count, and since its organization
// began anew.
func (p *Part) reported() bool { return p.State != PartUnreported && p.State != PartForgotten }

// Newest returns the newest count; false: none is stored.
func (p *Part) Newest() (count uint32, ok bool) {
	return p.NewestCount, p.State != PartUnreported
}

// sequencePending is the sequence of a count that waits.
const sequencePending = math.MaxUint64

// newestSequence returns from which sequence on the sum holds the newest count.
func (p *Part) newestSequence() uint64 {
	if p.waits() {
		return sequencePending
	}
	return p.Sequence
}

// wait has a count come into the sum when it waits for none any more. It takes the place of
// one that waits already, and waits no longer than that one.
func (p *Part) wait(count uint32, now time.Time) {
	if !p.waits() || p.StoredAt.After(now) { // else the clock was set since
		p.StoredAt = now
	}
	p.NewestCount = count
	if p.hasCount() {
		p.State = PartNewerWaits
	} else {
		p.State = PartFirstWaits
	}
}

// include brings the newest count into the sum.
func (p *Part) include(sequence uint64, now time.Time) {
	p.State, p.Count, p.Sequence, p.StoredAt = PartCurrent, p.NewestCount, sequence, now
}

// includeAnew has the part's count come into the sum once more.
func (p *Part) includeAnew(now time.Time) {
	if p.State == PartCurrent && !p.Disabled {
		p.wait(p.Count, now)
	}
}
