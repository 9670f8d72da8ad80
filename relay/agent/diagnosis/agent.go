package diagnosis

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/daemon"
)

// absentAgent says why no agent tells newer counts; nil: one may, or counts come without
// a stream. The agent that was asked has to have one itself, if it tells the count.
func absentAgent(f *Facts) *Verdict {
	active, standby := f.streams()
	unconnected := f.Agent != nil && !f.Agent.Connected && !f.toldByOther()
	switch {
	case len(active)+len(standby) > 0 && unconnected:
		return f.notConnected()
	case len(active)+len(standby) > 0, !unconnected && published(f):
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
	case unconnected:
		return f.notConnected()
	case len(silent) > 0:
		return verdict(RelaySilent, "No agent is connected for %s at a relay that answers; %s may have it: %s.%s", organization, relayName(silent[0]), silent[0].GetError(), f.askSilent())
	}
	seen, reason := f.lastSeen()
	return verdict(NoAgent, "No agent is connected for %s: %s.%s", organization, seen, f.comeBack(reason))
}

// notConnected: the agent on this machine runs and has no stream.
func (f *Facts) notConnected() *Verdict {
	since, why := "yet", cmp.Or(strings.TrimSuffix(f.Agent.Failure, "."), "it is starting")
	if !f.Agent.Since.IsZero() {
		since = "since " + f.clockAt(f.Agent.Since)
	}
	return verdict(AgentNotConnected, "The agent runs and has no stream to a relay %s: %s. 'badgeagent probe' says at which stage it fails; the agent goes on trying.", since, why)
}

// toldByOther reports whether the mailbox is on no mail server of the agent that was
// asked, and another agent, which is connected, tells its count.
func (f *Facts) toldByOther() bool {
	count, _ := f.newest()
	active, _ := f.streams()
	teller := count.GetAgentId()
	return f.Agent.CountError != "" && teller != f.Agent.AgentID &&
		slices.ContainsFunc(active, func(s stream) bool { return s.GetAgentId() == teller })
}

// lastSeen says when an agent was there, or tried to be, and the reason that it was told
// for its end; empty: none.
func (f *Facts) lastSeen() (seen, reason string) {
	left, refused := f.lastEnd((*pb.RelayReport).GetLastDeparture), f.lastEnd((*pb.RelayReport).GetLastRefusal)
	switch {
	case refused != nil && (left == nil || refused.GetLeftAt().AsTime().After(left.GetLeftAt().AsTime())):
		return fmt.Sprintf("%s was refused %s, told %s", cmp.Or(refused.GetAgentId(), "one"), f.since(refused.GetLeftAt()), refused.GetReason()), refused.GetReason()
	case left == nil && f.started().IsZero():
		return "none is known", ""
	case left == nil:
		return fmt.Sprintf("none has been since the relay started, %s ago", f.sinceStart()), ""
	}
	seen = fmt.Sprintf("the last one, %s, left %s", cmp.Or(left.GetAgentId(), "which has not said its id"), f.since(left.GetLeftAt()))
	if left.GetReason() != "" {
		seen += ", told " + left.GetReason()
	}
	return seen, left.GetReason()
}

// comeBack has an agent come, so that later counts do. reason is what the last one was
// told.
func (f *Facts) comeBack(reason string) string {
	switch reason {
	case "CREDENTIAL_REVOKED", "TOKEN_KEY_UNKNOWN", "TOKEN_SIGNATURE":
		return f.step("It comes by itself when the certificate that it signs with is registered, with 'badgerelay credential add'.",
			"It comes by itself when the relay's operator has registered its certificate, with 'badgerelay credential add'.")
	case "TOKEN_EXPIRED", "TOKEN_NOT_YET_VALID":
		return f.step("Its credential has ended or not begun ('badgerelay credential list'), or its machine's clock is wrong.",
			"Its certificate's registration has ended or not begun, or its machine's clock is wrong: the relay's operator sees the first with 'badgerelay credential list'.")
	case "PRODUCT_TOO_OLD":
		return f.step("The organization updates it, or products in the relay's configuration asks for less.",
			"Update it, or have the relay's operator look at products in the relay's configuration.")
	case "ORGANIZATION_DISABLED", "DRAINING":
		return f.step("It comes back by itself within a minute, if it runs; 'badgeagent probe' says on the organization's side what hinders it.",
			"It comes back by itself within a minute, if it runs; 'badgeagent probe' says what hinders it.")
	case "LIMIT_REACHED":
		return f.step("See 'badgerelay organization update --max-streams', and limits in the relay's configuration; where a stream ended by it, relay.max_mailboxes.",
			"End the streams that it does not need, or have the relay's operator raise the limit: of streams, or, where a stream ended by it, of mailboxes.")
	}
	return f.startAgent() + f.otherCredential()
}

