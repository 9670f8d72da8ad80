package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"badgerelay/apns/apnstest"
	pb "badgerelay/proto/badgerelay/v1"
)

// TestOutageTellsTheTruth takes APNs away from a relay: it stays ready, because
// it goes on keeping the newest counts, and metrics and status page say that
// Apple is not there; when it is back, the count that waited is shown.
func TestOutageTellsTheTruth(t *testing.T) {
	r := startRelay(t)
	r.subscribe(t, "ann", 1)
	r.publish(t, "ann", 1)
	r.sees(t, 1, "up", "working")

	if err := r.sim.SetFaults(apnstest.Faults{Rates: map[apnstest.Fault]float64{apnstest.FaultRefuseConnect: 1}}); err != nil {
		t.Fatal(err)
	}
	r.sim.CloseConnections()
	answered := make(chan error, 1)
	go func() { // ends when the count is shown; the test waits for it
		call := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+r.token(t))
		_, err := pb.NewRelayServiceClient(r.dial(t)).Publish(call, &pb.PublishRequest{AgentId: "test", Events: []*pb.Event{{Mailbox: "ann", UnreadCount: 2}}})
		answered <- err
	}()
	r.sees(t, 1, "outage", "troubled")

	if err := r.sim.SetFaults(apnstest.Faults{}); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("publish: %v", err)
	}
	r.sees(t, 2, "up", "working")
}

// sees waits until an operator sees the state of APNs and the device its badge,
// and wants the relay to be ready meanwhile.
func (r *enrolled) sees(t *testing.T, badge uint32, apns, page string) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); r.metric(t, `badgerelay_apns_state state="`+apns+`"`) != 1; {
		if time.Now().After(deadline) {
			t.Fatalf("nobody sees %q", apns)
		}
		time.Sleep(20 * time.Millisecond) // real sockets; metrics tell nobody when they change
	}
	if code, body := get(t, "http://"+r.Ops+"/readyz"); code != http.StatusOK {
		t.Errorf("%s: readyz = %d %q, want the relay to be ready", apns, code, body)
	}
	if n := r.metric(t, "badgerelay_ready "); n != 1 {
		t.Errorf("%s: badgerelay_ready is %v", apns, n)
	}
	if _, body := get(t, "http://"+r.Ops+"/status/json"); !strings.Contains(body, `"state": "`+page+`"`) {
		t.Errorf("%s: the status page does not say %q:\n%s", apns, page, body)
	}
	if d, ok := r.sim.Device(numberedDevice(t, 1)); !ok || d.Badge != badge {
		t.Errorf("%s: the device shows %d, want %d", apns, d.Badge, badge)
	}
}
