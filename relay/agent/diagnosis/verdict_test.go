package diagnosis

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/daemon"
)

var now = time.Date(2026, 3, 2, 14, 30, 0, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }

func badge(n uint32) *uint32 { return &n }

// well is the facts of a mailbox whose badge is right: 3 on one device, by the agent
// mx1 at one relay.
func well() *Facts {
	return &Facts{Mailbox: "ann@contoso.com", Now: now, Report: &pb.MailboxReport{
		Organization: "contoso.com", Mailbox: "ann@contoso.com", ReportedAt: ago(0),
		Credentials:   &pb.CredentialSummary{Registered: 1, Valid: 1},
		Subscriptions: []*pb.SubscriptionReport{{App: "mail", DeviceToken: "aa", RegisteredAt: ago(24 * time.Hour)}},
		Relays: []*pb.RelayReport{{
			Name: "r1", StartedAt: ago(48 * time.Hour),
			Streams: []*pb.AgentStreamReport{{AgentId: "mx1", Instance: "1", OpenedAt: ago(time.Hour), HeardAt: ago(time.Minute)}},
			Count:   &pb.CountReport{UnreadCount: 3, ReceivedAt: ago(28 * time.Minute), AgentId: "mx1"},
			Devices: []*pb.DeviceReport{{App: "mail", DeviceToken: "aa", Badge: badge(3), AcceptedAt: ago(28 * time.Minute)}},
			Apps:    []*pb.AppReport{{Name: "mail", State: "up"}},
		}},
	}}
}

// withAgent adds what a running agent says whose mail server counts so many.
func withAgent(f *Facts, counted uint32) *daemon.MailboxReport {
	f.Agent = &daemon.MailboxReport{AgentID: "mx1", Connected: true, Since: now.Add(-time.Hour), Subscribed: true, Informed: true, Counts: true, Counted: &counted}
	return f.Agent
}

// waits has the device wait with a new count.
func waits(f *Facts, w pb.Wait, d time.Duration) *pb.DeviceReport {
	r := f.Report.GetRelays()[0]
	r.Count.UnreadCount, r.Count.Pending = 4, true
	device := r.GetDevices()[0]
	device.Wanted, device.Wait, device.WaitUntil = badge(4), w, ago(-d)
	return device
}

// second puts another device on the mailbox.
func second(f *Facts, d *pb.DeviceReport) {
	d.App, d.DeviceToken = "mail", "bb1234567890"
	f.Report.Subscriptions = append(f.Report.Subscriptions, &pb.SubscriptionReport{App: "mail", DeviceToken: d.GetDeviceToken()})
	f.Report.Relays[0].Devices = append(f.Report.Relays[0].Devices, d)
}

// nobody takes the device off the mailbox.
func nobody(f *Facts) *pb.MailboxReport {
	f.Report.Subscriptions, f.Report.Relays[0].Devices = nil, nil
	return f.Report
}

// untold takes the agents away, and what they told with them.
func untold(f *Facts) *pb.RelayReport {
	r := alone(f)
	r.Count = nil
	return r
}

// alone takes the agents away.
func alone(f *Facts) *pb.RelayReport {
	r := f.Report.GetRelays()[0]
	r.Streams, r.LastDeparture = nil, &pb.AgentDeparture{AgentId: "mx1", LeftAt: ago(12 * time.Minute)}
	return r
}

// shared puts the device on a second mailbox.
func shared(f *Facts, other *pb.PartReport) {
	f.Report.Subscriptions[0].OtherMailboxes = []string{"sales@contoso.com"}
	other.Organization, other.Mailbox = "contoso.com", "sales@contoso.com"
	f.Report.Relays[0].Devices[0].Shared = true
	f.Report.SharedDevices = []*pb.SharedDeviceReport{{App: "mail", DeviceToken: "aa", Parts: []*pb.PartReport{
		{Organization: "contoso.com", Mailbox: "ann@contoso.com", UnreadCount: badge(3), Accepted: true}, other,
	}}}
}