// startAgent has an agent started, so that later counts come.
func (f *Facts) startAgent() string {
	return f.step("No later count comes until the organization's administrator starts it, with 'systemctl start badgeagent' or 'badgeagent serve'; 'badgeagent probe' says there what hinders it.",
		"No later count comes until you start it, with 'systemctl start badgeagent' or 'badgeagent serve', or publish one; 'badgeagent probe' says what hinders it.")
}

// otherCredential says that the agent may be refused although a credential counts.
func (f *Facts) otherCredential() string {
	ended := f.Report.GetCredentials().GetLastEndedAt()
	if ended == nil {
		return ""
	}
	return fmt.Sprintf(" If it runs, it may still use the credential that ended %s, and be refused.", f.since(ended))
}

// published reports whether counts come by calls of Publish, without a stream.
func published(f *Facts) bool {
	count, _ := f.newest()
	if count == nil || count.GetReceivedAt() == nil {
		return false
	}
	left := f.lastEnd((*pb.RelayReport).GetLastDeparture)
	return left == nil || received(count).After(left.GetLeftAt().AsTime())
}

// countStands reports whether a relay has a count of which nobody knows a newer one.
func (f *Facts) countStands() bool {
	count, _ := f.newest()
	if count == nil {
		return false
	}
	a := f.Agent
	return a == nil || a.Unsettled == nil && !differs(a, count)
}

// differs reports whether the mail server counts otherwise than the relay has it.
func differs(a *daemon.MailboxReport, count *pb.CountReport) bool {
	return count != nil && a.Counted != nil && *a.Counted != count.GetUnreadCount()
}

// mailServerTrouble: the agent can't tell the count, or the relay has another one.
func mailServerTrouble(f *Facts) *Verdict {
	a := f.Agent
	if a == nil || f.toldByOther() {
		return nil
	}
	count, _ := f.newest()
	switch {
	case a.CountError != "" && a.Counts:
		return verdict(CountFailed, "The mail server does not tell the count of this mailbox: %s. See the agent's settings of that server, or the server itself.", strings.TrimSuffix(a.CountError, "."))
	case a.Standby:
		return f.standbyDiffers(a, count)
	case a.Connected && !a.Informed:
		return verdict(NotInformed, "The relay has not told the agent which mailboxes have a device: the agent's log says why its watch ended.")
	case a.Connected && !a.Subscribed:
		return verdict(NotInformed, "The agent has not heard that the mailbox has a device; wait some seconds, or see its log.")
	case a.Stale:
		return verdict(StaleCount, "Another agent%s tells newer versions of this mailbox's count, so this one's are refused as stale: one mailbox wants one agent, or one agent_id.", otherAgent(count, a.AgentID))
	case differs(a, count) && otherAgent(count, a.AgentID) != "":
		return toldOtherwise(a, count)
	case a.Unsettled != nil && (count == nil || count.GetUnreadCount() != *a.Unsettled):
		return verdict(NotAcknowledged, "The agent has sent %d, and the relay has not taken it: its stream or the network hangs, since %s; a dead connection is found and replaced within 20 s.", *a.Unsettled, f.clockAt(a.SentAt))
	case a.Unsettled != nil && !count.GetPending() && f.Now.Sub(a.SentAt) > settling:
		return verdict(NotAcknowledged, "The relay is done with %d, and the agent has not heard of it: the stream from the relay hangs; a dead connection is found and replaced within 20 s.", *a.Unsettled)
	case differs(a, count):
		return verdict(CountDiffers, "The mail server counts %d, and what the relay has is %d, since %s: the agent has not heard of a change; it counts anew within 6 hours, or at once when it is restarted.", *a.Counted, count.GetUnreadCount(), f.receivedAt(count))
	}
	return nil
}

