package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"

	"badgerelay/auth"
	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/diagnosis"
)

const otherOrganization = "contoso.com"

// twoOrganizations is a relay with a phone on two mailboxes of one organization and on one of
// another.
type twoOrganizations struct {
	*enrolled
	other *auth.Issuer
}

// startTwoOrganizations starts the relay; option is one more line of the app.
func startTwoOrganizations(t *testing.T, option string) *twoOrganizations {
	t.Helper()
	s := &twoOrganizations{enrolled: startRelayWith(t, func(files) string { return option })}
	var file string
	s.other, file = newIssuerOf(t, s.files, otherOrganization, "contoso.cer")
	want(t, command.Done, "", "organization", "add", otherOrganization, "--admin", s.Admin)
	want(t, command.Done, "", "credential", "add", "--organization", otherOrganization, "--certificate", file, "--admin", s.Admin)
	s.subscribe(t, "ann", 1)
	s.add(t, enrolledOrganization, "sales")
	s.add(t, otherOrganization, "treasurer")
	return s
}

// add puts the phone on one more mailbox.
func (s *twoOrganizations) add(t *testing.T, organization, mailbox string) {
	t.Helper()
	want(t, command.Done, "", "subscription", "add", "--organization", organization, "--mailbox", mailbox, "--app", "mail",
		"--device-token", numberedDevice(t, 1).Hex(), "--keep-others", "--admin", s.Admin)
}

// publishes sends counts, "mailbox=count", in one call, and returns their outcomes.
func (s *twoOrganizations) publishes(t *testing.T, as *auth.Issuer, counts ...string) string {
	t.Helper()
	m := &pb.PublishRequest{AgentId: "test"}
	for _, count := range counts {
		e := &pb.Event{}
		if _, err := fmt.Sscanf(strings.Replace(count, "=", " ", 1), "%s %d", &e.Mailbox, &e.UnreadCount); err != nil {
			t.Fatal(err)
		}
		m.Events = append(m.Events, e)
	}
	token, _, err := as.Token(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	call := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	answer, err := pb.NewRelayServiceClient(s.dial(t)).Publish(call, m)
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []string
	for _, o := range answer.GetOutcomes() {
		outcomes = append(outcomes, strings.ToLower(strings.TrimPrefix(o.GetOutcome().String(), "OUTCOME_")))
	}
	return strings.Join(outcomes, " ")
}

// report returns what an organization is told of a mailbox of its own.
func (s *twoOrganizations) report(t *testing.T, as *auth.Issuer, mailbox string) *pb.MailboxReport {
	t.Helper()
	token, _, err := as.Token(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	call := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	answer, err := pb.NewSubscriptionServiceClient(s.dial(t)).GetMailbox(call, &pb.GetMailboxRequest{Mailbox: mailbox})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetReport()
}

// reloads has the relay read its configuration with the option changed; the phone then
// shows badge.
func (s *twoOrganizations) reloads(t *testing.T, before, after string, badge uint32) {
	t.Helper()
	const option = "sum_across_organizations: "
	file := s.files.path("badgerelay.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.files.write(t, "badgerelay.yaml", strings.Replace(string(text), option+before, option+after, 1))
	s.hup()
	soon(t, fmt.Sprint("the phone shows ", badge), func() bool {
		d, _ := s.sim.Device(numberedDevice(t, 1))
		return d.Badge == badge
	})
}

// TestSum has the phone show the sum of the three mailboxes. The relay's operator sees
// what it consists of; an organization sees its own part.
func TestSum(t *testing.T) {
	s := startTwoOrganizations(t, "")
	if got := s.publishes(t, s.issuer, "ann=3", "sales=2"); got != "delivered delivered" {
		t.Errorf("outcomes are %s", got)
	}
	s.wantBadge(t, 1, 5)
	if got := s.publishes(t, s.other, "treasurer=40"); got != "delivered" {
		t.Errorf("outcome is %s", got)
	}
	s.wantBadge(t, 1, 45)
	s.wantVerdict(t, "ann", diagnosis.Right, "45 on its device, of which 3 from this mailbox")
	page := want(t, command.Done, "", "mailbox", "show", enrolledOrganization, "ann", "--admin", s.Admin)
	for _, row := range []string{"fabrikam.com  ann        3", "fabrikam.com  sales      2", "contoso.com   treasurer  40"} {
		if !strings.Contains(page, row) {
			t.Errorf("the operator does not see %q:\n%s", row, page)
		}
	}

	ours := s.report(t, s.issuer, "ann")
	if text := prototext.Format(ours); strings.Contains(text, otherOrganization) || strings.Contains(text, "treasurer") || strings.Contains(text, ": 45\n") {
		t.Errorf("one organization sees the other's part:\n%s", text)
	}
	var parts []string
	for _, d := range ours.GetSharedDevices() {
		for _, p := range d.GetParts() {
			parts = append(parts, fmt.Sprintf("%s=%d", p.GetMailbox(), p.GetUnreadCount()))
		}
	}
	if !slices.Equal(parts, []string{"ann=3", "sales=2"}) {
		t.Errorf("the organization's own parts are %v", parts)
	}
	theirs := s.report(t, s.other, "treasurer")
	if d := theirs.GetRelays()[0].GetDevices(); len(theirs.GetSharedDevices()) > 0 || len(d) != 1 || d[0].GetShared() || d[0].GetBadge() != 40 {
		t.Errorf("an organization with one mailbox sees that there are others:\n%s", prototext.Format(theirs))
	}
}

// TestNoSumAcrossOrganizations has the option off: the phone is the organization's that
// registered it first, whose two mailboxes make a sum, and the other one is told so.
//
// A reload that turns it on has the badge follow without a count.
func TestNoSumAcrossOrganizations(t *testing.T) {
	s := startTwoOrganizations(t, "    sum_across_organizations: false\n")
	if got := s.publishes(t, s.issuer, "ann=3", "sales=2"); got != "delivered delivered" {
		t.Errorf("outcomes are %s", got)
	}
	if got := s.publishes(t, s.other, "treasurer=40"); got != "no_subscription" {
		t.Errorf("outcome is %s", got)
	}
	if got := s.publishes(t, s.issuer, "sales=4"); got != "delivered" {
		t.Errorf("outcome is %s", got)
	}
	s.wantBadge(t, 1, 7)
	s.wantVerdict(t, "ann", diagnosis.Right, "7 on its device, of which 3 from this mailbox")
	want(t, command.Done, "counts nothing: the device is another organization's", "mailbox", "show", enrolledOrganization, "ann", "--admin", s.Admin)
	want(t, command.Done, string(diagnosis.DeviceOfAnother), "mailbox", "show", otherOrganization, "treasurer", "--admin", s.Admin)
	s.reloads(t, "false", "true", 47)
	s.reloads(t, "true", "false", 7)

	for _, mailbox := range []string{"ann", "sales"} {
		want(t, command.Done, "", "subscription", "remove", "--organization", enrolledOrganization, "--mailbox", mailbox, "--app", "mail",
			"--device-token", numberedDevice(t, 1).Hex(), "--admin", s.Admin)
	}
	soon(t, "the phone is the other organization's", func() bool { return s.publishes(t, s.other, "treasurer=41") == "delivered" })
	s.wantBadge(t, 1, 41)
}
