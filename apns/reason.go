package apns

import (
	"fmt"
	"time"
)

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
	// Error.RetryAfter, or 15 minutes where Apple named no time; a newer count may go.
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
	RetryAfter time.Duration // what a retry-after header asked for; 0: nothing, the caller knows how long
	Cause      error         // transport failures: what went wrong
}

// Reason is Apple's name for a refusal, verbatim, or one of ours for what
// happened on the way.
type Reason string

// Reasons of ours, for pushes that got no answer of Apple's. They don't clash
// with Apple's, and none is ever sent by Apple.
const (
	ReasonConnectionLost Reason = "ConnectionLost" // the connection ended before the answer
	ReasonStreamRefused  Reason = "StreamRefused"  // RST_STREAM with REFUSED_STREAM: not processed
	ReasonStreamReset    Reason = "StreamReset"    // RST_STREAM with another code
	ReasonGoneAway       Reason = "GoneAway"       // above the last stream of a GOAWAY: not processed
	ReasonTimeout        Reason = "Timeout"        // the answer is overdue
	ReasonBadAnswer      Reason = "BadAnswer"      // an answer that is not HTTP
	ReasonNotSent        Reason = "NotSent"        // taken, but never written: the connection began to leave, or the pool stopped
	ReasonInvalidRequest Reason = "InvalidRequest" // no device token, or a badge out of range
)

// Apple's reasons that this package acts on by itself.
const (
	ReasonBadDeviceToken              Reason = "BadDeviceToken"
	ReasonDeviceTokenNotForTopic      Reason = "DeviceTokenNotForTopic"
	ReasonUnregistered                Reason = "Unregistered"
	ReasonExpiredToken                Reason = "ExpiredToken"
	ReasonExpiredProviderToken        Reason = "ExpiredProviderToken"
	ReasonInvalidProviderToken        Reason = "InvalidProviderToken"
	ReasonTooManyProviderTokenUpdates Reason = "TooManyProviderTokenUpdates"
	ReasonTooManyRequests             Reason = "TooManyRequests"
)

// rule is one line of the verdict table.
type rule struct {
	status  int // the status Apple documents for the reason; 0: no answer
	reason  Reason
	verdict Verdict
	// replace: the connection that gave this answer is of no more use and is
	// drained; another takes its place on demand.
	replace bool
}

// verdicts is the one table of what follows from a refusal. Statuses, names
// and meanings: Apple, "Handling notification responses from APNs", tables
// "status codes" and "reason" (read 2026-11). Where a line needs more than
// that, it says from where.
var verdicts = [...]rule{
	// The push itself is malformed: a defect of ours.
	{400, "BadCollapseId", VerdictDrop, false},
	{400, "BadExpirationDate", VerdictDrop, false},
	{400, "BadMessageId", VerdictDrop, false},
	{400, "BadPriority", VerdictDrop, false},
	{400, "DuplicateHeaders", VerdictDrop, false},
	{400, "InvalidPushType", VerdictDrop, false},
	{400, "MissingDeviceToken", VerdictDrop, false},
	{400, "PayloadEmpty", VerdictDrop, false},
	{404, "BadPath", VerdictDrop, false},
	{405, "MethodNotAllowed", VerdictDrop, false},
	{413, "PayloadTooLarge", VerdictDrop, false},

	// The device token is dead for this app: "Don't retry" (same page).
	{400, ReasonBadDeviceToken, VerdictRemoveDevice, false},
	{400, ReasonDeviceTokenNotForTopic, VerdictRemoveDevice, false},
	{410, ReasonExpiredToken, VerdictRemoveDevice, false},
	{410, ReasonUnregistered, VerdictRemoveDevice, false},

	// The topic or the credential is refused. The connection goes too: after a
	// key or certificate is revoked, "close all connections", then reopen
	// (Apple, "Establishing a token-based connection to APNs", read 2026-11).
	{400, "BadTopic", VerdictStopApp, true},
	{400, "MissingTopic", VerdictStopApp, true},
	{400, "TopicDisallowed", VerdictStopApp, true},
	{403, "BadCertificate", VerdictStopApp, true},
	{403, "BadCertificateEnvironment", VerdictStopApp, true},
	{403, "Forbidden", VerdictStopApp, true},
	{403, ReasonInvalidProviderToken, VerdictStopApp, true},
	{403, "MissingProviderToken", VerdictStopApp, true},
	{403, "BadEnvironmentKeyIdInToken", VerdictStopApp, true},
	// The spelling seen in swift-server-community/APNSwift#229.
	{403, "BadEnvironmentKeyInToken", VerdictStopApp, true},

	// The provider token or the connection is at fault, not the push.
	// Observed (jchambers/pushy#783): a connection that said
	// ExpiredProviderToken goes on saying so, whatever the token.
	{403, ReasonExpiredProviderToken, VerdictResend, true},
	// A connection is bound to the key of its first push.
	{403, "UnrelatedKeyIdInToken", VerdictResend, true},
	// "That connection will be unusable until enough time has passed" (Apple
	// developer forums, thread 675879).
	{429, ReasonTooManyProviderTokenUpdates, VerdictResend, true},
	{400, "IdleTimeout", VerdictResend, true},

	{429, ReasonTooManyRequests, VerdictPauseDevice, false},

	// Apple is unwell. Observed (jchambers/pushy#408, #529): a connection that
	// said InternalServerError may say nothing else any more.
	{500, "InternalServerError", VerdictRetryLater, true},
	{503, "ServiceUnavailable", VerdictRetryLater, false},
	{503, "Shutdown", VerdictRetryLater, true},

	// Ours. REFUSED_STREAM and streams above a GOAWAY's last were not
	// processed (RFC 9113, sections 6.8 and 8.7). Of the others nobody knows;
	// a badge is absolute, so sending it twice does no harm.
	{0, ReasonConnectionLost, VerdictResend, false},
	{0, ReasonStreamRefused, VerdictResend, false},
	{0, ReasonStreamReset, VerdictResend, true},
	{0, ReasonGoneAway, VerdictResend, true},
	{0, ReasonTimeout, VerdictResend, true},
	{0, ReasonBadAnswer, VerdictResend, true},
	{0, ReasonNotSent, VerdictResend, false},
	{0, ReasonInvalidRequest, VerdictDrop, false},
}

