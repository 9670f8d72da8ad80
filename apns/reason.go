package apns

import (
	"errors"
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
	// VerdictRetryLater: APNs returned a server error (5xx). The same payload waits for
	// 15 minutes, or for Error.RetryAfter where that is longer; a newer count may go.
	VerdictRetryLater
	// VerdictPauseDevice: too many pushes to this device; pause it, with jitter.
	VerdictPauseDevice
	// VerdictDeviceGone: the device token is no longer active for the app (410).
	// Error.Timestamp says since when; a subscription that was registered after
	// that may be alive.
	VerdictDeviceGone
	// VerdictDeviceRefused: the token does not belong to the app or the
	// environment. That is what a dead device looks like, and what every device
	// looks like to an app whose environment or topic is mistyped.
	VerdictDeviceRefused
	// VerdictStopApp: the app's key, certificate or topic is refused. Nothing
	// of this app will be accepted until an operator acts: alarm, and probe
	// with single pushes.
	VerdictStopApp
	// VerdictDrop: this very push is refused and no other like it will fare
	// better: a defect of ours. Count it and go on.
	VerdictDrop
	// VerdictUnknown: nothing that APNs is known to say: a proxy's page, or a
	// reason that Apple's page does not name. It proves nothing about device, app
	// or push. Pause the device, longer each time, and count a failure.
	VerdictUnknown
)

// Error is a push that APNs did not accept, or that did not reach it.
type Error struct {
	Status     int           // HTTP status; 0: no answer came
	Reason     Reason        // Apple's reason, or one of ours for transport failures
	ID         string        // apns-id of the answer, if any
	Timestamp  time.Time     // with 410: when the token became invalid. Zero: not said
	RetryAfter time.Duration // what a retry-after header asked for; 0: nothing, the caller knows how long
	Cause      error         // transport failures and foreign answers: what went wrong
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
	ReasonForeignAnswer  Reason = "ForeignAnswer"  // an answer without APNs' own JSON: something on the way gave it
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
	ReasonInternalServerError         Reason = "InternalServerError"
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

	// The device token is dead for this app: "Don't retry" (same page). These
	// end subscriptions, so they count with their own status only (newError).
	{400, ReasonBadDeviceToken, VerdictDeviceRefused, false},
	{400, ReasonDeviceTokenNotForTopic, VerdictDeviceRefused, false},
	{410, ReasonExpiredToken, VerdictDeviceGone, false},
	{410, ReasonUnregistered, VerdictDeviceGone, false},

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

	// APNs returns errors. Observed (jchambers/pushy#408, #529): a connection that
	// said InternalServerError may say nothing else any more. Pool.refusal has
	// idle ones go as well.
	{500, ReasonInternalServerError, VerdictRetryLater, true},
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
	{0, ReasonForeignAnswer, VerdictUnknown, true},
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
// page does not name is judged by its status alone, and ends nothing for good.
func ruleOf(status int, r Reason) rule {
	if i := lookUp(r); i >= 0 {
		return verdicts[i]
	}
	byStatus := rule{status: status, reason: r}
	switch {
	case status == 403:
		byStatus.verdict, byStatus.replace = VerdictStopApp, true
	case status == 429:
		byStatus.verdict = VerdictPauseDevice
	case status >= 500:
		byStatus.verdict = VerdictRetryLater
	case status == 0:
		byStatus.verdict = VerdictResend
	default:
		byStatus.verdict = VerdictUnknown
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
	case VerdictDeviceGone:
		return "device gone"
	case VerdictDeviceRefused:
		return "device refused"
	case VerdictStopApp:
		return "stop app"
	case VerdictDrop:
		return "drop"
	case VerdictUnknown:
		return "unknown"
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

// DevicesRefused reports whether the push was sent away, with its connection,
// because of refused devices: it may be one of them, or the app's as a whole.
func (e *Error) DevicesRefused() bool {
	if e == nil || e.Status != 0 {
		return false
	}
	gone, ok := errors.AsType[*goAwayError](e.Cause)
	return ok && (gone.reason == ReasonBadDeviceToken || gone.reason == ReasonDeviceTokenNotForTopic)
}

// newError builds what a refusal with this status and body means. wait is what
// a retry-after header asked for, 0 without one.
//
// APNs puts a JSON object with a reason into every refusal. What has none, or
// says that a device is dead with another status than APNs does, comes from
// something on the way: a proxy, a portal, another server. Of a 5xx that makes
// no difference.
func newError(status int, body []byte, id string, wait time.Duration) *Error {
	e := &Error{Status: status, ID: id, RetryAfter: wait}
	e.Reason, e.Timestamp = parseErrorBody(body)
	if status != 410 {
		e.Timestamp = time.Time{}
	}
	switch {
	case status >= 500:
		if e.Reason == "" {
			e.Reason = Reason(fmt.Sprintf("HTTP%d", status))
		}
	case status < 400 || e.Reason == "" || !endsWith(status, e.Reason):
		return foreignAnswer(e, body)
	}
	return e
}

// endsWith reports whether a reason that ends subscriptions came with the
// status that APNs gives it; others may come with any.
func endsWith(status int, r Reason) bool {
	line := ruleOf(status, r)
	return line.verdict != VerdictDeviceGone && line.verdict != VerdictDeviceRefused || line.status == status
}

// foreignAnswer is an answer that APNs did not give. Its beginning is kept for
// the operator, who may know whose page that is.
func foreignAnswer(e *Error, body []byte) *Error {
	const shown = 100
	e.Reason, e.Timestamp = ReasonForeignAnswer, time.Time{}
	e.Cause = fmt.Errorf("status %d with %q is no answer of apns", e.Status, cleanText(body[:min(shown, len(body))]))
	return e
}
