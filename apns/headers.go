package apns

import (
	"golang.org/x/net/http2/hpack"
)

// Static table indexes (RFC 7541, appendix A).
const (
	staticAuthority     = 1
	staticMethodPOST    = 3
	staticPath          = 4
	staticSchemeHTTPS   = 7
	staticAuthorization = 23
	staticTableLen      = 61
)

// First-byte patterns of the representations (RFC 7541, section 6).
const (
	hpackIndexed      = 0x80
	hpackIncremental  = 0x40
	hpackTableSize    = 0x20
	hpackNotIndexed   = 0x00
	fieldOverhead     = 32 // RFC 7541, section 4.1
	defaultHPACKTable = 4096
)

// Fields of a push that rarely change, in the order they are sent. Only one of
// the two priorities is sent with a push.
const (
	fieldAuthority = iota
	fieldAuthorization
	fieldTopic
	fieldPushType
	fieldExpiration
	fieldPriority10
	fieldPriority5
	fieldCount
)

// field is one header field and where it is in the dynamic table.
type field struct {
	name, value string
	staticName  uint64 // index of the name in the static table, 0 for none
	entry       uint64 // number of its insertion, counted from 1; 0: never inserted
	indexable   bool   // all indexable fields fit into the table together
}

func (f *field) size() int { return len(f.name) + len(f.value) + fieldOverhead }

// headerEncoder writes the header blocks of pushes. Constant fields are put
// into the dynamic table once and cost a byte from then on; :path is a literal
// without indexing, because it would push everything else out. This is what
// Apple asks for ("Sending notification requests to APNs", read 2026-11), save
// for authorization, which the newer "Establishing a connection to APNs" allows
// to be indexed.
//
// It is owned by the goroutine that writes. hpack.Encoder can't be used: it
// indexes every :path, or marks it never-indexed.
type headerEncoder struct {
	fields [fieldCount]field

	// The dynamic table as the peer sees it. Entries first..next-1 are in it.
	sizes       [128]int // of entry number n at n%len; 4096/32 entries at most
	first, next uint64
	used        int
	max         int

	// Table size updates that the next block has to begin with (RFC 7541,
	// section 4.2): the smallest since the last block, then the last.
	smallest    int
	sizeChanged bool

	// tails are the encoded fields after :path when all are indexed: by
	// priority (0: immediate, 1: power). Empty: not known.
	tails [2][]byte
}

func newHeaderEncoder(authority, topic string) *headerEncoder {
	e := &headerEncoder{first: 1, next: 1, max: defaultHPACKTable}
	e.fields = [fieldCount]field{
		fieldAuthority:     {name: ":authority", value: authority, staticName: staticAuthority},
		fieldAuthorization: {name: "authorization", staticName: staticAuthorization},
		fieldTopic:         {name: "apns-topic", value: topic},
		fieldPushType:      {name: "apns-push-type", value: "alert"},
		fieldExpiration:    {name: "apns-expiration"},
		fieldPriority10:    {name: "apns-priority", value: "10"},
		fieldPriority5:     {name: "apns-priority", value: "5"},
	}
	e.chooseIndexable()
	return e
}

// set changes a field's value; the next block carries it anew.
func (e *headerEncoder) set(i int, value string) {
	f := &e.fields[i]
	if f.value == value {
		return
	}
	f.value, f.entry = value, 0
	e.forgetTails()
	e.chooseIndexable()
}

// setMaxTableSize obeys SETTINGS_HEADER_TABLE_SIZE. We never use more than the
// default: Apple's table has 4096 bytes, and ours fits.
func (e *headerEncoder) setMaxTableSize(size uint32) {
	n := int(min(size, defaultHPACKTable))
	if n == e.max {
		return
	}
	if !e.sizeChanged || n < e.smallest {
		e.smallest = n
	}
	e.sizeChanged = true
	e.max = n
	e.evict(n)
	e.forgetTails()
	e.chooseIndexable()
}

// chooseIndexable decides which fields go into the table: as many as fit
// together, or they would push each other out with every block.
func (e *headerEncoder) chooseIndexable() {
	room := e.max
	for i := range e.fields {
		f := &e.fields[i]
		f.indexable = f.value != "" && f.size() <= room
		if f.indexable {
			room -= f.size()
		}
	}
}

// evict drops the oldest entries until the table uses at most n bytes.
func (e *headerEncoder) evict(n int) {
	for e.used > n {
		e.used -= e.sizes[e.first%uint64(len(e.sizes))]
		e.first++
	}
}

