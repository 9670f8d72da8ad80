package relay

import (
	"context"
	"time"

	"badgerelay/apns"
)

// OrganizationID is the registry's number of an organization; 0 is none.
type OrganizationID int64

// MailboxKey names a mailbox among all organizations.
type MailboxKey struct {
	Organization OrganizationID
	Mailbox      string
}

// Bounds of what an event may say; design of the contract, badgerelay.v1.Event.
const (
	MaxMailboxSize = 256           // bytes of UTF-8
	MaxUnread      = apns.MaxBadge // messages
)

// Event is one mailbox's present unread count.
type Event struct {
	Mailbox string // 1..MaxMailboxSize bytes of UTF-8, opaque, case-sensitive
	Unread  uint32 // 0..MaxUnread; 0 removes the badge

	// Epoch says which versions can be compared, and Version orders the events of
	// different agents. Both zero: the event has no version.
	Epoch, Version uint64

	// ObservedAt is when the agent began to count. Zero, or later than now: now.
	ObservedAt time.Time
}

// Outcome is how an event ended. Its String is the label in metrics.
type Outcome uint8

// The outcomes. Every accepted event ends in exactly one of those before
// OutcomePending.
const (
	OutcomeDelivered      Outcome = iota // APNs accepted the count for the mailbox's devices
	OutcomeSuperseded                    // a newer count took its place: of the mailbox, or of another one on its device
	OutcomeUnchanged                     // a device showed the count already, and no other one took it
	OutcomeStale                         // another agent has sent a newer count
	OutcomeNoSubscription                // no device is subscribed to the mailbox
	OutcomeRejected                      // the event breaks a rule
	OutcomeUndeliverable                 // APNs refuses every device, or the push: RefusedSubscription says what follows
	OutcomeAbandoned                     // its stream closed, or no room was left; the agent sends it again
	OutcomeStandby                       // its stream stands by; the agent sends it again when it is active
	OutcomePending                       // not an end: Publish ran out of time
)

// Outcomes is the number of outcomes an event can end in.
const Outcomes = int(OutcomePending)

var outcomeNames = [...]string{
	"delivered", "superseded", "unchanged", "stale", "no_subscription",
	"rejected", "undeliverable", "abandoned", "standby", "pending",
}

// String returns the outcome's name in metrics and logs.
func (o Outcome) String() string { return outcomeNames[o] }

// routine reports whether the agent has nothing to do after the outcome but to forget
// the event.
func (o Outcome) routine() bool {
	return o == OutcomeDelivered || o == OutcomeSuperseded || o == OutcomeUnchanged
}

// RefusedSubscription is a subscription whose device, or the push to it, APNs refused. One
// that is neither Removed nor Dropped is quarantined: its device is tried again later.
type RefusedSubscription struct {
	App     string
	Device  apns.DeviceToken
	Reason  apns.Reason
	Removed bool // it has ended
	Dropped bool // the push was refused, not the device: it is as it was
}

// EventOutcome is how one event of a stream ended.
type EventOutcome struct {
	Sequence uint64
	Outcome  Outcome
	Field    string                // with OutcomeRejected: the field at fault
	Detail   string                // with OutcomeRejected and OutcomeUndeliverable: for people
	Refused  []RefusedSubscription // with OutcomeUndeliverable
}

// Range is a run of sequence numbers, both ends included.
type Range struct{ First, Last uint64 }

// Settlement says which events of a stream have settled since the one before.
// Each event is in exactly one settlement, either newly at or below Through or
// in Ranges. One that is not in Outcomes was delivered.
type Settlement struct {
	Through  uint64 // every event up to here is settled; 0: none is known to be
	Ranges   []Range
	Outcomes []EventOutcome
}

// Subscription is one device on a mailbox, as the registry knows it.
type Subscription struct {
	App          string
	Device       apns.DeviceToken
	RegisteredAt time.Time   // last registration
	Quarantine   *Quarantine // what is remembered of refusals; nil: nothing. Never changed
	Shared       bool        // with Lookup: the device is on other mailboxes as well, as far as the registry can tell at once
}

// Subscriber names a subscription.
type Subscriber struct {
	Key    MailboxKey
	App    string
	Device apns.DeviceToken
}

// Entry is a live subscription with its mailbox.
type Entry struct {
	Key          MailboxKey
	Subscription Subscription
}

// Removal asks the registry to end a subscription.
type Removal struct {
	Key    MailboxKey
	App    string
	Device apns.DeviceToken
	Reason apns.Reason
	// Timestamp: the removal counts only if the last registration is older. Zero:
	// it counts in any case.
	Timestamp time.Time
}

// Subscriptions is where the relay reads who is subscribed, and reports who is
// not any more. The methods are called from goroutines of the relay, one call
// at a time each; an error is retried with backoff.
type Subscriptions interface {
	SharedRegistry

	// Scan calls fn with every live subscription, those of a mailbox one after
	// the other, in batches that are Scan's again when fn returns; their strings
	// may be kept. It ends with fn's error.
	Scan(ctx context.Context, fn func(batch []Entry) error) error
	// Lookup returns the live subscriptions of each key, in the keys' order.
	Lookup(ctx context.Context, keys []MailboxKey) ([][]Subscription, error)
	// Refuse judges refusals (Refusal.Judge), keeps what is to be remembered, and
	// ends subscriptions as far as the app's Budget goes. It says of each what
	// became of it.
	Refuse(ctx context.Context, refusals []Refusal) ([]Judgement, error)
	// ForgetRefusals forgets what is remembered of refusals, because APNs accepted
	// the devices. Those that are gone are passed over.
	ForgetRefusals(ctx context.Context, subscribers []Subscriber) error
	// NoteAccepted notes how many distinct devices of an app APNs has accepted in
	// a generation, and returns the most that any relay has noted for it.
	NoteAccepted(ctx context.Context, app string, generation Generation, accepted int) (most int, err error)
}
