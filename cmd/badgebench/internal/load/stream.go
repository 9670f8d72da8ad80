package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	pb "badgerelay/proto/badgerelay/v1"
)

// stream is one mailbox agent with one stream. send runs on one goroutine and
// receive on another.
type stream struct {
	config *Config
	conn   *grpc.ClientConn
	rpc    grpc.BidiStreamingClient[pb.StreamRequest, pb.StreamResponse]
	epoch  time.Time // that times are counted from
	wake   chan struct{}

	// The sender's.
	first    int         // number of its first mailbox
	versions []uint32    // newest of each mailbox; others read it while idle
	at       int         // the mailbox that is next
	events   []*pb.Event // of a batch, each used again
	stride   int
	next     uint64 // sequence number

	mu        sync.Mutex // guards what follows
	pace      *pace      // nil: nothing is to be sent
	idle      bool       // the sender has seen that
	ring      []int64    // when each unsettled event was to be sent, by sequence number
	through   uint64     // everything up to here is settled
	sent      uint64
	unsettled int
	outcomes  [outcomes]uint64
	latency   *hdrhistogram.Histogram // microseconds, of what was delivered
	err       error                   // why the stream ended
}

// pace says how fast to send.
type pace struct {
	rate  float64   // events a second of this agent; 0: as fast as they settle
	start time.Time // with a rate: of the first
	done  uint64    // with a rate: how many were sent; under the agent's mu
	left  int       // how many are still to be sent; under the agent's mu
}

// settled marks an event of the ring that is not unsettled, ended one that
// ended otherwise than delivered.
const (
	settled = 0
	ended   = -1
)

var errContract = errors.New("the relay's message is not what the contract says")

// newStream opens a stream and hears the welcome.
func newStream(ctx context.Context, c *Config, tlsConfig *tls.Config, address string, first, mailboxes int) (*stream, error) {
	a := &stream{
		config: c, epoch: time.Now().Add(-time.Second), wake: make(chan struct{}, 1),
		first: first, versions: make([]uint32, mailboxes), stride: stride(mailboxes), next: 1,
		ring: make([]int64, ringSize(c.Window)), latency: newLatency(),
	}
	for range c.Batch {
		a.events = append(a.events, &pb.Event{})
	}
	var err error
	a.conn, err = grpc.NewClient("dns:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("dial the relay: %w", err)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.Token)
	a.rpc, err = pb.NewRelayServiceClient(a.conn).Stream(ctx)
	if err == nil {
		err = a.handshake(fmt.Sprintf("badgebench-%d", first))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a stream: %w", err), a.conn.Close())
	}
	return a, nil
}

func (a *stream) handshake(id string) error {
	_ = a.rpc.Send(&pb.StreamRequest{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{
		Agent: &pb.Agent{Name: "badgebench"}, AgentId: id, Instance: time.Now().UTC().Format(time.RFC3339Nano), Number: 1,
	}}}) // Recv knows why
	answer, err := a.rpc.Recv()
	if err == nil && answer.GetWelcome() == nil {
		err = errContract
	}
	return err
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

// set changes the pace; nil: nothing is to be sent.
func (a *stream) set(p *pace) {
	a.mu.Lock()
	a.pace = p
	a.mu.Unlock()
	a.signal()
}

func (a *stream) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// fail ends the agent.
func (a *stream) fail(err error) {
	a.mu.Lock()
	if a.err == nil {
		a.err = err
	}
	a.mu.Unlock()
	a.signal()
}
