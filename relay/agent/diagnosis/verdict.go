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
	AgentLeft             Code = "agent_left"            // as a note: the agent that told the count has no stream, and another one has
	AgentNotAsked         Code = "agent_not_asked"       // as a note: on the machine where it is asked for
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
	ForeignAnswer         Code = "foreign_answer"        // what answers is not APNs
	DeviceRefused         Code = "device_refused"        // APNs refuses the device: environment or topic
	DeviceGone            Code = "device_gone"           // APNs says that the app was removed, before the last registration
	DevicePaused          Code = "device_paused"         // APNs asked for a pause, or answers too often with errors
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
	// Notes are the codes of what the sentence adds to the verdict, such as why no
	// agent is there to tell newer counts.
	Notes []Code `json:"notes,omitempty"`
}

func verdict(c Code, format string, args ...any) *Verdict {
	return &Verdict{Code: c, Sentence: fmt.Sprintf(format, args...)}
}

// add has the sentence say one thing more; nil: there is nothing, as if the verdict is that.
func (v *Verdict) add(note *Verdict) {
	if note == nil || note.Code == v.Code {
		return
	}
	v.Sentence += " " + note.Sentence
	v.Notes = append(v.Notes, note.Code)
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
	v := f.badgeVerdict()
	notes := []func(*Facts) *Verdict{absentAgent, tellerLeft, notCounted, notAsked}
	if v.Code == Right {
		notes = append(notes, appBeside, partBeside, removedBeside)
	}
	for _, note := range notes {
		v.add(note(f))
	}
	return *v
}

// badgeVerdict is the verdict on the badge itself.
func (f *Facts) badgeVerdict() *Verdict {
	if f.allHeld() {
		return deviceTrouble(f)
	}
	if absent := absentAgent(f); absent != nil && !f.countStands() {
		return absent
	}
	for _, look := range []func(*Facts) *Verdict{mailServerTrouble, countTrouble, deviceTrouble, silentTrouble} {
		if v := look(f); v != nil {
			return v
		}
	}
	return allRight(f)
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
		return verdict(NoCredential, "The relay does not know the organization's certificate (%s): have its operator register it with 'badgerelay credential add', or, if the organization was removed, restore that first, with 'badgerelay organization restore'.", f.RelayReason)
	case "REGISTRY_UNAVAILABLE":
		return verdict(RegistryUnavailable, "The relay's registry does not answer, so that nothing can be asked: %s.%s", strings.TrimSuffix(f.RelayError, "."), f.mendRegistry())
	case "DRAINING":
		return verdict(RelayDraining, "The relay is leaving, and no other can be asked: %s. Its operator starts it again; the agent comes by itself.", strings.TrimSuffix(f.RelayError, "."))
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
	for _, d := range f.devices() {
		if v := appUnknown(f, d); v != nil {
			return v
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

// step is what is to be done next, put after a sentence for the one who reads.
func (f *Facts) step(operator, administrator string) string {
	if f.Operator {
		return " " + operator
	}
	return " " + administrator
}

// askSilent has a relay looked at that does not answer.
func (f *Facts) askSilent() string {
	return f.step("See 'badgerelay status --all', and whether it can LISTEN to the database.", "Tell the relay's operator, who sees it with 'badgerelay status --all'.")
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

// silentTrouble: a relay was there a moment ago and does not answer, so that it may push
// older counts.
func silentTrouble(f *Facts) *Verdict {
	_, silent := f.answered()
	for _, r := range silent {
		if r.GetPresent() {
			return verdict(RelaySilent, "Every device shows the newest count that relays which answer have, but %s, which was there within 20 s, did not answer (%s): it has just died, hangs, or does not hear the others.%s",
				relayName(r), r.GetError(), f.askSilent())
		}
	}
	return nil
}
