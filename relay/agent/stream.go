package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/grpc"
)

var (
	errDraining  = &drainError{}
	errGraceOver = errors.New("the relay's grace is over")
	errEnded     = errors.New("relay ended the stream")
	errWelcome   = errors.New("relay sent no welcome in time")
)

// drainError is a relay that said it leaves.
type drainError struct{}

func (*drainError) Error() string { return "relay drains" }

// stream is one open stream to a relay. Its fields belong to the goroutines
// named; what has no name is set by open and only read afterwards.
type stream struct {
	agent    *Agent
	address  string
	instance string
	relay    string // version
	max      int    // events a batch
	opened   time.Time
	// maxSettlementDelay is what the relay takes; 0: none.
	maxSettlementDelay time.Duration
	conn               *grpc.ClientConn
	rpc                grpc.BidiStreamingClient[badgerelayv1.StreamRequest, badgerelayv1.StreamResponse]
	ctx                context.Context // the call's: the sender has nothing else to wait with
	cancel             context.CancelCauseFunc
	inFlight           *inFlight
	// roleUnknown says that the process stood by before this stream, and has not been told
	// whether it still does. The receiver's, once the stream runs.
	roleUnknown bool

	granted  chan time.Time // one slot: receiver tells sender until when the token is good
	draining chan struct{}  // closed by the receiver at the drain notice
	grace    time.Duration  // set before draining is closed
	done     chan struct{}  // closed by run
	err      error          // set before done is closed
	useful   atomic.Bool    // a settlement came

	mu    sync.Mutex // guards token
	token bearer     // the one that the relay judges the stream by
}

// open connects to address and exchanges hello and welcome. A stream that is
// returned with an error says only which token was used.
func (a *Agent) open(ctx context.Context, address string) (*stream, error) {
	s := &stream{
		agent: a, address: address,
		inFlight: &inFlight{bySequence: make(map[uint64]*entry)},
		granted:  make(chan time.Time, 1), draining: make(chan struct{}), done: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	timeout := time.AfterFunc(a.cfg.openTimeout(), func() { s.cancel(errWelcome) })
	defer timeout.Stop()
	if err := s.handshake(); err != nil {
		if errors.Is(context.Cause(s.ctx), errWelcome) {
			err = fmt.Errorf("%w: %w", errWelcome, err)
		}
		s.cancel(err)
		if s.conn != nil {
			_ = s.conn.Close() // what failed is told by err
		}
		return s, err
	}
	return s, nil
}

func (s *stream) handshake() (err error) {
	if s.token, err = s.agent.tokens.get(s.ctx); err != nil {
		return err
	}
	if s.conn, err = s.agent.cfg.dial(s.address, s.agent.tokens); err != nil {
		return fmt.Errorf("relay address %q: %w", s.address, err)
	}
	if s.rpc, err = badgerelayv1.NewRelayServiceClient(s.conn).Stream(s.ctx); err != nil {
		return err
	}
	welcome, err := handshake(s.rpc, s.agent.hello())
	if err != nil {
		return err
	}
	s.opened, s.maxSettlementDelay = time.Now(), welcome.GetMaxSettlementDelay().AsDuration()
	s.inFlight.maxInFlight = welcome.GetMaxInFlight().AsDuration()
	s.agent.set.beginOnce(s.inFlight.maxInFlight, time.Now())
	s.relay, s.instance = welcome.GetRelayVersion(), welcome.GetInstance()
	s.max = s.agent.cfg.batchEvents()
	if n := int(welcome.GetMaxBatchEvents()); n > 0 {
		s.max = min(s.max, n)
	}
	if at := welcome.GetTokenExpiresAt(); at != nil {
		s.granted <- at.AsTime()
	}
	return nil
}

// hello opens the next stream. The number tells relays which of the agent's
// streams is the living one. Only Run's goroutine calls it.
func (a *Agent) hello() *badgerelayv1.Hello {
	a.opened++
	return &badgerelayv1.Hello{Agent: a.cfg.agent(), AgentId: a.cfg.AgentID, Instance: a.instance, Number: a.opened}
}

// agent returns what the agent says about itself.
func (c *Config) agent() *badgerelayv1.Agent {
	return &badgerelayv1.Agent{Name: c.Name, Product: c.Product, ProductVersion: c.ProductVersion}
}

// run sends and receives until the stream ends, and then puts back what has
// not settled on it.
func (s *stream) run() {
	defer close(s.done)
	var sending sync.WaitGroup
	sending.Go(func() { // ends with s.ctx
		if err := s.send(); err != nil {
			s.cancel(err)
		}
	})
	err := s.receive()
	s.cancel(err)
	sending.Wait()
	_ = s.conn.Close() // nothing is left on it
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	s.err = err
	back := s.agent.set.release(s.inFlight, time.Now())
	s.agent.metrics.replayed(back)
	s.agent.log.Debug("stream closed", "address", s.address, "unsettled", back, "error", err)
}

// linger ends a draining stream when its grace is over.
func (s *stream) linger() {
	timer := time.NewTimer(s.grace)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		s.cancel(errGraceOver)
	}
}

func (s *stream) receive() error {
	for {
		message, err := s.rpc.Recv()
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		if err != nil {
			return err
		}
		if err := s.handle(message); err != nil {
			return err
		}
		if s.drained() && s.agent.set.inFlightCount(s.inFlight) == 0 {
			return errDraining // nothing more can come
		}
	}
}

func (s *stream) handle(message *badgerelayv1.StreamResponse) error {
	switch m := message.GetMessage().(type) {
	case *badgerelayv1.StreamResponse_Settlement:
		return s.settle(m.Settlement)
	case *badgerelayv1.StreamResponse_TokenAccepted:
		s.grant(m.TokenAccepted.GetTokenExpiresAt().AsTime())
	case *badgerelayv1.StreamResponse_Drain:
		s.drain(m.Drain.GetGrace().AsDuration())
	case *badgerelayv1.StreamResponse_Standby:
		s.agent.standby(s)
	case *badgerelayv1.StreamResponse_Takeover:
		s.agent.takeOver(s)
	case *badgerelayv1.StreamResponse_Welcome:
		return &protocolError{errors.New("second welcome")}
	}
	return nil // a message this version does not know is not for it
}

func (s *stream) settle(settlement *badgerelayv1.Settlement) error {
	results, ages, err := s.agent.set.settle(s.inFlight, settlement, time.Now())
	if err != nil {
		return &protocolError{err}
	}
	s.useful.Store(true)
	if s.roleUnknown && len(results) > 0 { // the relay takes its counts
		s.agent.isActive(s)
	}
	s.agent.metrics.settled(results, ages)
	if s.agent.cfg.OnOutcome == nil {
		return nil
	}
	for _, r := range results {
		s.agent.cfg.OnOutcome(r)
	}
	return nil
}

// drain stops sending; the relay has said that it leaves.
func (s *stream) drain(grace time.Duration) {
	if s.drained() {
		return
	}
	s.grace = grace
	s.agent.set.close(s.inFlight)
	close(s.draining)
}

func (s *stream) drained() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// grant tells the sender the newest expiry.
func (s *stream) grant(until time.Time) {
	select {
	case <-s.granted: // the receiver is the only one who fills the slot
	default:
	}
	s.granted <- until
}

func (s *stream) bearer() bearer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}
