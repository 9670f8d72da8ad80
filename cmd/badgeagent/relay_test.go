package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authgrpc"
	"badgerelay/auth/authmetadata"
	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/command"
	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	testRealm     = "fabrikam.com"
	testPrincipal = "5f2b8f0e-6f0c-4f4e-9a53-5b0f4a2b7c11"
)

// fakeRelay is a relay small enough to script: real TLS, real tokens, a real
// metadata document, and a map for a registry.
type fakeRelay struct {
	badgerelayv1.UnimplementedRelayServiceServer
	badgerelayv1.UnimplementedSubscriptionServiceServer
	t       *testing.T
	address string // of gRPC
	web     string // of the metadata document, https
	ca      string // file that verifies both

	validator *auth.Validator
	watched   chan struct{} // has one when somebody watches

	mu       sync.Mutex // guards what follows
	keys     []*x509.Certificate
	disabled bool
	endpoint string // told in the metadata document
	devices  map[string]string

	authority string        // in the metadata document
	ahead     time.Duration // of its clock
	unlisted  bool          // subscriptions can't be read
	ill       bool          // the app is misconfigured
	apple     string        // Apple's reason for the device that can't be; empty: no answer
}

func newFakeRelay(t *testing.T) *fakeRelay {
	t.Helper()
	r := &fakeRelay{t: t, watched: make(chan struct{}, 1), devices: map[string]string{}, authority: "relay.test", apple: "BadDeviceToken"}
	config, ca := serverTLS()
	r.ca = filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(r.ca, ca, 0o600))
	r.serveGRPC(config)
	r.serveWeb(config)
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serverTLS makes a certificate for 127.0.0.1 that is its own authority.
func serverTLS() (*tls.Config, []byte) {
	s := authtest.NewServer("relay", time.Now().Add(100*24*time.Hour), "127.0.0.1")
	return &tls.Config{Certificates: []tls.Certificate{s.TLS()}, NextProtos: []string{"h2"}}, s.PEM()
}

func (r *fakeRelay) serveGRPC(config *tls.Config) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(r.t, err)
	r.address = listener.Addr().String()
	r.endpoint = "https://" + r.address
	validator, err := auth.NewValidator(auth.Config{Keys: r, Principal: testPrincipal, Authorities: []string{"relay.test"}})
	must(r.t, err)
	r.validator = validator
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.UnaryInterceptor(authgrpc.UnaryInterceptor(validator, r.status, nil)),
		grpc.StreamInterceptor(authgrpc.StreamInterceptor(validator, r.status, nil)))
	badgerelayv1.RegisterRelayServiceServer(server, r)
	badgerelayv1.RegisterSubscriptionServiceServer(server, r)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }() // ends with Stop
	r.t.Cleanup(func() { server.Stop(); <-ended })
}

func (r *fakeRelay) serveWeb(config *tls.Config) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: config.Certificates})
	must(r.t, err)
	r.web = "https://" + listener.Addr().String() + "/metadata/json/1?realm=" + testRealm
	server := &http.Server{Handler: http.HandlerFunc(r.serveMetadata), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }() // ends with Close
	r.t.Cleanup(func() { _ = server.Close(); <-ended })
}

// status is how a relay answers a refused token.
func (r *fakeRelay) status(err error) error {
	reason := "TOKEN_SIGNATURE"
	if refusal, ok := errors.AsType[*auth.TokenError](err); ok {
		switch refusal.Reason {
		case auth.ReasonKeyUnknown:
			reason = "TOKEN_KEY_UNKNOWN"
		case auth.ReasonOrganizationDisabled:
			return refused(codes.PermissionDenied, "ORGANIZATION_DISABLED")
		}
	}
	return refused(codes.Unauthenticated, reason)
}

func refused(code codes.Code, reason string) error {
	st, err := status.New(code, strings.ToLower(reason)).WithDetails(&errdetails.ErrorInfo{Domain: "badgerelay", Reason: reason})
	if err != nil {
		return err
	}
	return st.Err()
}