// settling is how long after a count was sent it may settle between the agent's answer and
// the relay's, which is asked after it. Ours: longer than the relay's usual window and a push.
const settling = 3 * time.Second

// standbyDiffers: the process that was asked stands by for the one that tells counts.
func (f *Facts) standbyDiffers(a *daemon.MailboxReport, count *pb.CountReport) *Verdict {
	switch {
	case !differs(a, count):
		return nil
	case otherAgent(count, a.AgentID) != "":
		return toldOtherwise(a, count)
	}
	return verdict(CountDiffers, "The mail server counts %d, and the active process of this agent has told the relay %d, since %s: run 'badgeagent explain' on its machine, which says what it has heard of.",
		*a.Counted, count.GetUnreadCount(), f.receivedAt(count))
}

func toldOtherwise(a *daemon.MailboxReport, count *pb.CountReport) *Verdict {
	return verdict(StaleCount, "Another agent, %s, has told the relay %d, and the mail server of this one counts %d: one mailbox wants one agent, or one agent_id.",
		count.GetAgentId(), count.GetUnreadCount(), *a.Counted)
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
		return verdict(NoCount, "No agent has told a count of this mailbox since the relay started, %s ago; the devices show what they showed before.%s", f.sinceStart(), f.haveCounted())
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

// tellerLeft notes that the agent which told the count is not connected, while others
// are. That the mail server was asked, and counts the same, is enough.
func tellerLeft(f *Facts) *Verdict {
	count, _ := f.newest()
	id := count.GetAgentId()
	active, standby := f.streams()
	var others []string
	for _, s := range append(active, standby...) {
		if s.GetAgentId() == id {
			return nil
		}
		others = append(others, s.GetAgentId())
	}
	if id == "" || len(others) == 0 || f.Agent != nil && f.Agent.Counted != nil && !differs(f.Agent, count) {
		return nil
	}
	gone := "is not connected"
	if left := f.lastEnd((*pb.RelayReport).GetLastDeparture); left.GetAgentId() == id {
		gone = "left " + f.since(left.GetLeftAt())
	}
	if _, silent := f.answered(); len(silent) > 0 {
		gone = "is not connected at a relay that answers"
	}
	slices.Sort(others)
	others = slices.Compact(others)
	return verdict(AgentLeft, "The agent that told the count, %s, %s. Connected instead: %s; no later count comes unless the mailbox is on a mail server of theirs, too.%s", id, gone, both(others),
		f.step("The organization's administrator starts it on its machine, with 'systemctl start badgeagent'.", "Start it on its machine, with 'systemctl start badgeagent'."))
}

// notAsked notes that the agent on this machine could not be asked.
func notAsked(f *Facts) *Verdict {
	if absent := absentAgent(f); f.AgentError == "" || absent != nil && absent.Code == AgentNotRunning {
		return nil // or it is said
	}
	return verdict(AgentNotAsked, "The agent on this machine could not be asked (%s), so what the mail server counts is not known.", strings.TrimSuffix(f.AgentError, "."))
}

// notCounted notes that the agent on this machine is not the one that tells the count.
func notCounted(f *Facts) *Verdict {
	if f.Agent == nil || !f.toldByOther() {
		return nil
	}
	count, _ := f.newest()
	return verdict(CountFailed, "The agent here, %s, does not count this mailbox (%s); %s tells its count: 'badgeagent explain' on its machine asks its mail server.",
		f.Agent.AgentID, strings.TrimSuffix(f.Agent.CountError, "."), count.GetAgentId())
}
