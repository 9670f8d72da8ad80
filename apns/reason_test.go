package apns

import (
	"errors"
	"io"
	"testing"
	"time"
)

func TestVerdictTable(t *testing.T) {
	seen := make(map[Reason]bool)
	for _, line := range verdicts {
		if seen[line.reason] {
			t.Errorf("%s is in the table twice", line.reason)
		}
		seen[line.reason] = true
		if line.verdict == VerdictAccepted {
			t.Errorf("%s has no verdict", line.reason)
		}
		e := &Error{Status: line.status, Reason: line.reason}
		if e.Verdict() != line.verdict {
			t.Errorf("%s: verdict %v, want %v", line.reason, e.Verdict(), line.verdict)
		}
	}
	if len(seen) < 32 {
		t.Errorf("%d reasons, Apple's page alone has more", len(seen))
	}
}

func TestErrorMethods(t *testing.T) {
	var none *Error
	if none.Verdict() != VerdictAccepted {
		t.Error("nil is not accepted")
	}
	for _, test := range []struct {
		err  Error
		text string
	}{
		{Error{Status: 410, Reason: ReasonUnregistered}, "push badge: apns answered 410 Unregistered"},
		{Error{Status: 503, Reason: "Shutdown"}, "push badge: apns answered 503 Shutdown"},
		{Error{Status: 429, Reason: ReasonTooManyRequests}, "push badge: apns answered 429 TooManyRequests"},
		{Error{Reason: ReasonConnectionLost, Cause: io.EOF}, "push badge: ConnectionLost: EOF"},
		{Error{Reason: ReasonNotSent}, "push badge: NotSent"},
		{Error{Status: 403, Reason: "Forbidden"}, "push badge: apns answered 403 Forbidden"},
	} {
		if got := test.err.Error(); got != test.text {
			t.Errorf("text %q, want %q", got, test.text)
		}
	}
	if !errors.Is(&Error{Cause: io.EOF}, io.EOF) {
		t.Error("the cause is not unwrapped")
	}
}

func TestParseErrorBody(t *testing.T) {
	for _, test := range []struct {
		body   string
		reason Reason
		ms     int64
	}{
		{`{"reason":"BadDeviceToken"}`, "BadDeviceToken", 0},
		{`{"reason":"Unregistered","timestamp":1700000000123}`, "Unregistered", 1700000000123},
		{`{"reason":"Unregistered","timestamp":"1700000000123"}`, "Unregistered", 1700000000123},
		{`{"reason":"Unregistered","timestamp":-5}`, "Unregistered", 0},
		{`{"reason":"Unregistered","timestamp":{}}`, "Unregistered", 0},
		{`{"reason":"Unregistered","timestamp":253402214400000}`, "Unregistered", 253402214400000},
		{`{"reason":"Unregistered","timestamp":253402300800000}`, "Unregistered", 0}, // in the year 10000
		{`{"reason":"Unregistered","timestamp":9223372036854775807}`, "Unregistered", 0},
		{`{"reason":"NewThing"}`, "NewThing", 0},
		{`{"reason":"New Thing\n"}`, "", 0},
		{`{"reason":"notApples"}`, "", 0},
		{`{"reason":7}`, "", 0},
		{`{"Reason":"Unregistered"}`, "", 0},
		{`{"reason":"Unregistered","Timestamp":1700000000123}`, "Unregistered", 0},
		{`{"reas`, "", 0},
		{``, "", 0},
		{`[]`, "", 0},
	} {
		reason, at := parseErrorBody([]byte(test.body))
		ms := int64(0)
		if !at.IsZero() {
			ms = at.UnixMilli()
		}
		if reason != test.reason || ms != test.ms {
			t.Errorf("%s: %q, %d; want %q, %d", test.body, reason, ms, test.reason, test.ms)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                              0,
		"7":                             7 * time.Second,
		"-7":                            0,
		"x":                             0,
		"999999999":                     maxRetryAfter,
		"99999999999999999999":          0,
		"Mon, 23 Nov 2026 12:01:00 GMT": time.Minute,
		"Mon, 23 Nov 2026 11:01:00 GMT": 0,
	} {
		if got := parseRetryAfter(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzErrorBody(f *testing.F) {
	f.Add([]byte(`{"reason":"Unregistered","timestamp":1700000000123}`))
	f.Add([]byte(`{"reason":"\u0000`))
	f.Add([]byte(`{"reason":"Unregistered","timestamp":253402300800000}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e := newError(410, body, "", 0)
		if e.Reason == "" || len(e.Reason) > maxReason {
			t.Errorf("reason %q", e.Reason)
		}
		if _, err := e.Timestamp.MarshalJSON(); err != nil {
			t.Error(err)
		}
		_, _ = e.Verdict(), e.Error()
		_ = cleanText(body)
	})
}
