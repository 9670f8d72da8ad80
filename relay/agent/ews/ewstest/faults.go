package ewstest

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// Faults are what the server does wrong from now on.
type Faults struct {
	// OmitUnreadCount leaves the count out of events, as the schema allows.
	OmitUnreadCount bool
	// Cut writes streams in pieces of so many bytes. 0: an envelope at once.
	Cut int
	// Declare puts an XML declaration before each envelope of a stream.
	Declare bool
	// Mute holds back whatever streams say, as a load balancer that buffers does.
	Mute bool
	// LoseAffinity routes so many of the next requests to another back end.
	LoseAffinity int
	// Busy is told to so many requests.
	Busy []Busy
}

// Busy refuses one request with ErrorServerBusy.
type Busy struct {
	// BackOff is the time that it names. 0: none.
	BackOff time.Duration
	// Status is HTTP's: 500, 503 or 200.
	Status int
	// Mailbox is who is charged. Empty: everybody.
	Mailbox string
}

// Misbehave sets what the server does wrong.
func (s *Server) Misbehave(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// takeBusy returns the refusal for a call, once; nil: there is none.
func (f *Faults) takeBusy(c *call) *Busy {
	for n, b := range f.Busy {
		if b.Mailbox == "" || strings.EqualFold(b.Mailbox, c.identity) {
			f.Busy = append(f.Busy[:n:n], f.Busy[n+1:]...)
			if b.Status == 0 {
				b.Status = http.StatusInternalServerError
			}
			return &b
		}
	}
	return nil
}

func (b *Busy) key(c *call) string {
	if b.Mailbox == "" {
		return ""
	}
	return c.identity
}

// CloseStreams ends every stream: in order, or by cutting the connection.
func (s *Server) CloseStreams(inOrder bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		select {
		case st.end <- inOrder:
		default:
		}
	}
}

// StallStreams makes every stream that is open now silent: it stays open, and
// what happens is lost.
func (s *Server) StallStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		st.stalled = true
	}
}

// PageInStreams has a proxy's page come in every stream, before the next
// envelope.
func (s *Server) PageInStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		st.page = true
		notify(st.wake)
	}
}

// LoseSubscription ends a mailbox's subscriptions: the stream that told of it
// says so, and silences the others.
func (s *Server) LoseSubscription(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose(s.find(address))
}

// Refuse has nobody act for a mailbox, or everybody again.
func (s *Server) Refuse(address string, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.find(address).refused = refused
}

// Hang has requests for a mailbox wait, until it is called with false.
func (s *Server) Hang(address string, hang bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(address)
	if m.hanging != nil {
		close(m.hanging)
		m.hanging = nil
	}
	if hang {
		m.hanging = make(chan struct{})
	}
}

// Unrest misbehaves until ctx is done, at times and in ways that the seed says:
// it closes, cuts and stalls streams, loses subscriptions and affinity, moves
// mailboxes, is busy, and puts pages into streams. Stalls are few: a client
// finds one after 90 seconds of silence, so each is followed by a cut within
// stall.
func (s *Server) Unrest(ctx context.Context, seed uint64, every, stall time.Duration) {
	random := rand.New(rand.NewPCG(seed, 0))
	addresses := s.config.Mailboxes
	for {
		select {
		case <-time.After(every/2 + rand1(random, every)):
		case <-ctx.Done():
			return
		}
		address := addresses[random.IntN(len(addresses))]
		switch random.IntN(8) {
		case 0:
			s.CloseStreams(true)
		case 1:
			s.CloseStreams(false)
		case 2:
			s.StallStreams()
			select {
			case <-time.After(rand1(random, stall)):
			case <-ctx.Done():
			}
			s.CloseStreams(false)
		case 3:
			s.LoseSubscription(address)
		case 4:
			s.mu.Lock()
			s.faults.LoseAffinity = 1 + random.IntN(3)
			s.mu.Unlock()
		case 5:
			s.MoveMailbox(address)
		case 6:
			s.mu.Lock()
			s.faults.Busy = append(s.faults.Busy, Busy{BackOff: 50 * time.Millisecond, Status: []int{200, 500, 503}[random.IntN(3)], Mailbox: address})
			s.mu.Unlock()
		case 7:
			s.PageInStreams()
		}
		s.mu.Lock()
		s.faults.OmitUnreadCount, s.faults.Declare = random.IntN(3) == 0, random.IntN(2) == 0
		s.faults.Cut = []int{0, 1, 7, 100}[random.IntN(4)]
		s.mu.Unlock()
	}
}

func rand1(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