// enrol registers what an agent has exported.
func (r *fakeRelay) enrol(path string) {
	r.t.Helper()
	der, err := os.ReadFile(path)
	must(r.t, err)
	cert, err := x509.ParseCertificate(der)
	must(r.t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = append(r.keys, cert)
}

func (r *fakeRelay) disable() {
	r.mu.Lock()
	r.disabled = true
	r.mu.Unlock()
	r.validator.RevokeOrganization(1)
}

// CredentialsByX5T implements auth.Keys.
func (r *fakeRelay) CredentialsByX5T(_ context.Context, x5t [20]byte) ([]auth.Credential, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cert := range r.keys {
		if certs.X5T(cert) == x5t {
			return []auth.Credential{{ID: "1", OrganizationID: 1, Organization: testRealm, Enabled: !r.disabled, Certificate: cert}}, nil
		}
	}
	return nil, nil
}

// Stream settles each batch at once: rejected for the mailbox "bad", undeliverable for
// "gone", no_subscription where no device is on the mailbox and for "another@x", whose
// device is another organization's, delivered elsewhere. The mailbox "never" does not
// settle.
func (r *fakeRelay) Stream(rpc grpc.BidiStreamingServer[badgerelayv1.StreamRequest, badgerelayv1.StreamResponse]) error {
	for {
		m, err := rpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var answer *badgerelayv1.StreamResponse
		switch message := m.GetMessage().(type) {
		case *badgerelayv1.StreamRequest_Hello:
			if h := message.Hello; h.GetAgentId() == "" || h.GetInstance() == "" || h.GetNumber() == 0 {
				return refused(codes.InvalidArgument, "FIELD_INVALID")
			}
			if message.Hello.GetAgent().GetProductVersion() == "15.0.1" {
				return refused(codes.FailedPrecondition, "PRODUCT_TOO_OLD")
			}
			answer = &badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Welcome{Welcome: &badgerelayv1.Welcome{
				RelayVersion: "1.0", Instance: "one", TokenExpiresAt: timestamppb.New(time.Now().Add(8 * time.Hour))}}}
		case *badgerelayv1.StreamRequest_Batch:
			answer = &badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Settlement{Settlement: r.settle(message.Batch)}}
		default:
			continue
		}
		if err := rpc.Send(answer); err != nil {
			return err
		}
	}
}

func (r *fakeRelay) settle(b *badgerelayv1.Batch) *badgerelayv1.Settlement {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &badgerelayv1.Settlement{}
	for i, e := range b.GetEvents() {
		sequence := b.GetFirstSequence() + uint64(i)
		if e.GetMailbox() == "never" {
			continue
		}
		s.Ranges = append(s.Ranges, &badgerelayv1.SequenceRange{First: sequence, Last: sequence})
		o := &badgerelayv1.EventOutcome{Sequence: sequence}
		switch {
		case e.GetMailbox() == "bad":
			o.Outcome, o.Field, o.Detail = badgerelayv1.Outcome_OUTCOME_REJECTED, "mailbox", "the test says so"
		case e.GetMailbox() == "gone":
			o.Outcome = badgerelayv1.Outcome_OUTCOME_UNDELIVERABLE
			o.Removed = []*badgerelayv1.RemovedSubscription{{App: "mail", DeviceToken: "ab", Reason: "Unregistered"}}
		case r.devices[e.GetMailbox()] == "", e.GetMailbox() == "another@x":
			o.Outcome = badgerelayv1.Outcome_OUTCOME_NO_SUBSCRIPTION
		default:
			continue
		}
		s.Outcomes = append(s.Outcomes, o)
	}
	return s
}

