package ingest

import (
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

func batchOf(first uint64, events ...*pb.Event) *pb.StreamRequest {
	return &pb.StreamRequest{Message: &pb.StreamRequest_Batch{Batch: &pb.Batch{FirstSequence: first, Events: events}}}
}

func decodeBytes(raw []byte, limit int) *streamRequest {
	r := &streamRequest{limit: limit}
	r.Decode(mem.BufferSlice{mem.SliceBuffer(raw)})
	return r
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestDecodeBatch(t *testing.T) {
	at := time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC)
	raw := marshal(t, batchOf(math.MaxUint64-9,
		&pb.Event{Mailbox: "ann@fabrikam.com", UnreadCount: 7, Epoch: 1, Version: math.MaxUint64, ObservedAt: timestamppb.New(at)},
		&pb.Event{},
		&pb.Event{Mailbox: "\xff\xfe", UnreadCount: math.MaxUint32},
		&pb.Event{Mailbox: "x", ObservedAt: &timestamppb.Timestamp{Seconds: math.MaxInt64}},
	))
	r := decodeBytes(raw, 10)
	want := []relay.Event{
		{Mailbox: "ann@fabrikam.com", Unread: 7, Epoch: 1, Version: math.MaxUint64, ObservedAt: at},
		{},
		{Mailbox: "\xff\xfe", Unread: math.MaxUint32},
		{Mailbox: "x"},
	}
	if r.err != nil || !r.batch || r.first != math.MaxUint64-9 || !slices.Equal(r.events, want) {
		t.Errorf("got %+v, want %+v", r, want)
	}
}

func TestDecodeTakesMemoryAgain(t *testing.T) {
	r := &streamRequest{limit: 10}
	r.Decode(mem.BufferSlice{mem.SliceBuffer(marshal(t, batchOf(1, &pb.Event{Mailbox: "a", UnreadCount: 3, Epoch: 4, ObservedAt: timestamppb.Now()})))})
	kept := r.events[0].Mailbox
	r.Decode(mem.BufferSlice{mem.SliceBuffer(marshal(t, batchOf(2, &pb.Event{Mailbox: "b"})))})
	if want := (relay.Event{Mailbox: "b"}); len(r.events) != 1 || r.events[0] != want {
		t.Errorf("got %+v, want only %+v: nothing of the message before", r.events, want)
	}
	if kept != "a" {
		t.Errorf("a mailbox kept from the message before became %q", kept)
	}
}

func TestDecodeOverLimit(t *testing.T) {
	events := make([]*pb.Event, 11)
	for i := range events {
		events[i] = &pb.Event{Mailbox: "m"}
	}
	for n, want := range map[int]bool{10: false, 11: true} {
		r := decodeBytes(marshal(t, batchOf(1, events[:n]...)), 10)
		if r.tooLarge != want || len(r.events) > 10 {
			t.Errorf("%d events of 10: got tooLarge %v and %d events", n, r.tooLarge, len(r.events))
		}
	}
}

func TestDecodeOtherMessages(t *testing.T) {
	hello := decodeBytes(marshal(t, &pb.StreamRequest{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{Agent: &pb.Agent{Name: "mx1"}}}}), 10)
	if hello.err != nil || hello.batch || hello.hello.GetAgent().GetName() != "mx1" {
		t.Errorf("got %+v, want a hello", hello)
	}
	token := decodeBytes(marshal(t, &pb.StreamRequest{Message: &pb.StreamRequest_FreshToken{FreshToken: &pb.FreshToken{Token: "t"}}}), 10)
	if token.err != nil || token.batch || token.token.GetToken() != "t" {
		t.Errorf("got %+v, want a token", token)
	}
	if none := decodeBytes(nil, 10); none.err != nil || none.batch || none.hello != nil || none.token != nil {
		t.Errorf("got %+v, want nothing", none)
	}
	for _, raw := range [][]byte{{0xff}, {0x12, 0x05, 0x0a}, {0x12, 0x02, 0x12, 0x01}, {0x12, 0x03, 0x12, 0x01, 0xff}, {0x12, 0x01, 0x0c}} {
		if r := decodeBytes(raw, 10); r.err == nil {
			t.Errorf("% x: got %+v, want it malformed", raw, r)
		}
	}
}

