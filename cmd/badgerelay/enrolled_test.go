package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
	"badgerelay/auth"
	"badgerelay/auth/authtest"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

// enrolled is a relay with TLS, a simulated Apple and one organization whose
// tokens it accepts.
type enrolled struct {
	*served
	sim     *apnstest.Simulator
	issuer  *auth.Issuer
	address string // of the relay, by a name that its certificate has
	caFile  string
	files   files // with organization.cer and organization.key

	database string // that replicas share
}

const enrolledOrganization = "fabrikam.com"

// startRelay starts a relay and enrols an organization, as an operator does.
func startRelay(t *testing.T) *enrolled {
	t.Helper()
	return startRelayWith(t, func(files) string { return "" })
}

// startRelayWith is startRelay with more at the end of the configuration,
// which is the list of apps.
func startRelayWith(t *testing.T, more func(files) string) *enrolled {
	t.Helper()
	f := newFiles(t)
	sim, app := apple(t, f)
	certificate, key := f.pair(t, "relay")
	r := &enrolled{sim: sim, caFile: certificate, files: f}
	r.served = serve(t, f.base(t, fmt.Sprintf(`
listen:
  address: 127.0.0.1:0
  tls: {certificate_file: %s, key_file: %s}
auth: {authorities: [localhost]}
relay: {coalescing_window: 50ms}
%s%s`, certificate, key, app, more(f))))
	_, port, err := net.SplitHostPort(r.Agents)
	if err != nil {
		t.Fatal(err)
	}
	r.address = net.JoinHostPort("localhost", port)
	r.enrol(t, f)
	return r
}

// enrol registers the organization's certificate and makes its token issuer.
func (r *enrolled) enrol(t *testing.T, f files) {
	t.Helper()
	var file string
	r.issuer, file = newIssuer(t, f, "organization.cer")
	want(t, command.Done, "", "organization", "add", enrolledOrganization, "--admin", r.Admin)
	want(t, command.Done, "", "credential", "add", "--organization", enrolledOrganization, "--certificate", file, "--admin", r.Admin)
}

// newIssuer makes a token issuer of the organization and writes its certificate.
func newIssuer(t *testing.T, f files, name string) (issuer *auth.Issuer, file string) {
	t.Helper()
	return newIssuerOf(t, f, enrolledOrganization, name)
}

// newIssuerOf is newIssuer for any organization.
func newIssuerOf(t *testing.T, f files, organization, name string) (issuer *auth.Issuer, file string) {
	t.Helper()
	key := authtest.NewKey(organization+"/"+name, time.Now())
	issuer, err := auth.NewIssuer(auth.IssuerConfig{
		Key: key.Private, Certificate: key.Certificate, Realm: organization,
		TargetPrincipal: new(config.Config).Principal(), Authority: "localhost",
	})
	if err != nil {
		t.Fatal(err)
	}
	f.key(t, strings.TrimSuffix(name, ".cer")+".key", key.Private)
	return issuer, f.write(t, name, string(key.Certificate.Raw))
}

// subscribe makes the n-th device and puts it on a mailbox.
func (r *enrolled) subscribe(t *testing.T, mailbox string, n int) {
	t.Helper()
	d := numberedDevice(t, n)
	r.sim.RegisterDevice(d, "com.example.mail", apnstest.Production, apnstest.Meta{Mailbox: mailbox})
	want(t, command.Done, "", "subscription", "add", "--organization", enrolledOrganization,
		"--mailbox", mailbox, "--app", "mail", "--device-token", d.Hex(), "--admin", r.Admin)
}

// publish sends a count and waits until it is delivered.
func (r *enrolled) publish(t *testing.T, mailbox string, unread uint32) {
	t.Helper()
	r.publishAs(t, mailbox, unread, "OUTCOME_DELIVERED")
}

// publishAs sends a count and waits until it is settled with an outcome.
func (r *enrolled) publishAs(t *testing.T, mailbox string, unread uint32, outcome string) {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+r.token(t))
	answer, err := pb.NewRelayServiceClient(r.dial(t)).Publish(ctx, &pb.PublishRequest{
		AgentId: "test", Events: []*pb.Event{{Mailbox: mailbox, UnreadCount: unread}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.GetOutcomes()[0].GetOutcome(); got.String() != outcome {
		t.Errorf("%s=%d is %s, want %s", mailbox, unread, got, outcome)
	}
}

// token returns a token of the organization.
func (r *enrolled) token(t *testing.T) string {
	t.Helper()
	token, _, err := r.issuer.Token(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// dial connects as an agent does.
func (r *enrolled) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	return r.dialFrom(t, nil)
}

// dialFrom is dial from an address; nil: from any.
func (r *enrolled) dialFrom(t *testing.T, from net.Addr) *grpc.ClientConn {
	t.Helper()
	trust, err := credentials.NewClientTLSFromFile(r.caFile, "")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(r.address, grpc.WithTransportCredentials(trust), grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", address)
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test is over
	return conn
}

// wantBadge looks at what a device shows.
func (r *enrolled) wantBadge(t *testing.T, n int, badge uint32) {
	t.Helper()
	if d, ok := r.sim.Device(numberedDevice(t, n)); !ok || d.Badge != badge {
		t.Errorf("device %d shows %d, want %d", n, d.Badge, badge)
	}
	for kind, times := range r.sim.ClientFaults() {
		if times > 0 {
			t.Errorf("the relay did wrong towards Apple: %s, %d times", kind, times)
		}
	}
}

func numberedDevice(t *testing.T, n int) apns.DeviceToken {
	t.Helper()
	d, err := apns.ParseDeviceToken(fmt.Sprintf("%064x", n))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
