package ingest

import (
	"fmt"
	"strings"
	"testing"

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
			r.decode(data)
		}
	})
	b.Run("decoder=protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			*r = streamRequest{limit: r.limit, events: r.events[:0]}
			r.decodeSlowly(raw)
		}
	})
}

// BenchmarkStream sends events to mailboxes without subscriptions, by a client
// in the same process, and reads what became of them. The figure is a message.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{1, 256} {
		b.Run(fmt.Sprintf("events=%d", size), func(b *testing.B) {
			w := newWorld(b)
			a := w.enrol("fabrikam.com", testKey(0)).greet()
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