var verdicts = []struct {
	code     Code
	sentence string
	facts    func(f *Facts)
}{
	{Right, "The badge is what the agent told last: 3 on its device since 14:02:00Z.", func(*Facts) {}},
	{Right, "The badge is right: 3 on its device since 14:02:00Z.", func(f *Facts) { withAgent(f, 3) }},
	{Right, "The badge is right: 3 on both devices since 14:29:00Z.", func(f *Facts) {
		withAgent(f, 3)
		second(f, &pb.DeviceReport{Badge: badge(3), AcceptedAt: ago(time.Minute)})
	}},
	{Right, "3 on its device since 2026-03-01 02:30:00Z.", func(f *Facts) {
		f.Report.Relays[0].Count.ReceivedAt = nil
		f.Report.Relays[0].Devices[0].AcceptedAt = ago(36 * time.Hour)
	}},
	{Right, "5 on its device, of which 3 from this mailbox, since 14:02:00Z.", func(f *Facts) {
		shared(f, &pb.PartReport{UnreadCount: badge(2), Accepted: true})
		f.Report.Relays[0].Devices[0].Badge = badge(5)
	}},
	{Right, "3 on its device since 14:02:00Z. relay r2 did not answer: it has not been heard of for 1m0s.", func(f *Facts) {
		f.Report.Relays = append(f.Report.Relays, &pb.RelayReport{Name: "r2", Error: "it has not been heard of for 1m0s"})
	}},
	{RelayUnreachable, "No relay can be asked from here: connection refused.", func(f *Facts) { f.Report, f.RelayError = nil, "connection refused" }},
	{RelayRefuses, "The relay refuses to say (QUOTA_EXCEEDED): too fast.", func(f *Facts) {
		f.Report, f.RelayError, f.RelayReason = nil, "too fast", "QUOTA_EXCEEDED"
	}},
	{OrganizationDisabled, "The relay's operator has disabled the organization", func(f *Facts) { f.Report, f.RelayReason = nil, "ORGANIZATION_DISABLED" }},
	{NoCredential, "The relay does not know the organization's certificate", func(f *Facts) { f.Report, f.RelayReason = nil, "TOKEN_KEY_UNKNOWN" }},
	{NoCredential, "restore that first, with 'badgerelay organization restore'", func(f *Facts) { f.Report, f.RelayReason = nil, "TOKEN_KEY_UNKNOWN" }},
	{RegistryUnavailable, "so that nothing can be asked: time is up.", func(f *Facts) {
		f.Report, f.RelayError, f.RelayReason = nil, "time is up.", "REGISTRY_UNAVAILABLE"
	}},
	{RelayDraining, "The relay is leaving, and no other can be asked", func(f *Facts) { f.Report, f.RelayReason = nil, "DRAINING" }},
	{CredentialExpired, "this machine's clock is wrong (TOKEN_EXPIRED)", func(f *Facts) { f.Report, f.RelayReason = nil, "TOKEN_EXPIRED" }},
	{OrganizationDisabled, "contoso.com is disabled", func(f *Facts) { f.Report.OrganizationDisabled = true }},
	{RegistryUnavailable, "it is asked who is subscribed: disk full.", func(f *Facts) { nobody(f).RegistryError = "disk full" }},
	{Right, "other relays are not known", func(f *Facts) { f.Report.RegistryError, f.Report.Subscriptions = "gone", nil }},
	{SpelledOtherwise, "Nobody is subscribed to ann@contoso.com; the devices are on Ann@contoso.com, and the agent tells them the count of either name: ask for Ann@contoso.com.", func(f *Facts) {
		nobody(f).SimilarMailboxes = []string{"Ann@contoso.com", "amn@contoso.com"}
		f.Agent = &daemon.MailboxReport{Connected: true}
	}},
	{SpelledOtherwise, "the devices are on Ann@contoso.com, which is another mailbox to the agent (mailboxes.case_sensitive): have the app register under the name that the agent tells.", func(f *Facts) {
		nobody(f).SimilarMailboxes = []string{"Ann@contoso.com"}
		f.Agent = &daemon.MailboxReport{Connected: true, CaseSensitive: true}
	}},
	{SpelledOtherwise, "the devices are on Ann@contoso.com: ask for that. Only where the agent has mailboxes.case_sensitive", func(f *Facts) {
		nobody(f).SimilarMailboxes, f.Agent = []string{"Ann@contoso.com"}, nil
	}},
	{DeviceRemoved, "The mailbox's one device was removed 3 days ago: APNs says that the app is not on it any more (410 Unregistered).", func(f *Facts) {
		nobody(f).Removed = []*pb.SubscriptionReport{{RemovedAt: ago(72 * time.Hour), RemovalReason: "Unregistered"}}
	}},
	{NoSubscription, "Nobody is subscribed to this mailbox; did you mean amn@contoso.com or ann@contoso.de?", func(f *Facts) {
		nobody(f).SimilarMailboxes = []string{"amn@contoso.com", "ann@contoso.de"}
	}},
	{NoSubscription, `did you mean "ann@contoso.com " or ann@contoso.de?`, func(f *Facts) {
		nobody(f).SimilarMailboxes = []string{"ann@contoso.com ", "ann@contoso.de"}
	}},
	{NoSubscription, "Nobody is subscribed to this mailbox.", func(f *Facts) { nobody(f) }},
	{AppUnknown, `The device is subscribed with the app "mail", which the relay does not have`, func(f *Facts) { f.Report.Relays[0].Apps = nil }},
	{NoCredential, "contoso.com has no credential", func(f *Facts) { alone(f); f.Report.Credentials = &pb.CredentialSummary{} }},
	{CredentialExpired, "the last one ended 5 h ago.", func(f *Facts) {
		alone(f)
		f.Report.Credentials = &pb.CredentialSummary{Registered: 1, LastEndedAt: ago(5 * time.Hour)}
	}},
	{CredentialNotYetValid, "the first one begins at 15:30:00Z.", func(f *Facts) {
		alone(f)
		f.Report.Credentials = &pb.CredentialSummary{Registered: 1, NextStartAt: ago(-time.Hour)}
	}},
	{RelayDraining, "The relay is leaving", func(f *Facts) { untold(f).Draining = true }},
	{AgentNotRunning, "none answers on this machine: it does not run. No later count comes until you start it", func(f *Facts) { untold(f); f.AgentError = "it does not run" }},
	{AgentNotConnected, "has no stream to a relay since 13:30:00Z: no route.", func(f *Facts) {
		alone(f)
		a := withAgent(f, 4) // as the relay does not know
		a.Connected, a.Failure = false, "no route"
	}},
	{AgentNotConnected, "has no stream to a relay since 13:30:00Z: no route.", func(f *Facts) {
		alone(f)
		a := withAgent(f, 3)
		a.Connected, a.Failure, a.Unsettled = false, "no route", badge(3)
	}},
	{NoAgent, "No agent is connected for contoso.com: the last one, mx1, left 12 min ago. No later count comes until you start it", func(f *Facts) { untold(f) }},
	{NoAgent, "mx1, left 12 min ago", func(f *Facts) { untold(f); f.Now = now.Add(time.Hour) }}, // by a clock that is wrong
	{NoCount, "since the relay started, 2 days ago", func(f *Facts) { f.Report.Relays[0].Count = nil; f.Now = now.Add(72 * time.Hour) }},
	{NoAgent, "until the organization's administrator starts it", func(f *Facts) { untold(f); f.Operator = true }},
	{NoAgent, "left 12 min ago, told TOKEN_EXPIRED.", func(f *Facts) { untold(f).LastDeparture.Reason = "TOKEN_EXPIRED" }},
	{NoAgent, "none has been since the relay started, 2 days ago.", func(f *Facts) {
		r := alone(f)
		r.LastDeparture, r.Count = nil, nil
	}},
	{Right, "3 on its device", func(f *Facts) { alone(f).LastDeparture = nil }}, // counts come by Publish
	{Right, "The agent that told the count, mx1, left 8 min ago", func(f *Facts) { beside(f, "mx2"); left(f) }},
	{Right, "The agent on this machine could not be asked (it hangs)", func(f *Facts) { f.AgentError = "it hangs" }},
	{NoCredential, "contoso.com has no credential", func(f *Facts) { // counts came by Publish
		alone(f).LastDeparture = nil
		f.Report.Credentials = &pb.CredentialSummary{}
	}},
	{AgentStandby, "Every agent of contoso.com stands by (mx1)", func(f *Facts) { f.Report.Relays[0].Streams[0].Standby = true }},
	{AgentStandby, "This agent stands by for another process with its id, mx1", func(f *Facts) {
		alone(f)
		withAgent(f, 3).Standby = true
	}},
	{RelaySilent, "relay r2 may have it: no answer.", func(f *Facts) {
		untold(f)
		f.Report.Relays = append(f.Report.Relays, &pb.RelayReport{Name: "r2", Error: "no answer"})
	}},
	{RelaysApart, "active at once, at relay r1 and at relay r2", func(f *Facts) {
		f.Report.Relays = append(f.Report.Relays, &pb.RelayReport{Name: "r2", Streams: []*pb.AgentStreamReport{{AgentId: "mx1", Instance: "2"}}})
	}},
	{Right, "3 on its device", func(f *Facts) { // one process has the next stream while a relay that leaves settles the last counts of the other
		f.Report.Relays[0].Draining = true
		f.Report.Relays = append(f.Report.Relays, &pb.RelayReport{Name: "r2", Streams: []*pb.AgentStreamReport{{AgentId: "mx1", Instance: "1"}}})
	}},
	{RelaySilent, "relay r2, which was there within 20 s, did not answer (no answer): it has just died, hangs, or does not hear the others", func(f *Facts) {
		f.Report.Relays = append(f.Report.Relays, &pb.RelayReport{Name: "r2", Error: "no answer", Present: true})
	}},
	{CountFailed, "The mail server does not tell the count of this mailbox: refused.", func(f *Facts) {
		a := withAgent(f, 3)
		a.Counted, a.CountError = nil, "refused"
	}},
	{NotInformed, "the agent's log says why its watch ended", func(f *Facts) { withAgent(f, 3).Informed = false }},
	{NotInformed, "has not heard that the mailbox has a device", func(f *Facts) { withAgent(f, 3).Subscribed = false }},
	{StaleCount, "Another agent, mx2, tells newer versions", func(f *Facts) {
		withAgent(f, 3).Stale = true
		f.Report.Relays[0].Count.AgentId = "mx2"
	}},
	{StaleCount, "Another agent, mx2, has told the relay 3, and the mail server of this one counts 7", func(f *Facts) {
		withAgent(f, 7)
		f.Report.Relays[0].Count.AgentId = "mx2"
	}},
	{NotAcknowledged, "The agent has sent 7, and the relay has not taken it", func(f *Facts) { withAgent(f, 7).Unsettled = badge(7) }},
	{NotAcknowledged, "The relay is done with 3, and the agent has not heard of it", func(f *Facts) { withAgent(f, 3).Unsettled = badge(3) }},
	{Right, "3 on its device", func(f *Facts) { // it settled after the agent was asked
		a := withAgent(f, 3)
		a.Unsettled, a.SentAt = badge(3), now.Add(-settling)
	}},
	{CountDiffers, "The mail server counts 7, and what the relay has is 3, since 14:02:00Z", func(f *Facts) { withAgent(f, 7) }},
	{NoCount, "No agent has told a count of this mailbox since the relay started, 2 days ago", func(f *Facts) { f.Report.Relays[0].Count = nil }},
	{WaitingForRegistry, "3 waits since 14:02:00Z for the registry", func(f *Facts) {
		c := f.Report.Relays[0].Count
		c.Pending, c.Wait = true, pb.Wait_WAIT_SUBSCRIPTIONS
	}},
	{AppRefused, "APNs refuses the app's token: InvalidProviderToken since 14:20:00Z. See apps[].token.key_file", func(f *Facts) {
		f.Operator = true
		waits(f, pb.Wait_WAIT_BREAKER, 0)
		f.Report.Relays[0].Apps[0] = &pb.AppReport{Name: "mail", State: "refused", Reason: "InvalidProviderToken", RefusedSince: ago(10 * time.Minute)}
	}},
	{AppRefused, "APNs refuses the app's topic: TopicDisallowed. See apps[].topic", func(f *Facts) {
		f.Operator = true
		waits(f, pb.Wait_WAIT_BREAKER, 0)
		f.Report.Relays[0].Apps[0] = &pb.AppReport{Name: "mail", State: "refused", Reason: "TopicDisallowed"}
	}},
	{AppMisconfigured, "APNs refuses nearly every device of the app mail", func(f *Facts) {
		f.Report.Subscriptions[0].HeldReason = "BadDeviceToken"
		f.Report.Relays[0].Apps[0].State = "misconfigured"
	}},
	{APNsUnreachable, "There is no connection to APNs for the app mail: timeout.", func(f *Facts) {
		waits(f, pb.Wait_WAIT_STREAM, 0)
		f.Report.Relays[0].Apps[0] = &pb.AppReport{Name: "mail", State: "outage", LastError: "timeout"}
	}},
	{APNsOutage, "with errors since 14:29:00Z", func(f *Facts) {
		waits(f, pb.Wait_WAIT_BREAKER, 0)
		f.Report.Relays[0].Apps[0].BreakerOpenSince = ago(time.Minute)
	}},
	{Right, "3 on its device", func(f *Facts) { f.Report.Relays[0].Apps[0].State = "outage" }}, // nothing waits for it
	{APNsUnreachable, "no connection to APNs for the app mail. Tell the relay's operator, who has to act. The count 4 has ended without being accepted by APNs", func(f *Facts) {
		f.Report.Relays[0].Apps[0].State = "outage"
		f.Report.Relays[0].Count.UnreadCount = 4
	}},
	{DeviceRefused, "APNs refuses the device since 13:30:00Z: BadDeviceToken", func(f *Facts) {
		s := f.Report.Subscriptions[0]
		s.HeldReason, s.HeldSince, s.NextProbeAt = "BadDeviceToken", ago(time.Hour), ago(-23*time.Hour)
	}},
	{DeviceGone, "(410 Unregistered), as of a time before its last registration; it is tried again at 14:50:00Z, and when the app registers.", func(f *Facts) {
		s := f.Report.Subscriptions[0]
		s.HeldReason, s.HeldSince, s.NextProbeAt = "Unregistered", ago(0), ago(-20*time.Minute)
	}},
	{DevicePaused, "APNs asked for a pause of the device (TooManyRequests at 14:29:00Z): 4 goes at 14:35:00Z.", func(f *Facts) {
		d := waits(f, pb.Wait_WAIT_PAUSE, 5*time.Minute)
		d.Reason, d.RefusedAt = "TooManyRequests", ago(time.Minute)
	}},
	{ForeignAnswer, "answers in its place", func(f *Facts) { waits(f, pb.Wait_WAIT_PAUSE, 5*time.Minute).Reason = "ForeignAnswer" }},
	{ForeignAnswer, "4 goes to the device in its turn", func(f *Facts) {
		d := waits(f, pb.Wait_WAIT_BREAKER, 0)
		d.Reason, d.WaitUntil = "HTTP502", nil
		f.Report.Relays[0].Apps[0].BreakerOpenSince = ago(time.Minute)
	}},
	{DevicePaused, "pause of the device bb123456... (no reason is known at an unknown time): 3 goes at 14:31:00Z. The other 1 of 2 devices are right.", func(f *Facts) {
		second(f, &pb.DeviceReport{Wanted: badge(3), Wait: pb.Wait_WAIT_PAUSE, WaitUntil: ago(-time.Minute)})
	}},
	{CountBlocked, "APNs answered InternalServerError to 4 for the device", func(f *Facts) {
		waits(f, pb.Wait_WAIT_RETRY, time.Minute).Reason = "InternalServerError"
	}},
	{CountBlocked, "APNs answered InternalServerError", func(f *Facts) { // worse than the other's window
		waits(f, pb.Wait_WAIT_RETRY, time.Minute).Reason = "InternalServerError"
		second(f, &pb.DeviceReport{Wanted: badge(4), Wait: pb.Wait_WAIT_ANSWER})
	}},
	{PartMissing, "nobody has told the count of sales@contoso.com yet", func(f *Facts) {
		shared(f, &pb.PartReport{Awaited: true})
		f.Report.SharedDevices[0].Parts[0].Accepted = false
	}},
	{Right, "3 on its device", func(f *Facts) { shared(f, &pb.PartReport{}) }}, // it counts as nothing by now
	{Right, "3 on its device", func(f *Facts) {
		shared(f, &pb.PartReport{Awaited: true}) // of another organization, for which ours does not wait
		f.Report.SharedDevices[0].Parts[1].Organization = "fabrikam.com"
	}},
	{DeviceOfAnother, "The device is another organization's, which registered it first", func(f *Facts) {
		shared(f, &pb.PartReport{UnreadCount: badge(2), Accepted: true})
		part := f.Report.SharedDevices[0].Parts[0]
		part.Disabled, part.OtherOrganization, part.Accepted = true, true, false
	}},
	{WaitingForSum, "The device is to show 5, the sum of 2 mailboxes", func(f *Facts) { shared(f, &pb.PartReport{UnreadCount: badge(2)}) }},
	{WaitingForWindow, "4 waits for the end of the coalescing window, at 14:30:01Z at the latest.", func(f *Facts) {
		c := f.Report.Relays[0].Count
		c.UnreadCount, c.Pending, c.Wait, c.WaitUntil = 4, true, pb.Wait_WAIT_WINDOW, ago(-time.Second)
	}},
	{WaitingForStream, "4 waits for a free stream to APNs.", func(f *Facts) { waits(f, pb.Wait_WAIT_STREAM, 0) }},
	{WaitingForAnswer, "4 is on its way to APNs", func(f *Facts) { waits(f, pb.Wait_WAIT_ANSWER, 0) }},
	{NotShown, "The device shows 3 since 14:02:00Z, and 4 is the newest count", func(f *Facts) { f.Report.Relays[0].Count.UnreadCount = 4 }},
	{NotShown, "no relay knows what the device shows", func(f *Facts) { f.Report.Relays[0].Devices[0].Badge = nil }},
}

