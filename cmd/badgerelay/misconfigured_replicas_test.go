package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry/postgrestest"
)

// TestMistypedEnvironmentOfReplicas has an operator roll a wrong environment out over
// two relays that share a registry, one after the other, and back: what one is refused
// the other knows of, and nothing ends.
func TestMistypedEnvironmentOfReplicas(t *testing.T) {
	const devices = 200
	database := postgrestest.Start(t)
	url := database.URL(database.Database())
	f := newFiles(t)
	sim, app := twoWorlds(t, f)
	certificate, key := f.pair(t, "relay")
	relays := [2]*enrolled{{sim: sim, caFile: certificate}, {sim: sim, caFile: certificate}}
	start := func(i int, environment string) {
		t.Helper()
		r := relays[i]
		if r.served != nil {
			r.stop(t)
		}
		r.served = serve(t, newFiles(t).base(t, fmt.Sprintf(`
listen: {address: "127.0.0.1:0", tls: {certificate_file: %s, key_file: %s}}
auth: {authorities: [localhost]}
relay: {coalescing_window: 10ms}
registry: {url: "%s"}
%s`, certificate, key, url, app(environment))))
		_, port, err := net.SplitHostPort(r.Agents)
		if err != nil {
			t.Fatal(err)
		}
		r.address = net.JoinHostPort("localhost", port)
	}
	// publish sends the counts of the mailboxes that are n modulo 2 through a relay.
	publish := func(through *enrolled, n int, unread uint32) (ended map[string]int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+through.token(t))
		q := &pb.PublishRequest{AgentId: "test"}
		for i := n; i < devices; i += 2 {
			q.Events = append(q.Events, &pb.Event{Mailbox: fmt.Sprintf("user%d@fabrikam.com", i), UnreadCount: unread})
		}
		answer, err := pb.NewRelayServiceClient(through.dial(t)).Publish(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		ended = map[string]int{}
		for _, o := range answer.GetOutcomes() {
			ended[o.GetOutcome().String()]++
			ended["removed"] += len(o.GetRemoved())
		}
		return ended
	}
	none := func(when string) {
		t.Helper()
		want(t, command.Done, fmt.Sprint("Subscriptions       : ", devices), "status", "--admin", relays[0].Admin)
		want(t, command.Done, "", "subscription", "list", "--organization", enrolledOrganization, "--removed", "--admin", relays[0].Admin)
		if t.Failed() {
			t.Fatalf("%s: something ended", when)
		}
	}
	held := func(ended map[string]int) bool {
		return ended["OUTCOME_UNDELIVERABLE"] == devices/2 && ended["removed"] == 0
	}

	start(0, "production")
	start(1, "production")
	relays[0].enrol(t, f)
	relays[1].issuer = relays[0].issuer
	var csv strings.Builder
	for i := range devices {
		d, mailbox := numberedDevice(t, i+1), fmt.Sprintf("user%d@fabrikam.com", i)
		sim.RegisterDevice(d, "com.example.mail", apnstest.Production, apnstest.Meta{Mailbox: mailbox})
		fmt.Fprintf(&csv, "%s,mail,%s\n", mailbox, d.Hex())
	}
	want(t, command.Done, "", "subscription", "import", "--organization", enrolledOrganization, f.write(t, "devices.csv", csv.String()), "--admin", relays[0].Admin)
	for n := range 2 {
		if got := publish(relays[n], n, 1); got["OUTCOME_DELIVERED"] != devices/2 {
			t.Fatalf("as it should be: %v", got)
		}
	}

	start(0, "sandbox")
	if got := publish(relays[0], 0, 2); !held(got) {
		t.Errorf("through the relay with the wrong environment: %v", got)
	}
	if got := publish(relays[1], 1, 2); got["OUTCOME_DELIVERED"] != devices/2 {
		t.Errorf("through the other one, of its devices: %v", got)
	}
	if got := publish(relays[1], 0, 3); got["OUTCOME_DELIVERED"] != devices/2 {
		t.Errorf("through the other one, of devices that the first was refused: %v", got)
	}
	if got := publish(relays[0], 0, 4); !held(got) {
		t.Errorf("and back through the wrong one: %v", got)
	}
	none("half rolled out")
	start(1, "sandbox")
	for n := range 2 {
		if got := publish(relays[n], 1-n, 5); !held(got) {
			t.Errorf("rolled out: %v", got)
		}
	}
	none("rolled out")
	start(1, "sandbox")
	for _, r := range relays { // the second by what the registry remembers
		soon(t, "the relay knows", func() bool {
			_, out := execute(t, "app", "list", "--admin", r.Admin)
			return strings.Contains(out, "misconfigured")
		})
	}
	start(0, "production")
	if got := publish(relays[0], 0, 6); got["OUTCOME_DELIVERED"] != devices/2 {
		t.Errorf("put right at one: %v", got)
	}
	if got := publish(relays[1], 1, 6); !held(got) {
		t.Errorf("and still wrong at the other: %v", got)
	}
	start(1, "production")
	for n := range 2 {
		if got := publish(relays[1-n], n, 7); got["OUTCOME_DELIVERED"] != devices/2 {
			t.Errorf("put right: %v", got)
		}
	}
	none("put right")
	for i := range devices {
		if d, _ := sim.Device(numberedDevice(t, i+1)); d.Badge != 7 {
			t.Errorf("device %d shows %d, want 7", i, d.Badge)
		}
	}
	for _, r := range relays {
		want(t, command.Done, "native  up", "app", "list", "--admin", r.Admin)
	}
}
