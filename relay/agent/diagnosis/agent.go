package diagnosis

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "badgerelay/proto/badgerelay/v1"
)

// absentAgent says why no agent has a stream; nil: one has, or counts come without.
func absentAgent(f *Facts) *Verdict {
	active, standby := f.streams()
	if len(active)+len(standby) > 0 || published(f) {
		return nil
	}
	organization := f.Report.GetOrganization()
	answered, silent := f.answered()
	switch {
	case len(answered) > 0 && !slices.ContainsFunc(answered, func(one *pb.RelayReport) bool { return !one.GetDraining() }):
		return verdict(RelayDraining, "The relay%s is leaving and takes no more counts, and the agent has found no other.%s", plural(len(answered)),
			f.step("Start a relay, with 'badgerelay serve'; agents come by themselves.", "Its operator starts it again; the agent comes by itself."))
	case f.AgentError != "":
		return verdict(AgentNotRunning, "No agent is connected for %s, and none answers on this machine: %s.%s", organization, strings.TrimSuffix(f.AgentError, "."), f.startAgent())
	case f.Agent != nil && !f.Agent.Connected && f.Agent.Failure != "":
		return verdict(AgentNotConnected, "The agent runs and has no stream to a relay since %s: %s. 'badgeagent probe' says at which stage it fails; the agent goes on trying.",
			f.clockAt(f.Agent.Since), strings.TrimSuffix(f.Agent.Failure, "."))
	case len(silent) > 0:
		return verdict(RelaySilent, "No agent is connected for %s at a relay that answers; %s may have it: %s.%s", organization, relayName(silent[0]), silent[0].GetError(), f.askSilent())
	}
	return verdict(NoAgent, "No agent is connected for %s: %s.%s", organization, f.lastSeen(), f.startAgent())
}

// lastSeen says when an agent was there.
func (f *Facts) lastSeen() string {
	left := f.departure()
	switch {
	case left == nil && f.started().IsZero():
		return "none is known"
	case left == nil:
		return fmt.Sprintf("none has been since the relay started, %s ago", span(f.Now.Sub(f.started())))
	}
	why := ""
	if left.GetReason() != "" {
		why = ", told " + left.GetReason()
	}
	return fmt.Sprintf("the last one, %s, left %s ago%s", cmp.Or(left.GetAgentId(), "which has not said its id"), span(f.Now.Sub(left.GetLeftAt().AsTime())), why)
}

// startAgent has an agent started, so that later counts come.
func (f *Facts) startAgent() string {
	return f.step("No later count comes until the organization's administrator starts it, with 'systemctl start badgeagent' or 'badgeagent serve'; 'badgeagent probe' says there what hinders it.",
		"No later count comes until you start it, with 'systemctl start badgeagent' or 'badgeagent serve', or publish one; 'badgeagent probe' says what hinders it.")
}

// published reports whether counts come by calls of Publish, without a stream.
func published(f *Facts) bool {
	count, _ := f.newest()
	if count == nil || count.GetReceivedAt() == nil {
		return false
	}
	left := f.departure()
	return left == nil || received(count).After(left.GetLeftAt().AsTime())
}

// mailServerTrouble: the agent can't tell the count, or the relay has another one.
func mailServerTrouble(f *Facts) *Verdict {
	a := f.Agent
	if a == nil {
		return nil
	}
	count, _ := f.newest()
	switch {
	case a.CountError != "" && a.Counts:
		return verdict(CountFailed, "The mail server does not tell the count of this mailbox: %s. See the agent's settings of that server, or the server itself.", strings.TrimSuffix(a.CountError, "."))
	case a.Standby:
		return nil // another process tells counts
	case a.Connected && !a.Informed:
		return verdict(NotInformed, "The relay has not told the agent which mailboxes have a device: the agent's log says why its watch ended.")
	case a.Connected && !a.Subscribed:
		return verdict(NotInformed, "The agent has not heard that the mailbox has a device; wait some seconds, or see its log.")
	case a.Stale:
		return verdict(StaleCount, "Another agent%s tells newer versions of this mailbox's count, so this one's are refused as stale: one mailbox wants one agent, or one agent_id.", otherAgent(count, a.AgentID))
	case count != nil && a.Counted != nil && *a.Counted != count.GetUnreadCount() && count.GetAgentId() != "" && count.GetAgentId() != a.AgentID:
		return verdict(StaleCount, "Another agent, %s, has told the relay %d, and the mail server of this one counts %d: one mailbox wants one agent, or one agent_id.",
			count.GetAgentId(), count.GetUnreadCount(), *a.Counted)
	case a.Unsettled != nil && (count == nil || count.GetUnreadCount() != *a.Unsettled):
		return verdict(NotAcknowledged, "The agent has sent %d, and the relay has not taken it: its stream or the network hangs, since %s; a dead connection is found and replaced within 20 s.", *a.Unsettled, f.clockAt(a.SentAt))
	case a.Unsettled != nil && !count.GetPending():
		return verdict(NotAcknowledged, "The relay is done with %d, and the agent has not heard of it: the stream from the relay hangs; a dead connection is found and replaced within 20 s.", *a.Unsettled)
	case count != nil && a.Counted != nil && *a.Counted != count.GetUnreadCount():
		return verdict(CountDiffers, "The mail server counts %d, and what the relay has is %d, since %s: the agent has not heard of a change; it counts anew within 6 hours, or at once when it is restarted.", *a.Counted, count.GetUnreadCount(), f.receivedAt(count))
	}
	return nil
}

func otherAgent(count *pb.CountReport, own string) string {
	if id := count.GetAgentId(); id != "" && id != own {
		return ", " + id + ","
	}
	return ""
}

// countTrouble: the relay has no count, or it is on its way.
func countTrouble(f *Facts) *Verdict {
	count, _ := f.newest()
	switch {
	case count == nil && !f.started().IsZero():
		return verdict(NoCount, "No agent has told a count of this mailbox since the relay started, %s ago; the devices show what they showed before.%s", span(f.Now.Sub(f.started())), f.haveCounted())
	case count == nil:
		return verdict(NoCount, "No agent has told a count of this mailbox.%s", f.haveCounted())
	case count.GetPending() && count.GetWait() == pb.Wait_WAIT_SUBSCRIPTIONS:
		return verdict(WaitingForRegistry, "%d waits since %s for the registry to say who is subscribed.", count.GetUnreadCount(), f.receivedAt(count))
	}
	return nil
}

// haveCounted has the agent asked why it told nothing.
func (f *Facts) haveCounted() string {
	switch {
	case f.Operator:
		return " 'badgeagent explain' on the organization's side says what its mail server counts."
	case f.Agent != nil && !f.Agent.Counts:
		return " The mail server tells the agent with the mailbox's next change."
	}
	return " The agent counts a mailbox when a device comes to it: its log says what hinders it."
}

// countStands reports whether a relay has a count of which nobody knows a newer one.
func (f *Facts) countStands() bool {
	count, _ := f.newest()
	if count == nil {
		return false
	}
	a := f.Agent
	return a == nil || a.Unsettled == nil && (a.Counted == nil || *a.Counted == count.GetUnreadCount())
}
