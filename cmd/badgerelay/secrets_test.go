package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

// traceSink is a collector that keeps all it is sent as text.
type traceSink struct {
	collector.UnimplementedTraceServiceServer

	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

// Export implements the collector.
func (s *traceSink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.WriteString(prototext.Format(r))
	return &collector.ExportTraceServiceResponse{}, nil
}

// collectTraces has every call of the process's relay traced.
func collectTraces(t *testing.T) *traceSink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := &traceSink{}, grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	return s
}

// secretMailbox is a name that shows nowhere outside the operator's own lists.
const secretMailbox = "Chairwoman.Secret@fabrikam.com"

// TestSecretsStayInside runs a day of a relay at debug level, with everything
// traced and much going wrong, and looks for tokens, keys, device tokens and
// mailbox names in all that comes out of it.
func TestSecretsStayInside(t *testing.T) {
	traces := collectTraces(t)
	r := startRelayWith(t, func(files) string { return "log: {format: text, level: debug}\n" })
	device := numberedDevice(t, 0x0ddba11c0ffee123)
	out := map[string]string{"errors": r.troubledDay(t, device)}

	_, out["metrics"] = get(t, "http://"+r.Ops+"/metrics")
	_, out["readyz"] = get(t, "http://"+r.Ops+"/readyz")
	_, out["status page"] = get(t, "http://"+r.Ops+"/status")
	_, out["status"] = get(t, "http://"+r.Ops+"/status/json")
	page, _, _ := strings.Cut(want(t, command.Done, "?key=", "status", "--page", "--admin", r.Admin), "\n")
	_, key, _ := strings.Cut(page, "?key=")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	operator := &http.Client{Jar: jar}
	out["operator's status page"] = getWith(t, operator, page)
	out["operator's status"] = getWith(t, operator, "http://"+r.Ops+"/status/json")
	_, out["command line"] = get(t, "http://"+r.Ops+"/debug/pprof/cmdline")
	_, out["goroutines"] = get(t, "http://"+r.Ops+"/debug/pprof/goroutine?debug=2")
	for _, args := range []string{"status", "app list", "probe", "organization show " + enrolledOrganization, "credential list --organization " + enrolledOrganization} {
		out[args] = want(t, command.Done, "", append(strings.Fields(args), "--output", "json", "--admin", r.Admin)...)
	}
	r.stop(t)
	out["log"], _ = r.log.read()
	traces.mu.Lock()
	out["traces"] = traces.text.String()
	traces.mu.Unlock()

	secrets := r.secrets(t, device)
	secrets["status key"] = regexp.MustCompile(key)
	for where, text := range out {
		if len(text) < 10 {
			t.Errorf("%s is empty: nothing was looked at", where)
		}
		for what, secret := range secrets {
			if found := secret.FindString(text); found != "" && (what != "mailbox name" || where != "errors") { // an agent is told its own mailbox's name
				t.Errorf("%s shows the %s: %.40q", where, what, found)
			}
		}
	}
	for _, part := range []string{"level=DEBUG", "token refused"} {
		if !strings.Contains(out["log"], part) {
			t.Errorf("the log never said %q: the day was too quiet", part)
		}
	}
}

