package diagnosis

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "badgerelay/proto/badgerelay/v1"
)

// Code names a verdict. It is stable: programs may compare it.
type Code string

// The codes, in the order in which they are looked for: what is nearest to the
// beginning of the way comes first.
const (
	RelayUnreachable      Code = "relay_unreachable"     // the agent's machine reaches no relay
	RelayRefuses          Code = "relay_refuses"         // the relay refuses the agent's token
	OrganizationDisabled  Code = "organization_disabled" //
	RegistryUnavailable   Code = "registry_unavailable"  // the relay's database does not answer, and what it knows is waited for
	SpelledOtherwise      Code = "spelled_otherwise"     // devices are on a mailbox whose name differs in case
	DeviceRemoved         Code = "device_removed"        // the last device was removed, by APNs or its lifetime
	NoSubscription        Code = "no_subscription"       // nobody is subscribed to the mailbox
	AppUnknown            Code = "app_unknown"           // a device's app is not configured
	NoCredential          Code = "no_credential"         // no certificate is registered
	CredentialExpired     Code = "credential_expired"    // none counts any more
	CredentialNotYetValid Code = "credential_not_yet"    // none counts yet
	RelayDraining         Code = "relay_draining"        // the relay is leaving
	AgentNotRunning       Code = "agent_not_running"     // on the machine where it is asked for
	AgentNotConnected     Code = "agent_not_connected"   // it runs, and has no stream
	NoAgent               Code = "no_agent"              // no agent of the organization has a stream
	AgentStandby          Code = "agent_standby"         // all that have one stand by
	RelaySilent           Code = "relay_silent"          // a relay that may know more did not answer
	RelaysApart           Code = "relays_apart"          // two relays don't hear each other
	CountFailed           Code = "count_failed"          // the mail server does not tell the count
	NotInformed           Code = "not_informed"          // the agent does not know that the mailbox has a device
	StaleCount            Code = "stale_count"           // another agent tells newer counts
	NotAcknowledged       Code = "not_acknowledged"      // the agent's count has not arrived, or its settlement not
	CountDiffers          Code = "count_differs"         // the mail server counts otherwise than the relay has it
	NoCount               Code = "no_count"              // no agent has told one
	AppRefused            Code = "app_refused"           // APNs refuses the app's credential or topic
	AppMisconfigured      Code = "app_misconfigured"     // APNs refuses nearly every device of the app
	APNsUnreachable       Code = "apns_unreachable"      // no connection to APNs
	APNsOutage            Code = "apns_outage"           // the breaker is open
	DeviceRefused         Code = "device_refused"        // APNs refuses the device: environment or topic
	DeviceGone            Code = "device_gone"           // APNs says that the app was removed, before the last registration
	DevicePaused          Code = "device_paused"         // APNs asked for a pause
	CountBlocked          Code = "count_blocked"         // APNs answered with a server error
	DeviceOfAnother       Code = "device_of_another"     // the app shows no sum across organizations, and another one has the device
	PartMissing           Code = "part_missing"          // a device shows a sum, and a part was never reported
	WaitingForWindow      Code = "waiting_for_window"    // the coalescing window
	WaitingForStream      Code = "waiting_for_stream"    // APNs grants no more pushes at once
	WaitingForAnswer      Code = "waiting_for_answer"    // a push is in flight
	WaitingForSum         Code = "waiting_for_sum"       // the sum is being stored or pushed by another relay, or waits for a part
	WaitingForRegistry    Code = "waiting_for_registry"  // the subscriptions are being read
	NotShown              Code = "not_shown"             // the count has settled, and APNs has not accepted it for the device
	Right                 Code = "right"                 // APNs accepted the newest count for every device
)

// Verdict says where a mailbox's badge hangs.
type Verdict struct {
	Code Code `json:"code"`
	// Sentence is for people: where it hangs, and who does what about it. It may hold
	// text from outside, and is to be escaped.
	Sentence string `json:"sentence"`
	// Note is the code of what the sentence adds to the verdict: why no agent is
	// there to tell newer counts. Empty: nothing.
	Note Code `json:"note,omitempty"`
}

func verdict(c Code, format string, args ...any) *Verdict {
	return &Verdict{Code: c, Sentence: fmt.Sprintf(format, args...)}
}

