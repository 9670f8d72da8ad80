package diagnosis

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/daemon"
)

// Print prints the verdict on the facts, and the facts: a page, or JSON.
func Print(t *command.Terminal, f *Facts) error {
	v := Diagnose(f)
	if !t.JSON() {
		page{t, f}.print(v)
		return nil
	}
	answer := struct {
		Verdict    Verdict               `json:"verdict"`
		Report     json.RawMessage       `json:"report"`
		RelayError string                `json:"relayError,omitempty"`
		Agent      *daemon.MailboxReport `json:"agent,omitempty"`
		AgentError string                `json:"agentError,omitempty"`
	}{Verdict: v, Report: json.RawMessage("null"), RelayError: f.RelayError, Agent: f.Agent, AgentError: f.AgentError}
	if f.Report != nil {
		data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(f.Report)
		if err != nil {
			return fmt.Errorf("encode report: %w", err)
		}
		answer.Report = data
	}
	return t.Value(answer)
}

// page prints facts for people.
type page struct {
	*command.Terminal
	facts *Facts
}

func (p page) print(v Verdict) {
	p.Say("%s", v.Sentence)
	p.Say("")
	r := p.facts.Report
	fields := append([]command.Field{{"Mailbox", p.facts.Mailbox}, {"Code", code(v)}}, p.agentSide()...)
	if r == nil {
		p.List(append(fields, command.Field{"Relay", "not asked: " + p.facts.RelayError})...)
		return
	}
	fields = append(fields, command.Field{"Organization", r.GetOrganization() + ", " + enabled(r)})
	if r.GetRegistryError() == "" {
		fields = append(fields, command.Field{"Credentials", credentials(p.facts, r.GetCredentials())})
	} else {
		fields = append(fields, command.Field{"Registry", "does not answer: " + r.GetRegistryError()})
	}
	p.List(fields...)
	p.streams(r)
	p.counts(r)
	p.devices(r)
	p.parts(r)
	p.removed(r)
}