// secrets are patterns of what must not show.
func (r *enrolled) secrets(t *testing.T, device apns.DeviceToken) map[string]*regexp.Regexp {
	t.Helper()
	literally := func(texts ...string) *regexp.Regexp {
		for i := range texts {
			texts[i] = regexp.QuoteMeta(texts[i])
		}
		return regexp.MustCompile("(?i)" + strings.Join(texts, "|"))
	}
	raw := device.AppendRaw(nil)
	secrets := map[string]*regexp.Regexp{
		"signed token": regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}`),
		"private key":  regexp.MustCompile(`PRIVATE KEY`),
		// Device tokens are 32 bytes here; their ends are looked for, so that a
		// cut one is found.
		"device token": literally(device.Hex()[48:], base64.StdEncoding.EncodeToString(raw)[20:], fmt.Sprint(raw)),
		"mailbox name": literally(secretMailbox, "Chairwoman"),
	}
	for _, name := range []string{"provider.p8", "relay.key"} {
		pem, err := os.ReadFile(filepath.Join(filepath.Dir(r.caFile), name))
		if err != nil {
			t.Fatal(err)
		}
		line := strings.Split(string(pem), "\n")[1]
		secrets[name] = literally(line[:20], line[len(line)-20:])
	}
	return secrets
}

// troubledDay does what an agent can do, right and wrong, and returns the
// errors that it was told.
func (r *enrolled) troubledDay(t *testing.T, device apns.DeviceToken) (told string) {
	t.Helper()
	r.sim.RegisterDevice(device, "com.example.mail", apnstest.Production, apnstest.Meta{})
	conn := r.dial(t)
	relay, subscriptions := pb.NewRelayServiceClient(conn), pb.NewSubscriptionServiceClient(conn)
	good := r.token(t)
	as := func(token string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	}
	tell := func(err error) { told += fmt.Sprintf("%v %+v\n", err, err) }
	subscribe := func(token, hex string) error {
		_, err := subscriptions.Subscribe(as(token), &pb.SubscribeRequest{Mailbox: secretMailbox, App: "mail", DeviceToken: hex})
		return err
	}
	publish := func(token string, unread uint32) *pb.PublishResponse {
		answer, err := relay.Publish(as(token), &pb.PublishRequest{AgentId: "test", Events: []*pb.Event{{Mailbox: secretMailbox, UnreadCount: unread}}})
		tell(err)
		return answer
	}
	if err := subscribe(good, device.Hex()); err != nil {
		t.Fatal(err)
	}
	publish(good, 1)
	for _, bad := range []string{good[:len(good)-8] + "AAAAAAAA", good + "x", good[5:], "", strings.Repeat(good, 9)} {
		publish(bad, 2)
		tell(subscribe(bad, device.Hex()))
	}
	tell(subscribe(good, device.Hex()+"zz"))
	_, err := subscriptions.Unsubscribe(as(good), &pb.UnsubscribeRequest{Mailbox: "nobody", App: "mail", DeviceToken: device.Hex()})
	tell(err)
	stream, err := relay.Stream(as(good))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*pb.StreamRequest{
		{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{Agent: &pb.Agent{Name: "mx", Product: "test"}, AgentId: "mx", Instance: "1", Number: 1}}},
		{Message: &pb.StreamRequest_FreshToken{FreshToken: &pb.FreshToken{Token: good[:len(good)-8] + "AAAAAAAA"}}},
	} {
		tell(stream.Send(m))
	}
	for err = nil; err == nil; {
		_, err = stream.Recv()
	}
	tell(err)
	r.sim.Next(apnstest.Answer{Fault: apnstest.FaultReset}, apnstest.Answer{Fault: apnstest.FaultTokenExpired})
	publish(good, 3)
	r.sim.Unregister(device, time.Now())
	if answer := publish(good, 4); len(answer.GetOutcomes()) != 1 || answer.GetOutcomes()[0].GetOutcome() != pb.Outcome_OUTCOME_UNDELIVERABLE {
		t.Errorf("the device that left: %v", answer)
	}
	r.hup()
	r.log.wait(t, "reloaded")
	return told
}

// TestFilesAreForTheServiceAlone looks at the modes of all that a relay makes.
func TestFilesAreForTheServiceAlone(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	want(t, command.Done, "", "organization", "add", "fabrikam.com", "--admin", s.Admin)
	made := 0
	err := filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if made++; info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o, others may open it", d.Name(), info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.path("admin.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the admin socket: %v, %v; want mode 0600", info, err)
	}
	if made < 5 {
		t.Errorf("%d files: the registry is not among them", made)
	}
}

// TestOldTLSIsRefused offers each listener the versions before 1.2.
func TestOldTLSIsRefused(t *testing.T) {
	f := newFiles(t)
	certificate, key := f.pair(t, "relay")
	operator, operatorKey := f.pair(t, "operator")
	pair, err := tls.LoadX509KeyPair(operator, operatorKey)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, f.write(t, "c.yaml", fmt.Sprintf(`
listen: {address: "127.0.0.1:0", tls: {certificate_file: %[1]s, key_file: %[2]s}}
metadata: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0", tls: {certificate_file: %[1]s, key_file: %[2]s}, client_ca_file: %[3]s}
ops: {address: "off"}
registry: {path: %[4]s}
`, certificate, key, operator, f.path("r.db"))))
	for name, address := range map[string]string{"agents": s.Agents, "metadata": s.Metadata, "admin": s.Admin} {
		for version, wanted := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
			dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{pair}}}
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			nc, err := dialer.DialContext(ctx, "tcp", address)
			cancel()
			if (err == nil) != wanted {
				t.Errorf("%s, %s: %v, want it taken: %t", name, tls.VersionName(version), err, wanted)
			}
			if err == nil {
				nc.Close()
			}
		}
	}
}

// TestProfilesAreForLoopbackAlone serves the ops listener elsewhere too.
func TestProfilesAreForLoopbackAlone(t *testing.T) {
	f := newFiles(t)
	file := f.base(t, "")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, f.write(t, "badgerelay.yaml", strings.Replace(string(text), `ops: {address: "127.0.0.1:0"`, `ops: {address: "0.0.0.0:0"`, 1)))
	_, port, err := net.SplitHostPort(s.Ops)
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := get(t, "http://127.0.0.1:"+port+"/metrics"); code != 200 {
		t.Errorf("metrics answer %d", code)
	}
	for _, path := range []string{"", "cmdline", "profile?seconds=1", "heap", "trace"} {
		if code, body := get(t, "http://127.0.0.1:"+port+"/debug/pprof/"+path); code != 404 {
			t.Errorf("pprof/%s answers %d %.40q", path, code, body)
		}
	}
}
