package apnstest

import "golang.org/x/net/http2/hpack"

// representation is how a header field was coded (RFC 7541, section 6).
type representation uint8

const (
	repIndexed representation = iota
	repIncremental
	repPlain // without indexing
	repNever // never indexed
)

// hpackAudit follows what a client puts in the compression table (rule C12).
// The decoder does not tell, so the block is walked a second time.
type hpackAudit struct {
	reps    []representation
	sizes   []uint32 // of the table's entries, oldest first
	used    uint32
	size    uint32
	seenID  bool
	resized []uint32
}

// walk reads how each field of a whole header block is coded. A malformed
// block ends it early: the decoder reports that.
func (a *hpackAudit) walk(b []byte) {
	a.reps, a.resized = a.reps[:0], a.resized[:0]
	for len(b) > 0 {
		var n uint64
		first := b[0]
		switch {
		case first&0x80 != 0:
			if _, b = hpackInt(b, 7); b == nil {
				return
			}
			a.reps = append(a.reps, repIndexed)
			continue
		case first&0xe0 == 0x20:
			if n, b = hpackInt(b, 5); b == nil {
				return
			}
			a.resized = append(a.resized, uint32(min(n, 1<<20)))
			continue
		case first&0xc0 == 0x40:
			a.reps = append(a.reps, repIncremental)
			n, b = hpackInt(b, 6)
		case first&0xf0 == 0x10:
			a.reps = append(a.reps, repNever)
			n, b = hpackInt(b, 4)
		default:
			a.reps = append(a.reps, repPlain)
			n, b = hpackInt(b, 4)
		}
		if b != nil && n == 0 {
			b = skipString(b)
		}
		if b != nil {
			b = skipString(b)
		}
		if b == nil {
			return
		}
	}
}

// hpackInt reads an integer with a prefix of bits; rest is nil if b ends within.
func hpackInt(b []byte, bits uint) (n uint64, rest []byte) {
	limit := uint64(1)<<bits - 1
	n = uint64(b[0]) & limit
	b = b[1:]
	if n < limit {
		return n, notNil(b)
	}
	for shift := uint(0); shift < 56; shift += 7 {
		if len(b) == 0 {
			return 0, nil
		}
		n += uint64(b[0]&0x7f) << shift
		more := b[0]&0x80 != 0
		b = b[1:]
		if !more {
			return n, notNil(b)
		}
	}
	return 0, nil
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func skipString(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	n, rest := hpackInt(b, 7)
	if rest == nil || uint64(len(rest)) < n {
		return nil
	}
	return rest[n:]
}

// count compares the walk with the decoded fields and counts what wastes the
// table. Field i was coded as representation i.
func (a *hpackAudit) count(f *clientFaults, fields []hpack.HeaderField) {
	for _, n := range a.resized {
		a.size = min(n, headerTableSize)
		a.evict(0)
	}
	evicted := 0
	for i := range min(len(fields), len(a.reps)) {
		if a.reps[i] != repIncremental {
			continue
		}
		switch fields[i].Name {
		case ":path":
			f.count(ClientIndexedPath, 1)
		case "apns-id":
			// Once, for its name: Apple, "Sending notification requests to APNs" (read 2026-11).
			if a.seenID {
				f.count(ClientIndexedID, 1)
			}
			a.seenID = true
		}
		n := fields[i].Size()
		evicted += a.evict(n)
		if n <= a.size {
			a.sizes = append(a.sizes, n)
			a.used += n
		}
	}
	f.count(ClientEvictions, evicted)
}

// evict makes room for n bytes and returns how many entries had to go.
func (a *hpackAudit) evict(n uint32) int {
	gone := 0
	for gone < len(a.sizes) && a.used+n > a.size {
		a.used -= a.sizes[gone]
		gone++
	}
	a.sizes = a.sizes[gone:]
	return gone
}
