package apns

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxErrorBody bounds what is kept of an answer's body. Apple's are some
	// thirty bytes; the bound is ours.
	maxErrorBody = 4096
	// maxReason bounds a reason we don't know and keep verbatim; ours.
	maxReason = 64
	// maxRetryAfter bounds what a retry-after header may ask for; ours.
	maxRetryAfter = 24 * time.Hour
	// maxTimestampYear bounds when a device can have gone: later years have no JSON
	// (RFC 3339, section 5.6), by which who keeps a refusal may write it.
	maxTimestampYear = 9999
)

// parseErrorBody reads the JSON of a refusal or of a GOAWAY: "reason", and with
// 410 "timestamp" in milliseconds since 1970. What can't be read is zero, and
// so is a reason that is not one word of letters and digits as Apple's are.
//
// Source: Apple, "Handling notification responses from APNs" (read 2026-11).
func parseErrorBody(body []byte) (Reason, time.Time) {
	if len(body) > maxErrorBody {
		body = body[:maxErrorBody]
	}
	// A struct's fields would also take "Reason", which is not what APNs writes.
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return "", time.Time{}
	}
	var text string
	if json.Unmarshal(members["reason"], &text) != nil || !isReason(text) {
		return "", time.Time{}
	}
	reason := Reason(text)
	if i := lookUp(reason); i >= 0 {
		reason = verdicts[i].reason // don't keep the body alive
	}
	ms, err := strconv.ParseInt(strings.Trim(string(members["timestamp"]), `"`), 10, 64)
	at := time.UnixMilli(ms).UTC()
	if err != nil || ms <= 0 || at.Year() > maxTimestampYear {
		return reason, time.Time{}
	}
	return reason, at
}

// isReason reports whether s has the shape of every reason on Apple's page.
func isReason(s string) bool {
	if s == "" || len(s) > maxReason || s[0] < 'A' || s[0] > 'Z' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

// parseRetryAfter reads a retry-after header: seconds or a date (RFC 9110,
// section 10.2.3). Apple's pages don't mention it; a proxy may send it.
func parseRetryAfter(s string, now time.Time) time.Duration {
	var wait time.Duration
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		wait = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// transportError is a push that got no answer of Apple's.
func transportError(reason Reason, cause error) *Error {
	return &Error{Reason: reason, Cause: cause}
}
