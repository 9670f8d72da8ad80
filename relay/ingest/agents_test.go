package ingest

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// wantRole expects the agent to be told that it stands by, or takes over.
func (a *agent) wantRole(standby bool, why string) {
	a.t.Helper()
	m := a.receive()
	if standby && m.GetStandby() == nil || !standby && m.GetTakeover() == nil {
		a.t.Fatalf("got %v, want standby %v: %s", m, standby, why)
	}
}

// wantOutcome waits for an outcome of an event, and passes over others.
func (a *agent) wantOutcome(sequence uint64, want pb.Outcome) {
	a.t.Helper()
	for {
		for _, o := range a.receive().GetSettlement().GetOutcomes() {
			if o.GetSequence() != sequence {
				continue
			}
			if o.GetOutcome() != want {
				a.t.Fatalf("event %d ended as %v, want %v", sequence, o, want)
			}
			return
		}
	}
}

// sets sends ann's count and expects how it ends.
func (a *agent) sets(sequence uint64, unread uint32, want pb.Outcome) {
	a.t.Helper()
	a.batch(sequence, &pb.Event{Mailbox: "ann", UnreadCount: unread})
	outcome := pb.Outcome_OUTCOME_DELIVERED
	if o, told := a.settled(sequence)[sequence]; told {
		outcome = o.GetOutcome()
	}
	if outcome != want {
		a.t.Fatalf("event %d ended as %v, want %v", sequence, outcome, want)
	}
}

const (
	delivered = pb.Outcome_OUTCOME_DELIVERED
	turnedOff = pb.Outcome_OUTCOME_STANDBY
)

// TestNewerProcessTakesOver has two processes of an agent at one relay.
func TestNewerProcessTakesOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newSite(t, new(grapevine))
		first := a.openOf("mx", "1", 1)
		first.welcome()
		first.sets(1, 1, delivered)
		a.setMute(true)
		first.batch(2, &pb.Event{Mailbox: "ann", UnreadCount: 2})
		synctest.Wait()

		second := a.openOf("mx", "2", 1)
		second.welcome()
		first.wantRole(true, "a newer process came")
		first.batch(3, &pb.Event{Mailbox: "ann", UnreadCount: 3})
		first.wantOutcome(3, turnedOff)
		if l := a.relay.Ledger(); l.Pending != 1 || l.Outcomes[relay.OutcomeStandby] != 1 {
			t.Errorf("ledger %+v: what was accepted before goes on, what came after was not taken", l)
		}
		second.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 4})
		first.wantOutcome(2, pb.Outcome_OUTCOME_SUPERSEDED)
		a.setMute(false)
		second.settled(1)
		a.wantPushed("the newer process's count", 1, 4)

		third := a.openOf("mx", "0", 9)
		third.welcome()
		third.wantRole(true, "a newer process is there")
		second.cancel()
		first.wantRole(false, "the newest that is left")
		first.sets(4, 5, delivered)
		third.sets(1, 6, turnedOff)
		first.cancel()
		third.wantRole(false, "the last one")
		third.sets(2, 7, delivered)
		a.wantPushed("each of the active one", 1, 4, 5, 7)
	})
}

// TestTakeoverTrustsNothingShown pushes what a device shows already, if another
// relay may have had something else shown before this stream was active.
func TestTakeoverTrustsNothingShown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newSite(t, new(grapevine), func(c *relay.Config) { c.MaxInFlight = MaxInFlight })
		first := a.openOf("mx", "1", 1)
		first.welcome()
		second := a.openOf("mx", "2", 1)
		second.welcome()
		first.wantRole(true, "a newer process came")
		time.Sleep(2 * MaxInFlight)
		second.sets(1, 5, delivered)
		second.sets(2, 5, pb.Outcome_OUTCOME_UNCHANGED)
		second.cancel()
		first.wantRole(false, "the newer process is gone")
		first.sets(1, 5, delivered)
		a.wantPushed("nobody knows where the other process was", 5, 5)
	})
}

