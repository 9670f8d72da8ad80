package apnstest

import (
	"maps"
	"strings"
	"sync"
	"time"

	"badgerelay/apns"
)

// What a client did that Apple would hold against it: the keys of
// ClientFaults. A correct client leaves all of them at zero.
const (
	ClientOverLimit      = "over_limit"      // a stream beyond the granted number
	ClientChurn          = "churn"           // connects too often
	ClientTokenUpdates   = "token_updates"   // the provider token changed within 20 minutes
	ClientTwoInFlight    = "two_in_flight"   // two pushes in flight to one device
	ClientPriorityFrame  = "priority_frame"  // a PRIORITY frame
	ClientIndexedPath    = "indexed_path"    // :path put in the compression table
	ClientIndexedID      = "indexed_id"      // apns-id put in the compression table a second time
	ClientEvictions      = "evictions"       // a compression table entry pushed out by another
	ClientProtocolError  = "protocol_error"  // frames that break RFC 9113 or RFC 7541
	ClientDeadDevice     = "dead_device"     // a push to a device long after its final refusal
	ClientAfterGoAway    = "after_goaway"    // a stream opened a second after GOAWAY was sent
	ClientEarly5xx       = "early_5xx"       // the same payload within 15 minutes of a 5xx
	ClientBadRequest     = "bad_request"     // a header or payload that can never be accepted
	ClientIgnoredHeaders = "ignored_headers" // header fields that APNs ignores: dead weight
)

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

// ClearClientFaults sets every count to zero.
func (s *Simulator) ClearClientFaults() {
	s.clientFaults.mu.Lock()
	s.clientFaults.n, s.clientFaults.last = noClientFaults(), nil
	s.clientFaults.mu.Unlock()
}

// ForgetServerErrors forgets which payloads were refused with a 5xx, for a
// client that can't know of them because it was started since.
func (s *Simulator) ForgetServerErrors() { s.unwell.clear() }

func noClientFaults() map[string]int {
	return map[string]int{
		ClientOverLimit: 0, ClientChurn: 0, ClientTokenUpdates: 0, ClientTwoInFlight: 0, ClientPriorityFrame: 0,
		ClientIndexedPath: 0, ClientIndexedID: 0, ClientEvictions: 0, ClientProtocolError: 0, ClientDeadDevice: 0,
		ClientAfterGoAway: 0, ClientEarly5xx: 0, ClientBadRequest: 0, ClientIgnoredHeaders: 0,
	}
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

func (t *timesByKey) clear() {
	t.mu.Lock()
	clear(t.at)
	t.mu.Unlock()
}

func (t *timesByKey) forget(key []byte) {
	t.mu.Lock()
	delete(t.at, string(key))
	t.mu.Unlock()
}

// payloadKey names a payload to a device for timesByKey.
func payloadKey(device apns.DeviceToken, payload []byte) []byte {
	return append(device.AppendRaw(nil), payload...)
}

func (t *timesByKey) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.at)
}