// Diagnose returns the verdict on the facts: the first trouble on the way from the
// organization to its devices, or that there is none. That no agent is there is the
// verdict only while the newest count may not be known; where the badge follows from
// the last count it is a note. Diagnose is a function of f alone.
func Diagnose(f *Facts) Verdict {
	for _, look := range []func(*Facts) *Verdict{
		relayTrouble, organizationTrouble, subscriptionTrouble, agentTrouble,
	} {
		if v := look(f); v != nil {
			return *v
		}
	}
	absent := absentAgent(f)
	v := f.badgeVerdict(absent)
	if absent != nil && absent.Code != v.Code {
		v.Sentence += " " + absent.Sentence
		v.Note = absent.Code
	}
	return *v
}

// badgeVerdict is the verdict on the badge itself. absent says why no agent is there;
// nil: one is, or counts come without a stream.
func (f *Facts) badgeVerdict(absent *Verdict) *Verdict {
	if f.allHeld() {
		return deviceTrouble(f)
	}
	if absent != nil && !f.countStands() {
		return absent
	}
	for _, look := range []func(*Facts) *Verdict{mailServerTrouble, countTrouble, deviceTrouble, silentTrouble} {
		if v := look(f); v != nil {
			return v
		}
	}
	return allRight(f)
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

// relayTrouble: the agent's side could not ask a relay.
func relayTrouble(f *Facts) *Verdict {
	if f.Report != nil {
		return nil
	}
	switch f.RelayReason {
	case "ORGANIZATION_DISABLED":
		return verdict(OrganizationDisabled, "The relay's operator has disabled the organization: no count is taken. The operator enables it with 'badgerelay organization enable'.")
	case "TOKEN_EXPIRED", "TOKEN_NOT_YET_VALID":
		return verdict(CredentialExpired, "The relay refuses the organization's token: its certificate's registration has ended or has not begun, or this machine's clock is wrong (%s). Set the clock, or have the relay's operator look with 'badgerelay credential list'.", f.RelayReason)
	case "TOKEN_KEY_UNKNOWN", "TOKEN_SIGNATURE", "CREDENTIAL_REVOKED":
		return verdict(NoCredential, "The relay does not know the organization's certificate: have its operator register it with 'badgerelay credential add' (%s).", f.RelayReason)
	case "":
		return verdict(RelayUnreachable, "No relay can be asked from here: %s. 'badgeagent probe' says at which stage it fails.", strings.TrimSuffix(f.RelayError, "."))
	}
	return verdict(RelayRefuses, "The relay refuses to say (%s): %s. 'badgeagent probe' says whether it refuses the rest as well.", f.RelayReason, strings.TrimSuffix(f.RelayError, "."))
}

// organizationTrouble: nothing of the organization is accepted.
func organizationTrouble(f *Facts) *Verdict {
	if f.Report.GetOrganizationDisabled() {
		return verdict(OrganizationDisabled, "%s is disabled: its tokens are refused, and no count of it is pushed.%s", f.Report.GetOrganization(),
			f.step("'badgerelay organization enable' ends that.", "The relay's operator ends that with 'badgerelay organization enable'."))
	}
	return nil
}

// subscriptionTrouble: no device is on the mailbox, or only one that can't be pushed to.
func subscriptionTrouble(f *Facts) *Verdict {
	r := f.Report
	count, at := f.newest()
	if why := r.GetRegistryError(); why != "" {
		waits := count != nil && count.GetPending() && count.GetWait() == pb.Wait_WAIT_SUBSCRIPTIONS
		waits = waits || slices.ContainsFunc(at.GetDevices(), func(d *pb.DeviceReport) bool {
			return d.GetWait() == pb.Wait_WAIT_SUM || d.GetWait() == pb.Wait_WAIT_SUBSCRIPTIONS
		})
		if waits || len(f.devices()) == 0 {
			return verdict(RegistryUnavailable, "The relay's registry does not answer, and it is asked who is subscribed: %s.%s", why, f.mendRegistry())
		}
		return nil
	}
	if len(r.GetSubscriptions()) == 0 {
		return nobodySubscribed(f)
	}
	answered, _ := f.answered()
	for _, d := range f.devices() {
		if len(answered) > 0 && f.app(d.app) == nil && slices.ContainsFunc(answered, func(a *pb.RelayReport) bool { return a.GetStartedAt() != nil }) {
			return verdict(AppUnknown, "%s is subscribed with the app %q, which the relay does not have.%s", d.Name(f), d.app,
				f.step("See apps[] in its configuration.", "Its operator adds it to apps[] in the relay's configuration, or the mail app registers with another name."))
		}
	}
	return nil
}

func nobodySubscribed(f *Facts) *Verdict {
	r := f.Report
	similar := r.GetSimilarMailboxes()
	if len(similar) > 0 && strings.EqualFold(similar[0], r.GetMailbox()) {
		return verdict(SpelledOtherwise, "Nobody is subscribed to %s; the devices are on %s%s", r.GetMailbox(), similar[0], f.spelling(similar[0]))
	}
	if removed := r.GetRemoved(); len(removed) > 0 {
		last := removed[0]
		who := "The last device of the mailbox"
		if len(removed) == 1 {
			who = "The mailbox's one device"
		}
		return verdict(DeviceRemoved, "%s was removed %s: %s. It is back when the app registers again%s", who, f.since(last.GetRemovedAt()), removalReason(last.GetRemovalReason()),
			f.step("(or, if it was removed by mistake, with 'badgerelay subscription restore').", "(or, if it was removed by mistake, when the relay's operator restores it)."))
	}
	if len(similar) > 0 {
		return verdict(NoSubscription, "Nobody is subscribed to this mailbox; did you mean %s?%s", either(similar), f.subscribed())
	}
	return verdict(NoSubscription, "Nobody is subscribed to this mailbox.%s", f.subscribed())
}

// spelling says what becomes of the devices on other, whose name differs in case: the
// agent may tell them what it hears of either name.
func (f *Facts) spelling(other string) string {
	register := "have the app register under the name that the agent tells."
	switch {
	case f.Agent == nil:
		return ": ask for that. Only where the agent has mailboxes.case_sensitive are these two mailboxes; then " + register
	case f.Agent.CaseSensitive:
		return ", which is another mailbox to the agent (mailboxes.case_sensitive): " + register
	}
	return ", and the agent tells them the count of either name: ask for " + other + "."
}

// subscribed says how a device comes to a mailbox.
func (f *Facts) subscribed() string {
	return f.step("A device is subscribed when its app registers; 'badgerelay subscription list' shows those that are.",
		"A device is subscribed when its app registers; 'badgeagent subscription list' shows those that are.")
}

// mendRegistry has the relay's database looked at.
func (f *Facts) mendRegistry() string {
	return f.step("Its database is to be mended; the relay's log has more.", "The relay's operator has to act; nothing is lost.")
}

func removalReason(reason string) string {
	switch reason {
	case "Unregistered":
		return "APNs says that the app is not on it any more (410 Unregistered)"
	case "ExpiredToken":
		return "APNs says that its token has expired (410 ExpiredToken)"
	case "Expired":
		return "its registration was not renewed in its lifetime"
	case "BadDeviceToken", "DeviceTokenNotForTopic":
		return "APNs refused it for a day (400 " + reason + ")"
	}
	return cmp.Or(reason, "no reason is known")
}

// agentTrouble: agents are there and can't tell counts, or are turned away.
func agentTrouble(f *Facts) *Verdict {
	active, standby := f.streams()
	if v := apart(f, active); v != nil {
		return v
	}
	switch {
	case len(active) > 0:
		return nil
	case f.Agent != nil && f.Agent.Standby:
		return verdict(AgentStandby, "This agent stands by for another process with its id, %s, which no relay that answers has a stream of.", f.Agent.AgentID)
	case len(standby) == 0 && published(f):
		return nil
	}
	if v := credentialTrouble(f); v != nil {
		return v
	}
	if len(standby) > 0 {
		return verdict(AgentStandby, "Every agent of %s stands by (%s): the active process is gone, or at a relay that does not answer; one of them takes over within 15 s.",
			f.Report.GetOrganization(), standby[0].GetAgentId())
	}
	return nil
}

// credentialTrouble: the relay refuses every token of the organization.
func credentialTrouble(f *Facts) *Verdict {
	r, c := f.Report, f.Report.GetCredentials()
	if r.GetRegistryError() != "" {
		return nil
	}
	register := f.step("Register its certificate with 'badgerelay credential add'.", "Have the relay's operator register its certificate with 'badgerelay credential add'.")
	switch {
	case c.GetRegistered() == 0:
		return verdict(NoCredential, "%s has no credential, so its agent's token is refused.%s", r.GetOrganization(), register)
	case c.GetValid() == 0 && c.GetLastEndedAt() != nil:
		return verdict(CredentialExpired, "No credential of %s counts any more, so its agent's token is refused: the last one ended %s.%s", r.GetOrganization(), f.since(c.GetLastEndedAt()), register)
	case c.GetValid() == 0:
		return verdict(CredentialNotYetValid, "No credential of %s counts yet: the first one begins at %s.%s", r.GetOrganization(), f.clock(c.GetNextStartAt()),
			f.step("'badgerelay credential list' shows each with its start.", "The relay's operator sees them with 'badgerelay credential list'."))
	}
	return nil
}

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

// step is what is to be done next, put after a sentence for the one who reads.
func (f *Facts) step(operator, administrator string) string {
	if f.Operator {
		return " " + operator
	}
	return " " + administrator
}

// startAgent has an agent started, so that later counts come.
func (f *Facts) startAgent() string {
	return f.step("No later count comes until the organization's administrator starts it, with 'systemctl start badgeagent' or 'badgeagent serve'; 'badgeagent probe' says there what hinders it.",
		"No later count comes until you start it, with 'systemctl start badgeagent' or 'badgeagent serve', or publish one; 'badgeagent probe' says what hinders it.")
}

// askSilent has a relay looked at that does not answer.
func (f *Facts) askSilent() string {
	return f.step("See 'badgerelay status --all', and whether it can LISTEN to the database.", "Tell the relay's operator, who sees it with 'badgerelay status --all'.")
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

// apart: two relays have an active stream of one agent, each of another process. One
// process has two for a while: a relay that leaves settles what came before the next.
func apart(f *Facts, active []stream) *Verdict {
	for i, a := range active {
		for _, b := range active[i+1:] {
			if a.GetAgentId() == b.GetAgentId() && a.GetInstance() != b.GetInstance() && a.relay != b.relay {
				return verdict(RelaysApart, "Two processes of the agent %s are active at once, at %s and at %s: these relays don't hear each other.%s",
					a.GetAgentId(), relayName(a.relay), relayName(b.relay), f.askSilent())
			}
		}
	}
	return nil
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

// silentTrouble: a relay is there and hears nobody, so that it may push older counts.
func silentTrouble(f *Facts) *Verdict {
	_, silent := f.answered()
	for _, r := range silent {
		if r.GetPresent() {
			return verdict(RelaysApart, "Every device shows the newest count that relays which answer have, but %s is there and does not hear them (%s).%s", relayName(r), r.GetError(), f.askSilent())
		}
	}
	return nil
}

// allRight says that the badge is right, as far as can be known.
func allRight(f *Facts) *Verdict {
	count, _ := f.newest()
	devices := f.devices()
	first, _ := devices[0].badge()
	since, same := devices[0].since(), true
	for _, d := range devices {
		shows, _ := d.badge()
		same = same && shows == first
		if at := d.since(); at.AsTime().After(since.AsTime()) {
			since = at
		}
	}
	what := fmt.Sprintf("%d on %s", first, number(len(devices)))
	if !same {
		what = "sums with other mailboxes' counts on " + number(len(devices))
	} else if first != count.GetUnreadCount() {
		what += fmt.Sprintf(", of which %d from this mailbox,", count.GetUnreadCount())
	}
	beside := ""
	if _, silent := f.answered(); len(silent) > 0 && absentAgent(f) == nil {
		beside = fmt.Sprintf(" %s did not answer: %s.", relayName(silent[0]), silent[0].GetError())
	}
	if f.Report.GetRegistryError() != "" {
		beside += " The registry does not answer, so that other relays are not known."
	}
	if f.Operator || f.Agent == nil || f.Agent.Counted == nil {
		return verdict(Right, "The badge is what the agent told last: %s since %s.%s", what, f.clock(since), beside)
	}
	return verdict(Right, "The badge is right: %s since %s.%s", what, f.clock(since), beside)
}