func TestDiagnose(t *testing.T) {
	seen := map[Code]bool{}
	for _, one := range verdicts {
		f := well()
		one.facts(f)
		got := Diagnose(f)
		seen[one.code] = true
		for _, note := range got.Notes {
			seen[note] = true
		}
		if got.Code != one.code || !strings.Contains(got.Sentence, one.sentence) {
			t.Errorf("got %s: %q\nwant %s: %q", got.Code, got.Sentence, one.code, one.sentence)
		}
	}
	for _, code := range codes(t) {
		if !seen[code] {
			t.Errorf("%s is not tried", code)
		}
	}
}

// withoutAgent are facts of a mailbox whose agent has left after APNs answered: what is
// told of the badge, and that the agent is gone.
var withoutAgent = []struct {
	code, note Code
	facts      func(f *Facts)
}{
	{Right, NoAgent, func(*Facts) {}},
	{Right, NoAgent, func(f *Facts) { f.Report.Relays[0].LastDeparture.Reason = "TOKEN_EXPIRED" }},
	{Right, AgentNotRunning, func(f *Facts) { f.AgentError = "it does not run" }},
	{Right, AgentNotConnected, func(f *Facts) { a := withAgent(f, 3); a.Connected, a.Informed, a.Failure = false, false, "no route" }},
	{Right, RelayDraining, func(f *Facts) { f.Report.Relays[0].Draining = true }},
	{Right, RelaySilent, func(f *Facts) { f.Report.Relays = append(f.Report.Relays, &pb.RelayReport{Name: "r2", Error: "gone"}) }},
	{RelaySilent, "", func(f *Facts) {
		f.Report.Relays = append(f.Report.Relays, &pb.RelayReport{Name: "r2", Error: "no answer", Present: true})
	}},
	{DeviceGone, NoAgent, func(f *Facts) { f.Report.Subscriptions[0].HeldReason = "Unregistered" }},
	{DeviceRefused, NoAgent, func(f *Facts) { untold(f); f.Report.Subscriptions[0].HeldReason = "BadDeviceToken" }},
	{DevicePaused, NoAgent, func(f *Facts) { waits(f, pb.Wait_WAIT_PAUSE, time.Minute) }},
	{DeviceRemoved, "", func(f *Facts) {
		nobody(f).Removed = []*pb.SubscriptionReport{{RemovedAt: ago(time.Minute), RemovalReason: "Unregistered"}}
	}},
	{NoCredential, "", func(f *Facts) { f.Report.Credentials = &pb.CredentialSummary{} }},
	{NoAgent, "", func(f *Facts) { // a device that is refused says nothing of the other's count
		untold(f)
		second(f, &pb.DeviceReport{})
		f.Report.Subscriptions[0].HeldReason = "BadDeviceToken"
	}},
}