// Publish answers as a relay to which Apple says r.apple.
func (r *fakeRelay) Publish(_ context.Context, q *badgerelayv1.PublishRequest) (*badgerelayv1.PublishResponse, error) {
	if q.GetAgentId() == "" {
		return nil, refused(codes.InvalidArgument, "FIELD_INVALID")
	}
	r.mu.Lock()
	reason := r.apple
	r.mu.Unlock()
	o := &badgerelayv1.EventOutcome{Outcome: badgerelayv1.Outcome_OUTCOME_UNDELIVERABLE}
	switch reason {
	case "":
		o.Outcome = badgerelayv1.Outcome_OUTCOME_PENDING
	case "accepted":
		o.Outcome = badgerelayv1.Outcome_OUTCOME_DELIVERED
	default:
		o.Removed = []*badgerelayv1.RemovedSubscription{{App: "mail", DeviceToken: strings.Repeat("00", 32), Reason: reason}}
		r.mu.Lock()
		delete(r.devices, q.GetEvents()[0].GetMailbox())
		r.mu.Unlock()
	}
	return &badgerelayv1.PublishResponse{Outcomes: []*badgerelayv1.EventOutcome{o}}, nil
}

// devicesFor returns the devices that a call changes; r.mu is held.
func (r *fakeRelay) devicesFor(q interface{ GetValidateOnly() bool }) map[string]string {
	if q.GetValidateOnly() {
		return maps.Clone(r.devices)
	}
	return r.devices
}

func (r *fakeRelay) Subscribe(_ context.Context, q *badgerelayv1.SubscribeRequest) (*badgerelayv1.SubscribeResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case q.GetApp() != "mail":
		return nil, refused(codes.InvalidArgument, "APP_UNKNOWN")
	case q.GetDeviceToken() == "bad":
		return nil, refused(codes.InvalidArgument, "FIELD_INVALID")
	}
	devices := r.devicesFor(q)
	m := &badgerelayv1.SubscribeResponse{Created: devices[q.GetMailbox()] == "", AppMisconfigured: r.ill, Subscription: &badgerelayv1.Subscription{
		Mailbox: q.GetMailbox(), App: q.GetApp(), DeviceToken: q.GetDeviceToken()}}
	for mailbox, device := range devices {
		switch {
		case device != q.GetDeviceToken() || mailbox == q.GetMailbox():
		case q.GetKeepOthers():
			m.Subscription.OtherMailboxes = append(m.Subscription.OtherMailboxes, mailbox)
		case m.GetCreated():
			delete(devices, mailbox)
			m.LeftMailboxes = append(m.LeftMailboxes, mailbox)
		}
	}
	devices[q.GetMailbox()] = q.GetDeviceToken()
	return m, nil
}

func (r *fakeRelay) SetDevice(_ context.Context, q *badgerelayv1.SetDeviceRequest) (*badgerelayv1.SetDeviceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.GetApp() != "mail" {
		return nil, refused(codes.InvalidArgument, "APP_UNKNOWN")
	}
	m, devices := &badgerelayv1.SetDeviceResponse{}, r.devicesFor(q)
	for mailbox, device := range devices {
		if device == q.GetDeviceToken() && !slices.Contains(q.GetMailboxes(), mailbox) {
			delete(devices, mailbox)
			m.Removed = append(m.Removed, mailbox)
		}
	}
	for _, mailbox := range q.GetMailboxes() {
		if devices[mailbox] == q.GetDeviceToken() {
			m.Kept = append(m.Kept, mailbox)
			continue
		}
		devices[mailbox] = q.GetDeviceToken()
		m.Added = append(m.Added, mailbox)
	}
	return m, nil
}

func (r *fakeRelay) Unsubscribe(_ context.Context, q *badgerelayv1.UnsubscribeRequest) (*badgerelayv1.UnsubscribeResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.devices[q.GetMailbox()] == "" {
		return nil, refused(codes.NotFound, "SUBSCRIPTION_NOT_FOUND")
	}
	delete(r.devicesFor(q), q.GetMailbox())
	return &badgerelayv1.UnsubscribeResponse{}, nil
}

