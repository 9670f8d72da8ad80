package diagnosis

import (
	"slices"
	"strings"
	"testing"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
)

// beside has another agent's stream open at the relay.
func beside(f *Facts, id string) {
	r := f.Report.GetRelays()[0]
	r.Streams = append(r.Streams, &pb.AgentStreamReport{AgentId: id, OpenedAt: ago(time.Hour)})
}

// left has the agent that told the count leave, while others may stay.
func left(f *Facts) {
	r := f.Report.GetRelays()[0]
	r.Streams = slices.DeleteFunc(r.GetStreams(), func(s *pb.AgentStreamReport) bool { return s.GetAgentId() == "mx1" })
	r.LastDeparture = &pb.AgentDeparture{AgentId: "mx1", LeftAt: ago(8 * time.Minute)}
}

// told are facts of a mailbox that agents tell, or don't: the verdict, its notes, a part of
// the sentence and one that it must not have.
type told struct {
	code       Code
	notes      Code
	says, lies string
	facts      func(f *Facts)
}

func wantTold(t *testing.T, all []told) {
	t.Helper()
	for _, one := range all {
		f := well()
		one.facts(f)
		got := Diagnose(f)
		lies := one.lies != "" && strings.Contains(got.Sentence, one.lies)
		if got.Code != one.code || note(got) != one.notes || !strings.Contains(got.Sentence, one.says) || lies {
			t.Errorf("got %s with %q: %q\nwant %s with %q: %q, and not %q", got.Code, got.Notes, got.Sentence, one.code, one.notes, one.says, one.lies)
		}
	}
}

// TestTheAgentThatTells has the count be told by one agent, and asks beside another, beside
// a process that stands by, and beside one that can't be asked.
func TestTheAgentThatTells(t *testing.T) {
	const noMailbox = "no configured mail server has it"
	wantTold(t, []told{
		{CountDiffers, "", "The mail server counts 8, and the active process of this agent has told the relay 3, since 14:02:00Z: run 'badgeagent explain' on its machine", "", func(f *Facts) {
			withAgent(f, 8).Standby = true
		}},
		{Right, "", "The badge is right: 3", "", func(f *Facts) { withAgent(f, 3).Standby = true }},
		{StaleCount, "", "Another agent, mx2, has told the relay 3, and the mail server of this one counts 8", "", func(f *Facts) {
			withAgent(f, 8).Standby = true
			beside(f, "mx2")
			f.Report.Relays[0].Count.AgentId = "mx2"
		}},

		{Right, AgentLeft, "The agent that told the count, mx1, left 8 min ago. Connected instead: mx2;", "", func(f *Facts) { beside(f, "mx2"); left(f) }},
		{Right, AgentLeft, "The agent that told the count, mx1, is not connected. Connected instead: mx2 and mx3;", "", func(f *Facts) {
			beside(f, "mx2")
			beside(f, "mx3")
			left(f)
			f.Report.Relays[0].LastDeparture.AgentId = "mx9"
		}},
		{Right, AgentLeft, "is not connected at a relay that answers. Connected instead: mx2;", "", func(f *Facts) {
			beside(f, "mx2")
			left(f)
			f.Report.Relays[0].LastDeparture = nil
			f.Report.Relays = append(f.Report.Relays, &pb.RelayReport{Name: "r2", Error: "gone"})
		}},
		{Right, "", "The badge is right: 3", "", func(f *Facts) { // this agent has the mailbox, too
			withAgent(f, 3).AgentID = "mx2"
			beside(f, "mx2")
			left(f)
		}},
		{Right, "", "3 on its device", "", func(f *Facts) { f.Report.Relays[0].Count.AgentId = "" }}, // published
		{Right, "agent_left agent_not_asked", "so what the mail server counts is not known", "", func(f *Facts) {
			beside(f, "mx2")
			left(f)
			f.AgentError = "it does not run"
		}},

		{AgentNotConnected, "", "has no stream to a relay since 13:30:00Z: the limit of 1 max_streams is reached.", "hangs", func(f *Facts) {
			a := withAgent(f, 8)
			a.AgentID, a.Connected, a.Failure, a.Unsettled = "mx2", false, "the limit of 1 max_streams is reached", badge(8)
		}},
		{Right, AgentNotConnected, "The badge is right: 3", "", func(f *Facts) {
			a := withAgent(f, 3)
			a.Connected, a.Failure = false, "no route"
		}},
		{AgentNotConnected, "", "has no stream to a relay yet: it is starting.", "", func(f *Facts) {
			a := withAgent(f, 8)
			a.Connected, a.Since = false, time.Time{}
		}},
		{AgentNotConnected, "", "no route", "hangs", func(f *Facts) { // although counts come by Publish
			alone(f).LastDeparture = nil
			a := withAgent(f, 8)
			a.Connected, a.Failure, a.Unsettled = false, "no route", badge(8)
		}},

		{Right, AgentNotAsked, "The agent on this machine could not be asked (it did not answer within 10s), so what the mail server counts is not known.", "", func(f *Facts) {
			f.AgentError = "it did not answer within 10s"
		}},
		{NoCount, AgentNotAsked, "could not be asked", "", func(f *Facts) { f.Report.Relays[0].Count, f.AgentError = nil, "it hangs" }},

		{Right, CountFailed, "The agent here, mx2, does not count this mailbox (" + noMailbox + "); mx1 tells its count", "The mail server does not tell", func(f *Facts) {
			a := withAgent(f, 0)
			a.AgentID, a.Counted, a.CountError = "mx2", nil, noMailbox
			beside(f, "mx2")
		}},
		{Right, CountFailed, "mx1 tells its count", "", func(f *Facts) { // it is not this one that has to be connected
			a := withAgent(f, 0)
			a.AgentID, a.Counted, a.CountError, a.Connected = "mx2", nil, noMailbox, false
		}},
		{CountFailed, AgentLeft, "The agent that told the count, mx1, left 8 min ago", "", func(f *Facts) {
			a := withAgent(f, 0)
			a.AgentID, a.Counted, a.CountError = "mx2", nil, noMailbox
			beside(f, "mx2")
			left(f)
		}},
	})
}

