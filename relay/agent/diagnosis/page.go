package diagnosis

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/daemon"
)

// Paragraph is a part of a page: fields or a table, where there are any, and lines.
type Paragraph struct {
	Fields  [][2]string // name and value
	Heading string      // of Rows, a word for each column; empty: there is no table
	Rows    [][]string
	Lines   []string
}

// Page is the verdict on the facts, and the facts, for people. It may hold text from
// outside, and is to be escaped.
func (f *Facts) Page(v Verdict) []Paragraph {
	page := []Paragraph{{Lines: []string{v.Sentence}}}
	fields := append([][2]string{{"Mailbox", f.Mailbox}, {"Code", code(v)}}, f.agentSide()...)
	r := f.Report
	if r == nil {
		return append(page, Paragraph{Fields: append(fields, [2]string{"Relay", "not asked: " + f.RelayError})})
	}
	fields = append(fields, [2]string{"Organization", r.GetOrganization() + ", " + enabled(r)})
	if r.GetRegistryError() == "" {
		fields = append(fields, [2]string{"Credentials", credentials(f, r.GetCredentials())})
	} else {
		fields = append(fields, [2]string{"Registry", "does not answer: " + r.GetRegistryError()})
	}
	page = append(page, Paragraph{Fields: fields}, f.streamTable(), f.countTable(), f.deviceTable())
	for _, more := range []Paragraph{f.appTable(), f.partTable(), f.removedTable()} {
		if len(more.Rows) > 0 {
			page = append(page, more)
		}
	}
	return page
}

func code(v Verdict) string {
	s := string(v.Code)
	for i, note := range v.Notes {
		s += []string{", with ", " and "}[min(i, 1)] + string(note)
	}
	return s
}

func enabled(r *pb.MailboxReport) string {
	if r.GetOrganizationDisabled() {
		return "disabled"
	}
	return "enabled"
}

func credentials(f *Facts, c *pb.CredentialSummary) string {
	s := fmt.Sprintf("%d registered, %d valid", c.GetRegistered(), c.GetValid())
	if c.GetLastEndedAt() != nil {
		s += ", the last ended " + f.clock(c.GetLastEndedAt())
	}
	if c.GetNextStartAt() != nil {
		s += ", the next begins " + f.clock(c.GetNextStartAt())
	}
	return s
}

// agentSide is what the running agent says.
func (f *Facts) agentSide() [][2]string {
	a := f.Agent
	switch {
	case f.AgentError != "":
		return [][2]string{{"Agent", "not asked: " + f.AgentError}}
	case a == nil:
		return nil
	}
	state := "connected to " + a.Relay + " since " + f.clockAt(a.Since)
	switch {
	case !a.Connected:
		state = "not connected: " + cmp.Or(a.Failure, "starting")
	case a.Standby:
		state += ", stands by"
	}
	fields := [][2]string{{"Agent", a.AgentID + ", " + state}, {"Mail server", mailServer(a)}}
	for _, trouble := range a.Troubles {
		fields = append(fields, [2]string{"", trouble})
	}
	return append(fields, [2]string{"Sent", f.sent(a)})
}

// sent says what the agent has handed to the relay, or is to.
func (f *Facts) sent(a *daemon.MailboxReport) string {
	if a.Sent == nil {
		return "nothing"
	}
	at := f.clockAt(a.SentAt)
	if !a.Connected && (a.RelayInstance == "" || a.SentAt.After(a.Since)) { // none since its start, or since then
		return fmt.Sprintf("not yet: %d waits for a stream since %s", *a.Sent, at)
	}
	sent := fmt.Sprintf("%d at %s", *a.Sent, at)
	if !a.Connected {
		sent += ", before the stream ended at " + f.clockAt(a.Since)
	}
	switch {
	case a.Unsettled == nil:
	case *a.Sent == *a.Unsettled:
		sent += ", not settled"
	default:
		sent += fmt.Sprintf(", and %d has not settled", *a.Unsettled)
	}
	if a.Stale {
		sent += ", refused as stale"
	}
	return sent
}

func mailServer(a *daemon.MailboxReport) string {
	switch {
	case a.Counted != nil:
		return fmt.Sprintf("counts %d now", *a.Counted)
	case a.CountError != "":
		return "not counted: " + a.CountError
	}
	return "can't be asked: counts are pushed to the agent"
}

func (f *Facts) streamTable() Paragraph {
	p := Paragraph{Heading: "RELAY AGENT STATE SINCE HEARD"}
	for _, one := range f.Report.GetRelays() {
		name := shortName(one)
		switch {
		case one.GetError() != "":
			p.Rows = append(p.Rows, []string{name, "-", "not asked: " + one.GetError(), "-", "-"})
		case len(one.GetStreams()) == 0:
			p.Rows = append(p.Rows, []string{name, "-", departed(f, one), "-", "-"})
		default:
			p.Rows = append(p.Rows, f.streamRows(name, one.GetStreams())...)
		}
		if one.GetDraining() {
			p.Lines = append(p.Lines, name+" is leaving and takes no more counts.")
		} else if why := one.GetNotReadyReason(); why != "" {
			p.Lines = append(p.Lines, name+" is not ready: "+why)
		}
	}
	return p
}

func (f *Facts) streamRows(relay string, streams []*pb.AgentStreamReport) (rows [][]string) {
	for _, s := range streams {
		state := "active"
		if s.GetStandby() {
			state = "standby"
		}
		rows = append(rows, []string{relay, s.GetAgentId(), state, f.clock(s.GetOpenedAt()), f.clock(s.GetHeardAt())})
	}
	return rows
}