func (r *fakeRelay) ListSubscriptions(_ context.Context, q *badgerelayv1.ListSubscriptionsRequest) (*badgerelayv1.ListSubscriptionsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unlisted {
		return nil, refused(codes.Unavailable, "REGISTRY_UNAVAILABLE")
	}
	var answer badgerelayv1.ListSubscriptionsResponse
	for mailbox, device := range r.devices {
		if q.GetMailbox() != "" && q.GetMailbox() != mailbox {
			continue
		}
		answer.Subscriptions = append(answer.Subscriptions, &badgerelayv1.Subscription{Mailbox: mailbox, App: "mail", DeviceToken: device})
	}
	return &answer, nil
}

// console runs command lines against one directory.
type console struct {
	t   *testing.T
	dir string
}

func newConsole(t *testing.T) *console {
	return &console{t: t, dir: filepath.Join(t.TempDir(), "badgeagent")}
}

// run is the whole program.
func run(ctx context.Context, args []string, t *command.Terminal) int {
	return command.Run(ctx, (&app{Terminal: t}).root(), t, args)
}

// run runs one command line and returns its exit code and what it printed.
func (c *console) run(args ...string) (code int, out, errors string) {
	c.t.Helper()
	return c.feed("", args...)
}

func (c *console) feed(input string, args ...string) (code int, out, errors string) {
	c.t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(c.t.Context(), args, &command.Terminal{In: strings.NewReader(input), Out: &stdout, Err: &stderr, Getenv: c.getenv})
	return code, stdout.String(), stderr.String()
}

// getenv has the environment name the directory, so that a command line can name another.
func (c *console) getenv(name string) string {
	if name == "BADGEAGENT_DIR" {
		return c.dir
	}
	return os.Getenv(name)
}

// ok runs a command line that must succeed and returns what it printed.
func (c *console) ok(args ...string) string {
	c.t.Helper()
	code, out, errors := c.run(args...)
	if code != command.Done || errors != "" {
		c.t.Fatalf("%v: exit code %d, want 0 and silence\nstdout: %s\nstderr: %s", args, code, out, errors)
	}
	return out
}

// want runs a command line and compares its exit code, and what it printed
// after blurring what differs from run to run.
func (c *console) want(code int, stdout, stderr string, args ...string) {
	c.t.Helper()
	gotCode, out, errors := c.run(args...)
	if got := c.blur(out); gotCode != code || got != stdout {
		c.t.Errorf("%v: exit code %d, want %d; printed\n%s\nwant\n%s", args, gotCode, code, got, stdout)
	}
	if got := c.blur(errors); got != stderr {
		c.t.Errorf("%v: on standard error\n%s\nwant\n%s", args, got, stderr)
	}
}

// blur replaces what differs from run to run.
func (c *console) blur(s string) string {
	s = strings.ReplaceAll(s, c.dir, "DIR")
	for _, r := range []struct{ pattern, with string }{
		{`\b[0-9A-F]{40}\b`, "THUMBPRINT"},
		{`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`, "GUID"},
		{`127\.0\.0\.1:\d+`, "ADDRESS"},
		{` +[\d.]+(µs|ms|s)  `, " TOOK  "},
		{`\b\d+ days left`, "N days left"},
		{`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "TIME"},
		{`\b\d+/\d+/\d{4} \d+:\d\d:\d\d [AP]M`, "TIME"},
	} {
		s = regexp.MustCompile(r.pattern).ReplaceAllString(s, r.with)
	}
	return s
}

// serveMetadata serves the document as a relay does.
func (r *fakeRelay) serveMetadata(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	endpoint, authority := r.endpoint, r.authority
	w.Header().Set("Date", time.Now().Add(r.ahead).UTC().Format(http.TimeFormat))
	r.mu.Unlock()
	h, err := authmetadata.NewHandler(authmetadata.HandlerConfig{Principal: testPrincipal, Authorities: []string{authority}, Relay: endpoint})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h.ServeHTTP(w, q)
}