// note returns the verdict's notes in one; empty: it has none.
func note(v Verdict) (all Code) {
	for i, one := range v.Notes {
		all += []Code{"", " "}[min(i, 1)] + one
	}
	return all
}

func TestDiagnoseWithoutAgent(t *testing.T) {
	for _, one := range withoutAgent {
		f := well()
		alone(f)
		one.facts(f)
		if got := Diagnose(f); got.Code != one.code || note(got) != one.note {
			t.Errorf("got %s with %q: %q\nwant %s with %q", got.Code, got.Notes, got.Sentence, one.code, one.note)
		}
	}
}

// unaided are codes after which there is nothing to do: what is waited for comes by
// itself, or all is right.
var unaided = []Code{
	Right, DeviceGone, DevicePaused, CountBlocked, APNsOutage, PartMissing, WaitingForWindow, WaitingForStream, WaitingForAnswer, WaitingForSum,
	WaitingForRegistry, NotShown, NotAcknowledged, AgentStandby, RelayDraining,
}

// TestNextStep has every other verdict say what is to be done, by the one who reads: an
// operator has no badgeagent, and an administrator no badgerelay.
func TestNextStep(t *testing.T) {
	steps := regexp.MustCompile(`'badge|[Ss]ee |[Ss]ettings|log |[Rr]egister|restarted|operator|one mailbox wants one agent|mended|ask for`)
	for _, one := range verdicts {
		for _, operator := range []bool{false, true} {
			f := well()
			f.Operator = operator
			one.facts(f)
			if one.code == Right || f.Operator != operator || operator && (f.Agent != nil || f.AgentError != "" || f.Report == nil) {
				continue // not what this reader sees
			}
			v := Diagnose(f)
			if !slices.Contains(unaided, v.Code) && !steps.MatchString(v.Sentence) {
				t.Errorf("%s names no next step: %q", v.Code, v.Sentence)
			}
			if operator && strings.Contains(v.Sentence, "badgeagent") && !strings.Contains(v.Sentence, "organization's") {
				t.Errorf("%s sends an operator to badgeagent: %q", v.Code, v.Sentence)
			}
			if !operator && strings.Contains(v.Sentence, "badgerelay") && !strings.Contains(v.Sentence, "operator") {
				t.Errorf("%s sends an administrator to badgerelay: %q", v.Code, v.Sentence)
			}
		}
	}
}