// insert adds f to the table, as the peer will when it reads the block.
func (e *headerEncoder) insert(f *field) {
	e.evict(e.max - f.size())
	e.sizes[e.next%uint64(len(e.sizes))] = f.size()
	e.used += f.size()
	f.entry = e.next
	e.next++
	e.forgetTails()
}

func (e *headerEncoder) forgetTails() { e.tails[0], e.tails[1] = e.tails[0][:0], e.tails[1][:0] }

// listSize is the size of the largest header list we send, as
// SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113, section 6.5.2).
func (e *headerEncoder) listSize() int {
	n := 3 * fieldOverhead // :method, :scheme, :path
	n += len(":methodPOST") + len(":schemehttps") + len(":path/3/device/") + 2*MaxDeviceTokenSize
	for i := range e.fields {
		if i != fieldPriority5 && e.fields[i].value != "" {
			n += e.fields[i].size()
		}
	}
	return n
}

// appendBlock appends the header block of a push.
func (e *headerEncoder) appendBlock(dst []byte, device DeviceToken, priority Priority) []byte {
	if e.sizeChanged {
		if e.smallest < e.max {
			dst = appendVarInt(dst, hpackTableSize, 5, uint64(e.smallest))
		}
		dst = appendVarInt(dst, hpackTableSize, 5, uint64(e.max))
		e.sizeChanged = false
	}
	dst = append(dst, hpackIndexed|staticMethodPOST, hpackIndexed|staticSchemeHTTPS, hpackNotIndexed|staticPath)
	dst = appendPath(dst, device)
	which := 0
	if priority == PriorityPower {
		which = 1
	}
	if tail := e.tails[which]; len(tail) > 0 {
		return append(dst, tail...)
	}
	return e.appendTailSlow(dst, which)
}

// appendTailSlow appends the fields after :path when some of them may not be
// in the table, and keeps the result if all were.
func (e *headerEncoder) appendTailSlow(dst []byte, which int) []byte {
	start, next, all := len(dst), e.next, true
	for i := range e.fields {
		if !e.skips(i, which) {
			all = all && e.fields[i].indexable
			dst = e.appendField(dst, &e.fields[i])
		}
	}
	if all && e.next == next {
		e.tails[which] = append(e.tails[which], dst[start:]...)
	}
	return dst
}

func (e *headerEncoder) skips(i, which int) bool {
	return e.fields[i].value == "" || i == fieldPriority10 && which == 1 || i == fieldPriority5 && which == 0
}

func (e *headerEncoder) appendField(dst []byte, f *field) []byte {
	if f.entry >= e.first && f.entry != 0 {
		return appendVarInt(dst, hpackIndexed, 7, staticTableLen+e.next-f.entry)
	}
	pattern, bits := byte(hpackNotIndexed), 4
	if f.indexable {
		pattern, bits = hpackIncremental, 6
	}
	dst = appendVarInt(dst, pattern, bits, f.staticName)
	if f.staticName == 0 {
		dst = appendHuffman(dst, f.name)
	}
	dst = appendHuffman(dst, f.value)
	if f.indexable {
		e.insert(f)
	}
	return dst
}

func appendHuffman(dst []byte, s string) []byte {
	dst = appendVarInt(dst, 0x80, 7, hpack.HuffmanEncodeLength(s))
	return hpack.AppendHuffmanString(dst, s)
}

// appendVarInt appends n as an integer with a prefix of some bits (RFC 7541,
// section 5.1); pattern is what the rest of the first byte holds.
func appendVarInt(dst []byte, pattern byte, bits int, n uint64) []byte {
	limit := uint64(1)<<bits - 1
	if n < limit {
		return append(dst, pattern|byte(n))
	}
	dst = append(dst, pattern|byte(limit))
	for n -= limit; n >= 128; n >>= 7 {
		dst = append(dst, byte(n)|128)
	}
	return append(dst, byte(n))
}

const pathPrefix = "/3/device/"

// appendPath appends the value of :path, not Huffman-coded: coding saves a
// fifth of a push on the wire and costs more time than anything else in it.
func appendPath(dst []byte, device DeviceToken) []byte {
	dst = appendVarInt(dst, 0, 7, uint64(len(pathPrefix)+2*len(device.raw)))
	dst = append(dst, pathPrefix...)
	return device.AppendHex(dst)
}
