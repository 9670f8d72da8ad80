package apnstest

import (
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"badgerelay/apns"
)

// Sizes from Apple, "Sending notification requests to APNs" and "Generating a
// remote notification" (read 2026-11).
const (
	maxPayload     = 4096
	maxPayloadVoIP = 5120
	maxCollapseID  = 64
)

// request is the header of one request. The strings are the decoder's.
type request struct {
	method, path, authorization string
	pushType, topic, collapseID string
	id, expiration, priority    string
	has                         uint16 // documented fields seen, by bit
	duplicate                   string // a documented field that came twice
	ignored                     int    // fields that APNs ignores
	tooLarge                    bool   // the list exceeds SETTINGS_MAX_HEADER_LIST_SIZE
	raw                         [apns.MaxDeviceTokenSize]byte
	size                        int // of the device token in raw; 0: none
	scheme, authority           bool
}

// Bits of request.has.
const (
	hasMethod uint16 = 1 << iota
	hasPath
	hasAuthorization
	hasPushType
	hasTopic
	hasCollapseID
	hasID
	hasExpiration
	hasPriority
)

// read takes the fields. Its error means that the request is malformed
// (RFC 9113, section 8.1.1).
func (q *request) read(fields []hpack.HeaderField, tooLarge bool) error {
	*q = request{tooLarge: tooLarge}
	if tooLarge {
		return nil
	}
	regular := false
	for i := range fields {
		f := &fields[i]
		if f.Name == "" {
			return errors.New("field without a name")
		}
		if f.Name[0] == ':' {
			if regular {
				return errors.New("pseudo-header field after others")
			}
		} else {
			regular = true
		}
		if err := q.field(f); err != nil {
			return err
		}
	}
	if q.has&(hasMethod|hasPath) != hasMethod|hasPath || !q.scheme {
		return errors.New("pseudo-header field missing")
	}
	return nil
}

// field takes one field.
func (q *request) field(f *hpack.HeaderField) error {
	switch f.Name {
	case ":method":
		return q.pseudo(&q.method, hasMethod, f)
	case ":path":
		return q.pseudo(&q.path, hasPath, f)
	case ":scheme":
		if q.scheme {
			return errors.New(":scheme twice")
		}
		q.scheme = true
	case ":authority":
		if q.authority {
			return errors.New(":authority twice")
		}
		q.authority = true
	case "authorization":
		q.set(&q.authorization, hasAuthorization, f)
	case "apns-push-type":
		q.set(&q.pushType, hasPushType, f)
	case "apns-topic":
		q.set(&q.topic, hasTopic, f)
	case "apns-collapse-id":
		q.set(&q.collapseID, hasCollapseID, f)
	case "apns-id":
		q.set(&q.id, hasID, f)
	case "apns-expiration":
		q.set(&q.expiration, hasExpiration, f)
	case "apns-priority":
		q.set(&q.priority, hasPriority, f)
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return errors.New("connection-specific field") // RFC 9113, section 8.2.2
	case "host": // Apple's own sample has it instead of :authority
	default:
		return q.other(f.Name)
	}
	return nil
}

func (q *request) other(name string) error {
	if name[0] == ':' {
		return errors.New("unknown pseudo-header field")
	}
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' || c <= ' ' || c >= 0x7f {
			return errors.New("field name is not lower-case") // RFC 9113, section 8.2.1
		}
	}
	q.ignored++
	return nil
}

func (q *request) pseudo(dst *string, bit uint16, f *hpack.HeaderField) error {
	if q.has&bit != 0 {
		return errors.New(f.Name + " twice")
	}
	q.has |= bit
	*dst = f.Value
	return nil
}

// set takes a documented field; the first of two stays.
func (q *request) set(dst *string, bit uint16, f *hpack.HeaderField) {
	if q.has&bit != 0 {
		q.duplicate = f.Name
		return
	}
	q.has |= bit
	*dst = f.Value
}

// maxPayload is what this push type may carry.
func (q *request) maxPayload() int {
	if q.pushType == "voip" {
		return maxPayloadVoIP
	}
	return maxPayload
}

// devicePath returns the device token in the path, and whether it is a
// device's path at all.
func (q *request) devicePath() (token string, is bool) {
	return strings.CutPrefix(q.path, devicePath)
}

// readToken decodes the token. It reports false if it can't be one.
func (q *request) readToken(token string) bool {
	n := len(token) / 2
	if len(token)%2 != 0 || n < apns.MinDeviceTokenSize || n > apns.MaxDeviceTokenSize {
		return false
	}
	// A string's bytes can't be handed to hex without a copy; this one stays
	// on the stack.
	var text [2 * apns.MaxDeviceTokenSize]byte
	if _, err := hex.Decode(q.raw[:], text[:copy(text[:], token)]); err != nil {
		return false
	}
	q.size = n
	return true
}

// token is the device token's bytes; empty if there is none.
func (q *request) token() []byte { return q.raw[:q.size] }

// priorityValue is the priority, 10 when absent (Apple, as above).
func (q *request) priorityValue() int {
	if q.has&hasPriority == 0 {
		return 10
	}
	n, err := strconv.Atoi(q.priority)
	if err != nil {
		return 0
	}
	return n
}

// expirationValue is the expiration in Unix seconds, -1 when absent or wrong.
func (q *request) expirationValue() int64 {
	if q.has&hasExpiration == 0 {
		return -1
	}
	n, err := strconv.ParseUint(q.expiration, 10, 63) // takes no sign
	if err != nil {
		return -1
	}
	return int64(n)
}

// validUUID reports whether s is 8-4-4-4-12 hexadecimal digits. Upper case is
// accepted: Apple does not say (rule R3). Config.Strict refuses it.
func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// formatUUID writes raw as a version 4 UUID.
func formatUUID(raw [16]byte) string {
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	var b [36]byte
	hex.Encode(b[:8], raw[:4])
	hex.Encode(b[9:13], raw[4:6])
	hex.Encode(b[14:18], raw[6:8])
	hex.Encode(b[19:23], raw[8:10])
	hex.Encode(b[24:], raw[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}
