package ingest

import (
	"context"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
)

// rawCodec sends *[]byte as it is; what it receives is dropped.
type rawCodec struct{}

func (rawCodec) Name() string { return proto.Name }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if raw, ok := v.(*[]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(*raw)}, nil
	}
	return encoding.GetCodecV2(proto.Name).Marshal(v)
}

func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

// callRaw calls any method with bytes as its one message and returns how it
// ended.
func (w *world) callRaw(ctx context.Context, method string, raw []byte) error {
	w.t.Helper()
	stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	_ = stream.SendMsg(&raw) // how it ended shows when receiving
	_ = stream.CloseSend()
	for {
		var answer []byte
		if err := stream.RecvMsg(&answer); err != nil {
			return err
		}
	}
}

func allMethods() []string {
	return service.MethodNames(&pb.RelayService_ServiceDesc, &pb.SubscriptionService_ServiceDesc)
}

func TestMalformedMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		ctx := w.enrol("fabrikam.com", testKey(0)).ctx()
		for _, method := range allMethods() {
			for _, raw := range [][]byte{{0xff}, {0x0a, 0x05, 0x01}, {0x0c}} {
				err := w.callRaw(ctx, method, raw)
				if status.Code(err) != codes.InvalidArgument || reasonOf(err) != "MESSAGE_MALFORMED" {
					t.Errorf("%s of % x: got %v, want it malformed", method, raw, err)
				}
			}
		}
	})
}

func TestNoToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.enrol("fabrikam.com", testKey(0)).ctx()
		md, _ := metadata.FromOutgoingContext(token)
		bearer := md.Get("authorization")[0]
		for _, method := range allMethods() {
			wantRefusal(t, w.callRaw(t.Context(), method, nil), codes.Unauthenticated, "TOKEN_MISSING")
			basic := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic eDp5")
			wantRefusal(t, w.callRaw(basic, method, nil), codes.Unauthenticated, "TOKEN_MISSING")
			twice := metadata.AppendToOutgoingContext(t.Context(), "authorization", bearer, "authorization", bearer)
			wantRefusal(t, w.callRaw(twice, method, nil), codes.Unauthenticated, "TOKEN_MALFORMED")
		}
	})
}

// TestAdminIsNotWithTheAgents asks the agents' door for the operators' service.
func TestAdminIsNotWithTheAgents(t *testing.T) {
	w := newWorld(t)
	ctx := w.enrol("fabrikam.com", testKey(0)).ctx()
	for _, method := range service.MethodNames(&pb.AdminService_ServiceDesc) {
		if err := w.callRaw(ctx, method, nil); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: got %v, want that there is none", method, err)
		}
	}
}

func TestMessageBeyondTheSize(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		ctx := w.enrol("fabrikam.com", testKey(0)).ctx()
		for _, method := range allMethods() {
			if err := w.callRaw(ctx, method, make([]byte, service.MaxMessageSize+1)); status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%s: got %v, want it refused for its size", method, err)
			}
		}
	})
}

// TestLargestBatchFits sends the largest batch that the contract allows.
func TestLargestBatchFits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.enrol("fabrikam.com", testKey(0)).connect()
		a.batch(1<<62, largestBatch()...)
		a.settled(1<<62 + maxBatchEvents - 1)
	})
}

// FuzzIngest sends arbitrary bytes as a message of a stream, after a hello and
// without one. Whatever they are, the stream ends with a refusal that has a
// reason, or well, and the relay has lost count of nothing.
func FuzzIngest(f *testing.F) {
	for _, raw := range decodings(f) {
		f.Add(raw, true)
		f.Add(raw, false)
	}
	w := newWorld(f, func(c *Config) { c.MaxBatchEvents = 8 })
	o := w.enrol("fabrikam.com", testKey(0))
	o.subscribe("m", "a")
	ctx := o.ctx()
	hello := marshal(f, helloOf(&pb.Agent{Name: "fuzz"}))
	f.Fuzz(func(t *testing.T, raw []byte, greet bool) {
		stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			pb.RelayService_Stream_FullMethodName, grpc.ForceCodecV2(rawCodec{}))
		if err != nil {
			t.Fatal(err)
		}
		if greet {
			_ = stream.SendMsg(&hello)
		}
		_ = stream.SendMsg(&raw)
		_ = stream.CloseSend()
		for err == nil {
			err = stream.RecvMsg(&raw)
		}
		switch status.Code(err) {
		case codes.InvalidArgument, codes.FailedPrecondition, codes.Unauthenticated, codes.ResourceExhausted:
			if reasonOf(err) == "" && len(raw) <= service.MaxMessageSize {
				t.Errorf("% x: got %v, a refusal without a reason", raw, err)
			}
		case codes.OK, codes.Unknown: // Unknown is how io.EOF reads
		default:
			t.Errorf("% x: got %v", raw, err)
		}
		l := w.relay.Ledger()
		sum := l.Pending
		for _, n := range l.Outcomes {
			sum += n
		}
		if sum != l.Accepted {
			t.Errorf("the ledger does not balance: %+v", l)
		}
	})
}

func largestBatch() []*pb.Event {
	events := make([]*pb.Event, maxBatchEvents)
	for i := range events {
		events[i] = &pb.Event{
			Mailbox: strings.Repeat("x", 256), UnreadCount: math.MaxUint32, Epoch: math.MaxUint64, Version: math.MaxUint64,
			ObservedAt: &timestamppb.Timestamp{Seconds: -62135596800, Nanos: 999_999_999},
		}
	}
	return events
}
