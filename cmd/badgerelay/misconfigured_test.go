package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

// twoWorlds are Apple's two environments, for one team: what is registered in one
// is unknown in the other.
func twoWorlds(t *testing.T, f files) (production *apnstest.Simulator, app func(environment string) string) {
	t.Helper()
	key := newKey(t)
	production, right := appleOf(t, f, key, apnstest.Production)
	_, wrong := appleOf(t, f, key, apnstest.Sandbox)
	apps := map[string]string{"production": right, "sandbox": wrong}
	return production, func(environment string) string { return apps[environment] }
}

// TestMistypedEnvironment has an operator write sandbox for production, restart
// the relay a few times over it, find out, and put it right. Nothing is lost.
func TestMistypedEnvironment(t *testing.T) {
	const devices = 1000
	f := newFiles(t)
	sim, app := twoWorlds(t, f)
	certificate, key := f.pair(t, "relay")
	r := &enrolled{sim: sim, caFile: certificate}
	start := func(environment string) {
		t.Helper()
		if r.served != nil {
			r.stop(t)
		}
		r.served = serve(t, f.base(t, fmt.Sprintf(`
listen:
  address: 127.0.0.1:0
  tls: {certificate_file: %s, key_file: %s}
auth: {authorities: [localhost]}
relay: {coalescing_window: 50ms}
%s`, certificate, key, app(environment))))
		_, port, err := net.SplitHostPort(r.Agents)
		if err != nil {
			t.Fatal(err)
		}
		r.address = net.JoinHostPort("localhost", port)
	}
	// publish sends every mailbox's count and says how the events ended.
	publish := func(unread uint32) map[string]int {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+r.token(t))
		q := &pb.PublishRequest{AgentId: "test"}
		for i := range devices {
			q.Events = append(q.Events, &pb.Event{Mailbox: fmt.Sprintf("user%d@fabrikam.com", i), UnreadCount: unread})
		}
		answer, err := pb.NewRelayServiceClient(r.dial(t)).Publish(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		ended := map[string]int{}
		for _, o := range answer.GetOutcomes() {
			ended[o.GetOutcome().String()]++
			ended["removed"] += len(o.GetRemoved())
			ended["quarantined"] += len(o.GetQuarantined())
		}
		return ended
	}
	// told says what an organization's own server learns of the app.
	told := func() bool {
		t.Helper()
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+r.token(t))
		client, device := pb.NewSubscriptionServiceClient(r.dial(t)), apns.ImpossibleDevice().Hex()
		answer, err := client.Subscribe(ctx, &pb.SubscribeRequest{Mailbox: "probe", App: "mail", DeviceToken: device})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Unsubscribe(ctx, &pb.UnsubscribeRequest{Mailbox: "probe", App: "mail", DeviceToken: device}); err != nil {
			t.Fatal(err)
		}
		return answer.GetAppMisconfigured()
	}
	shown := func(unread uint32) (n int) {
		for i := range devices {
			if d, ok := sim.Device(numberedDevice(t, i+1)); ok && d.Badge == unread {
				n++
			}
		}
		return n
	}

	start("production")
	r.enrol(t, f)
	var csv strings.Builder
	for i := range devices {
		d, mailbox := numberedDevice(t, i+1), fmt.Sprintf("user%d@fabrikam.com", i)
		sim.RegisterDevice(d, "com.example.mail", apnstest.Production, apnstest.Meta{Mailbox: mailbox})
		fmt.Fprintf(&csv, "%s,mail,%s\n", mailbox, d.Hex())
	}
	want(t, command.Done, "", "subscription", "import", "--organization", enrolledOrganization, f.write(t, "devices.csv", csv.String()), "--admin", r.Admin)
	if got := publish(1); got["OUTCOME_DELIVERED"] != devices {
		t.Fatalf("as it should be: %v", got)
	}

	for restart := range 3 {
		start("sandbox")
		if got := publish(uint32(10 + restart)); got["OUTCOME_UNDELIVERABLE"] != devices || got["quarantined"] != devices || got["removed"] != 0 {
			t.Errorf("with the wrong environment: %v", got)
		}
		want(t, command.Done, fmt.Sprint("Subscriptions       : ", devices), "status", "--admin", r.Admin)
		want(t, command.Done, "misconfigured", "app", "list", "--admin", r.Admin)
		want(t, command.Failed, "check environment, topic and credential", "probe", "--admin", r.Admin)
		if !told() {
			t.Error("the organization isn't told that the app is misconfigured")
		}
		if _, metrics := get(t, "http://"+r.Ops+"/metrics"); !strings.Contains(metrics, `badgerelay_app_misconfigured{app="mail"} 1`) {
			t.Error("the metrics don't say that the app is misconfigured")
		}
		if code, text := get(t, "http://"+r.Ops+"/readyz"); code != 200 {
			t.Errorf("readyz: %d %s; other apps go on", code, text)
		}
		if _, page := get(t, "http://"+r.Ops+"/status"); !strings.Contains(page, "Apple refuses nearly every device of mail") {
			t.Error("the status page says nothing")
		}
		if text, _ := r.log.read(); !strings.Contains(text, "app is misconfigured") {
			t.Error("the log says nothing")
		}
	}

	start("production")
	if got := publish(20); got["OUTCOME_DELIVERED"] != devices {
		t.Errorf("put right: %v", got)
	}
	if n := shown(20); n != devices {
		t.Errorf("%d of %d badges shown, and nobody has registered anew", n, devices)
	}
	want(t, command.Done, "Succeeded", "probe", "--admin", r.Admin)
	if told() {
		t.Error("the organization is told that the app is misconfigured, and it was put right")
	}
}