func departed(f *Facts, r *pb.RelayReport) string {
	d := r.GetLastDeparture()
	if d == nil {
		return "no agent"
	}
	s := "no agent: " + cmp.Or(d.GetAgentId(), "one") + " left at " + f.clock(d.GetLeftAt())
	if d.GetReason() != "" {
		s += " (" + d.GetReason() + ")"
	}
	return s
}

func (f *Facts) countTable() Paragraph {
	var rows [][]string
	for _, one := range f.Report.GetRelays() {
		c := one.GetCount()
		if c == nil {
			continue
		}
		state := "settled"
		if c.GetPending() {
			state = strings.TrimSuffix("pending: "+f.waits(c.GetWait(), c.GetWaitUntil()), ": ")
		}
		rows = append(rows, []string{shortName(one), fmt.Sprint(c.GetUnreadCount()), f.receivedAt(c), cmp.Or(c.GetAgentId(), "-"), state})
	}
	if len(rows) == 0 {
		return Paragraph{Lines: []string{"No relay has a count of the mailbox."}}
	}
	return Paragraph{Heading: "RELAY COUNT RECEIVED AGENT STATE", Rows: rows}
}

// waits says what is waited for.
func (f *Facts) waits(w pb.Wait, until *timestamppb.Timestamp) string {
	if w == pb.Wait_WAIT_UNSPECIFIED {
		return ""
	}
	s := strings.ToLower(strings.TrimPrefix(w.String(), "WAIT_"))
	if until != nil {
		s += " until " + f.clock(until)
	}
	return s
}

func (f *Facts) deviceTable() Paragraph {
	var rows [][]string
	for _, d := range f.devices() {
		row := []string{d.app, Short(d.token), "-", "-", "-", "-", "-"}
		if d.live != nil {
			row[2] = f.clock(d.live.GetRegisteredAt())
		}
		if shows, known := d.badge(); known {
			row[3], row[4] = fmt.Sprint(shows), f.clock(d.since())
		}
		if w := d.waiting; w != nil {
			row[5] = f.waits(w.GetWait(), w.GetWaitUntil())
		}
		row[6] = f.lastAnswer(d)
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		return Paragraph{Heading: "APP DEVICE REGISTERED SHOWS SINCE WAITS_FOR APNS", Rows: rows}
	}
	lines := []string{"No device is subscribed."}
	if similar := f.Report.GetSimilarMailboxes(); len(similar) > 0 {
		lines = append(lines, "Mailboxes like it that have one: "+strings.Join(visible(similar), ", ")+".")
	}
	return Paragraph{Lines: lines}
}

// appTable has the apps that are not well, where a device may need one.
func (f *Facts) appTable() Paragraph {
	p := Paragraph{Heading: "RELAY APP STATE SINCE REASON LAST_ERROR"}
	if len(f.devices()) == 0 {
		return p
	}
	for _, one := range f.Report.GetRelays() {
		for _, a := range one.GetApps() {
			if a.GetState() == "up" && a.GetBreakerOpenSince() == nil {
				continue
			}
			since := "-"
			if at := cmp.Or(a.GetRefusedSince(), a.GetBreakerOpenSince()); at != nil {
				since = f.clock(at)
			}
			p.Rows = append(p.Rows, []string{shortName(one), a.GetName(), a.GetState(), since, cmp.Or(a.GetReason(), "-"), cmp.Or(a.GetLastError(), "-")})
		}
	}
	return p
}

// lastAnswer is what APNs said of a device last.
func (f *Facts) lastAnswer(d *device) string {
	switch {
	case d.live.GetHeldReason() != "":
		return d.live.GetHeldReason() + " since " + f.clock(d.live.GetHeldSince())
	case d.waiting.GetReason() != "":
		return d.waiting.GetReason() + " at " + f.clock(d.waiting.GetRefusedAt())
	case d.shown != nil:
		return "accepted"
	case d.refused != nil:
		return d.refused.GetReason() + " at " + f.clock(d.refused.GetRefusedAt())
	}
	return "-"
}

func (f *Facts) partTable() Paragraph {
	p := Paragraph{Heading: "APP DEVICE ORGANIZATION MAILBOX COUNT RECEIVED STATE"}
	for _, d := range f.Report.GetSharedDevices() {
		for _, part := range d.GetParts() {
			count, at := "not told", "-"
			if part.UnreadCount != nil {
				count, at = fmt.Sprint(part.GetUnreadCount()), f.clock(part.GetReceivedAt())
			}
			state := "waits"
			switch {
			case part.GetOtherOrganization():
				state = "counts nothing: the device is another organization's"
			case part.GetDisabled():
				state = "counts nothing: organization disabled"
			case part.GetAwaited():
				state = "awaited for a minute"
			case part.UnreadCount == nil:
				state = "counts as 0"
			case part.GetAccepted():
				state = "accepted"
			}
			p.Rows = append(p.Rows, []string{d.GetApp(), Short(d.GetDeviceToken()), part.GetOrganization(), part.GetMailbox(), count, at, state})
		}
	}
	return p
}

func (f *Facts) removedTable() Paragraph {
	p := Paragraph{Heading: "APP REMOVED_DEVICE REGISTERED REMOVED REASON"}
	for _, s := range f.Report.GetRemoved() {
		p.Rows = append(p.Rows, []string{s.GetApp(), Short(s.GetDeviceToken()), s.GetRegisteredAt().AsTime().Format(time.DateTime) + "Z", f.clock(s.GetRemovedAt()), s.GetRemovalReason()})
	}
	return p
}
