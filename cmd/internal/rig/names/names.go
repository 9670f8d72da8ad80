// Package names gives mailboxes and devices of a measurement their names, by
// number, so that each process knows them without being told.
package names

import (
	"encoding/binary"
	"strconv"

	"badgerelay/apns"
)

// What all processes of a measurement agree upon.
const (
	Organization = "bench.example.com"
	App          = "mail"
	Topic        = "com.example.mail"
	TeamID       = "BENCHTEAM1"
	KeyID        = "BENCHKEY01"
	Authority    = "localhost"                            // by which agents reach the relay
	Principal    = "5b1d9c9e-5f0e-4c55-9b1c-6f3f5f3d1a77" // of the relay, in tokens
)

// OrganizationName returns the domain of the i-th organization; the 0th is
// Organization.
func OrganizationName(i int) string {
	if i == 0 {
		return Organization
	}
	return "bench" + strconv.Itoa(i) + ".example.com"
}

// AppendMailbox appends the name of the i-th mailbox, of the length that
// addresses of people have.
func AppendMailbox(b []byte, i int) []byte {
	b = append(b, "user"...)
	for limit := 1_000_000; limit > i && limit > 1; limit /= 10 {
		b = append(b, '0')
	}
	b = strconv.AppendInt(b, int64(i), 10)
	return append(b, "@"+Organization...)
}

// Mailbox returns the name of the i-th mailbox.
func Mailbox(i int) string { return string(AppendMailbox(nil, i)) }

// Device returns the token of the i-th device: 32 bytes, as Apple's are today.
// With K devices a mailbox, mailbox i has the devices i*K to i*K+K-1.
func Device(i int) apns.DeviceToken {
	var raw [32]byte
	state := uint64(i)
	for at := 0; at < len(raw); at += 8 {
		binary.BigEndian.PutUint64(raw[at:], mix(&state))
	}
	token, err := apns.DeviceTokenFromBytes(raw[:])
	if err != nil {
		panic(err) // 32 bytes are a token
	}
	return token
}

// mix is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
// number generators", 2014): different states give different numbers.
func mix(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Unread returns the count that the version-th event of the i-th mailbox says.
// It differs from those of the versions before, rises about as often as it
// falls, and has one to three digits, as counts have.
func Unread(i int, version uint32) uint32 {
	if version == 0 {
		return 0 // no event yet, no badge
	}
	return 1 + (uint32(i)*31+version*400)%997
}

// perOrganization is more than any count that Unread returns.
const perOrganization = 1000

// UnreadOf is Unread for a mailbox of an organization: no organization has a
// count that another has.
func UnreadOf(organization, i int, version uint32) uint32 {
	if version == 0 {
		return 0
	}
	return uint32(organization)*perOrganization + Unread(i, version)
}

// OrganizationOf returns whose count it is that a device shows. None is
// anybody's.
func OrganizationOf(shown uint32) int { return int(shown / perOrganization) }
