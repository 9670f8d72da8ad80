package apns

import "time"

// Verdict says what to do after a push that APNs did not accept. One table
// decides it (verdicts), with Apple's document for each line.
type Verdict uint8

// The verdicts.
const (
	// VerdictAccepted: nothing to do. The zero value.
	VerdictAccepted Verdict = iota
	// VerdictResend: APNs did not process the push, or nobody knows whether it
	// did: the connection was lost, the stream refused, the provider token
	// renewed. Send the newest count again at once, on another connection.
	VerdictResend
	// VerdictRetryLater: APNs is unwell (5xx). The same payload waits for
	// Error.RetryAfter, 15 minutes where Apple named no time; a newer count may go.
	VerdictRetryLater
	// VerdictPauseDevice: too many pushes to this device; pause it, with jitter.
	VerdictPauseDevice
	// VerdictRemoveDevice: the device token is dead for this app: remove the
	// subscription. With Error.Timestamp set (410) only if it was last
	// registered before that.
	VerdictRemoveDevice
	// VerdictStopApp: the app's key, certificate or topic is refused. Nothing
	// of this app will be accepted until an operator acts: alarm, and try with
	// a trickle.
	VerdictStopApp
	// VerdictDrop: this very push is refused and no other like it will fare
	// better: a defect of ours. Count it and go on.
	VerdictDrop
)

// Error is a push that APNs did not accept, or that did not reach it.
type Error struct {
	Status     int           // HTTP status; 0: no answer came
	Reason     Reason        // Apple's reason, or one of ours for transport failures
	ID         string        // apns-id of the answer, if any
	Timestamp  time.Time     // with 410: when the token became invalid. Zero: not said
	RetryAfter time.Duration // how long the same payload has to wait; 0: no matter
	Cause      error         // transport failures: what went wrong
}

// Reason is Apple's name for a refusal, verbatim, or one of ours for what
// happened on the way.
type Reason string
