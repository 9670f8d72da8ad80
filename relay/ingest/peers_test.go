package ingest

import (
	"context"
	"crypto/rand"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// grapevine is Peers between the worlds of a test.
type grapevine struct {
	deaf atomic.Bool // nothing is told

	mu   sync.Mutex // guards hear
	hear []chan registry.StreamChange
}

func (g *grapevine) StreamChanged(s registry.StreamChange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, inbox := range g.hear {
		if !g.deaf.Load() {
			inbox <- s
		}
	}
}

func (g *grapevine) OnStreamChanged(fn func(registry.StreamChange)) (cancel func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	inbox := make(chan registry.StreamChange, 1000)
	g.hear = append(g.hear, inbox)
	go func() { // ends with cancel
		for s := range inbox {
			fn(s)
		}
	}()
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.hear = slices.DeleteFunc(g.hear, func(c chan registry.StreamChange) bool { return c == inbox })
		close(inbox)
	}
}

// site is a relay of several, with an organization and the mailbox ann.
type site struct {
	*world
	org  *organization
	dead atomic.Bool // its connections carry nothing any more, and nobody is told
}

func newSite(t *testing.T, g *grapevine, adjust ...func(*relay.Config)) *site {
	t.Helper()
	s := &site{}
	s.world = newWorldOf(t, func(c *relay.Config) {
		for _, f := range adjust {
			f(c)
		}
	}, func(c *Config) { c.Peers, c.Instance = g, rand.Text() })
	s.org = s.enrol("fabrikam.com", testKey(0))
	s.org.subscribe("ann", "a")
	return s
}

// open opens a stream of the agent "mx".
func (s *site) open(number uint64) *agent {
	s.t.Helper()
	return s.openOf("mx", "1", number)
}

// openOf opens an agent's stream.
func (s *site) openOf(agentID, instance string, number uint64) *agent {
	s.t.Helper()
	a := s.world.open(s.org.token(time.Hour))
	a.send(&pb.StreamRequest{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{
		Agent: &pb.Agent{Name: "mx1.example.com"}, AgentId: agentID, Instance: instance, Number: number,
	}}})
	return a
}

// wantPushed compares the counts that were pushed.
func (s *site) wantPushed(why string, counts ...uint32) {
	s.t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pushes) != len(counts) {
		s.t.Fatalf("pushed %v, want %v: %s", s.pushes, counts, why)
	}
	for i, p := range s.pushes {
		if p.Badge != counts[i] {
			s.t.Fatalf("pushed %v, want %v: %s", s.pushes, counts, why)
		}
	}
}

// TestAgentMovesToAnotherRelay leaves a count behind at a relay that does not
// know that its agent has gone.
func TestAgentMovesToAnotherRelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := new(grapevine)
		a, b := newSite(t, g), newSite(t, g)
		a.setMute(true) // APNs can't be reached from here
		old := a.open(1)
		if got := old.welcome().GetMaxInFlight().AsDuration(); got != time.Minute {
			t.Errorf("the welcome says %v, want a minute", got)
		}
		others := []*agent{a.openOf("mx2", "1", 1), a.openOf("mx3", "9", 1)}
		for _, other := range others {
			other.welcome()
		}
		old.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1})
		synctest.Wait()

		moved := b.open(2)
		moved.welcome()
		moved.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 2})
		moved.settled(1)
		b.wantPushed("the newer count goes at once", 2)
		old.ends(codes.Aborted, "STREAM_REPLACED")
		a.setMute(false)
		a.wantPushed("the count that was left behind is nobody's")
		if l := a.relay.Ledger(); l.Outcomes[relay.OutcomeAbandoned] != 1 || l.Pending != 0 {
			t.Errorf("ledger %+v, want the count abandoned", l)
		}
		for _, other := range others {
			other.batch(1, &pb.Event{Mailbox: "nobody"})
			other.settled(1)
		}
	})
}

// TestAgentComesBackToTheRelay opens a newer stream at the relay that holds the
// older one: nothing of the older comes after the newer's first word.
func TestAgentComesBackToTheRelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newSite(t, new(grapevine))
		a.setMute(true)
		old := a.open(7)
		old.welcome()
		old.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1})
		synctest.Wait()
		back := a.open(8)
		back.welcome()
		if n := a.relay.Ledger().Pending; n != 0 {
			t.Errorf("%d pending when the newer stream was welcomed, want none", n)
		}
		old.ends(codes.Aborted, "STREAM_REPLACED")
		for number, late := range []*agent{a.open(7), a.open(8)} {
			late.ends(codes.Aborted, "STREAM_REPLACED")
			t.Logf("late hello %d", number)
		}
		back.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 2})
		a.setMute(false)
		back.settled(1)
		a.wantPushed("only the newer", 2)
	})
}

