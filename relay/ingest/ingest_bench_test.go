package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
)

func BenchmarkDecode(b *testing.B) {
	events := make([]*pb.Event, 256)
	for i := range events {
		events[i] = &pb.Event{Mailbox: strings.Repeat("m", 24), UnreadCount: uint32(i), Epoch: 1 << 30, Version: 1 << 20, ObservedAt: timestamppb.Now()}
	}
	raw := marshal(b, batchOf(1<<20, events...))
	data := mem.BufferSlice{mem.SliceBuffer(raw)}
	r := &streamRequest{limit: maxBatchEvents}
	b.Run("decoder=ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Decode(data)
		}
	})
	b.Run("decoder=protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			*r = streamRequest{limit: r.limit, events: r.events[:0]}
			r.err = r.decodeSlowly(raw)
		}
	})
}

// BenchmarkStream sends events to mailboxes without subscriptions, by a client
// in the same process, and reads what became of them. The figure is a message.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{1, 256} {
		b.Run(fmt.Sprintf("events=%d", size), func(b *testing.B) {
			w := newWorld(b)
			a := w.enrol("fabrikam.com", testKey(0)).connect()
			events := make([]*pb.Event, size)
			for i := range events {
				events[i] = &pb.Event{Mailbox: fmt.Sprintf("user%06d@fabrikam.com", i), UnreadCount: uint32(i), Epoch: 1, Version: 1}
			}
			go func() {
				for {
					if _, err := a.stream.Recv(); err != nil {
						return
					}
				}
			}()
			next := uint64(1)
			b.ReportAllocs()
			for b.Loop() {
				a.batch(next, events...)
				next += uint64(size)
			}
		})
	}
}

// BenchmarkTransport is what it costs to follow a write of gRPC's: 32 answers
// to unary calls, of three frames each. The figure is a write.
func BenchmarkTransport(b *testing.B) {
	c := &transportConn{Conn: sink{}}
	wire := answers(b, 32)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Write(wire) // a sink takes everything
	}
}

// answers are what gRPC writes to answer unary calls.
func answers(t testing.TB, n int) []byte {
	t.Helper()
	var wire bytes.Buffer
	f := http2.NewFramer(&wire, nil)
	for id := uint32(1); n > 0; n, id = n-1, id+2 {
		if err := errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, 14), EndHeaders: true}),
			f.WriteData(id, false, make([]byte, 20)),
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, 4), EndHeaders: true, EndStream: true}),
		); err != nil {
			t.Fatal(err)
		}
	}
	return wire.Bytes()
}

func TestFollowingAllocatesNothing(t *testing.T) {
	c, wire := &transportConn{Conn: sink{}}, answers(t, 32)
	if n := testing.AllocsPerRun(100, func() { _, _ = c.Write(wire) }); n != 0 {
		t.Errorf("%v allocations a write, want none", n)
	}
}