func code(v Verdict) string {
	if v.Note == "" {
		return string(v.Code)
	}
	return string(v.Code) + ", with " + string(v.Note)
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
func (p page) agentSide() []command.Field {
	a := p.facts.Agent
	switch {
	case p.facts.AgentError != "":
		return []command.Field{{"Agent", "not asked: " + p.facts.AgentError}}
	case a == nil:
		return nil
	}
	state := "connected to " + a.Relay + " since " + p.facts.clockAt(a.Since)
	switch {
	case !a.Connected:
		state = "not connected: " + cmp.Or(a.Failure, "starting")
	case a.Standby:
		state += ", stands by"
	}
	fields := []command.Field{{"Agent", a.AgentID + ", " + state}, {"Mail server", mailServer(a)}}
	for _, trouble := range a.Troubles {
		fields = append(fields, command.Field{"", trouble})
	}
	return append(fields, command.Field{"Sent", p.sent(a)})
}

// sent says what the agent has handed to the relay, or is to.
func (p page) sent(a *daemon.MailboxReport) string {
	if a.Sent == nil {
		return "nothing"
	}
	at := p.facts.clockAt(a.SentAt)
	if !a.Connected && (a.RelayInstance == "" || a.SentAt.After(a.Since)) { // none since its start, or since then
		return fmt.Sprintf("not yet: %d waits for a stream since %s", *a.Sent, at)
	}
	sent := fmt.Sprintf("%d at %s", *a.Sent, at)
	if !a.Connected {
		sent += ", before the stream ended at " + p.facts.clockAt(a.Since)
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

func (p page) streams(r *pb.MailboxReport) {
	var rows [][]string
	for _, one := range r.GetRelays() {
		name := strings.TrimPrefix(relayName(one), "relay ")
		if one.GetError() != "" {
			rows = append(rows, []string{name, "-", "not asked: " + one.GetError(), "-", "-"})
			continue
		}
		for _, s := range one.GetStreams() {
			state := "active"
			if s.GetStandby() {
				state = "standby"
			}
			rows = append(rows, []string{name, s.GetAgentId(), state, p.facts.clock(s.GetOpenedAt()), p.facts.clock(s.GetHeardAt())})
		}
		if len(one.GetStreams()) == 0 {
			rows = append(rows, []string{name, "-", departed(p.facts, one), "-", "-"})
		}
	}
	p.Say("")
	p.Table("RELAY AGENT STATE SINCE HEARD", rows)
	for _, one := range r.GetRelays() {
		name := strings.TrimPrefix(relayName(one), "relay ")
		if one.GetDraining() {
			p.Say("%s is leaving and takes no more counts.", name)
		} else if why := one.GetNotReadyReason(); why != "" {
			p.Say("%s is not ready: %s", name, why)
		}
	}
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

func (p page) counts(r *pb.MailboxReport) {
	var rows [][]string
	for _, one := range r.GetRelays() {
		c := one.GetCount()
		if c == nil {
			continue
		}
		state := "settled"
		if c.GetPending() {
			state = strings.TrimSuffix("pending: "+p.waits(c.GetWait(), c.GetWaitUntil()), ": ")
		}
		rows = append(rows, []string{strings.TrimPrefix(relayName(one), "relay "), fmt.Sprint(c.GetUnreadCount()), p.facts.receivedAt(c), cmp.Or(c.GetAgentId(), "-"), state})
	}
	p.Say("")
	if len(rows) == 0 {
		p.Say("No relay has a count of the mailbox.")
		return
	}
	p.Table("RELAY COUNT RECEIVED AGENT STATE", rows)
}

// waits says what is waited for.
func (p page) waits(w pb.Wait, until *timestamppb.Timestamp) string {
	if w == pb.Wait_WAIT_UNSPECIFIED {
		return ""
	}
	s := strings.ToLower(strings.TrimPrefix(w.String(), "WAIT_"))
	if until != nil {
		s += " until " + p.facts.clock(until)
	}
	return s
}

func (p page) devices(r *pb.MailboxReport) {
	devices := p.facts.devices()
	p.Say("")
	if len(devices) == 0 {
		p.Say("No device is subscribed.")
		if similar := r.GetSimilarMailboxes(); len(similar) > 0 {
			p.Say("Mailboxes like it that have one: %s.", strings.Join(similar, ", "))
		}
		return
	}
	var rows [][]string
	for _, d := range devices {
		row := []string{d.app, Short(d.token), "-", "-", "-", "-", "-"}
		if d.live != nil {
			row[2] = p.facts.clock(d.live.GetRegisteredAt())
		}
		if shows, known := d.badge(); known {
			row[3], row[4] = fmt.Sprint(shows), p.facts.clock(d.since())
		}
		if w := d.waiting; w != nil {
			row[5] = p.waits(w.GetWait(), w.GetWaitUntil())
		}
		row[6] = p.lastAnswer(d)
		rows = append(rows, row)
	}
	p.Table("APP DEVICE REGISTERED SHOWS SINCE WAITS_FOR APNS", rows)
	var apps [][]string
	for _, one := range r.GetRelays() {
		for _, a := range one.GetApps() {
			if a.GetState() != "up" || a.GetBreakerOpenSince() != nil {
				apps = append(apps, []string{strings.TrimPrefix(relayName(one), "relay "), a.GetName(), a.GetState(), p.since(cmp.Or(a.GetRefusedSince(), a.GetBreakerOpenSince())), cmp.Or(a.GetReason(), "-"), cmp.Or(a.GetLastError(), "-")})
			}
		}
	}
	if len(apps) > 0 {
		p.Say("")
		p.Table("RELAY APP STATE SINCE REASON LAST_ERROR", apps)
	}
}

func (p page) since(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return p.facts.clock(at)
}

// lastAnswer is what APNs said of a device last.
func (p page) lastAnswer(d *device) string {
	switch {
	case d.live.GetHeldReason() != "":
		return d.live.GetHeldReason() + " since " + p.facts.clock(d.live.GetHeldSince())
	case d.waiting.GetReason() != "":
		return d.waiting.GetReason() + " at " + p.facts.clock(d.waiting.GetRefusedAt())
	case d.shown != nil:
		return "accepted"
	}
	return "-"
}

func (p page) parts(r *pb.MailboxReport) {
	var rows [][]string
	for _, d := range r.GetSharedDevices() {
		for _, part := range d.GetParts() {
			count, at := "not told", "-"
			if part.UnreadCount != nil {
				count, at = fmt.Sprint(part.GetUnreadCount()), p.facts.clock(part.GetReceivedAt())
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
			rows = append(rows, []string{d.GetApp(), Short(d.GetDeviceToken()), part.GetOrganization(), part.GetMailbox(), count, at, state})
		}
	}
	if len(rows) > 0 {
		p.Say("")
		p.Table("APP DEVICE ORGANIZATION MAILBOX COUNT RECEIVED STATE", rows)
	}
}

func (p page) removed(r *pb.MailboxReport) {
	var rows [][]string
	for _, s := range r.GetRemoved() {
		rows = append(rows, []string{s.GetApp(), Short(s.GetDeviceToken()), s.GetRegisteredAt().AsTime().Format(time.DateTime) + "Z", p.facts.clock(s.GetRemovedAt()), s.GetRemovalReason()})
	}
	if len(rows) > 0 {
		p.Say("")
		p.Table("APP REMOVED_DEVICE REGISTERED REMOVED REASON", rows)
	}
}
