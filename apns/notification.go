package apns

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"time"
)

// Sizes of a device token in bytes. Apple asks providers to make no assumption
// about the size ("Sending notification requests to APNs", read 2026-11);
// these bounds keep out what can't be a token, and match the simulator's.
const (
	MinDeviceTokenSize = 32
	MaxDeviceTokenSize = 100
)

// ErrDeviceToken is returned by ParseDeviceToken for anything that can't be a
// device token.
var ErrDeviceToken = errors.New("device token is not 32 to 100 bytes in hexadecimal")

// DeviceToken names one installation of an app on one device. It is
// comparable. The zero value is no token. It prints as a short hash, never as
// itself; Hex and AppendHex give the token away.
type DeviceToken struct{ raw string }

// ParseDeviceToken reads a token in hexadecimal of any case. Anything else is an
// ErrDeviceToken, whose text says why and holds nothing of s.
func ParseDeviceToken(s string) (DeviceToken, error) {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return DeviceToken{}, fmt.Errorf("%w: byte %d of %d is no hexadecimal digit", ErrDeviceToken, i+1, len(s))
		}
	}
	if n := len(s); n%2 != 0 || n < 2*MinDeviceTokenSize || n > 2*MaxDeviceTokenSize {
		return DeviceToken{}, fmt.Errorf("%w: there are %d digits", ErrDeviceToken, n)
	}
	raw, err := hex.DecodeString(s)
	if err != nil {
		return DeviceToken{}, ErrDeviceToken
	}
	return DeviceToken{string(raw)}, nil
}

// DeviceTokenFromBytes takes a token as raw bytes; a string's memory is kept.
// A size outside the bounds is ErrDeviceToken.
func DeviceTokenFromBytes[T ~[]byte | ~string](raw T) (DeviceToken, error) {
	if len(raw) < MinDeviceTokenSize || len(raw) > MaxDeviceTokenSize {
		return DeviceToken{}, ErrDeviceToken
	}
	return DeviceToken{string(raw)}, nil
}

// IsZero reports whether t is no token.
func (t DeviceToken) IsZero() bool { return t.raw == "" }

// Hex returns the token in lower-case hexadecimal, as APNs takes it.
func (t DeviceToken) Hex() string { return string(t.AppendHex(nil)) }

// AppendHex appends the token in lower-case hexadecimal to dst.
func (t DeviceToken) AppendHex(dst []byte) []byte {
	const digits = "0123456789abcdef"
	for i := range len(t.raw) {
		dst = append(dst, digits[t.raw[i]>>4], digits[t.raw[i]&15])
	}
	return dst
}

// Size returns the token's size in bytes; 0: it is no token.
func (t DeviceToken) Size() int { return len(t.raw) }

// AppendRaw appends the token's bytes to dst.
func (t DeviceToken) AppendRaw(dst []byte) []byte { return append(dst, t.raw...) }

// impossiblePrefix is how a token that is nobody's begins: no device draws these 192
// bits. Not zeros, with which numbers begin that people use as tokens in trials:
// refusals of those must count like any other's.
const impossiblePrefix = "badgerelay's probe token"

// ImpossibleDevice returns a token that is nobody's: a prefix, and at the end what is
// drawn anew each time, because pushing again to a device that APNs has refused
// counts against a client. Probes push to it: that APNs calls it a BadDeviceToken
// shows that the way to APNs works.
func ImpossibleDevice() DeviceToken {
	raw := make([]byte, MinDeviceTokenSize)
	_, _ = rand.Read(raw[copy(raw, impossiblePrefix):]) // never fails, Go 1.24
	return DeviceToken{string(raw)}
}

// Impossible reports whether t is one of ImpossibleDevice's.
func (t DeviceToken) Impossible() bool {
	return len(t.raw) == MinDeviceTokenSize && strings.HasPrefix(t.raw, impossiblePrefix)
}

// redactSeed differs in every process, so that hashes can't be looked up.
var redactSeed = maphash.MakeSeed()

// String returns a short hash of the token that is stable within the process.
func (t DeviceToken) String() string {
	if t.IsZero() {
		return "device:none"
	}
	return fmt.Sprintf("device:%08x", uint32(maphash.String(redactSeed, t.raw)))
}

// LogValue implements slog.LogValuer with the short hash.
func (t DeviceToken) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Priority is the apns-priority of a push.
type Priority uint8

// The two priorities a badge is sent with. Source: Apple, "Sending notification
// requests to APNs" (read 2026-11).
const (
	PriorityImmediate Priority = 10 // deliver now
	PriorityPower     Priority = 5  // the device may wait for a good moment
)

// MaxBadge is the largest badge a push may carry; 0 removes the badge.
const MaxBadge = 1<<31 - 1

// Request is one badge update on its way to one device.
type Request struct {
	Device   DeviceToken
	Badge    uint32 // 0..MaxBadge
	Priority Priority
	Tag      any // the caller's; comes back in the Result. A pointer costs no allocation.

	// Deadline is until when the push may be handed to the socket. After that it
	// comes back as not sent, or as lost with its connection. nil: at any time.
	Deadline *Deadline
}

// Result is how one Request ended. Every Request taken from a Source comes back
// in exactly one Result.
type Result struct {
	Tag any
	Err *Error // nil: APNs accepted the badge

	// WrittenAt is when the push was handed to the socket; zero if it never was.
	WrittenAt time.Time
}

// Source is where a Pool gets its work from. The count of a push is fixed only
// when a connection has a stream for it, so the newest always goes out.
//
// Both methods are called from several goroutines of the pool at once, must
// not block, and must not call back into the pool, save Wake.
type Source interface {
	// Take fills dst with the next requests, at most len(dst), and returns how
	// many. more says how many are known to wait beyond those. The pool sends
	// all it took, or returns them in Done.
	Take(dst []Request) (n, more int)
	// Done returns results. The slice is the pool's again when Done returns.
	Done(results []Result)
}
