package registry

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strconv"
)

// A page token is the position after which the next page begins: the key of the
// last row, as strings. It says which list it belongs to by a checksum over the
// list's name and filter; that catches mistakes and is no protection, and none
// is needed, because a position can't lead out of the organization asked about.

// maxPageToken is beyond the longest token there is: a mailbox, an app and a
// device token with their lengths, in base64.
const maxPageToken = 1024

func encodePageToken(list []string, position ...string) string {
	body := appendStrings(nil, position)
	sum := crc32.ChecksumIEEE(appendStrings(body[:len(body):len(body)], list))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(body, sum))
}

// decodePageToken returns the n strings of the position; nil for the empty
// token. What encodePageToken did not make for this list is an *InvalidError.
func decodePageToken(token string, list []string, n int) ([]string, error) {
	if token == "" {
		return nil, nil
	}
	bad := &InvalidError{"page_token", "is not one that came with a page of this list"}
	if len(token) > maxPageToken {
		return nil, bad
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < 4 {
		return nil, bad
	}
	position := make([]string, 0, n)
	for rest := raw[:len(raw)-4]; len(rest) > 0; {
		size, used := binary.Uvarint(rest)
		if used <= 0 || size > uint64(len(rest)-used) {
			return nil, bad
		}
		position = append(position, string(rest[used:used+int(size)]))
		rest = rest[used+int(size):]
	}
	if len(position) != n || encodePageToken(list, position...) != token {
		return nil, bad
	}
	return position, nil
}

func appendStrings(dst []byte, ss []string) []byte {
	for _, s := range ss {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

// list names the list for page tokens.
func (f SubscriptionFilter) list() []string {
	return []string{"subscriptions", strconv.FormatInt(int64(f.Organization), 10), f.Mailbox, strconv.FormatBool(f.Removed)}
}

// page returns a page's size and the position that it follows; nil: the start.
func (f SubscriptionFilter) page(page Page) (size int, after []string, err error) {
	if size, err = page.size(); err != nil {
		return 0, nil, err
	}
	if f.Mailbox != "" {
		if err := validateMailbox(f.Mailbox); err != nil {
			return 0, nil, err
		}
	}
	after, err = decodePageToken(page.Token, f.list(), 3)
	return size, after, err
}

// cut takes off what was read beyond a page, and returns the token of the next.
func (f SubscriptionFilter) cut(subs []Subscription, size int) ([]Subscription, string) {
	if len(subs) <= size {
		return subs, ""
	}
	last := subs[size-1]
	return subs[:size], encodePageToken(f.list(), last.Mailbox, last.App, string(last.Device.AppendRaw(nil)))
}

// maxOthers is how many bytes the names of other mailboxes take in a page, so
// that it fits into a message of gRPC's 4 MiB.
const maxOthers = 1 << 20

// fitting returns how many of the subscriptions go in a page of a size.
func fitting(subs []Subscription, size int) int {
	room := maxOthers
	for i, sub := range subs[:min(len(subs), size)] {
		for _, mailbox := range sub.OtherMailboxes {
			room -= len(mailbox)
		}
		if room < 0 && i > 0 {
			return i
		}
	}
	return size
}