// TestWhyNoAgentIsThere has the relay refuse agents: what is to be done follows from the
// reason that they were told.
func TestWhyNoAgentIsThere(t *testing.T) {
	const start = "starts it"
	told := func(reason string) func(*Facts) {
		return func(f *Facts) {
			untold(f).LastDeparture.Reason = reason
			f.Operator = true
		}
	}
	refused := func(reason string) func(*Facts) {
		return func(f *Facts) {
			r := untold(f)
			r.LastDeparture, r.LastRefusal = nil, &pb.AgentDeparture{AgentId: "mx1", LeftAt: ago(8 * time.Second), Reason: reason}
			f.Operator = true
		}
	}
	for _, one := range []struct {
		says, lies string
		facts      func(f *Facts)
	}{
		{start, "", told("")},
		{"'badgerelay credential add'", start, told("CREDENTIAL_REVOKED")},
		{"It comes back by itself within a minute, if it runs", start, told("ORGANIZATION_DISABLED")},
		{"'badgerelay credential list'", start, told("TOKEN_EXPIRED")},
		{"mx1 was refused 8 s ago, told PRODUCT_TOO_OLD. The organization updates it, or products in the relay's configuration asks for less", start, refused("PRODUCT_TOO_OLD")},
		{"'badgerelay organization update --max-streams'", start, refused("LIMIT_REACHED")},
		{"If it runs, it may still use the credential that ended 6 min ago", "", func(f *Facts) {
			untold(f).LastDeparture = nil
			f.Report.Credentials.LastEndedAt = ago(6 * time.Minute)
			f.Operator = true
		}},
		{"mx1 was refused 8 s ago", "", func(f *Facts) { // later than another left
			refused("LIMIT_REACHED")(f)
			f.Report.Relays[0].LastDeparture = &pb.AgentDeparture{AgentId: "mx2", LeftAt: ago(time.Hour)}
		}},
	} {
		f := well()
		one.facts(f)
		got := Diagnose(f)
		if got.Code != NoAgent || !strings.Contains(got.Sentence, one.says) || one.lies != "" && strings.Contains(got.Sentence, one.lies) {
			t.Errorf("got %s: %q\nwant %s: %q, and not %q", got.Code, got.Sentence, NoAgent, one.says, one.lies)
		}
	}
}
