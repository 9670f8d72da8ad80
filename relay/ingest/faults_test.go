package ingest

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
)

// TestAgentsFaultsNameTheOrganization is what the guide promises for
// BadgerelayAgentFaults.
func TestAgentsFaultsNameTheOrganization(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		said := func(want int, why string) {
			t.Helper()
			if got := strings.Count(w.log.String(), `msg="agent breaks the contract" organization=fabrikam.com method=/badgerelay.v1.`); got != want {
				t.Errorf("%s: the log has %d lines, want %d:\n%s", why, got, want, w.log.String())
			}
		}
		a := o.connect()
		a.batch(1, &pb.Event{Mailbox: "ann"})
		a.batch(7, &pb.Event{Mailbox: "ann"})
		a.ends(codes.InvalidArgument, "SEQUENCE_GAP")
		said(1, "a stream that broke off")
		_, err := pb.NewSubscriptionServiceClient(w.conn).Subscribe(o.ctx(), &pb.SubscribeRequest{})
		wantRefusal(t, err, codes.InvalidArgument, "FIELD_INVALID")
		said(2, "a call without its fields")
		_, err = pb.NewSubscriptionServiceClient(w.conn).Unsubscribe(o.ctx(), &pb.UnsubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: strings.Repeat("ab", 32)})
		wantRefusal(t, err, codes.NotFound, "SUBSCRIPTION_NOT_FOUND")
		if _, err := w.publish(t.Context(), &pb.Event{Mailbox: "ann"}); err == nil {
			t.Error("a publish without a token succeeded")
		}
		said(2, "what is nobody's fault, and a stranger")
		wantRefusal(t, w.callRaw(o.ctx(), pb.RelayService_Publish_FullMethodName, []byte{0xff}), codes.InvalidArgument, "MESSAGE_MALFORMED")
		said(3, "a message that can't be decoded")

		mistyped := &pb.SubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: strings.Repeat("ab", 31) + "xy"}
		_, err = pb.NewSubscriptionServiceClient(w.conn).Subscribe(o.ctx(), mistyped)
		wantRefusal(t, err, codes.InvalidArgument, "FIELD_INVALID")
		said(3, "a device token that somebody mistyped")
		if got, want := w.log.String(), `msg="request with an invalid field" organization=fabrikam.com method=/badgerelay.v1.SubscriptionService/Subscribe `+
			`field=device_token rule="is not 32 to 100 bytes in hexadecimal: byte 63 of 64 is no hexadecimal digit"`; !strings.Contains(got, want) {
			t.Errorf("the log lacks %s:\n%s", want, got)
		}
		if strings.Contains(w.log.String(), strings.Repeat("ab", 31)) {
			t.Error("the log tells the token")
		}
	})
}

// TestAlertOnAgentsFaultsHasTheSameList compares the log's with Prometheus'.
func TestAlertOnAgentsFaultsHasTheSameList(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/badgerelay.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for number := range pb.ErrorReason_name {
		if r := pb.ErrorReason(number); agentsFault(r) {
			want = append(want, service.Label(r))
		}
	}
	found := regexp.MustCompile(`BadgerelayAgentFaults\n.*\n.*reason=~"([a-z_|]+)"`).FindSubmatch(rules)
	if found == nil {
		t.Fatal("no list of reasons in the alert")
	}
	got := strings.Split(string(found[1]), "|")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the alert counts %v, the log tells of %v", got, want)
	}
}
