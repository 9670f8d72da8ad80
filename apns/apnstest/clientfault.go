package apnstest

import (
	"maps"
	"strings"
	"sync"
	"time"

	"badgerelay/apns"
)

// What a client did that Apple would hold against it: the keys of
// ClientFaults; ClientFaultMeanings explains each. A correct client leaves all
// of them at zero.
const (
	ClientOverLimit      = "over_limit"
	ClientChurn          = "churn"
	ClientTokenUpdates   = "token_updates"
	ClientTwoInFlight    = "two_in_flight"
	ClientPriorityFrame  = "priority_frame"
	ClientIndexedPath    = "indexed_path"
	ClientIndexedID      = "indexed_id"
	ClientEvictions      = "evictions"
	ClientProtocolError  = "protocol_error"
	ClientDeadDevice     = "dead_device"
	ClientAfterGoAway    = "after_goaway"
	ClientEarly5xx       = "early_5xx"
	ClientBadRequest     = "bad_request"
	ClientIgnoredHeaders = "ignored_headers"
)

// ClientFaultMeanings returns what each name in ClientFaults means, as a
// sentence for whoever reads the count.
func ClientFaultMeanings() map[string]string {
	return map[string]string{
		ClientOverLimit:      "a stream beyond the number granted by SETTINGS_MAX_CONCURRENT_STREAMS, which is 1 until a valid provider token was answered; also one that did not wait for the first SETTINGS",
		ClientChurn:          "a connection refused because its address opened too many in a minute; Apple takes that for an attack",
		ClientTokenUpdates:   "a provider token that came less than 20 minutes after the one before it",
		ClientTwoInFlight:    "a push to a device that has another one unanswered: the older may be shown last",
		ClientPriorityFrame:  "a PRIORITY frame, which APNs ignores",
		ClientIndexedPath:    "a :path put into the header compression table, where it pushes out what repeats",
		ClientIndexedID:      "an apns-id put into the header compression table more than once",
		ClientEvictions:      "an entry pushed out of the header compression table by another",
		ClientProtocolError:  "a connection or stream that broke RFC 9113 (HTTP/2) or RFC 7541 (HPACK)",
		ClientDeadDevice:     "a push to a device more than 5 seconds after APNs refused it for good (410 or BadDeviceToken)",
		ClientAfterGoAway:    "a stream opened more than a second after GOAWAY",
		ClientEarly5xx:       "a payload sent again within 15 minutes of its refusal with a 5xx; a newer payload is none",
		ClientBadRequest:     "a request with a header field or payload that can never be accepted (status 400, 404, 405 or 413, or no provider token)",
		ClientIgnoredHeaders: "a header field that APNs ignores, such as content-type or user-agent: dead weight",
	}
}

// deadGrace is how long after a final refusal pushes to the device may still
// have been under way. Ours: a generous round trip and a batch in the relay.
const deadGrace = 5 * time.Second

// clientFaults counts. Safe for concurrent use.
type clientFaults struct {
	mu   sync.Mutex
	n    map[string]int
	last map[string]apns.DeviceToken // where a device is concerned, the last one
}

func (f *clientFaults) count(name string, n int) {
	if n == 0 {
		return
	}
	f.mu.Lock()
	f.n[name] += n
	f.mu.Unlock()
}

// countFor counts one that concerns a device.
func (f *clientFaults) countFor(name string, device apns.DeviceToken) {
	f.count(name, 1)
	f.mu.Lock()
	if f.last == nil {
		f.last = make(map[string]apns.DeviceToken)
	}
	f.last[name] = device
	f.mu.Unlock()
}

// LastFaultDevices returns the device that each client fault concerned last,
// where it concerns one.
func (s *Simulator) LastFaultDevices() map[string]apns.DeviceToken {
	s.clientFaults.mu.Lock()
	defer s.clientFaults.mu.Unlock()
	return maps.Clone(s.clientFaults.last)
}

// ClientFaults returns how often clients did each of the things that Apple
// would hold against them. Every name is present.
func (s *Simulator) ClientFaults() map[string]int {
	s.clientFaults.mu.Lock()
	defer s.clientFaults.mu.Unlock()
	return maps.Clone(s.clientFaults.n)
}

func noClientFaults() map[string]int {
	n := map[string]int{}
	for name := range ClientFaultMeanings() {
		n[name] = 0
	}
	return n
}

// timesByKey remembers since when something is so, for at most limit keys:
// tokens that are no device's, and payloads refused with a 5xx. Safe for
// concurrent use.
type timesByKey struct {
	mu    sync.Mutex
	limit int
	at    map[string]time.Time
}

// first returns when key was first seen: zero if never.
func (t *timesByKey) first(key []byte) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at[string(key)]
}

// see remembers that key was seen now, if it wasn't before.
func (t *timesByKey) see(key []byte, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.at[string(key)]; ok {
		return
	}
	if len(t.at) >= t.limit {
		clear(t.at) // only counts suffer
	}
	t.at[string(key)] = now
}

// forgetAll forgets every key that begins with prefix.
func (t *timesByKey) forgetAll(prefix []byte) {
	t.mu.Lock()
	maps.DeleteFunc(t.at, func(key string, _ time.Time) bool { return strings.HasPrefix(key, string(prefix)) })
	t.mu.Unlock()
}

func (t *timesByKey) forget(key []byte) {
	t.mu.Lock()
	delete(t.at, string(key))
	t.mu.Unlock()
}

// payloadKey names a client's payload to a device for timesByKey.
func payloadKey(device apns.DeviceToken, payload []byte, client string) []byte {
	return append(append(device.AppendRaw(nil), payload...), client...)
}

func (t *timesByKey) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.at)
}