// TestProcessesAtTwoRelays starts a newer process at another relay.
func TestProcessesAtTwoRelays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := new(grapevine)
		a, b := newSite(t, g), newSite(t, g)
		a.setMute(true)
		first, idle := a.openOf("mx", "1", 1), a.openOf("idle", "1", 1)
		first.welcome()
		idle.welcome()
		first.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1})
		synctest.Wait()

		second := b.openOf("mx", "2", 1)
		second.welcome()
		second.sets(1, 2, delivered)
		b.wantPushed("the newer process's count", 2)
		synctest.Wait()
		if l := a.relay.Ledger(); l.Outcomes[relay.OutcomeAbandoned] != 1 || l.Pending != 0 {
			t.Errorf("ledger %+v, want the older process's count abandoned", l)
		}
		b.openOf("idle", "2", 1).welcome()
		idle.wantRole(true, "what has nothing pending stands by where it is")

		a.setMute(false)
		back := a.openOf("mx", "1", 2)
		back.welcome()
		back.wantRole(true, "this relay has heard of the newer process")
		back.sets(1, 1, turnedOff)
		time.Sleep(20 * time.Minute)
		second.sets(2, 3, delivered)
		second.cancel()
		back.wantRole(false, "the other relay has said that the newer process is gone")
		back.sets(2, 4, delivered)
		a.wantPushed("nothing of the time when another was active", 4)
	})
}

// TestStandbyKeepsItsStream has a relay hear of a newer process while a stream that
// stands by has not been told yet what became of its event: nothing of it is pending.
func TestStandbyKeepsItsStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := new(grapevine)
		a, b := newSite(t, g), newSite(t, g)
		b.openOf("mx", "2", 1).welcome()
		first := a.openOf("mx", "1", 1)
		first.welcome()
		first.wantRole(true, "a newer process is at the other relay")
		first.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1})
		synctest.Wait() // it has ended, and is told a moment later
		b.openOf("mx", "3", 1).welcome()
		first.wantOutcome(1, turnedOff)
		first.sets(2, 2, turnedOff)
		a.wantPushed("nothing")
	})
}

// TestRelayThatHasNotHeard is a relay that was started after the agent's newer
// process had opened its stream at another one.
func TestRelayThatHasNotHeard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := new(grapevine)
		a := newSite(t, g)
		second := a.openOf("mx", "2", 1)
		second.welcome()
		synctest.Wait()
		b := newSite(t, g)
		first := b.openOf("mx", "1", 5)
		first.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 1}) // it does not wait to be welcomed
		first.welcome()
		first.wantRole(true, "the other relay has spoken up")
		if o := first.settled(1)[1]; o.GetOutcome() != turnedOff {
			t.Errorf("the event ended as %v, want it turned off", o)
		}
		b.wantPushed("nothing")
		second.sets(1, 2, delivered)
	})
}

// TestRelayThatDoesNotAnswer lets the process at another relay take over when the
// one that has the newer process is silent, and stand by again when it is back.
func TestRelayThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := new(grapevine)
		a, b := newSite(t, g), newSite(t, g)
		second := a.openOf("mx", "2", 1)
		second.welcome()
		synctest.Wait()
		first := b.openOf("mx", "1", 1)
		first.welcome()
		first.wantRole(true, "a newer process is at the other relay")
		time.Sleep(20 * time.Minute)
		if b.agents(t).active != nil {
			t.Fatal("it took over from a relay that answers")
		}
		g.deaf.Store(true)
		silent := time.Now()
		first.wantRole(false, "nobody answers")
		if got := time.Since(silent); got < silenceOfPeer-askInterval || got > silenceOfPeer+askInterval {
			t.Errorf("it took over after %v of silence, want about %v", got, silenceOfPeer)
		}
		first.sets(1, 1, delivered)
		second.sets(1, 2, delivered) // the price of a partition
		g.deaf.Store(false)
		first.wantRole(true, "the other relay has spoken up again")
		second.sets(2, 3, delivered)
	})
}

// agents returns what the site's relay knows of the agent "mx".
func (s *site) agents(t *testing.T) *agentStreams {
	t.Helper()
	synctest.Wait()
	known := s.server.agents
	known.mu.Lock()
	defer known.mu.Unlock()
	a := known.known[agentKey{s.org.id, "mx"}]
	if a == nil {
		t.Fatal("the relay knows nothing of the agent")
	}
	return a
}

// TestAgentsAreForgotten leaves nothing behind of streams that are gone, wherever
// they were.
func TestAgentsAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := new(grapevine)
		a, b := newSite(t, g), newSite(t, g)
		for i, instance := range []string{"1", "2", "1"} {
			st := []*site{a, b, b}[i].openOf("mx", instance, uint64(i+1))
			st.welcome()
			defer st.cancel()
		}
		a.openOf("mx", "", 1).ends(codes.InvalidArgument, "FIELD_INVALID")
		for _, s := range []*site{a, b} {
			s.stop()
			<-s.stopped
			if n := len(s.server.agents.known); s == b && n > 0 {
				t.Errorf("%d agents are known when the last stream is gone, want none", n)
			}
		}
	})
}
