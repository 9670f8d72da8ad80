package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"badgerelay/apns"
)

// deviceHash is what an index knows a device of an app by: 8 bytes of SHA-256.
// It is no identity. Two devices may share one, so who finds a row by it goes on
// to compare app and token.
func deviceHash(d device) int64 {
	b := make([]byte, 0, apns.MaxDeviceTokenSize+MaxAppSize+1)
	b = append(d.token.AppendRaw(b), d.app...)
	b = append(b, byte(len(d.app))) // so that no token with its app reads as others
	sum := sha256.Sum256(b)
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// sortByHash puts those side by side that share a page of the index.
func sortByHash(devices []*deviceState) {
	slices.SortFunc(devices, func(a, b *deviceState) int { return cmp.Compare(a.hash, b.hash) })
}
