package ingest

import (
	"errors"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// errWire is what the decoder says about bytes that are not protobuf.
var errWire = errors.New("not protobuf")

// streamRequest is one StreamRequest, decoded into memory that is used again
// for the next one: a batch costs one allocation, whatever its size.
type streamRequest struct {
	limit int // most events of a batch

	err    error // set: the message is malformed, and nothing below counts
	hello  *pb.Hello
	token  *pb.FreshToken
	delay  *pb.SettlementDelay
	batch  bool
	first  uint64
	events []relay.Event
	// traceparent is empty where the agent traces nothing.
	traceparent string
	tooLarge    bool // the batch holds more than limit events; events is cut
}

// Decode implements service.Decoder. A message that is one batch, as all but a few are,
// is read here; the others take protobuf's own decoder, the slow path. Both
// read the same out of any bytes; a fuzz test compares them.
func (r *streamRequest) Decode(data mem.BufferSlice) {
	*r = streamRequest{limit: r.limit, events: r.events[:0]}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool()) // copies nothing that came in one DATA frame
	defer buffer.Free()
	raw := buffer.ReadOnlyData()
	body, ok := onlyBatch(raw)
	if !ok {
		r.err = apart(func() error { return r.decodeSlowly(raw) })
		return
	}
	r.batch = true
	r.err = r.decodeBatch(body, string(body))
}

// onlyBatch returns the batch of a message that consists of one batch.
func onlyBatch(raw []byte) ([]byte, bool) {
	num, typ, n := protowire.ConsumeTag(raw)
	if n < 0 || num != 2 || typ != protowire.BytesType {
		return nil, false
	}
	body, m := protowire.ConsumeBytes(raw[n:])
	return body, m >= 0 && n+m == len(raw)
}

func (r *streamRequest) decodeSlowly(raw []byte) error {
	var m pb.StreamRequest
	if err := proto.Unmarshal(raw, &m); err != nil {
		return err
	}
	r.hello, r.token, r.delay = m.GetHello(), m.GetFreshToken(), m.GetSettlementDelay()
	b := m.GetBatch()
	if b == nil {
		return nil
	}
	r.batch, r.first = true, b.GetFirstSequence()
	r.traceparent = b.GetTraceparent()
	r.events, r.tooLarge = appendEvents(r.events, b.GetEvents(), r.limit)
	return nil
}

// appendEvents turns events from the wire into the relay's, at most limit.
func appendEvents(to []relay.Event, from []*pb.Event, limit int) (_ []relay.Event, tooLarge bool) {
	if len(from) > limit {
		from, tooLarge = from[:limit], true
	}
	for _, e := range from {
		to = append(to, relay.Event{
			Mailbox: e.GetMailbox(), Unread: e.GetUnreadCount(),
			Epoch: e.GetEpoch(), Version: e.GetVersion(),
			ObservedAt: observedAt(e.GetObservedAt()),
		})
	}
	return to, tooLarge
}

// observedAt takes a timestamp; one that is absent or out of range is not said.
func observedAt(t *timestamppb.Timestamp) time.Time {
	if t == nil || !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

// decodeBatch reads a badgerelay.v1.Batch. text has the same bytes: the events'
// mailboxes are parts of it.
func (r *streamRequest) decodeBatch(b []byte, text string) error {
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 {
			return errWire
		}
		b, text = b[n:], text[n:]
		switch {
		case num == 1 && typ == protowire.VarintType:
			r.first, n = protowire.ConsumeVarint(b)
		case num == 2 && typ == protowire.BytesType:
			var body []byte
			body, n = protowire.ConsumeBytes(b)
			if n >= 0 && r.addEvent(body, text[n-len(body):n]) != nil {
				return errWire
			}
		case num == 3 && typ == protowire.BytesType:
			var v []byte
			v, n = protowire.ConsumeBytes(b)
			r.traceparent = string(v) // of any bytes: what is none counts as none
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errWire
		}
		b, text = b[n:], text[n:]
	}
	return nil
}

// addEvent reads one event of the batch; beyond the limit for its form only.
func (r *streamRequest) addEvent(b []byte, text string) error {
	if len(r.events) >= r.limit {
		r.tooLarge = true
		var e relay.Event
		return decodeEvent(b, text, &e)
	}
	r.events = append(r.events, relay.Event{})
	return decodeEvent(b, text, &r.events[len(r.events)-1])
}

// decodeEvent reads a badgerelay.v1.Event into e, whose mailbox is a part of text,
// which has the bytes of b.
func decodeEvent(b []byte, text string, e *relay.Event) error {
	var at timestamppb.Timestamp
	said := false
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 {
			return errWire
		}
		b, text = b[n:], text[n:]
		switch {
		case num == 1 && typ == protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(b); n >= 0 {
				e.Mailbox = text[n-len(v) : n]
			}
		case num >= 2 && num <= 4 && typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			setNumber(e, num, v)
		case num == 5 && typ == protowire.BytesType:
			var v []byte
			v, n = protowire.ConsumeBytes(b)
			said = true
			if n >= 0 && decodeTimestamp(v, &at) != nil {
				return errWire
			}
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errWire
		}
		b, text = b[n:], text[n:]
	}
	if said {
		e.ObservedAt = observedAt(&at)
	}
	return nil
}

// setNumber sets the event's field num; unread_count is cut to 32 bits, as
// protobuf has it.
func setNumber(e *relay.Event, num protowire.Number, v uint64) {
	switch num {
	case 2:
		e.Unread = uint32(v)
	case 3:
		e.Epoch = v
	case 4:
		e.Version = v
	}
}

// decodeTimestamp merges a google.protobuf.Timestamp into t.
func decodeTimestamp(b []byte, t *timestamppb.Timestamp) error {
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if typ == protowire.VarintType && (num == 1 || num == 2) {
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			if num == 1 {
				t.Seconds = int64(v)
			} else {
				t.Nanos = int32(v)
			}
		} else {
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
	}
	return nil
}

// consumeTag is protowire.ConsumeTag with protobuf's upper bound of numbers.
func consumeTag(b []byte) (protowire.Number, protowire.Type, int) {
	num, typ, n := protowire.ConsumeTag(b)
	if num > protowire.MaxValidNumber {
		return 0, 0, -1
	}
	return num, typ, n
}
