package explanation

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/daemon"
	"badgerelay/relay/agent/diagnosis"
)

// TestDiagnosisIsEscaped has every text from outside try to move the cursor.
func TestDiagnosisIsEscaped(t *testing.T) {
	const evil = "\x1b[2J\u202e"
	device := func() *pb.SubscriptionReport {
		return &pb.SubscriptionReport{App: evil, DeviceToken: evil, RemovalReason: evil, OtherMailboxes: []string{evil}}
	}
	r := &pb.MailboxReport{
		Mailbox: evil, Organization: evil, SimilarMailboxes: []string{evil},
		Subscriptions: []*pb.SubscriptionReport{device()}, Removed: []*pb.SubscriptionReport{device()},
		SharedDevices: []*pb.SharedDeviceReport{{App: evil, DeviceToken: evil, Parts: []*pb.PartReport{{Mailbox: evil, Organization: evil}}}},
		Relays: []*pb.RelayReport{{
			Name: evil, NotReadyReason: evil, LastDeparture: &pb.AgentDeparture{AgentId: evil, Reason: evil},
			Streams: []*pb.AgentStreamReport{{AgentId: evil}}, Count: &pb.CountReport{AgentId: evil},
			Apps: []*pb.AppReport{{Name: evil, State: evil, Reason: evil, LastError: evil}},
		}, {Name: evil, Error: evil}},
	}
	running := &daemon.MailboxReport{AgentID: evil, Relay: evil, Troubles: []string{evil}, CountError: evil, Failure: evil}
	f := &diagnosis.Facts{Mailbox: evil, Now: time.Now(), Report: r}
	for _, facts := range []func(){
		func() { f.Agent = running },
		func() { r.Subscriptions = nil },
		func() { f.Agent, f.AgentError = nil, evil },
		func() { r.RegistryError = evil },
		func() { f.Report, f.RelayError, f.RelayReason = nil, evil, evil },
	} {
		facts()
		var out bytes.Buffer
		if err := Print(&command.Terminal{Out: &out}, f); err != nil {
			t.Fatal(err)
		}
		if out.Len() == 0 || strings.ContainsAny(out.String(), evil[:1]+"\u202e") {
			t.Errorf("the page is empty, or holds what a terminal obeys:\n%q", out.String())
		}
	}
}
