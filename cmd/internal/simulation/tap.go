package simulation

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "badgerelay/proto/badgerelay/v1"
)

// tap listens to the streams of an agent's process: every event is settled once at
// most, none that was not sent, and none as shown that no device has shown; and no
// count is sent while an older one of its mailbox is unsettled on another stream.
type tap struct {
	world *world
	host  *agentHost

	mu   sync.Mutex // guards what follows; held before a stream's
	open map[*tappedStream]struct{}
}

func newTap(w *world, h *agentHost) *tap {
	return &tap{world: w, host: h, open: map[*tappedStream]struct{}{}}
}

func (t *tap) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil || !strings.HasSuffix(method, "/Stream") {
		return s, err
	}
	tapped := &tappedStream{ClientStream: s, tap: t, pending: map[uint64]*sentEvent{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[tapped] = struct{}{}
	return tapped, nil
}

// elsewhere reports whether a count of the mailbox is unsettled on another stream.
func (t *tap) elsewhere(s *tappedStream, m *mailbox) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for other := range t.open {
		if other != s && other.holds(m) {
			return true
		}
	}
	return false
}

// sentEvent is an event that has not settled.
type sentEvent struct {
	mailbox *mailbox
	number  uint64 // of the version; 0: it says that none is unread
	unread  uint32
	at      time.Time
}

type tappedStream struct {
	grpc.ClientStream
	tap *tap

	mu      sync.Mutex // guards what follows
	pending map[uint64]*sentEvent
	last    uint64 // the highest sequence sent
	through uint64 // everything up to here has settled
}

// holds reports whether a count of the mailbox is unsettled on the stream.
func (s *tappedStream) holds(m *mailbox) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.pending {
		if e.mailbox == m {
			return true
		}
	}
	return false
}

// SendMsg implements grpc.ClientStream.
func (s *tappedStream) SendMsg(m any) error {
	if batch := m.(*pb.StreamRequest).GetBatch(); batch != nil {
		for _, e := range batch.GetEvents() {
			if s.tap.elsewhere(s, s.tap.world.mailboxNamed(s.tap.host.organization, e.GetMailbox())) {
				s.tap.world.problem("agent %d sends a count of %s while an older one is unsettled on the stream that it leaves", s.tap.host.number, e.GetMailbox())
			}
		}
		s.mu.Lock()
		for i, e := range batch.GetEvents() {
			sequence := batch.GetFirstSequence() + uint64(i)
			if sequence != s.last+1 {
				s.tap.world.problem("agent %d sends event %d after %d", s.tap.host.number, sequence, s.last)
			}
			s.last = sequence
			s.pending[sequence] = &sentEvent{
				mailbox: s.tap.world.mailboxNamed(s.tap.host.organization, e.GetMailbox()),
				number:  uint64(e.GetUnreadCount() / spread), unread: e.GetUnreadCount(), at: time.Now(),
			}
		}
		s.mu.Unlock()
		s.tap.world.countEvents(len(batch.GetEvents()))
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg implements grpc.ClientStream.
func (s *tappedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.tap.mu.Lock()
		defer s.tap.mu.Unlock()
		delete(s.tap.open, s)
		return err
	}
	if settlement := m.(*pb.StreamResponse).GetSettlement(); settlement != nil {
		s.settle(settlement)
	}
	return nil
}

func (s *tappedStream) settle(settlement *pb.Settlement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	outcomes := map[uint64]pb.Outcome{}
	for _, o := range settlement.GetOutcomes() {
		outcomes[o.GetSequence()] = o.GetOutcome()
	}
	w := s.tap.world
	end := func(sequence uint64) {
		e := s.pending[sequence]
		if e == nil {
			w.problem("agent %d: event %d settled twice, or was never sent", s.tap.host.number, sequence)
			return
		}
		delete(s.pending, sequence)
		outcome, told := outcomes[sequence]
		if !told {
			outcome = pb.Outcome_OUTCOME_DELIVERED
		}
		delete(outcomes, sequence)
		w.trace.add("agent %d: version %d of %s is %v", s.tap.host.number, e.number, e.mailbox.name, outcome)
		w.settled(e, outcome)
	}
	if through := settlement.GetThrough(); through > s.through {
		for sequence := s.through + 1; sequence <= through; sequence++ {
			if s.pending[sequence] != nil {
				end(sequence)
			} else if sequence > s.last {
				w.problem("agent %d: settled through %d, sent %d", s.tap.host.number, through, s.last)
				break
			}
		}
		s.through = through
	}
	for _, r := range settlement.GetRanges() {
		for sequence := r.GetFirst(); sequence <= r.GetLast(); sequence++ {
			end(sequence)
		}
	}
	for sequence, outcome := range outcomes {
		w.problem("agent %d: outcome %v of event %d, which this settlement does not settle", s.tap.host.number, outcome, sequence)
	}
}
