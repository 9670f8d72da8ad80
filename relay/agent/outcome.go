package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

// Outcome says how a count ended. Its String is the metric label.
type Outcome uint8

// The outcomes a relay reports, with the meaning and the numbers of
// badgerelay.v1.Outcome.
const (
	// OutcomeUnknown is an outcome this version of the package has no name for.
	OutcomeUnknown Outcome = iota
	// OutcomeDelivered: APNs accepted the count for the mailbox's devices.
	OutcomeDelivered
	// OutcomeSuperseded: a newer count took its place: of the mailbox, or of another one on
	// its device.
	OutcomeSuperseded
	// OutcomeUnchanged: a device showed this count already, and no other one took it.
	OutcomeUnchanged
	// OutcomeStale: another agent has sent a newer count of the mailbox: one with a greater
	// version of the same epoch, or else one that it observed later.
	OutcomeStale
	// OutcomeNoSubscription: no device is subscribed to the mailbox.
	OutcomeNoSubscription
	// OutcomeRejected: the event breaks a rule; Field and Detail say which.
	OutcomeRejected
	// OutcomeUndeliverable: APNs refuses every device, or the push; Removed, Quarantined
	// and Dropped say what became of each.
	OutcomeUndeliverable
	// OutcomePending: not settled within the call's deadline. Publish only.
	OutcomePending
	// OutcomeStandby: the process stands by, and the count is held. A Result never
	// has it.
	OutcomeStandby

	outcomes // how many there are
)

// String returns the outcome's name, one of a fixed set.
func (o Outcome) String() string {
	switch o {
	case OutcomeDelivered:
		return "delivered"
	case OutcomeSuperseded:
		return "superseded"
	case OutcomeUnchanged:
		return "unchanged"
	case OutcomeStale:
		return "stale"
	case OutcomeNoSubscription:
		return "no_subscription"
	case OutcomeRejected:
		return "rejected"
	case OutcomeUndeliverable:
		return "undeliverable"
	case OutcomePending:
		return "pending"
	case OutcomeStandby:
		return "standby"
	}
	return "unknown"
}

func outcomeFrom(o badgerelayv1.Outcome) Outcome {
	if o <= badgerelayv1.Outcome_OUTCOME_UNSPECIFIED || int32(o) >= int32(outcomes) {
		return OutcomeUnknown
	}
	return Outcome(o)
}

// DeviceToken is a device token in lower-case hexadecimal. It prints and logs
// as a short hash; convert it to string for the token itself.
type DeviceToken string

// Bounds of a device token in bytes, each two digits (subscription.proto, message
// Subscription).
const (
	minDeviceTokenBytes = 32
	maxDeviceTokenBytes = 100
)

// Valid reports whether a relay takes it for a device token, in lower or upper case.
func (t DeviceToken) Valid() bool {
	raw, err := hex.DecodeString(string(t))
	return err == nil && len(raw) >= minDeviceTokenBytes && len(raw) <= maxDeviceTokenBytes
}

// String returns a short hash of the token.
func (t DeviceToken) String() string {
	sum := sha256.Sum256([]byte(t))
	return "device:" + hex.EncodeToString(sum[:4])
}

// LogValue keeps the token out of logs.
func (t DeviceToken) LogValue() slog.Value { return slog.StringValue(t.String()) }

// RemovedSubscription is a subscription that APNs refused for good.
type RemovedSubscription struct {
	App    string      // the app's name at the relay
	Device DeviceToken // the device
	Reason string      // APNs' reason: "Unregistered", "BadDeviceToken"
}

// QuarantinedSubscription is a subscription that is kept although APNs refuses
// its device: the relay tries it again later.
type QuarantinedSubscription struct {
	App    string      // the app's name at the relay
	Device DeviceToken // the device
	Reason string      // APNs' last reason
}

// DroppedPush is a push that APNs refused, and not its device: the subscription is as it
// was, and the mailbox's next count goes out.
type DroppedPush struct {
	App    string      // the app's name at the relay
	Device DeviceToken // the device
	Reason string      // APNs' reason: "PayloadTooLarge"
}

// Result is how one count ended.
type Result struct {
	Mailbox string
	Unread  uint32 // the count that was settled
	Epoch   uint64
	Version uint64
	Outcome Outcome
	Field   string                // the field at fault; with OutcomeRejected only
	Detail  string                // for people; with OutcomeRejected and OutcomeUndeliverable
	Removed []RemovedSubscription // with OutcomeUndeliverable only
	// Quarantined is set with OutcomeUndeliverable only.
	Quarantined []QuarantinedSubscription
	// Dropped is set with OutcomeUndeliverable only.
	Dropped []DroppedPush
}

// describe copies what the relay says about an outcome into r.
func (r *Result) describe(o *badgerelayv1.EventOutcome) {
	r.Outcome = outcomeFrom(o.GetOutcome())
	r.Field, r.Detail = o.GetField(), o.GetDetail()
	for _, removed := range o.GetRemoved() {
		r.Removed = append(r.Removed, RemovedSubscription{
			App: removed.GetApp(), Device: DeviceToken(removed.GetDeviceToken()), Reason: removed.GetReason(),
		})
	}
	for _, kept := range o.GetQuarantined() {
		r.Quarantined = append(r.Quarantined, QuarantinedSubscription{
			App: kept.GetApp(), Device: DeviceToken(kept.GetDeviceToken()), Reason: kept.GetReason(),
		})
	}
	for _, dropped := range o.GetDropped() {
		r.Dropped = append(r.Dropped, DroppedPush{
			App: dropped.GetApp(), Device: DeviceToken(dropped.GetDeviceToken()), Reason: dropped.GetReason(),
		})
	}
}
