package load

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"badgerelay/cmd/internal/rig/names"
)

// frame is a message of the stream, encoded.
type frame struct{ b mem.Buffer }

// codec passes frames as they are. It implements encoding.CodecV2.
type codec struct{}

// Name implements encoding.CodecV2: what is in the frames is protobuf.
func (codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2. It takes the frame's buffer over.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("%T is not a frame", v)
	}
	return mem.BufferSlice{f.b}, nil
}

// Unmarshal implements encoding.CodecV2. The frame's buffer is the caller's to
// free.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("%T is not a frame", v)
	}
	f.b = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return nil
}

// Field numbers of badgerelay.v1, relay.proto.
const (
	requestBatch = 2 // StreamRequest

	batchFirst, batchEvents = 1, 2

	eventMailbox, eventUnread, eventEpoch, eventVersion = 1, 2, 3, 4

	responseWelcome, responseSettlement, responseDrain = 1, 2, 4 // StreamResponse

	settlementThrough, settlementRanges, settlementOutcomes = 1, 2, 3

	rangeFirst, rangeLast = 1, 2

	outcomeSequence, outcomeOutcome = 1, 2
)

// appendEvent appends an event as a field of a Batch. The mailbox's name must
// be shorter than 100 bytes, so that every length takes one byte.
func appendEvent(b []byte, mailbox int, version uint32) []byte {
	b = append(b, batchEvents<<3|byte(protowire.BytesType), 0)
	start := len(b)
	b = append(b, eventMailbox<<3|byte(protowire.BytesType), 0)
	b = names.AppendMailbox(b, mailbox)
	b[start+1] = byte(len(b) - start - 2)
	b = append(b, eventUnread<<3)
	b = protowire.AppendVarint(b, uint64(names.Unread(mailbox, version)))
	b = append(b, eventEpoch<<3, 1, eventVersion<<3)
	b = protowire.AppendVarint(b, uint64(version))
	b[start-1] = byte(len(b) - start)
	return b
}

// eventRoom is more than an event takes, headRoom more than what goes before
// the events.
const (
	eventRoom = 128
	headRoom  = 32
)

// sealBatch makes a StreamRequest of the events at b[headRoom:] and returns
// where it begins.
func sealBatch(b []byte, first uint64) (start int) {
	var scratch [headRoom]byte
	head := append(scratch[:0], batchFirst<<3)
	head = protowire.AppendVarint(head, first)
	size := uint64(len(head) + len(b) - headRoom)
	var outer [headRoom]byte
	whole := append(outer[:0], requestBatch<<3|byte(protowire.BytesType))
	whole = append(protowire.AppendVarint(whole, size), head...)
	start = headRoom - len(whole)
	copy(b[start:], whole)
	return start
}

// settlement is what a StreamResponse says, decoded into memory that is used
// again.
type settlement struct {
	drain    bool
	welcome  bool
	through  uint64
	ranges   []span
	outcomes []outcome
}

type span struct{ first, last uint64 }

type outcome struct{ sequence, outcome uint64 }

var errWire = errors.New("the relay's message is not what the contract says")

func (s *settlement) decode(b []byte) error {
	*s = settlement{ranges: s.ranges[:0], outcomes: s.outcomes[:0]}
	return fields(b, func(num protowire.Number, v uint64, body []byte) error {
		switch num {
		case responseWelcome:
			s.welcome = true
		case responseDrain:
			s.drain = true
		case responseSettlement:
			return s.decodeSettlement(body)
		}
		return nil
	})
}

func (s *settlement) decodeSettlement(b []byte) error {
	return fields(b, func(num protowire.Number, v uint64, body []byte) error {
		switch num {
		case settlementThrough:
			s.through = v
		case settlementRanges:
			first, last, err := pair(body, rangeFirst, rangeLast)
			s.ranges = append(s.ranges, span{first, last})
			return err
		case settlementOutcomes:
			sequence, ended, err := pair(body, outcomeSequence, outcomeOutcome)
			s.outcomes = append(s.outcomes, outcome{sequence, ended})
			return err
		}
		return nil
	})
}

// pair reads two numbers of a message.
func pair(b []byte, one, two protowire.Number) (first, second uint64, err error) {
	err = fields(b, func(num protowire.Number, v uint64, _ []byte) error {
		switch num {
		case one:
			first = v
		case two:
			second = v
		}
		return nil
	})
	return first, second, err
}

// fields calls f with each field of a message: v of a number, body of the rest.
func fields(b []byte, f func(num protowire.Number, v uint64, body []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		var v uint64
		var body []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			body, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errWire
		}
		if err := f(num, v, body); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