// TestSilentAgentIsGivenUp is the bound for a relay that hears nothing, neither
// from the agent nor from other relays.
func TestSilentAgentIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := new(grapevine)
		g.deaf.Store(true)
		a := newSite(t, g)
		if err := a.conn.Close(); err != nil {
			t.Fatal(err)
		}
		a.conn = a.dial(func(c net.Conn) net.Conn { return &halfOpen{Conn: c, dead: &a.dead, done: make(chan struct{})} })
		a.setMute(true)
		old := a.open(1)
		old.welcome()
		old.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1})
		time.Sleep(time.Hour / 2) // an agent that is there answers when asked
		if n := a.relay.Ledger().Pending; n != 1 {
			t.Fatalf("%d pending of an agent that is there, want 1", n)
		}
		a.dead.Store(true)
		time.Sleep(2*silence + time.Millisecond)
		synctest.Wait()
		if l := a.relay.Ledger(); l.Outcomes[relay.OutcomeAbandoned] != 1 || l.Pending != 0 {
			t.Errorf("ledger %+v, want the count abandoned after %v of silence", l, 2*silence)
		}
		a.setMute(false)
		a.wantPushed("the agent's count is somewhere else's now")
	})
}

// halfOpen is a connection that can die without a word to either end.
type halfOpen struct {
	net.Conn
	dead *atomic.Bool
	once sync.Once
	done chan struct{} // closed by Close
}

func (c *halfOpen) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.dead.Load() {
		<-c.done
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *halfOpen) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *halfOpen) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// TestDrainingRelayKeepsItsStreams has an agent do what a drain notice asks for,
// while the relay that leaves still settles.
func TestDrainingRelayKeepsItsStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := new(grapevine)
		a, b := newSite(t, g), newSite(t, g)
		a.setMute(true)
		old := a.open(1)
		old.welcome()
		old.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1})
		synctest.Wait()
		a.stop()
		old.drain()
		b.open(2).welcome()
		synctest.Wait()
		a.setMute(false)
		old.settled(1)
		a.wantPushed("what was accepted is still delivered", 1)
		old.ends(codes.Unavailable, "DRAINING")
	})
}

func TestHelloFields(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newSite(t, new(grapevine))
		for _, test := range []struct {
			agentID, instance string
			number            uint64
			field             string
		}{
			{"", "1", 1, "agent_id"}, {strings.Repeat("x", 129), "1", 1, "agent_id"},
			{"mail 1", "1", 1, "agent_id"}, {"m\u00e4il", "1", 1, "agent_id"}, {"mail\x7f", "1", 1, "agent_id"},
			{"mail1", "", 1, "instance"}, {"mail1", strings.Repeat("x", 65), 1, "instance"}, {"mail1", "a\tb", 1, "instance"},
			{"mail1", "1", 0, "number"},
		} {
			_, err := a.openOf(test.agentID, test.instance, test.number).stream.Recv()
			wantField(t, err, test.field)
		}
		a.openOf(strings.Repeat("~", 128), strings.Repeat("!", 64), 1).welcome()
	})
}

// TestPublishOfOneOfSeveralRelays does not go on without its caller.
func TestPublishOfOneOfSeveralRelays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newSite(t, new(grapevine))
		r, err := relay.New(relay.Config{Subscriptions: a.registry, Apps: []string{testApp}, Window: -1, MaxInFlight: MaxInFlight})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.Run(ctx) }) // ends with ctx
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		outcomes, err := r.Publish(short, a.org.id, "mx", []relay.Event{{Mailbox: "ann", Unread: 1}})
		if err != nil || outcomes[0].Outcome != relay.OutcomePending {
			t.Errorf("got %v, %v, want it pending", outcomes, err)
		}
		if l := r.Ledger(); l.Outcomes[relay.OutcomeAbandoned] != 1 || l.Pending != 0 {
			t.Errorf("ledger %+v, want the count abandoned", l)
		}
		cancel()
		wg.Wait()
	})
}

// TestStoppedRelaySaysSo has a relay of several find out that its process was
// stopped: here it has not run yet. Every agent hears why its stream ends, those
// with nothing pending too, and is welcome again.
func TestStoppedRelaySaysSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var stopped *relay.Relay
		w := newWorldOf(t, func(*relay.Config) {}, func(c *Config) {
			var err error
			stopped, err = relay.New(relay.Config{
				Subscriptions: c.Registry.(relay.Subscriptions), Apps: []string{testApp}, Window: -1, MaxInFlight: MaxInFlight,
			})
			if err != nil {
				t.Fatal(err)
			}
			c.Relay, c.Peers, c.Instance = stopped, new(grapevine), rand.Text()
		})
		a := &site{world: w, org: w.enrol("fabrikam.com", testKey(0))}
		a.org.subscribe("ann", "a")
		busy, idle := a.openOf("mx", "1", 1), a.openOf("idle", "1", 1)
		busy.welcome()
		idle.welcome()
		busy.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1})
		time.Sleep(MaxInFlight/6 + time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = stopped.Run(ctx) }) // ends with ctx
		busy.ends(codes.Unavailable, "RELAY_STOPPED")
		idle.ends(codes.Unavailable, "RELAY_STOPPED")
		if l := stopped.Ledger(); l.Outcomes[relay.OutcomeAbandoned] != 1 || l.Pending != 0 {
			t.Errorf("ledger %+v, want the count abandoned", l)
		}
		a.openOf("mx", "1", 2).welcome()
		cancel()
		wg.Wait()
	})
}
