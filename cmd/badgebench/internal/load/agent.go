package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "badgerelay/proto/badgerelay/v1"
)

// agent is one mailbox agent with one stream. send runs on one goroutine and
// receive on another.
type agent struct {
	config *Config
	conn   *grpc.ClientConn
	rpc    grpc.ClientStream
	epoch  time.Time // that times are counted from
	wake   chan struct{}

	// The sender's.
	first    int      // number of its first mailbox
	versions []uint32 // newest of each mailbox; others read it while idle
	at       int      // the mailbox that is next
	stride   int
	next     uint64 // sequence number

	mu        sync.Mutex // guards what follows
	pace      *pace      // nil: nothing is to be sent
	idle      bool       // the sender has seen that
	ring      []int64    // when each unsettled event was to be sent, by sequence number
	through   uint64     // everything up to here is settled
	sent      uint64
	unsettled int
	outcomes  [Outcomes]uint64
	latency   *hdrhistogram.Histogram // microseconds, of what was delivered
	err       error                   // why the stream ended
}

// pace says how fast to send.
type pace struct {
	rate  float64       // events a second of this agent; 0: as fast as they settle
	every time.Duration // with a rate: the least time between two batches
	start time.Time     // with a rate: of the first
	done  uint64        // with a rate: how many were sent; under the agent's mu
	left  int           // how many are still to be sent; under the agent's mu
}

// settled marks an event of the ring that is not unsettled, ended one that
// ended otherwise than delivered.
const (
	settled = 0
	ended   = -1
)

// newAgent opens a stream and hears the welcome.
func newAgent(ctx context.Context, c *Config, tlsConfig *tls.Config, address string, first, mailboxes int) (*agent, error) {
	a := &agent{
		config: c, epoch: time.Now().Add(-time.Second), wake: make(chan struct{}, 1),
		first: first, versions: make([]uint32, mailboxes), stride: stride(mailboxes), next: 1,
		ring: make([]int64, ringSize(c.Window)), latency: NewLatency(),
	}
	var err error
	a.conn, err = grpc.NewClient("dns:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("dial the relay: %w", err)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.Token)
	a.rpc, err = a.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, pb.RelayService_Stream_FullMethodName)
	if err == nil {
		err = a.handshake(fmt.Sprintf("badgebench-%d", first))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a stream: %w", err), a.conn.Close())
	}
	return a, nil
}

func (a *agent) handshake(id string) error {
	hello, err := proto.Marshal(&pb.StreamRequest{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{
		Agent: &pb.Agent{Name: "badgebench"}, AgentId: id, Instance: time.Now().UTC().Format(time.RFC3339Nano), Number: 1,
	}}})
	if err != nil {
		return err
	}
	if err := a.rpc.SendMsg(&frame{mem.SliceBuffer(hello)}); err != nil && !errors.Is(err, io.EOF) { // io.EOF: receive knows why
		return err
	}
	var f frame
	if err := a.rpc.RecvMsg(&f); err != nil {
		return err
	}
	defer f.b.Free()
	var s settlement
	if err := s.decode(f.b.ReadOnlyData()); err != nil || !s.welcome {
		return errors.Join(errWire, err)
	}
	return nil
}

// stride returns a step that meets each of n mailboxes once before it meets
// one again, far from the order in which they were registered.
func stride(n int) int {
	s := max(1, n*618/1000)
	for gcd(s, n) != 1 {
		s++
	}
	return s
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// ringSize leaves room for one event that is late while others settle.
func ringSize(window int) int {
	size := 1 << 16
	for size < 16*window {
		size *= 2
	}
	return size
}

// NewLatency counts from a microsecond to ten minutes, to one in a thousand.
func NewLatency() *hdrhistogram.Histogram { return hdrhistogram.New(1, 600_000_000, 3) }

// set changes the pace; nil: nothing is to be sent.
func (a *agent) set(p *pace) {
	a.mu.Lock()
	a.pace = p
	a.mu.Unlock()
	a.signal()
}

func (a *agent) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// fail ends the agent.
func (a *agent) fail(err error) {
	a.mu.Lock()
	if a.err == nil {
		a.err = err
	}
	a.mu.Unlock()
	a.signal()
}