// decodings are messages to start fuzzing from.
func decodings(t testing.TB) [][]byte {
	batch := marshal(t, batchOf(3, &pb.Event{Mailbox: "m", UnreadCount: 1, Epoch: 2, Version: 3, ObservedAt: timestamppb.Now()}, &pb.Event{}))
	event := protowire.AppendTag(nil, 5, protowire.BytesType) // a timestamp in two parts is merged
	event = protowire.AppendBytes(event, []byte{0x08, 0x05})
	event = protowire.AppendTag(event, 5, protowire.BytesType)
	event = protowire.AppendBytes(event, []byte{0x10, 0x06})
	event = append(event, 0x0b, 0x0c)       // an empty group 1: unknown
	event = append(event, 0x10, 0x80, 0x00) // a varint longer than it has to be
	body := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), event)
	traced := batchOf(1, &pb.Event{Mailbox: "\xff"})
	traced.GetBatch().Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	untraced := batchOf(1, &pb.Event{Mailbox: "m"})
	untraced.GetBatch().Traceparent = "\xff"
	odd := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), body)
	return [][]byte{
		batch, odd, append(slices.Clone(batch), batch...), nil, {0x12, 0x00}, {0xff},
		marshal(t, traced), marshal(t, untraced),
		append(marshal(t, untraced), 0x78, 0x01), // with an unknown field
		{0x12, 0x06, 0x08, 0xff, 0xff, 0xff, 0xff, 0x0f},
		{0x12, 0x06, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, // a field number beyond protobuf's
		marshal(t, &pb.StreamRequest{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{Agent: &pb.Agent{Name: "n"}}}}),
	}
}

func TestDecodeLikeProtobuf(t *testing.T) {
	for _, raw := range decodings(t) {
		compareDecoders(t, raw)
	}
}

// TestDecodingsHaveEveryField sees to it that the fuzz test starts from every field
// that is read here, whose form it would be long in guessing.
func TestDecodingsHaveEveryField(t *testing.T) {
	seen := map[string]bool{}
	var walk func(m protoreflect.Message)
	walk = func(m protoreflect.Message) {
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			seen[string(f.FullName())] = true
			switch {
			case f.IsList() && f.Message() != nil:
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message())
				}
			case f.Message() != nil:
				walk(v.Message())
			}
			return true
		})
	}
	for _, raw := range decodings(t) {
		var m pb.StreamRequest
		if _, fast := onlyBatch(raw); fast && proto.Unmarshal(raw, &m) == nil {
			walk(m.ProtoReflect())
		}
	}
	for _, m := range []proto.Message{&pb.Batch{}, &pb.Event{}, &timestamppb.Timestamp{}} {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if name := string(fields.Get(i).FullName()); !seen[name] {
				t.Errorf("no message to start from has %s", name)
			}
		}
	}
}

// FuzzDecode compares this package's decoder with protobuf's own.
func FuzzDecode(f *testing.F) {
	for _, raw := range decodings(f) {
		f.Add(raw)
	}
	f.Fuzz(compareDecoders)
}

func compareDecoders(t *testing.T, raw []byte) {
	const limit = 8
	got := decodeBytes(raw, limit)
	want := streamRequest{limit: limit}
	want.err = want.decodeSlowly(raw)
	if (got.err == nil) != (want.err == nil) {
		t.Fatalf("% x: got error %v, protobuf has %v", raw, got.err, want.err)
	}
	if got.err != nil {
		return
	}
	if got.batch != want.batch || got.first != want.first || got.tooLarge != want.tooLarge || got.traceparent != want.traceparent || !slices.Equal(got.events, want.events) {
		t.Fatalf("% x: got %+v, protobuf has %+v", raw, got, want)
	}
}