// codes returns the codes that verdict.go has.
func codes(t *testing.T) (all []Code) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "verdict.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if literal, ok := v.Values[0].(*ast.BasicLit); ok {
				code, _ := strconv.Unquote(literal.Value)
				all = append(all, Code(code))
			}
		}
		return true
	})
	if len(all) < 30 {
		t.Fatalf("%d codes are found; want all", len(all))
	}
	return all
}

// TestNothingMissing has each part of a report be absent: there is a verdict, and a page.
func TestNothingMissing(t *testing.T) {
	for name, strip := range map[string]func(r *pb.MailboxReport){
		"everything":    func(r *pb.MailboxReport) { proto.Reset(r) },
		"relays":        func(r *pb.MailboxReport) { r.Relays = nil },
		"devices":       func(r *pb.MailboxReport) { r.Relays[0].Devices = nil },
		"count":         func(r *pb.MailboxReport) { r.Relays[0].Count = nil },
		"times":         func(r *pb.MailboxReport) { r.Relays[0].StartedAt, r.Relays[0].Devices[0].AcceptedAt = nil, nil },
		"subscriptions": func(r *pb.MailboxReport) { r.Subscriptions, r.RegistryError = nil, "gone" },
		"all of a relay": func(r *pb.MailboxReport) {
			r.Relays = []*pb.RelayReport{{Error: "no answer"}}
			r.RegistryError = "gone"
		},
	} {
		f := well()
		strip(f.Report)
		for _, agent := range []bool{false, true} {
			if agent {
				withAgent(f, 3)
			}
			if v := Diagnose(f); v.Code == "" || v.Sentence == "" {
				t.Errorf("%s: %+v", name, v)
			}
			if page := f.Page(Diagnose(f)); len(page) < 5 {
				t.Errorf("%s: the page is %+v", name, page)
			}
		}
	}
}