// lookUp returns the index in verdicts of a reason, or -1.
func lookUp(r Reason) int {
	for i := range verdicts {
		if verdicts[i].reason == r {
			return i
		}
	}
	return -1
}

// ruleOf returns the line that applies to a refusal. A reason that Apple's
// page does not name is judged by its status alone.
func ruleOf(status int, r Reason) rule {
	if i := lookUp(r); i >= 0 {
		return verdicts[i]
	}
	byStatus := rule{status: status, reason: r}
	switch {
	case status == 403:
		byStatus.verdict, byStatus.replace = VerdictStopApp, true
	case status == 410:
		byStatus.verdict = VerdictRemoveDevice
	case status == 429:
		byStatus.verdict = VerdictPauseDevice
	case status >= 500:
		byStatus.verdict = VerdictRetryLater
	case status == 0:
		byStatus.verdict = VerdictResend
	case status < 400:
		// Nothing that APNs says: something between us answered in its place.
		byStatus.verdict, byStatus.replace = VerdictRetryLater, true
	default:
		byStatus.verdict = VerdictDrop
	}
	return byStatus
}

// String returns the verdict's name in lower case.
func (v Verdict) String() string {
	switch v {
	case VerdictAccepted:
		return "accepted"
	case VerdictResend:
		return "resend"
	case VerdictRetryLater:
		return "retry later"
	case VerdictPauseDevice:
		return "pause device"
	case VerdictRemoveDevice:
		return "remove device"
	case VerdictStopApp:
		return "stop app"
	case VerdictDrop:
		return "drop"
	}
	return fmt.Sprintf("verdict %d", uint8(v))
}

// Error says what was refused and why, without the device.
func (e *Error) Error() string {
	switch {
	case e.Cause != nil:
		return fmt.Sprintf("push badge: %s: %v", e.Reason, e.Cause)
	case e.Status == 0:
		return fmt.Sprintf("push badge: %s", e.Reason)
	}
	return fmt.Sprintf("push badge: apns answered %d %s", e.Status, e.Reason)
}

// Unwrap returns the cause, which is nil when Apple answered.
func (e *Error) Unwrap() error { return e.Cause }

// Verdict says what to do. A nil Error is VerdictAccepted, so that a Result's
// Err can be asked without looking.
func (e *Error) Verdict() Verdict {
	if e == nil {
		return VerdictAccepted
	}
	return ruleOf(e.Status, e.Reason).verdict
}

// Retryable reports whether the same device may be pushed to again, now or
// after RetryAfter, without anybody acting.
func (e *Error) Retryable() bool {
	switch e.Verdict() {
	case VerdictResend, VerdictRetryLater, VerdictPauseDevice:
		return true
	}
	return false
}

// Unregistered reports whether APNs said that the device token is no longer
// active for the topic (410), so that Timestamp has a meaning.
func (e *Error) Unregistered() bool { return e != nil && e.Status == 410 }

// newError builds what a refusal with this status and body means. wait is what
// a retry-after header asked for, 0 without one.
func newError(status int, body []byte, id string, wait time.Duration) *Error {
	e := &Error{Status: status, ID: id, RetryAfter: wait}
	e.Reason, e.Timestamp = parseErrorBody(body)
	if e.Reason == "" {
		e.Reason = Reason(fmt.Sprintf("HTTP%d", status))
	}
	if status != 410 {
		e.Timestamp = time.Time{}
	}
	return e
}
